package torrent

import (
	"bytes"
	"crypto/sha1"
	"encoding/json"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/metainfo"
)

func TestParseSingle(t *testing.T) {
	info := singleInfo()
	tor, err := parseDict(t, dict{
		"announce":      "http://tracker.example/announce",
		"comment":       "free text",
		"created by":    "a program",
		"creation date": 1700000000,
		"nodes":         []any{[]any{"router.example", 6881}, []any{"::1", 1}},
		"url-list":      "http://seed.example/file.bin",
		"info":          info,
		"unknown":       []any{dict{"x": 1}},
	})
	require.NoError(t, err)
	require.Equal(t, "file.bin", tor.Name())
	require.Equal(t, Hash(sha1.Sum(encode(t, info))), tor.InfoHash())
	require.EqualValues(t, 40_000, tor.Length())
	require.EqualValues(t, 16<<10, tor.PieceLength())
	require.Equal(t, 3, tor.NumPieces())
	require.False(t, tor.Private())
	require.Equal(t, [][]string{{"http://tracker.example/announce"}}, tor.Trackers())
	require.Equal(t, []string{"http://seed.example/file.bin"}, tor.WebSeeds())
	require.Equal(t, []string{"router.example:6881", "[::1]:1"}, tor.nodes)
	require.Equal(t, "free text", tor.Comment())
	require.Equal(t, "a program", tor.CreatedBy())
	require.Equal(t, time.Unix(1700000000, 0).UTC(), tor.CreationDate())
	require.Equal(t, []File{{Path: "file.bin", Length: 40_000}}, slices.Collect(tor.Files()))
	require.False(t, tor.multi)

	require.EqualValues(t, 16<<10, tor.layout.PieceSize(1))
	require.EqualValues(t, 40_000-2*16<<10, tor.layout.PieceSize(2))
	require.Equal(t, strings.Repeat("68", 20), tor.pieceHash(2).String())
}

func TestParseMulti(t *testing.T) {
	tor, err := parseDict(t, dict{"info": dict{
		"name": "dir",
		"files": []any{
			dict{"length": 100, "path": []string{"a.txt"}},
			dict{"length": 0, "path": []string{"empty"}},
			dict{"length": 30, "path": []string{"sub", "b.txt"}},
		},
		"piece length": 64,
		"pieces":       strings.Repeat("h", 60),
		"private":      1,
	}})
	require.NoError(t, err)
	require.True(t, tor.multi)
	require.True(t, tor.Private())
	require.EqualValues(t, 130, tor.Length())
	require.Equal(t, []File{
		{Path: "dir/a.txt", Length: 100},
		{Path: "dir/empty", Length: 0, Index: 1, Offset: 100},
		{Path: "dir/sub/b.txt", Length: 30, Index: 2, Offset: 100},
	}, slices.Collect(tor.Files()))

	require.Equal(t, []int64{0, 100, 100}, offsets(tor))
	for i, want := range [][2]int{{0, 2}, {0, 0}, {1, 3}} {
		first, end := tor.layout.PiecesOf(i)
		require.Equal(t, want, [2]int{first, end}, i)
	}
}

func TestParsePadding(t *testing.T) {
	pieces := strings.Repeat("h", 60)
	tor, err := parseDict(t, dict{"info": dict{
		"name": "dir",
		"files": []any{
			dict{"length": 60, "path": []string{"a"}},
			dict{"length": 4, "attr": "p", "path": []string{".pad", "4"}},
			dict{"length": 60, "attr": "xh", "path": []string{"b"}},
			dict{"length": 4, "path": []string{".pad", "4"}},
			dict{"length": 10, "path": []string{"c"}},
			dict{"length": 1, "attr": "xp"},
			dict{"length": 0, "attr": "l", "path": []string{"link"}, "symlink path": []string{"a"}},
			dict{"attr": "l", "path": []string{"a"}},
			dict{"length": 2, "path": []string{".pad", "3"}},
			dict{"length": 3, "path": []string{".pad", "3", "x"}},
		},
		"piece length": 64,
		"pieces":       pieces,
	}})
	require.NoError(t, err)
	require.Equal(t, []File{
		{Path: "dir/a", Length: 60},
		{Path: "dir/b", Length: 60, Index: 2, Offset: 64},
		{Path: "dir/c", Length: 10, Index: 4, Offset: 128},
		{Path: "dir/link", LinkTarget: "dir/a", Index: 6, Offset: 139},
		// Not names of padding: another length, another depth.
		{Path: "dir/.pad/3.1", Length: 2, Index: 8, Offset: 139},
		{Path: "dir/.pad/3/x", Length: 3, Index: 9, Offset: 141},
	}, slices.Collect(tor.Files()))
	require.EqualValues(t, 135, tor.Length())
	require.Equal(t, []int64{0, 64, 128, 139, 139, 141}, offsets(tor))
	require.EqualValues(t, 144, tor.layout.Size())
	require.Len(t, tor.layout.Files(), 10)
}

// BitComet writes padding without the attribute, under a name that says it.
func TestParsePaddingOfBitComet(t *testing.T) {
	const long = "_____padding_file_0_if you see this file, please update to BitComet 0.85 or above____"
	tor, err := parseDict(t, dict{"info": dict{
		"name": "dir",
		"files": []any{
			dict{"length": 60, "path": []string{"a"}},
			dict{"length": 4, "path": []string{long}},
			dict{"length": 10, "path": []string{"sub", "b"}},
			dict{"length": 54, "path": []string{"sub", long}},
			dict{"length": 5, "path": []string{"padding_file_0"}},
		},
		"piece length": 64,
		"pieces":       strings.Repeat("h", 60),
	}})
	require.NoError(t, err)
	require.Equal(t, []File{
		{Path: "dir/a", Length: 60},
		{Path: "dir/sub/b", Length: 10, Index: 2, Offset: 64},
		{Path: "dir/padding_file_0", Length: 5, Index: 4, Offset: 128},
	}, slices.Collect(tor.Files()))
}

// paths are those of all files, padding included.
func paths(t *Torrent) (paths []string) {
	for _, f := range t.layout.Files() {
		paths = append(paths, f.Path)
	}
	return paths
}

// offsets are those of the files, padding left out.
func offsets(t *Torrent) (offsets []int64) {
	for f := range t.Files() {
		offsets = append(offsets, t.layout.File(f.Index).Offset)
	}
	return offsets
}

// Symbolic links (BEP 47) are listed, except those without a path or a target.
func TestParseLinks(t *testing.T) {
	t.Parallel()
	link := func(target any, path ...string) dict {
		return dict{"attr": "l", "path": path, "symlink path": target}
	}
	tor, err := parseDict(t, dict{"info": with(multiInfo(), dict{"files": []any{
		dict{"length": 4, "path": []string{"a"}},
		with(link([]string{"a"}, "to a file"), dict{"length": 7}), // which it has not
		link([]string{"sub", "dir"}, "to a directory"),
		link([]string{"..", "..", "etc/passwd"}, "..", "outside"),
		link([]string{"none"}, "to nothing"),
		dict{"length": 5, "path": []string{"sub", "dir", "A"}},
		dict{"length": 1, "path": []string{"A"}},
		link([]string{"a"}, "a"),
		link([]string{"A"}, "to a file that got another name"),
		link([]string{"a"}, "SUB"),
		dict{"attr": "pl", "length": 9, "path": []string{"padding"}, "symlink path": []string{"a"}},
		dict{"attr": "l", "symlink path": []string{"a"}},
		link(nil, "none"),
		link("a", "no list"),
		link([]any{}, "empty"),
		link([]any{"a", 1}, "no string"),
		link(slices.Repeat([]string{"d"}, metainfo.MaxPathDepth+1), "deep"),
		dict{"attr": "x", "length": 2, "path": []string{"no link"}, "symlink path": []string{"a"}},
		link([]string{"..", ".", "a"}, "sub", "up"), // as libtorrent writes a link on disk to ../a
		link([]string{".."}, "sub", "to all"),
	}})})
	require.NoError(t, err)
	require.Equal(t, []File{
		{Path: "dir/a", Length: 4},
		{Path: "dir/to a file", LinkTarget: "dir/a", Index: 1, Offset: 4},
		{Path: "dir/to a directory", LinkTarget: "dir/sub/dir", Index: 2, Offset: 4},
		{Path: "dir/_/outside", LinkTarget: "dir/etcpasswd", Index: 3, Offset: 4},
		{Path: "dir/to nothing", LinkTarget: "dir/none", Index: 4, Offset: 4},
		{Path: "dir/sub/dir/A", Length: 5, Index: 5, Offset: 4},
		{Path: "dir/A", Length: 1, Index: 6, Offset: 9},
		{Path: "dir/a.1", LinkTarget: "dir/a", Index: 7, Offset: 10},
		{Path: "dir/to a file that got another name", LinkTarget: "dir/A", Index: 8, Offset: 10},
		{Path: "dir/SUB.1", LinkTarget: "dir/a", Index: 9, Offset: 10},
		{Path: "dir/no link", Length: 2, Index: 17, Offset: 10},
		{Path: "dir/sub/up", LinkTarget: "dir/a", Index: 18, Offset: 12},
		{Path: "dir/sub/to all", LinkTarget: "dir", Index: 19, Offset: 12},
	}, slices.Collect(tor.Files()))
	require.EqualValues(t, 12, tor.Length())
	require.EqualValues(t, 12, tor.Size())
	require.Equal(t, 20, tor.layout.NumFiles())

	// The name of the directory is a part of what they point to, as of their paths.
	if raceEnabled() {
		return // one goroutine alone, for many seconds under the race detector
	}
	files := slices.Repeat([]any{link([]string{"a"}, "a")}, metainfo.MaxPaths/2/241)
	_, err = parseDict(t, dict{"info": with(multiInfo(), dict{"name": strings.Repeat("n", 240), "files": files})})
	require.ErrorContains(t, err, "all paths together over 64 MiB")
}

func TestParseUTF8Names(t *testing.T) {
	for _, c := range []struct {
		info dict
		name string
		path string
	}{
		{dict{"name.utf-8": "Verzeichnis ß"}, "Verzeichnis ß", "a"},
		{dict{"name.utf-8": "bad \xff"}, "dir", "a"},
		{dict{"name.utf-8": 7}, "dir", "a"},
		{dict{"name": nil, "name.utf-8": "only"}, "only", "a"},
		{dict{"files": []any{dict{"length": 10, "path": []string{"\xdf"}, "path.utf-8": []string{"ß"}}}}, "dir", "ß"},
		{dict{"files": []any{dict{"length": 10, "path.utf-8": []string{"ß"}}}}, "dir", "ß"},
		{dict{"files": []any{dict{"length": 10, "path": []string{"a"}, "path.utf-8": []string{"\xff"}}}}, "dir", "a"},
		{dict{"files": []any{dict{"length": 10, "path": []string{"a"}, "path.utf-8": []string{}}}}, "dir", "a"},
		{dict{"files": []any{dict{"length": 10, "path": []string{"a"}, "path.utf-8": "a"}}}, "dir", "a"},
		{dict{"name": "bad \xff"}, "bad _", "a"},
	} {
		tor, err := parseDict(t, dict{"info": with(multiInfo("a"), c.info)})
		require.NoError(t, err)
		require.Equal(t, c.name, tor.Name())
		require.Equal(t, c.name+"/"+c.path, tor.layout.File(0).Path)
	}
}

func TestParseHostileNames(t *testing.T) {
	tor, err := parseDict(t, dict{"info": with(multiInfo("../../etc/passwd", "a//b", "./x", "X", "x", "x/y", "aux.c", "q?"), dict{"name": "../../.."})})
	require.NoError(t, err)
	require.Equal(t, "......", tor.Name())
	require.Equal(t, []string{"....../_/_/etc/passwd", "....../a/_/b", "....../_/x", "....../X.1", "....../x.1", "....../x/y",
		"....../aux.c", "....../q?"}, paths(tor))

	tor, err = parseMetainfo(tor.raw, "windows")
	require.NoError(t, err)
	require.Equal(t, "______/_aux.c", tor.layout.File(6).Path)
	require.Equal(t, "______/q_", tor.layout.File(7).Path)

	for _, name := range []string{"", ".", "..", "/", "\u200B"} {
		tor, err := parseDict(t, dict{"info": with(singleInfo(), dict{"name": name})})
		require.NoError(t, err)
		require.Equal(t, "_", tor.layout.File(0).Path)
	}
}

func TestParseMalformed(t *testing.T) {
	file := func(d dict) dict {
		return with(multiInfo(), dict{"files": []any{dict{"length": 5, "path": []string{"a"}}, d}})
	}
	files := func(v any) dict { return with(multiInfo(), dict{"files": v}) }
	deep := slices.Repeat([]string{"d"}, metainfo.MaxPathDepth+1)
	for _, c := range []struct {
		field  string
		reason string
		info   any
	}{
		{"info", "missing", nil},
		{"info", "not a dictionary", "string"},
		{"info", "not a dictionary", []any{}},
		{"info.name", "missing", with(singleInfo(), dict{"name": nil})},
		{"info.name", "not a string", with(singleInfo(), dict{"name": 7})},
		{"info.piece length", "missing", with(singleInfo(), dict{"piece length": nil})},
		{"info.piece length", "not an integer", with(singleInfo(), dict{"piece length": "16384"})},
		{"info.piece length", "0 bytes", with(singleInfo(), dict{"piece length": 0})},
		{"info.piece length", "-1 bytes", with(singleInfo(), dict{"piece length": -1})},
		{"info.piece length", "536870913 bytes", with(singleInfo(), dict{"piece length": 512<<20 + 1})},
		{"info.piece length", "not within", with(singleInfo(), dict{"piece length": int64(math.MaxInt64)})},
		{"info.pieces", "missing", with(singleInfo(), dict{"pieces": nil})},
		{"info.pieces", "not a string", with(singleInfo(), dict{"pieces": []any{}})},
		{"info.pieces", "0 bytes", with(singleInfo(), dict{"pieces": ""})},
		{"info.pieces", "40 bytes", with(singleInfo(), dict{"pieces": strings.Repeat("h", 40)})},
		{"info.pieces", "59 bytes", with(singleInfo(), dict{"pieces": strings.Repeat("h", 59)})},
		{"info.pieces", "61 bytes", with(singleInfo(), dict{"pieces": strings.Repeat("h", 61)})},
		{"info.pieces", "80 bytes", with(singleInfo(), dict{"pieces": strings.Repeat("h", 80)})},
		{"info.pieces", "1099511627776 pieces", with(singleInfo(), dict{"piece length": 1, "length": int64(1 << 40)})},
		{"info.pieces", "9223372036854775807 pieces", with(singleInfo(), dict{"piece length": 1, "length": int64(math.MaxInt64)})},
		{"info.length", "missing", with(singleInfo(), dict{"length": nil})},
		{"info.length", "not an integer", with(singleInfo(), dict{"length": "5"})},
		{"info.length", "negative", with(singleInfo(), dict{"length": -1})},
		{"info", "no content", with(singleInfo(), dict{"length": 0, "pieces": ""})},
		{"info.files", "not a list", files(dict{})},
		{"info.files", "no files", files([]any{})},
		{"info", "no content", files([]any{dict{"length": 0, "path": []string{"a"}}})},
		{"info", "no content", files([]any{dict{"length": 5, "attr": "p"}})},
		{"info", "no content", files([]any{dict{"length": 5, "attr": "l"}})},
		{"info.files[0]", "not a dictionary", files([]any{"a"})},
		{"info.files[1].length", "missing", file(dict{"path": []string{"a"}})},
		{"info.files[1].length", "not an integer", file(dict{"length": "5", "path": []string{"a"}})},
		{"info.files[1].length", "negative", file(dict{"length": -5, "path": []string{"a"}})},
		{"info.files[1].length", "over 64 bits", file(dict{"length": int64(math.MaxInt64) - 4, "path": []string{"a"}})},
		{"info.files[1].length", "over 64 bits", file(dict{"length": int64(math.MaxInt64), "attr": "p"})},
		{"info.files[1].path", "missing", file(dict{"length": 5})},
		{"info.files[1].path", "not a list", file(dict{"length": 5, "path": "a"})},
		{"info.files[1].path", "empty", file(dict{"length": 5, "path": []any{}})},
		{"info.files[1].path", "not a string", file(dict{"length": 5, "path": []any{"a", 7}})},
		{"info.files[1].path", "more than 128 elements", file(dict{"length": 5, "path": deep})},
		{"info.files[1].path", "missing", file(dict{"length": 5, "attr": 7})},
	} {
		tor, err := parseDict(t, with(dict{"announce": "http://t.example/"}, dict{"info": c.info}))
		require.Nil(t, tor, c.field)
		wrong, ok := err.(*MetainfoError)
		require.True(t, ok, "%v", err)
		require.Equal(t, c.field, wrong.Field, "%v", err)
		require.Contains(t, wrong.Reason, c.reason)
	}
}

// BEP 3 has either length or files, and BEP 27 an integer for private. Not all authors keep to that.
func TestParseInfoSlips(t *testing.T) {
	for _, length := range []any{10, 7, -1, "10"} {
		tor, err := parseDict(t, dict{"info": with(multiInfo("a"), dict{"length": length})})
		require.NoError(t, err)
		require.Equal(t, []File{{Path: "dir/a", Length: 10}}, slices.Collect(tor.Files()))
		require.EqualValues(t, 10, tor.Length())
	}
	_, err := parseDict(t, dict{"info": with(singleInfo(), dict{"files": "x"})})
	require.ErrorContains(t, err, "not a list")

	for _, c := range []struct {
		value   any
		private bool
	}{{1, true}, {2, true}, {-1, true}, {0, false}, {"1", true}, {"true", true}, {"0", false}, {"", false}, {[]any{}, true}, {dict{}, true}} {
		tor, err := parseDict(t, dict{"info": with(singleInfo(), dict{"private": c.value})})
		require.NoError(t, err)
		require.Equal(t, c.private, tor.Private(), "%v", c.value)
	}
}

// allocated is how many bytes f allocates in all.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// Hostile metainfo costs no more than its own size justifies, no matter what it claims.
func TestHostileMetainfo(t *testing.T) {
	single := func(entries dict) []byte { return encode(t, dict{"info": with(singleInfo(), entries)}) }
	million := strings.Repeat("l", 1e6)
	overflow := with(multiInfo(), dict{"files": []any{
		dict{"length": int64(math.MaxInt64), "path": []string{"a"}}, dict{"length": int64(math.MaxInt64), "path": []string{"b"}}}})
	for _, c := range []struct {
		name string
		raw  []byte
		safe string // the path that its only file gets; "" if it is refused
	}{
		{"claimed length", []byte("500000000:ab"), ""},
		{"claimed length in info", []byte("d4:info500000000:ab"), ""},
		{"claimed pieces", []byte("d4:infod6:pieces21990232555520:ab"), ""},
		{"nested lists", []byte(million), ""},
		{"nested lists, closed", []byte(million + strings.Repeat("e", 1e6)), ""},
		{"nested lists in info", []byte("d4:info" + million), ""},
		{"nested dictionaries", []byte(strings.Repeat("d1:a", 1e6)), ""},
		{"name leads outside", single(dict{"name": "../../etc/passwd"}), "....etcpasswd"},
		{"path leads outside", encode(t, dict{"info": multiInfo("../../etc/passwd")}), "dir/_/_/etc/passwd"},
		{"absolute path", encode(t, dict{"info": multiInfo("/etc/passwd")}), "dir/_/etc/passwd"},
		{"dots", single(dict{"name": ".."}), "_"},
		{"many dots", single(dict{"name": strings.Repeat(".", 1000)}), strings.Repeat(".", 240)},
		{"sum overflows", encode(t, dict{"info": overflow}), ""},
		{"2^40 pieces", single(dict{"length": int64(1 << 40), "piece length": 1}), ""},
		{"largest length", single(dict{"length": int64(math.MaxInt64), "piece length": 1}), ""},
		{"long name", single(dict{"name": strings.Repeat("n", 8<<20) + ".mkv"}), strings.Repeat("n", 236) + ".mkv"},
		{"deep path", encode(t, dict{"info": multiInfo(strings.Repeat("d/", 1e6) + "d")}), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var tor *Torrent
			var err error
			require.Less(t, allocated(func() { tor, err = Parse(bytes.NewReader(c.raw)) }), uint64(64<<20))
			if c.safe == "" {
				require.ErrorAs(t, err, new(*MetainfoError))
				return
			}
			require.NoError(t, err)
			require.Equal(t, []string{c.safe}, paths(tor))
		})
	}
}

// A long name of the directory is part of every path. The sum of them is bounded.
func TestParsePathsTogether(t *testing.T) {
	if raceEnabled() {
		t.Skip("one goroutine alone, for many seconds under the race detector")
	}
	t.Parallel()
	files := slices.Repeat([]any{dict{"length": 1, "path": []string{"a"}}}, metainfo.MaxPaths/240)
	_, err := parseDict(t, dict{"info": with(multiInfo(), dict{"name": strings.Repeat("n", 240), "files": files})})
	require.ErrorContains(t, err, "all paths together over 64 MiB")
}

func TestParseHash(t *testing.T) {
	want := Hash([]byte("\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67"))
	for _, s := range []string{
		"0123456789abcdef0123456789abcdef01234567", "0123456789ABCDEF0123456789ABCDEF01234567",
		"AERUKZ4JVPG66AJDIVTYTK6N54ASGRLH", "aerukz4jvpg66ajdivtytk6n54asgrlh",
	} {
		h, err := ParseHash(s)
		require.NoError(t, err, s)
		require.Equal(t, want, h, s)
	}
	for s, reason := range map[string]string{
		"":                      "0 characters",
		strings.Repeat("g", 40): "neither hex nor base32",
		strings.Repeat("1", 32): "neither hex nor base32",
		strings.Repeat("a", 64): "64 characters",
	} {
		_, err := ParseHash(s)
		require.ErrorContains(t, err, reason, s)
	}
}

// A hash is hex in JSON, as a value and as a key, and wherever text is made of it.
func TestHashAsText(t *testing.T) {
	h := Hash{1, 2, 19: 255}
	const text = "01020000000000000000000000000000000000ff"
	b, err := json.Marshal(map[Hash]Hash{h: h})
	require.NoError(t, err)
	require.JSONEq(t, fmt.Sprintf(`{%q: %q}`, text, text), string(b))
	var back map[Hash]Hash
	require.NoError(t, json.Unmarshal(b, &back))
	require.Equal(t, map[Hash]Hash{h: h}, back)
	require.Error(t, json.Unmarshal([]byte(`{"01": "02"}`), &back))
}

func TestShortForms(t *testing.T) {
	tor, _ := testContent(blockSize, 5)
	require.Equal(t, fmt.Sprintf("%s (%s)", tor.Name(), tor.InfoHash()), tor.String())
	require.Equal(t, "skip normal high 7", fmt.Sprint(Skip, Normal, High, Priority(7)))
	require.Equal(t, "prefer require disable 9", fmt.Sprint(PreferEncryption, RequireEncryption, DisableEncryption, EncryptionPolicy(9)))
	tor.raw = []byte("d4:infodee")
	b := tor.Bytes()
	require.Equal(t, tor.raw, b)
	clear(b)
	require.NotEqual(t, b, tor.Bytes(), "the caller's own")
}

func TestPrintTreeLeavesPaddingOut(t *testing.T) {
	tor := &Torrent{name: "n", multi: true, length: 3, layout: layout.New(1<<20,
		layout.File{Path: "n/a", Length: 1},
		layout.File{Path: "n/.pad/7", Length: 7, Pad: true},
		layout.File{Path: "n/b", Pad: true, Link: "n/a"},
		layout.File{Path: "n/c", Length: 2},
	)}
	var b strings.Builder
	require.NoError(t, tor.PrintTree(&b))
	require.Equal(t, `   3 B    n/
   1 B    ├── a
   0 B    ├── b → n/a
   2 B    └── c

2 files, 1 link, 3 B
`, b.String())
}
