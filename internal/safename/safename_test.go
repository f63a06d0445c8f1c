package safename_test

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/safename"
)

const maxName = 240 // bytes

func TestSafeName(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		// Safe names stay as they are, so that data of other clients is found.
		{"plain.txt", "plain.txt"},
		{" spaces kept ", " spaces kept "},
		{".hidden", ".hidden"},
		{"...", "..."},
		{"trailing.", "trailing."},
		{"CON", "CON"},
		{`a:b*c?d"e<f>g|h`, `a:b*c?d"e<f>g|h`},
		{"日本語 – ünïcödé 😀", "日本語 – ünïcödé 😀"},
		{"replacement \uFFFD kept", "replacement \uFFFD kept"},

		{"", "_"},
		{".", "_"},
		{"..", "_"},
		{"../../etc/passwd", "....etcpasswd"},
		{"/", "_"},
		{"./", "_"},
		{"..\u200B", "_"},
		{".\u2060.", "_"},
		{`C:\Windows`, "C:Windows"},
		{"nul\x00byte", "nulbyte"},
		{"tab\tnewline\nescape\x1b[31m", "tab_newline_escape_[31m"},
		{"delete\x7f, next line\u0085", "delete_, next line_"},
		{"bad \xff\xfe bytes", "bad __ bytes"},
		{"overlong \xc0\xaf slash", "overlong __ slash"},
		{"cut \xe6\x97", "cut __"},
		{"cod.\u202Egpj.exe", "cod.gpj.exe"},
		{"\u202A\u202B\u202C\u202D\u2066\u2067\u2068\u2069x", "x"},
		// What is not seen may be meant.
		{"\u200E\u200F\u061Cx", "\u200E\u200F\u061Cx"},
		{"\uFEFFzero\u200Bwidth\u200C\u200D", "\uFEFFzero\u200Bwidth\u200C\u200D"},
		{"soft\u00ADhyphen \u034F\u2764\uFE0F\U000E0041", "soft\u00ADhyphen \u034F\u2764\uFE0F\U000E0041"},
		{"\u200B", "_"},
		{"\uFE0F.\U000E0041.", "_"},
		{"..\u200Bx", "..\u200Bx"},
	} {
		require.Equal(t, c.want, string(safename.Append(nil, []byte(c.in), "linux")), "%q", c.in)
	}
	require.Equal(t, "kept/x", string(safename.Append([]byte("kept/"), []byte("x"), "linux")))
	require.Equal(t, "kept/_x_", string(safename.Append([]byte("kept/"), []byte("\x01x."), "windows")))
}

func TestSafeNameLength(t *testing.T) {
	a := func(n int) string { return strings.Repeat("a", n) }
	for _, c := range []struct{ in, want string }{
		{a(240), a(240)},
		{a(255), a(255)},
		{a(256), a(240)},
		{a(251) + ".mkv", a(251) + ".mkv"},
		{a(300) + ".mkv", a(236) + ".mkv"},
		{a(300) + ".tar.gz", a(237) + ".gz"},
		{a(300) + "." + a(15), a(224) + "." + a(15)},
		{a(300) + "." + a(16), a(240)}, // too long to be an extension
		{a(100) + "." + a(300), a(100) + "." + a(139)},
		{strings.Repeat("é", 127), strings.Repeat("é", 127)},
		{strings.Repeat("é", 200), strings.Repeat("é", 120)},
		{"x" + strings.Repeat("é", 200), "x" + strings.Repeat("é", 119)},
		{strings.Repeat("é", 200) + ".tx", strings.Repeat("é", 118) + ".tx"},
		{a(10e6) + ".mkv", a(236) + ".mkv"},
	} {
		require.Equal(t, c.want, string(safename.Append(nil, []byte(c.in), "linux")))
	}
}

func TestSafeNameWindows(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"plain.txt", "plain.txt"},
		{" leading", " leading"},
		{`a:b*c?d"e<f>g|h`, "a_b_c_d_e_f_g_h"},
		{"trailing. .", "trailing___"},
		{"...", "___"},
		{"..", "_"},
		{"CON", "_CON"},
		{"con.txt", "_con.txt"},
		{"Nul.tar.gz", "_Nul.tar.gz"},
		{"aux .txt", "_aux .txt"},
		{"prn", "_prn"},
		{"CONIN$", "_CONIN$"},
		{"com1", "_com1"},
		{"LPT9.log", "_LPT9.log"},
		{"COM²", "_COM²"},
		{"com0", "com0"},
		{"com", "com"},
		{"com10", "com10"},
		{"console", "console"},
		{"lpt1a", "lpt1a"},
	} {
		require.Equal(t, c.want, string(safename.Append(nil, []byte(c.in), "windows")), "%q", c.in)
	}
}

func TestTellApart(t *testing.T) {
	for _, c := range []struct {
		name     string
		in, want []string
	}{
		{"nothing to do", []string{"t/a", "t/b", "t/d/a"}, []string{"t/a", "t/b", "t/d/a"}},
		{"case", []string{"t/bar.txt", "t/BAR.txt", "t/Bar.TXT"}, []string{"t/bar.txt", "t/BAR.txt", "t/Bar.TXT"}},
		{"equal", []string{"t/bar.txt", "t/bar.txt"}, []string{"t/bar.txt", "t/bar.1.txt"}},
		{"no extension", []string{"t/bar", "t/bar"}, []string{"t/bar", "t/bar.1"}},
		{"hidden", []string{"t/.bar", "t/.bar"}, []string{"t/.bar", "t/.bar.1"}},
		{"two extensions", []string{"t/a.tar.gz", "t/a.tar.gz"}, []string{"t/a.tar.gz", "t/a.tar.1.gz"}},
		{"a number that is taken", []string{"t/a.txt", "t/a.txt", "t/a.1.txt"}, []string{"t/a.txt", "t/a.2.txt", "t/a.1.txt"}},
		{"beyond ASCII", []string{"t/É", "t/é", "t/ÿ", "t/Ÿ"}, []string{"t/É", "t/é", "t/ÿ", "t/Ÿ"}},
		{"kelvin", []string{"t/k", "t/\u212A"}, []string{"t/k", "t/\u212A"}},
		{"other directories", []string{"t/a/x", "t/b/x"}, []string{"t/a/x", "t/b/x"}},
		{"directories that are one without case", []string{"t/Dir/x", "t/dir/y", "t/DIR/X"}, []string{"t/Dir/x", "t/dir/y", "t/DIR/X"}},
		{"directory first", []string{"t/a/b", "t/a"}, []string{"t/a/b", "t/a.1"}},
		{"directory last", []string{"t/a", "t/A/b"}, []string{"t/a.1", "t/A/b"}},
		{"deep directory", []string{"t/a/b/c", "t/a", "t/a/b"}, []string{"t/a/b/c", "t/a.1", "t/a/b.1"}},
		{"a number that is a directory", []string{"t/a", "t/a", "t/a.1/x"}, []string{"t/a", "t/a.2", "t/a.1/x"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			safename.TellApart(c.in)
			require.Equal(t, c.want, c.in)
		})
	}
}

// Files that are not stored take no place.
func TestTellApartFilesThatAreNotStored(t *testing.T) {
	paths := []string{"", "t/a", "", "t/a"}
	safename.TellApart(paths)
	require.Equal(t, []string{"", "t/a", "", "t/a.1"}, paths)
}

// Very many names that all collide are told apart without trying every number for each of them, even if they are
// so long that the part in which they differ is cut off to make room for the number.
func TestTellApartMany(t *testing.T) {
	const n = 100_000
	for _, name := range []func(i int) string{
		func(i int) string { return "t/same.txt" },
		func(i int) string { return "t/" + strings.Repeat("a", 230) + fmt.Sprintf("%06d.txt", i/2) },
	} {
		all := make([]string, n)
		for i := range all {
			all[i] = name(i)
		}
		safename.TellApart(all)
		slices.Sort(all)
		require.Len(t, slices.Compact(all), n)
		for _, p := range all {
			require.LessOrEqual(t, len(p), len("t/")+maxName)
		}
	}
}

// Directories may be very many more than files: nothing is kept of those in the place of which there is no file.
func TestTellApartDeep(t *testing.T) {
	paths := make([]string, 2000)
	for i := range paths {
		paths[i] = strconv.Itoa(i) + strings.Repeat("/a", 126)
	}
	paths = append(paths, "7/a/A/a")
	want := slices.Clone(paths)
	want[2000] = "7/a/A/a.1"
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	safename.TellApart(paths)
	runtime.ReadMemStats(&after)
	require.Equal(t, want, paths)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(4<<20), "bytes allocated")
}

func FuzzSafeName(f *testing.F) {
	for _, s := range []string{"a.txt", "..", "con.txt", "../..", "\u202Egpj.exe", "\xff", strings.Repeat("é", 200)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, name []byte) {
		for _, goos := range []string{"linux", "windows"} {
			safe := safename.Append(nil, name, goos)
			require.NotEmpty(t, safe)
			require.True(t, utf8.Valid(safe))
			require.LessOrEqual(t, len(safe), 256)
			require.True(t, fs.ValidPath(string(safe)))
			require.NotContains(t, string(safe), "/")
			require.NotContains(t, string(safe), `\`)
			require.True(t, filepath.IsLocal(string(safe)))
			if again := safename.Append(nil, safe, goos); len(safe) <= 255 {
				require.Equal(t, string(safe), string(again), "safe names stay")
			}
		}
	})
}

// A file that another client stored under another name is found there.
func TestVariants(t *testing.T) {
	long := strings.Repeat("a", 250) + ".mkv"
	for _, c := range []struct {
		path string
		want []string // among others
	}{
		{"t/plain name.txt", nil},
		{"t/日本語 – ünïcödé 😀", nil},
		{"t/a:b?.txt", []string{"t/a_b_.txt"}},
		{"t./ b ", []string{"t/b", "t_/ b_"}},
		{"t/aux.txt", []string{"t/_aux.txt"}},
		{"t/" + long, []string{"t/" + strings.Repeat("a", 236) + ".mkv"}},
		{"t/zero\u200Bwidth\uFEFF/x\u200E", []string{"t/zerowidth/x", "t/zero\u200Bwidth\uFEFF/x"}},
	} {
		got := safename.Variants(c.path)
		require.Subset(t, got, c.want, "%q", c.path)
		require.NotContains(t, got, c.path)
		if c.want == nil {
			require.Empty(t, got)
		}
	}
}

func TestPortable(t *testing.T) {
	require.Equal(t, "t/a_b/_con.x", safename.Portable("t/a:b/con.x", 240))
	require.Equal(t, "t/"+strings.Repeat("a", 116)+".mkv", safename.Portable("t/"+strings.Repeat("a", 251)+".mkv", 120))
	require.Equal(t, "t/x", safename.Portable("t/x", 240))
}

func TestNumbered(t *testing.T) {
	require.Equal(t, "t/a.3.txt", safename.Numbered("t/a.txt", 3))
	require.LessOrEqual(t, len(safename.Numbered(strings.Repeat("a", 255), 1)), maxName)
}
