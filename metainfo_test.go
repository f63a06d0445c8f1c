package torrent

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bencode"
	"github.com/shoal-go/torrent/internal/metainfo"
)

type dict = map[string]any

// encode is the bencoded form of v, with sorted keys.
func encode(t testing.TB, v any) []byte {
	t.Helper()
	p, err := bencode.Marshal(v)
	require.NoError(t, err)
	return p
}

// with is d with some entries replaced, or left out if the value is nil.
func with(d dict, entries dict) dict {
	d = maps.Clone(d)
	maps.Copy(d, entries)
	maps.DeleteFunc(d, func(_ string, v any) bool { return v == nil })
	return d
}

// singleInfo describes one file of 40,000 bytes in three pieces.
func singleInfo() dict {
	return dict{"name": "file.bin", "length": 40_000, "piece length": 16 << 10, "pieces": strings.Repeat("h", 60)}
}

// multiInfo describes files of the given paths, of ten bytes each, in one piece.
func multiInfo(paths ...string) dict {
	files := []any{}
	for _, p := range paths {
		files = append(files, dict{"length": 10, "path": strings.Split(p, "/")})
	}
	return dict{"name": "dir", "files": files, "piece length": 1 << 20, "pieces": strings.Repeat("h", 20)}
}

func parseDict(t testing.TB, d dict) (*Torrent, error) { return Parse(bytes.NewReader(encode(t, d))) }

func TestParseMinimal(t *testing.T) {
	tor, err := parseDict(t, dict{"info": singleInfo()})
	require.NoError(t, err)
	require.Empty(t, tor.Trackers())
	require.Empty(t, tor.WebSeeds())
	require.Empty(t, tor.Comment())
	require.Empty(t, tor.CreatedBy())
	require.True(t, tor.CreationDate().IsZero())
}

// The hash is over the original bytes, and not over what an encoder would write.
func TestInfoHashOverOriginalBytes(t *testing.T) {
	info := "d6:pieces20:hhhhhhhhhhhhhhhhhhhh4:name1:x12:piece lengthi16e6:zzzzzzi1e6:lengthi5ee"
	raw := "d3:zzzi1e4:info" + info + "8:announce10:http://t/ae"
	tor, err := Parse(strings.NewReader(raw))
	require.NoError(t, err)
	require.Equal(t, Hash(sha1.Sum([]byte(info))), tor.InfoHash())
	require.Equal(t, "x", tor.Name())

	var out bytes.Buffer
	n, err := tor.WriteTo(&out)
	require.NoError(t, err)
	require.EqualValues(t, len(raw), n)
	require.Equal(t, raw, out.String())
}

func TestParseTrackers(t *testing.T) {
	const a, b, c = "http://a.example/announce", "udp://b.example:6969", "https://c.example:443/x?key=1"
	many := []any{}
	for i := range 2 * metainfo.MaxURLs {
		many = append(many, []string{fmt.Sprintf("http://%d.example/", i)})
	}
	for name, test := range map[string]struct {
		outer dict
		want  [][]string
	}{
		"announce":               {dict{"announce": a}, [][]string{{a}}},
		"announce-list wins":     {dict{"announce": a, "announce-list": []any{[]string{b}, []string{c}}}, [][]string{{b}, {c}}},
		"tiers":                  {dict{"announce-list": []any{[]string{a, b}, []string{c}}}, [][]string{{a, b}, {c}}},
		"empty announce-list":    {dict{"announce": a, "announce-list": []any{}}, [][]string{{a}}},
		"empty tiers":            {dict{"announce": a, "announce-list": []any{[]string{}, []string{""}}}, [][]string{{a}}},
		"unusable announce-list": {dict{"announce": a, "announce-list": []any{[]string{"wss://w.example/"}}}, [][]string{{a}}},
		"not a list":             {dict{"announce": a, "announce-list": 7}, [][]string{{a}}},
		"flat list":              {dict{"announce-list": []string{a, b}}, [][]string{{a}, {b}}},
		"named twice":            {dict{"announce-list": []any{[]string{a, a, b}, []string{a}, []string{c, b}}}, [][]string{{a, b}, {c}}},
		"spaces around":          {dict{"announce": " " + a + "\n"}, [][]string{{a}}},
		"scheme in capitals":     {dict{"announce": "HTTP://a.example/"}, [][]string{{"HTTP://a.example/"}}},
		"IPv6":                   {dict{"announce": "udp://[2001:db8::1]:80"}, [][]string{{"udp://[2001:db8::1]:80"}}},
		"mixed":                  {dict{"announce-list": []any{[]any{"ftp://x/", a, 7, "dht://", []any{b}}}}, [][]string{{a}}},
		"other schemes": {dict{"announce-list": []any{[]string{"ftp://a.example/", "wss://a.example/", "file:///etc/passwd",
			"javascript:alert(1)", "a.example", "//a.example/", "unix:///run/x"}}}, nil},
		"malformed": {dict{"announce-list": []any{[]string{"http://", "http:///x", "http://a.example:99999/", "udp://a.example:0",
			"http://a b/", "http://a.example/\x00", "http://[::1/", "http://:80/", "http://a.example/" + strings.Repeat("x", metainfo.MaxURL)}}}, nil},
		"not a string": {dict{"announce": 7}, nil},
		"dictionary":   {dict{"announce": dict{"x": a}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			tor, err := parseDict(t, with(test.outer, dict{"info": singleInfo()}))
			require.NoError(t, err)
			if test.want == nil {
				require.Empty(t, tor.Trackers())
				return
			}
			require.Equal(t, test.want, tor.Trackers())
		})
	}

	tor, err := parseDict(t, dict{"announce-list": many, "info": singleInfo()})
	require.NoError(t, err)
	require.LessOrEqual(t, len(tor.Trackers()), metainfo.MaxURLs)
	require.Equal(t, []string{"http://0.example/"}, tor.Trackers()[0])

	tor.Trackers()[0][0] = "changed"
	require.Equal(t, []string{"http://0.example/"}, tor.Trackers()[0], "the result is the caller's own")
}

func TestParseOptionalFields(t *testing.T) {
	parse := func(key string, value any) *Torrent {
		tor, err := parseDict(t, dict{key: value, "info": singleInfo()})
		require.NoError(t, err)
		return tor
	}
	const seed = "https://seed.example/"
	require.Equal(t, []string{seed}, parse("url-list", seed).WebSeeds())
	require.Equal(t, []string{seed, seed + "2"}, parse("url-list", []string{seed, "ftp://x.example/", "udp://x.example:1", seed + "2"}).WebSeeds())
	require.Empty(t, parse("url-list", "").WebSeeds())
	require.Empty(t, parse("url-list", dict{}).WebSeeds())

	require.Equal(t, []string{"h:1"}, parse("nodes", []any{
		[]any{"h", 1}, []any{"h", 0}, []any{"h", 65536}, []any{"h", -1}, []any{"", 1}, []any{"h h", 1}, []any{1, "h", dict{}}, []any{}, "h:1", 7,
		[]any{strings.Repeat("h", 256), 1},
	}).nodes[:1])
	require.Empty(t, parse("nodes", "h:1").nodes)
	require.Empty(t, parse("nodes", []any{[]any{"[", 1}, []any{"h]", 1}, []any{"[::1]", 1}}).nodes)

	date := func(v any) time.Time { return parse("creation date", v).CreationDate() }
	require.Equal(t, time.Date(2023, 11, 14, 22, 13, 20, 0, time.UTC), date(1700000000))
	require.Equal(t, time.Date(2023, 11, 14, 22, 13, 20, 5e6, time.UTC), date(int64(1700000000005)), "milliseconds")
	for _, v := range []any{0, -1, int64(math.MaxInt64), int64(math.MinInt64), "today", []any{}} {
		require.True(t, date(v).IsZero(), v)
	}

	require.Equal(t, "bad \uFFFD", parse("comment", "bad \xff").Comment())
	require.Empty(t, parse("comment", 7).Comment())
	require.Empty(t, parse("created by", []any{}).CreatedBy())
}

func TestParseMalformedFile(t *testing.T) {
	sound := string(encode(t, dict{"info": singleInfo()}))
	for _, c := range []struct{ raw, reason string }{
		{"", "unexpected end"},
		{"<html>", "not a value"},
		{"i1e", "not a dictionary"},
		{"le", "not a dictionary"},
		{sound[:len(sound)-1], "unexpected end"},
		{sound[:len(sound)-1] + "7:comment99:cut short", "longer than what is left"},
		{sound[:len(sound)-1] + "7:commentxe", "not a value"},
		{"d4:infod6:lengthi-0eee", "negative zero"},
		{"d4:infod6:lengthi05eee", "leading zero"},
		{"d4:infod6:lengthi9223372036854775808eee", "over 64 bits"},
		{"d4:infode4:infodee", `duplicate key "info"`},
		{"d4:infod4:name1:a4:name1:bee", `duplicate key "name"`},
		{"d1:x" + strings.Repeat("l", 64) + strings.Repeat("e", 64) + "e", "nested too deep"},
		{"d1:xl" + strings.Repeat("le", metainfo.MaxValues) + "ee", "more values than allowed"},
	} {
		_, err := Parse(strings.NewReader(c.raw))
		var metainfo *MetainfoError
		require.ErrorAs(t, err, &metainfo, "%.40q", c.raw)
		require.Empty(t, metainfo.Field)
		require.Contains(t, metainfo.Reason, c.reason)
		if c.reason != "not a dictionary" {
			var syntax *bencode.SyntaxError
			require.ErrorAs(t, err, &syntax)
		}
	}
}

// A slip outside the info dictionary costs only its own entry.
func TestParseSlips(t *testing.T) {
	info := string(encode(t, singleInfo()))
	for _, c := range []struct {
		name, before, after, behind string // the info dictionary, and the end of the file's
		check                       func(*Torrent)
	}{
		{name: "newline", behind: "\n"},
		{name: "white space", behind: "\r\n \t\x00"},
		{name: "page", behind: "<!-- 0.1 s -->"},
		{name: "another", behind: "d4:info" + info + "e"},
		{name: "comment twice", before: "7:comment1:a7:comment1:b", check: func(tor *Torrent) { require.Equal(t, "b", tor.Comment()) }},
		{name: "comment twice, apart", before: "7:comment1:a", after: "7:comment1:b", check: func(tor *Torrent) { require.Equal(t, "b", tor.Comment()) }},
		{name: "negative zero for a date", before: "13:creation datei-0e", check: func(tor *Torrent) { require.Zero(t, tor.CreationDate()) }},
		{name: "leading zero in a date", before: "13:creation datei01e", check: func(tor *Torrent) { require.Zero(t, tor.CreationDate()) }},
		{name: "date over 64 bits", before: "13:creation datei99999999999999999999e", check: func(tor *Torrent) { require.Zero(t, tor.CreationDate()) }},
		{name: "no date at all", before: "13:creation dateie"},
		{name: "a second date that cannot be read", before: "13:creation datei1e13:creation datei-0e", check: func(tor *Torrent) { require.EqualValues(t, 1, tor.CreationDate().Unix()) }},
		{name: "string length with a zero", before: "7:comment03:abc10:created by1:x", check: func(tor *Torrent) {
			require.Empty(t, tor.Comment())
			require.Equal(t, "x", tor.CreatedBy())
		}},
		{name: "key that is not a string", before: "i1e1:x"},
		{name: "in a list", before: "13:announce-listll11:http://a/bci-0eee", after: "5:nodesll1:hi01eel1:gi7eee", check: func(tor *Torrent) {
			require.Equal(t, [][]string{{"http://a/bc"}}, tor.Trackers())
			require.Equal(t, []string{"g:7"}, tor.nodes)
		}},
		{name: "in a dictionary twice", after: "1:xd1:ai1e1:ai1ee"},
	} {
		t.Run(c.name, func(t *testing.T) {
			raw := "d8:announce10:http://t/x" + c.before + "4:info" + info + c.after + "8:url-list9:http://s/e" + c.behind
			tor, err := Parse(strings.NewReader(raw))
			require.NoError(t, err)
			require.Equal(t, Hash(sha1.Sum([]byte(info))), tor.InfoHash())
			require.Equal(t, []string{"http://s/"}, tor.WebSeeds())
			require.NotEmpty(t, tor.Trackers())
			require.Equal(t, raw, string(tor.Bytes()), "as it was read")
			if c.check != nil {
				c.check(tor)
			}

			again, err := newTorrent(tor.info, outer{trackers: tor.trackers, webSeeds: tor.webSeeds})
			require.NoError(t, err)
			require.Equal(t, tor.InfoHash(), again.InfoHash())
		})
	}
}

func TestParseReaderFails(t *testing.T) {
	broken := errors.New("broken")
	_, err := Parse(iotest.ErrReader(broken))
	require.ErrorIs(t, err, broken)
	require.NotErrorAs(t, err, new(*MetainfoError))
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.torrent")
	require.NoError(t, os.WriteFile(path, encode(t, dict{"info": singleInfo()}), 0o666))
	tor, err := Read(path)
	require.NoError(t, err)
	require.Equal(t, "file.bin", tor.Name())

	_, err = Read(filepath.Join(dir, "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = Read(dir)
	require.Error(t, err)

	require.NoError(t, os.WriteFile(path, []byte("500000000:ab"), 0o666))
	_, err = Read(path)
	require.ErrorAs(t, err, new(*MetainfoError))
	require.ErrorContains(t, err, path)
}

// The largest torrent has 32 MiB. A larger file is not read.
func TestMetainfoSize(t *testing.T) {
	fill := metainfo.MaxSize - len(encode(t, dict{"info": singleInfo()})) - len("7:comment12345678:")
	raw := encode(t, dict{"comment": strings.Repeat("x", fill), "info": singleInfo()})
	require.Equal(t, metainfo.MaxSize, len(raw))
	_, err := Parse(bytes.NewReader(raw))
	require.NoError(t, err)

	_, err = Parse(io.MultiReader(bytes.NewReader(raw), strings.NewReader("e")))
	require.ErrorContains(t, err, "larger than 32 MiB")

	path := filepath.Join(t.TempDir(), "large.torrent")
	f, err := os.Create(path)
	require.NoError(t, err)
	require.NoError(t, f.Truncate(metainfo.MaxSize+1))
	require.NoError(t, f.Close())
	require.Less(t, allocated(func() { _, err = Read(path) }), uint64(1<<20))
	require.ErrorContains(t, err, "larger than 32 MiB")
	require.ErrorAs(t, err, new(*MetainfoError))
}

func TestNewTorrent(t *testing.T) {
	info := encode(t, with(singleInfo(), dict{"zzz": 1}))
	full := outer{
		trackers:     [][]string{{"http://a.example/", "udp://b.example:1"}, {}, {"http://c.example/"}},
		webSeeds:     []string{"http://seed.example/"},
		nodes:        []string{"[::1]:6881", "node.example:1"},
		comment:      "why",
		createdBy:    "who",
		creationDate: time.Unix(1700000000, 0).UTC(),
	}
	tor, err := newTorrent(info, full)
	require.NoError(t, err)
	var out bytes.Buffer
	_, err = tor.WriteTo(&out)
	require.NoError(t, err)
	again, err := Parse(&out)
	require.NoError(t, err)
	require.Equal(t, tor, again)
	require.Equal(t, Hash(sha1.Sum(info)), again.InfoHash())
	require.Equal(t, [][]string{full.trackers[0], full.trackers[2]}, again.Trackers())
	require.Equal(t, full.webSeeds, again.WebSeeds())
	require.Equal(t, full.nodes, again.nodes)
	require.Equal(t, "why", again.Comment())
	require.Equal(t, "who", again.CreatedBy())
	require.Equal(t, full.creationDate, again.CreationDate())

	bare, err := newTorrent(info, outer{})
	require.NoError(t, err)
	require.Equal(t, "d4:info"+string(info)+"e", string(bare.raw))
	one, err := newTorrent(info, outer{trackers: [][]string{{"http://a.example/"}}})
	require.NoError(t, err)
	require.Equal(t, "d8:announce17:http://a.example/4:info"+string(info)+"e", string(one.raw))

	info[len(info)-5] = '!'
	require.Equal(t, Hash(sha1.Sum(bare.info)), bare.InfoHash(), "the argument is not kept")
}

func TestNewTorrentRefuses(t *testing.T) {
	info := string(encode(t, singleInfo()))
	for _, c := range []struct {
		info  string
		outer outer
		field string
	}{
		{info: "", field: "info"},
		{info: "le", field: "info"},
		{info: info[:len(info)-1], field: "info"},
		{info: info + "e", field: "info"},
		{info: info + "8:url-list9:http://x/", field: "info"}, // must not become an outer field
		{info: "d4:name1:ae", field: "info.piece length"},
		{info: info, outer: outer{nodes: []string{"no port"}}, field: "nodes"},
		{info: info, outer: outer{nodes: []string{"h:65536"}}, field: "nodes"},
	} {
		_, err := newTorrent([]byte(c.info), c.outer)
		var metainfo *MetainfoError
		require.ErrorAs(t, err, &metainfo, "%q", c.info)
		require.Equal(t, c.field, metainfo.Field)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(encode(f, dict{"announce": "http://t.example/", "info": singleInfo()}))
	f.Add(encode(f, dict{"announce-list": []any{[]string{"udp://t.example:1"}}, "url-list": []string{"http://s.example/"},
		"nodes": []any{[]any{"h", 1}}, "creation date": 1, "info": multiInfo("a", "A", "a/b", "../c")}))
	f.Add(encode(f, dict{"info": with(multiInfo("x"), dict{"private": 1, "name.utf-8": "n", "files": []any{
		dict{"length": 9, "attr": "p"}, dict{"length": 1, "path": []string{"y"}, "path.utf-8": []string{"z"}}, dict{"attr": "l"},
		dict{"attr": "l", "path": []string{"Z"}, "symlink path": []string{"..", "z"}}}})}))
	tree := infoV2(dict{"a": leafV2(longV2), "b": leafV2(shortV2), "l": dict{"": dict{"attr": "l", "symlink path": []string{"a"}}}})
	f.Add(encode(f, dict{"info": tree, "piece layers": layersV2(longV2)}))
	f.Add(encode(f, dict{"info": listV1(infoV2(dict{"a": leafV2(longV2), "b": leafV2(shortV2)}), true, longV2, shortV2), "piece layers": layersV2(longV2)}))
	f.Add([]byte("500000000:ab"))
	f.Add([]byte("d7:comment1:a7:comment01:b13:creation datei-0e4:info" + string(encode(f, singleInfo())) + "i1ei2e8:url-listli01e9:http://s/ee\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, goos := range []string{"linux", "windows"} {
			tor, err := parseMetainfo(raw, goos)
			if err != nil {
				require.ErrorAs(t, err, new(*MetainfoError))
				continue
			}
			if tor.version == V2 {
				require.Equal(t, tor.infoHashV2.truncated(), tor.InfoHash())
			} else {
				require.Equal(t, Hash(sha1.Sum(tor.info)), tor.InfoHash())
			}
			require.Contains(t, string(raw), string(tor.info))
			require.Positive(t, tor.Length())
			last := tor.layout.PieceSize(tor.NumPieces() - 1)
			require.True(t, 0 < last && last <= tor.layout.PieceLength())

			offset, known := int64(0), map[string]bool{}
			for i := range tor.layout.NumFiles() {
				file := tor.layout.File(i)
				require.Equal(t, offset, file.Offset)
				offset += file.Length
				first, end := tor.layout.PiecesOf(i)
				require.True(t, 0 <= first && first <= end && end <= tor.NumPieces())
				require.True(t, filepath.IsLocal(file.Path), "%q", file.Path)
				if file.Link != "" {
					require.True(t, file.Pad && file.Length == 0)
					require.True(t, filepath.IsLocal(file.Link), "%q", file.Link)
				}
				if !file.Pad || file.Link != "" {
					require.False(t, known[file.Path], "%q", file.Path)
					known[file.Path] = true
				}
			}
			for path := range known {
				for dir := range known {
					require.False(t, strings.HasPrefix(fold(path), fold(dir)+"/"), "%q is a file and a directory", dir)
				}
			}
			require.Equal(t, offset, tor.layout.Size())

			again, err := newTorrent(tor.info, outer{tor.trackers, tor.webSeeds, tor.nodes, tor.comment, tor.createdBy, tor.creationDate, nil})
			require.NoError(t, err)
			require.Equal(t, tor.infoHash, again.infoHash)
		}
	})
}

// fold maps paths that differ only in case to the same string.
func fold(path string) string {
	return strings.Map(func(r rune) rune {
		least := r
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			least = min(least, f)
		}
		return least
	}, path)
}

func BenchmarkParseFiles100k(b *testing.B) {
	files := make([]any, 100_000)
	for i := range files {
		files[i] = dict{"length": 1 << 20, "path": []string{fmt.Sprintf("Folder %d", i/100), "sub", fmt.Sprintf("file-%06d.bin", i)}}
	}
	hashes := make([]byte, 20*100_000)
	benchmarkParse(b, dict{"name": "many", "files": files, "piece length": 1 << 20, "pieces": string(hashes)})
}

func BenchmarkParsePieces1M(b *testing.B) {
	hashes := make([]byte, 20*1_000_000)
	for i := 0; i < len(hashes); i += 20 {
		binary.BigEndian.PutUint64(hashes[i:], uint64(i))
	}
	benchmarkParse(b, dict{"name": "large", "length": int64(1_000_000 << 14), "piece length": 1 << 14, "pieces": string(hashes)})
}

func benchmarkParse(b *testing.B, info dict) {
	raw := encode(b, dict{"announce": "http://t.example/", "info": info})
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(bytes.NewReader(raw)); err != nil {
			b.Fatal(err)
		}
	}
}
