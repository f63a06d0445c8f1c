package torrent

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Torrents of version 2 and hybrids are read and refused as by libtorrent, with an error that names the field. Each case is of the
// kind of the torrent of that name in libtorrent's test/test_torrents.
func TestParseAsLibtorrent(t *testing.T) {
	other := contentV2(90_000, 'c')
	single := func(content []byte) dict { // a hybrid of one file
		return with(infoV2(dict{"d": leafV2(content)}), dict{"length": len(content), "pieces": sumsV1(content)})
	}
	leaf := func(entries dict) dict { return dict{"": entries} }
	link := func(target ...any) dict { return leaf(dict{"attr": "l", "symlink path": target}) }
	root, layer := rootV2(longV2), string(layerV2(longV2))
	layered := func(key string, value any) []byte {
		return encode(t, dict{"info": infoV2(dict{"d": leafV2(longV2)}), "piece layers": dict{key: value}})
	}
	deep := leafV2(shortV2)
	for range 200 {
		deep = dict{"d": deep}
	}
	ordered := torrentV2(t, dict{"a": leafV2(longV2), "b": leafV2(shortV2)}, nil)
	unordered := bytes.Replace(ordered, []byte("1:ad0:"), []byte("1:cd0:"), 1)

	for _, c := range []struct {
		name  string
		field string // that the error's begins with; "" if it is read
		text  []byte
	}{
		{"v2", "", encode(t, dict{"info": single(shortV2), "piece layers": dict{}})},
		{"v2_multipiece_file", "", encode(t, dict{"info": single(longV2), "piece layers": layersV2(longV2)})},
		{"v2_only", "", torrentV2(t, dict{"d": leafV2(longV2)}, nil, longV2)},
		{"v2_multiple_files", "", torrentV2(t, dict{"a": leafV2(longV2), "b": dict{"c": leafV2(shortV2), "d": dict{"e": leaf(dict{"length": 0})}}}, nil, longV2)},
		{"v2_invalid_filename", "", torrentV2(t, dict{"\x01estMB": leafV2(longV2)}, nil, longV2)},
		{"v2_invalid_filename2", "", torrentV2(t, dict{".": leafV2(shortV2), "..": leafV2(shortV2), "stress_test2": leafV2(longV2)}, nil, longV2)},
		{"v2_empty_file", "", torrentV2(t, dict{"a": leaf(dict{"length": 0}), "b": leafV2(longV2)}, nil, longV2)},
		{"v2_symlinks", "", torrentV2(t, dict{
			"Headers":  link("Versions", "Current", "Headers"),
			"Versions": dict{"A": dict{"Headers": dict{"h": leafV2(shortV2)}}, "Current": link("Versions", "A")},
		}, nil)},
		{"v2_hybrid", "", hybridV2(t, nil, longV2, shortV2)},
		{"empty-files-1", "", hybridV2(t, nil, nil, longV2, shortV2)},
		{"empty-files-2", "", hybridV2(t, nil, longV2, nil, shortV2)},
		{"empty-files-3", "", hybridV2(t, nil, longV2, shortV2, nil)},
		{"empty-files-4", "", hybridV2(t, nil, nil, nil, longV2, nil, nil, shortV2, nil)},
		{"v2_no_piece_layers", "", encode(t, dict{"info": infoV2(dict{"d": leafV2(longV2)})})},
		{"v2_incomplete_piece_layer", "", torrentV2(t, dict{"a": leafV2(longV2), "b": leafV2(other)}, nil, longV2)},

		{"v2_mismatching_metadata", "info.files", hybridV2(t, func(info dict) {
			info["files"].([]any)[0].(dict)["length"] = len(longV2) + 1
		}, longV2, shortV2)},
		{"v2_bad_file_alignment", "info.files", hybridV2(t, func(info dict) {
			info["files"] = slices.Delete(info["files"].([]any), 1, 2) // the padding
			info["pieces"] = sumsV1(slices.Concat(longV2, shortV2))
		}, longV2, shortV2)},
		{"hybrid_torrent_missing_pieces", "info.pieces", encode(t, dict{"info": with(single(shortV2), dict{"pieces": nil})})},
		{"v2_no_power2_piece", "info.piece length", torrentV2(t, dict{"d": leafV2(longV2)}, dict{"piece length": 48 << 10})},
		{"v2_piece_size", "info.piece length", torrentV2(t, dict{"d": leafV2(longV2)}, dict{"piece length": int64(1) << 40})},
		{"v2_invalid_file", `info.file tree["d/length"]`, torrentV2(t, dict{"d": leafV2(longV2)[""]}, nil)},
		{"v2_deep_recursion", "bencode", torrentV2(t, deep, nil)},
		{"v2_empty_filename", `info.file tree[""]`, torrentV2(t, dict{"": leafV2(longV2)[""], "b": leafV2(shortV2)}, nil)},
		{"invalid_symlink", `info.file tree["l"].symlink path`, torrentV2(t, dict{"a": leafV2(shortV2), "l": link(5)}, nil)},
		{"v2_missing_file_root_invalid_symlink", `info.file tree["d"].pieces root`, torrentV2(t, dict{"d": leaf(dict{"length": 80_000, "symlink path": []string{"e"}})}, nil)},
		{"v2_zero_root", `info.file tree["d"].pieces root`, torrentV2(t, dict{"d": leaf(dict{"length": 80_000, "pieces root": strings.Repeat("\x00", 32)})}, nil)},
		{"v2_zero_root_small", `info.file tree["d"].pieces root`, torrentV2(t, dict{"d": leaf(dict{"length": 1, "pieces root": strings.Repeat("\x00", 32)})}, nil)},
		{"v2_large_file", "info.file tree", torrentV2(t, dict{"d": leaf(dict{"length": int64(math.MaxInt64), "pieces root": strings.Repeat("r", 32)})}, nil)},
		{"v2_large_offset", "info.file tree", torrentV2(t, dict{"d": leaf(dict{"length": int64(1) << 50, "pieces root": strings.Repeat("r", 32)})}, nil)},
		{"v2_invalid_pad_file", `info.file tree["b"].attr`, torrentV2(t, dict{"a": leafV2(longV2), "b": leaf(with(leafV2(shortV2)[""].(dict), dict{"attr": "p"}))}, nil)},
		{"v2_unordered_files", "info.file tree", unordered},
		{"v2_overlong_integer", "bencode", bytes.Replace(ordered, []byte("6:lengthi20000e"), []byte("6:lengthi020000e"), 1)},
		{"v2_non_multiple_piece_layer", "piece layers", layered(string(root[:]), layer[:95])},
		{"v2_invalid_piece_layer_size", "piece layers", layered(string(root[:]), layer[:64])},
		{"v2_invalid_piece_layer", "piece layers", layered(string(root[:]), 5)},
		{"v2_invalid_piece_layer_root", "piece layers", layered(string(root[:]), layer[:95]+"x")},
		{"v2_piece_layer_invalid_file_hash", "piece layers", layered(string(root[:31]), layer)},
		{"v2_unknown_piece_layer_entry", "piece layers", layered(strings.Repeat("u", 32), layer)},
		{"v2_invalid_root_hash", "piece layers", encode(t, dict{
			"info":         infoV2(dict{"d": leaf(dict{"length": 80_000, "pieces root": strings.Repeat("r", 32)})}),
			"piece layers": dict{strings.Repeat("r", 32): layer},
		})},
	} {
		t.Run(c.name, func(t *testing.T) {
			tor, err := Parse(bytes.NewReader(c.text))
			if c.field == "" {
				require.NoError(t, err)
				require.NotEqual(t, V1, tor.Version())
				return
			}
			require.Nil(t, tor)
			wrong, ok := err.(*MetainfoError)
			require.True(t, ok, "%v", err)
			if c.field == "bencode" {
				require.Contains(t, wrong.Reason, "bencode", "no field can be told")
				return
			}
			require.True(t, strings.HasPrefix(wrong.Field, c.field), "%v", err)
		})
	}
}

// torrentV2 is a torrent with a tree, other entries, and the piece layers of contents.
func torrentV2(t *testing.T, tree, more dict, contents ...[]byte) []byte {
	return encode(t, dict{"info": with(infoV2(tree), more), "piece layers": layersV2(contents...)})
}

// hybridV2 is a hybrid of files with the names a, b and so on, changed.
func hybridV2(t *testing.T, change func(info dict), files ...[]byte) []byte {
	tree, layers := dict{}, dict{}
	for i, c := range files {
		leaf := dict{"": dict{"length": 0}}
		if len(c) > 0 {
			leaf = leafV2(c)
		}
		if len(c) > pieceLengthV2 {
			layers = with(layers, layersV2(c))
		}
		tree[string('a'+rune(i))] = leaf
	}
	info := listV1(infoV2(tree), false, files...)
	if change != nil {
		change(info)
	}
	return encode(t, dict{"info": info, "piece layers": layers})
}
