// Package safename makes the names of files, which strangers choose, safe to create on disk: each name by
// itself, and all of them together. It keeps no state and may be used from any goroutine.
package safename

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxName = 240 // bytes; most file systems allow 255, and a number or a suffix may still be added
	maxExt  = 16  // bytes, with its dot; a longer one is not kept when a name is cut
)

// Append appends name to dst as one element of a path, changed only where it would be unsafe: it is never
// empty, "." or "..", holds no separator of any system, no control character, nothing that makes it
// look like another name, and only valid UTF-8. What Windows alone forbids is changed if goos says so.
func Append(dst, name []byte, goos string) []byte {
	if len(name) > 1<<12 { // far more than is kept; do not copy megabytes to see that
		name = slices.Concat(name[:1<<11], name[len(name)-1<<11:])
	}
	start := len(dst)
	for len(name) > 0 {
		r, n := utf8.DecodeRune(name)
		switch {
		case r == '/' || r == '\\' || r == 0 || invisible(r):
		case r == utf8.RuneError && n == 1, unicode.IsControl(r):
			dst = append(dst, '_')
		default:
			dst = append(dst, name[:n]...)
		}
		name = name[n:]
	}
	if safe := dst[start:]; len(safe) > maxName {
		stem, ext := splitExt(safe)
		stem = Cut(stem, maxName-len(ext))
		dst = append(dst[:start+len(stem)], ext...)
	}
	switch string(dst[start:]) {
	case "", ".", "..":
		dst = append(dst[:start], '_')
	}
	if goos == "windows" {
		dst = append(dst[:start], windowsName(dst[start:])...)
	}
	return dst
}

// invisible reports whether r is a mark that has no width or that turns the direction of writing.
func invisible(r rune) bool {
	return r == 0x061C || r == 0x180E || r == 0xFEFF ||
		0x200B <= r && r <= 0x200F || 0x202A <= r && r <= 0x202E || 0x2060 <= r && r <= 0x206F
}

// splitExt splits a name before its last dot, if the rest is short enough to be an extension.
func splitExt[T []byte | string](name T) (stem, ext T) {
	for i := len(name) - 1; i > 0 && len(name)-i <= maxExt; i-- {
		if name[i] == '.' {
			return name[:i], name[i:]
		}
	}
	return name, name[len(name):]
}

// Cut cuts name to at most n bytes, without half a character at its end.
func Cut[T []byte | string](name T, n int) T {
	if len(name) <= n {
		return name
	}
	for n > 0 && !utf8.RuneStart(name[n]) {
		n--
	}
	return name[:n]
}

// windowsName maps what Windows forbids: characters, names of devices with or without an extension,
// and dots and spaces at the end, which it would drop. The result is a copy.
func windowsName(name []byte) []byte {
	name = bytes.Map(func(r rune) rune {
		if strings.ContainsRune(`<>:"|?*`, r) {
			return '_'
		}
		return r
	}, name)
	for i := len(name); i > 0 && (name[i-1] == '.' || name[i-1] == ' '); i-- {
		name[i-1] = '_'
	}
	device, _, _ := bytes.Cut(name, []byte{'.'})
	device = bytes.ToUpper(bytes.TrimRight(device, " "))
	switch string(device) {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$":
		return slices.Insert(name, 0, '_')
	}
	if port, ok := bytes.CutPrefix(device, []byte("COM")); ok && isPort(port) {
		return slices.Insert(name, 0, '_')
	}
	if port, ok := bytes.CutPrefix(device, []byte("LPT")); ok && isPort(port) {
		return slices.Insert(name, 0, '_')
	}
	return name
}

// isPort reports whether p makes a device of COM or LPT: it is a digit, or a superscript one.
func isPort(p []byte) bool {
	r, n := utf8.DecodeRune(p)
	return n > 0 && n == len(p) && ('1' <= r && r <= '9' || r == '¹' || r == '²' || r == '³')
}

// place is a name in a directory, as a file system that ignores case sees it.
// Directories whose paths differ only in case are one.
type place struct {
	dir  int // 0 is the root
	name string
}

// TellApart renames the files that would take the place of another: those whose paths differ only in
// case, or not at all, or where one is a directory of another. They get a number: "bar.1.txt". A directory
// keeps its name, then the file that comes first. A path is slash-separated; an empty one is of a file
// that is not stored, and stays empty.
func TellApart(paths []string) {
	dirs := make(map[place]int)
	places := make([]place, len(paths))
	for i, rest := range paths {
		for rest != "" {
			name, below, ok := strings.Cut(rest, "/")
			places[i].name = foldCase(name)
			if !ok {
				break
			}
			dir, known := dirs[places[i]]
			if !known {
				dir = len(dirs) + 1
				dirs[places[i]] = dir
			}
			places[i].dir, rest = dir, below
		}
	}

	taken := make(map[place]bool, len(paths))
	free := func(p place) bool { return dirs[p] == 0 && !taken[p] }
	var late []int // files whose place is taken
	for i, p := range places {
		switch {
		case paths[i] == "":
		case free(p):
			taken[p] = true
		default:
			late = append(late, i)
		}
	}

	// Every name that may stay as it is has its place by now. The number to go on from is kept by
	// stem, so that a million equal names do not each try all the numbers before theirs.
	numbers := make(map[place]int)
	for _, i := range late {
		slash := strings.LastIndexByte(paths[i], '/') + 1
		stem, ext := stemToNumber(paths[i][slash:])
		series := place{places[i].dir, foldCase(stem + "/" + ext)}
		for {
			numbers[series]++
			name := stem + "." + strconv.Itoa(numbers[series]) + ext
			p := place{places[i].dir, foldCase(name)}
			if free(p) {
				taken[p] = true
				paths[i] = paths[i][:slash] + name
				break
			}
		}
	}
}

// Numbered is path with the number n in its last name, as TellApart puts it there.
func Numbered(path string, n int) string {
	slash := strings.LastIndexByte(path, '/') + 1
	stem, ext := stemToNumber(path[slash:])
	return path[:slash] + stem + "." + strconv.Itoa(n) + ext
}

// stemToNumber splits a name where a number may be put, cut so that there is room for it.
func stemToNumber(name string) (stem, ext string) {
	stem, ext = splitExt(name)
	return Cut(stem, maxName-len(ext)-len(".1234567")), ext
}

// foldCase maps names that differ only in case to the same string.
func foldCase(s string) string {
	return strings.Map(func(r rune) rune {
		if r < utf8.RuneSelf {
			if 'A' <= r && r <= 'Z' {
				r += 'a' - 'A'
			}
			return r
		}
		// The smallest of all that are equal under folding, in lower case if that is ASCII.
		least := r
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			least = min(least, f)
		}
		return unicode.ToLower(least)
	}, s)
}
