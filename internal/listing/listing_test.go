package listing

import (
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// treeOf is a listing of these files.
func treeOf(name string, files ...File) *Listing {
	l := &Listing{Name: name, Directory: len(files) != 1 || files[0].Path != name, Files: files}
	for i := range files {
		l.Length += files[i].Length
	}
	return l
}

func printTree(t *testing.T, l *Listing) string {
	t.Helper()
	var s strings.Builder
	require.NoError(t, l.Print(&s))
	return s.String()
}

func TestPrint(t *testing.T) {
	for _, test := range []struct {
		what    string
		listing *Listing
		want    string
	}{{
		"one file",
		treeOf("debian.iso", File{Path: "debian.iso", Length: 1 << 30}),
		`
1.00 GiB  debian.iso

1 file, 1.00 GiB
`,
	}, {
		"directories with their totals, whatever the order of the torrent",
		treeOf("film",
			File{Path: "film/subs/10.srt", Length: 10},
			File{Path: "film/film.mp4", Length: 129302391},
			File{Path: "film/subs/old/1.srt", Length: 2000},
			File{Path: "film/Poster.jpg", Length: 46115},
			File{Path: "film/subs/2.srt", Length: 0},
		),
		`
 123 MiB  film/
 123 MiB  ├── film.mp4
45.0 KiB  ├── Poster.jpg
1.96 KiB  └── subs/
   0 B        ├── 2.srt
  10 B        ├── 10.srt
1.95 KiB      └── old/
1.95 KiB          └── 1.srt

5 files, 123 MiB
`,
	}, {
		"symbolic links",
		treeOf("n",
			File{Path: "n/a/1", Length: 1},
			File{Path: "n/a/latest", LinkTarget: "n/a/1"},
			File{Path: "n/b", LinkTarget: "n/\u202Ea\n"},
		),
		`
   1 B    n/
   1 B    ├── a/
   1 B    │   ├── 1
   0 B    │   └── latest → n/a/1
   0 B    └── b → n/�a�

1 file, 2 links, 1 B
`,
	}, {
		"a branch goes on beside what lies deeper",
		treeOf("n",
			File{Path: "n/a/b/1", Length: 1},
			File{Path: "n/a/b/2", Length: 2},
			File{Path: "n/a/c", Length: 3},
			File{Path: "n/d", Length: 4},
		),
		`
  10 B    n/
   6 B    ├── a/
   3 B    │   ├── b/
   1 B    │   │   ├── 1
   2 B    │   │   └── 2
   3 B    │   └── c
   4 B    └── d

4 files, 10 B
`,
	}, {
		"directories that hold one directory alone share its line",
		treeOf("n",
			File{Path: "n/a/b/c/1", Length: 1},
			File{Path: "n/a/b/c/2", Length: 1},
			File{Path: "n/x/y/1", Length: 1},
			File{Path: "n/x/z", Length: 1},
		),
		`
   4 B    n/
   2 B    ├── a/b/c/
   1 B    │   ├── 1
   1 B    │   └── 2
   2 B    └── x/
   1 B        ├── y/
   1 B        │   └── 1
   1 B        └── z

4 files, 4 B
`,
	}, {
		"wide, combining and right-to-left names move nothing",
		treeOf("日本語",
			File{Path: "日本語/映画.mkv", Length: 5},
			File{Path: "日本語/e\u0301te\u0301", Length: 5},
			File{Path: "日本語/שלום", Length: 5},
			File{Path: "日本語/全角\u3000空白", Length: 5},
		),
		`
  20 B    日本語/
   5 B    ├── ` + "e\u0301te\u0301" + `
   5 B    ├── שלום
   5 B    ├── 全角` + "\u3000" + `空白
   5 B    └── 映画.mkv

4 files, 20 B
`,
	}, {
		"nothing in a name is obeyed",
		treeOf("n\x1b[31m",
			File{Path: "n\x1b[31m/a\nb\tc\r", Length: 1},
			File{Path: "n\x1b[31m/b\u202egpj.exe", Length: 1},
			File{Path: "n\x1b[31m/c\xff\xc3", Length: 1},
			File{Path: "n\x1b[31m/d\u2028\u0085\x7f\u200b", Length: 1},
		),
		`
   4 B    n�[31m/
   1 B    ├── a�b�c�
   1 B    ├── b�gpj.exe
   1 B    ├── c��
   1 B    └── d����

4 files, 4 B
`,
	}} {
		t.Run(test.what, func(t *testing.T) {
			require.Equal(t, test.want, "\n"+printTree(t, test.listing))
		})
	}
}

func TestFormatSize(t *testing.T) {
	for n, want := range map[int64]string{
		0:                 "   0 B  ",
		999:               " 999 B  ",
		1000:              "0.98 KiB",
		1024:              "1.00 KiB",
		10239:             "10.0 KiB",
		102399:            " 100 KiB",
		999 << 10:         " 999 KiB",
		1023 << 10:        "1.00 MiB",
		1<<20 + 1<<19:     "1.50 MiB",
		123456789:         " 118 MiB",
		1 << 40:           "1.00 TiB",
		math.MaxInt64 / 2: "4.00 EiB",
		math.MaxInt64:     "8.00 EiB",
	} {
		require.Equal(t, want, formatSize(n), "%d bytes", n)
	}
}

func TestCompareNames(t *testing.T) {
	sorted := []string{"", ".a", "01", "1", "1a", "2", "10", "10a2", "10a10", "99999999999999999999", "100000000000000000000", "A", "a", "a-b", "a.txt", "B", "b", "z", "é"}
	for i, a := range sorted {
		for j, b := range sorted {
			got := compareNames(a, b)
			require.Equal(t, i < j, got < 0, "%q < %q", a, b)
			require.Equal(t, i == j, got == 0, "%q = %q", a, b)
		}
	}
}

// Every directory is printed once, no matter how names compare.
func TestPrintKeepsDirectoriesTogether(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	names := []string{"1", "01", "001", "a", "A", "a1", "a01", "a-", "a "}
	for range 200 {
		files := map[string]bool{}
		directories := map[string]bool{}
		for range 40 {
			var dir strings.Builder
			dir.WriteString("n/")
			for range 1 + rng.IntN(3) {
				dir.WriteString(names[rng.IntN(len(names))] + "/")
				directories[dir.String()] = true
			}
			files[dir.String()+"file"] = true
		}
		var list []File
		for path := range files {
			list = append(list, File{Path: path, Length: 1})
		}
		slices.SortFunc(list, func(a, b File) int { return comparePaths(a.Path, b.Path) })
		seen := map[string]bool{}
		var last string
		for _, f := range list {
			for end := nameEnd(f.Path, 2); f.Path[end-1] == '/'; end = nameEnd(f.Path, end) {
				dir := f.Path[:end]
				require.False(t, seen[dir] && !strings.HasPrefix(last, dir), "%s comes twice", dir)
				seen[dir] = true
			}
			last = f.Path
		}
		require.Len(t, seen, len(directories))
	}
}

func TestPrintDeep(t *testing.T) {
	// A file 200,000 directories deep, and a file in each of 1,000 directories within each other.
	deep := treeOf("n", File{Path: "n/" + strings.Repeat("d/", 200_000) + "f", Length: 1})
	require.Less(t, len(printTree(t, deep)), 1_000_000)

	var files []File
	for i := range 1000 {
		files = append(files, File{Path: "n/" + strings.Repeat("d/", i) + "f", Length: 1})
	}
	out := printTree(t, treeOf("n", files...))
	require.Equal(t, 1000+1000+2, strings.Count(out, "\n"))
	require.True(t, utf8.ValidString(out))
}

// brokenWriter takes n bytes and then fails.
type brokenWriter struct {
	n   int
	err error
}

func (w *brokenWriter) Write(p []byte) (int, error) {
	if len(p) > w.n {
		n := w.n
		w.n = 0
		return n, w.err
	}
	w.n -= len(p)
	return len(p), nil
}

func TestPrintReturnsTheWritersError(t *testing.T) {
	l := treeOf("n", File{Path: "n/a", Length: 1}, File{Path: "n/b", Length: 1})
	full := errors.New("disk full")
	for n := range len(printTree(t, l)) {
		require.ErrorIs(t, l.Print(&brokenWriter{n, full}), full)
	}
}

func BenchmarkPrint(b *testing.B) {
	var files []File
	for i := range 100_000 {
		files = append(files, File{Path: fmt.Sprintf("n/%d/%d/%d.txt", i%7, i%100, i), Length: int64(i)})
	}
	l := treeOf("n", files...)
	for b.Loop() {
		if err := l.Print(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}
