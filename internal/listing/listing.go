// Package listing draws the files of a torrent as a tree for people to read.
//
// It holds no state; any package may call it, from any goroutine.
package listing

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/shoal-go/torrent/internal/printable"
)

// A Listing is what is drawn.
type Listing struct {
	Name      string
	Directory bool  // Name is that of a directory, in which the files are
	Length    int64 // of all files
	Files     []File
}

// A File is one file of a listing.
type File struct {
	Path       string // with slashes, below Name if that is a directory
	Length     int64
	LinkTarget string // of a symbolic link, which is not counted as a file
}

// Print writes the tree. The error is w's.
func (l *Listing) Print(w io.Writer) error {
	files := slices.SortedFunc(slices.Values(l.Files), func(a, b File) int { return comparePaths(a.Path, b.Path) })
	p := treePrinter{w: bufio.NewWriter(w)}
	if l.Directory {
		p.line(l.Length, "", l.Name+"/")
		p.list(files, len(l.Name)+1)
	} else {
		p.line(l.Length, "", l.Name)
	}
	links := 0
	for i := range files {
		if files[i].LinkTarget != "" {
			links++
		}
	}
	p.w.WriteString("\n" + countOf(len(files)-links, "file"))
	if links > 0 {
		p.w.WriteString(", " + countOf(links, "link"))
	}
	p.w.WriteString(", " + strings.TrimSpace(formatSize(l.Length)) + "\n")
	return p.w.Flush()
}

func countOf(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return strconv.Itoa(n) + " " + noun
}

// treePrinter draws a tree from sorted paths, in which files of the same directory are adjacent.
type treePrinter struct {
	w     *bufio.Writer
	lines []byte // of the directories around the one being listed
}

// list prints the entries of one directory. The paths of files are the same up to at, where the names in
// the directory begin.
func (p *treePrinter) list(files []File, at int) {
	for len(files) > 0 {
		path := files[0].Path
		end := nameEnd(path, at)
		n, size := 1, files[0].Length
		for path[end-1] == '/' && n < len(files) && strings.HasPrefix(files[n].Path, path[:end]) {
			size += files[n].Length
			n++
		}
		entry := files[:n]
		files = files[n:]

		// Sharing a line keeps the output in proportion to the metainfo. Without it, directories nested a
		// million deep would be drawn with a million branches on each line.
		for path[end-1] == '/' {
			next := nameEnd(path, end)
			if path[next-1] != '/' || !strings.HasPrefix(entry[n-1].Path, path[:next]) {
				break
			}
			end = next
		}

		fork, line := "├── ", "│   "
		if len(files) == 0 {
			fork, line = "└── ", "    "
		}
		name := path[at:end]
		if target := entry[0].LinkTarget; target != "" && end == len(path) {
			name += " → " + target
		}
		p.line(size, fork, name)
		if path[end-1] == '/' {
			outer := len(p.lines)
			p.lines = append(p.lines, line...)
			p.list(entry, end)
			p.lines = p.lines[:outer]
		}
	}
}

// nameEnd is where the name that begins at path[at] ends. It includes the slash after a directory's name.
func nameEnd(path string, at int) int {
	if i := strings.IndexByte(path[at:], '/'); i >= 0 {
		return at + i + 1
	}
	return len(path)
}

// line prints one line. The size comes first because only its width is certain: that of a name depends on terminal
// and font. The letters of its unit also make the line run from left to right if the name does not.
func (p *treePrinter) line(size int64, fork, name string) {
	p.w.WriteString(formatSize(size))
	p.w.WriteString("  ")
	p.w.Write(p.lines)
	p.w.WriteString(fork)
	p.w.WriteString(printable.Name(name))
	p.w.WriteByte('\n')
}

// formatSize formats a number of bytes with three digits and a unit, always eight columns wide.
func formatSize(n int64) string {
	number, unit := printable.Size(n)
	return fmt.Sprintf("%4s %-3s", number, unit)
}

// comparePaths orders paths name by name, so that files of the same directory are adjacent.
func comparePaths(a, b string) int {
	for {
		x, restA, moreA := strings.Cut(a, "/")
		y, restB, moreB := strings.Cut(b, "/")
		if c := compareNames(x, y); c != 0 || !moreA || !moreB {
			return cmp.Or(c, len(restA)-len(restB))
		}
		a, b = restA, restB
	}
}

// compareNames orders names as people do: digits by the number that they form, letters first without regard to
// case. Only equal names compare equal.
func compareNames(a, b string) int {
	if a == b {
		return 0
	}
	i, j := 0, 0
	for i < len(a) && j < len(b) {
		c := cmp.Compare(lower(a[i]), lower(b[j]))
		if x, y := leadingDigits(a[i:]), leadingDigits(b[j:]); x != "" && y != "" {
			i, j = i+len(x), j+len(y)
			x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
			c = cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y))
		} else {
			i, j = i+1, j+1
		}
		if c != 0 {
			return c
		}
	}
	return cmp.Or(cmp.Compare(len(a)-i, len(b)-j), cmp.Compare(a, b))
}

func leadingDigits(s string) string {
	n := 0
	for n < len(s) && '0' <= s[n] && s[n] <= '9' {
		n++
	}
	return s[:n]
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}
