package safename_test

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
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
		{"\u200E\u200F\u061C\u202A\u202B\u202C\u202D\u2066\u2067\u2068\u2069x", "x"},
		{"\uFEFFzero\u200Bwidth\u200C\u200D", "zerowidth"},
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
		{a(241), a(240)},
		{a(300) + ".mkv", a(236) + ".mkv"},
		{a(300) + ".tar.gz", a(237) + ".gz"},
		{a(300) + "." + a(15), a(224) + "." + a(15)},
		{a(300) + "." + a(16), a(240)}, // too long to be an extension
		{a(100) + "." + a(300), a(100) + "." + a(139)},
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
		{"case", []string{"t/bar.txt", "t/BAR.txt", "t/Bar.TXT"}, []string{"t/bar.txt", "t/BAR.1.txt", "t/Bar.2.TXT"}},
		{"equal", []string{"t/bar.txt", "t/bar.txt"}, []string{"t/bar.txt", "t/bar.1.txt"}},
		{"no extension", []string{"t/bar", "t/Bar"}, []string{"t/bar", "t/Bar.1"}},
		{"hidden", []string{"t/.bar", "t/.Bar"}, []string{"t/.bar", "t/.Bar.1"}},
		{"two extensions", []string{"t/a.tar.gz", "t/a.tar.gz"}, []string{"t/a.tar.gz", "t/a.tar.1.gz"}},
		{"a number that is taken", []string{"t/a.txt", "t/a.txt", "t/A.1.txt"}, []string{"t/a.txt", "t/a.2.txt", "t/A.1.txt"}},
		{"beyond ASCII", []string{"t/É", "t/é", "t/ÿ", "t/Ÿ"}, []string{"t/É", "t/é.1", "t/ÿ", "t/Ÿ.1"}},
		{"kelvin", []string{"t/k", "t/\u212A"}, []string{"t/k", "t/\u212A.1"}},
		{"other directories", []string{"t/a/x", "t/b/x"}, []string{"t/a/x", "t/b/x"}},
		{"directories that are one without case", []string{"t/Dir/x", "t/dir/y", "t/DIR/X"}, []string{"t/Dir/x", "t/dir/y", "t/DIR/X.1"}},
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
	paths := []string{"", "t/a", "", "t/A"}
	safename.TellApart(paths)
	require.Equal(t, []string{"", "t/a", "", "t/A.1"}, paths)
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

func FuzzSafeName(f *testing.F) {
	for _, s := range []string{"a.txt", "..", "con.txt", "../..", "\u202Egpj.exe", "\xff", strings.Repeat("é", 200)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, name []byte) {
		for _, goos := range []string{"linux", "windows"} {
			safe := safename.Append(nil, name, goos)
			require.NotEmpty(t, safe)
			require.True(t, utf8.Valid(safe))
			require.LessOrEqual(t, len(safe), maxName+1)
			require.True(t, fs.ValidPath(string(safe)))
			require.NotContains(t, string(safe), "/")
			require.NotContains(t, string(safe), `\`)
			require.True(t, filepath.IsLocal(string(safe)))
			if again := safename.Append(nil, safe, goos); len(safe) <= maxName {
				require.Equal(t, string(safe), string(again), "safe names stay")
			}
		}
	})
}
