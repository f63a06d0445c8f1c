// Package safename makes the names of files, which strangers choose, safe to create on disk: each name by
// itself, and all of them together. A name stays what its author meant as far as it is safe anywhere; what one
// file system does not take, or another client writes in its own way, is a matter of where a file is stored.
// The package keeps no state and may be used from any goroutine.
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
	longest = 255 // bytes, the most that any file system takes
	maxName = 240 // bytes of a name that is cut: a number or a suffix may still be added
	maxExt  = 16  // bytes, with its dot; a longer one is not kept when a name is cut
)

// Append appends name to dst as one element of a path, changed only where it would be unsafe: it is never
// empty, "." or "..", nor does it only look like one of these, and holds no separator of any system, no control
// character, nothing that turns the direction of writing, and only valid UTF-8. A name that no file system takes
// is cut. What Windows alone forbids is changed if goos says so.
func Append(dst, name []byte, goos string) []byte {
	if len(name) > 1<<12 { // far more than is kept; do not copy megabytes to see that
		name = slices.Concat(name[:1<<11], name[len(name)-1<<11:])
	}
	start := len(dst)
	for len(name) > 0 {
		r, n := utf8.DecodeRune(name)
		switch {
		case r == '/' || r == '\\' || r == 0 || turning(r):
		case r == utf8.RuneError && n == 1, unicode.IsControl(r):
			dst = append(dst, '_')
		default:
			dst = append(dst, name[:n]...)
		}
		name = name[n:]
	}
	if safe := dst[start:]; len(safe) > longest {
		stem, ext := splitExt(safe)
		stem = Cut(stem, maxName-len(ext))
		dst = append(dst[:start+len(stem)], ext...)
	}
	if len(dst)-start <= len("..")+8 || !mayBeSeen(dst[start:]) {
		switch string(bytes.Map(seen, dst[start:])) {
		case "", ".", "..":
			dst = append(dst[:start], '_')
		}
	}
	if goos == "windows" {
		dst = append(dst[:start], windowsName(dst[start:])...)
	}
	return dst
}

// turning reports whether r turns the direction of what follows, so that a name reads as another.
func turning(r rune) bool { return 0x202A <= r && r <= 0x202E || 0x2066 <= r && r <= 0x2069 }

// mark reports whether r is a mark that has no width.
func mark(r rune) bool {
	return r == 0x061C || r == 0x180E || r == 0xFEFF || 0x200B <= r && r <= 0x200F || 0x2060 <= r && r <= 0x206F
}

// seen leaves out what is not seen.
func seen(r rune) rune {
	if r < utf8.RuneSelf {
		return r
	}
	if mark(r) || unicode.In(r, unicode.Cf, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector) {
		return -1
	}
	return r
}

// Visible is name without what is not seen of it.
func Visible(name string) string { return strings.Map(seen, name) }

// mayBeSeen reports whether a name begins with something plain.
func mayBeSeen(name []byte) bool {
	return name[0] > ' ' && name[0] < utf8.RuneSelf && name[0] != '.'
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

// Portable is path with each of its names made fit for any file system, and at most n bytes long: what Windows forbids,
// and so do some file systems elsewhere, is changed, and long names are cut.
func Portable(path string, n int) string {
	return eachName(path, func(name string) string {
		name = string(windowsName([]byte(name)))
		if len(name) > n {
			stem, ext := splitExt(name)
			name = Cut(stem, n-len(ext)) + ext
		}
		return name
	})
}

// eachName is path with its names mapped.
func eachName(path string, to func(string) string) string {
	names := strings.Split(path, "/")
	for i, name := range names {
		names[i] = to(name)
	}
	return strings.Join(names, "/")
}

// Variants are the paths, other than path itself, under which other clients store a file of that path, or we do on some
// file systems and earlier versions of us did on all.
func Variants(path string) (paths []string) {
	if plain(path) {
		return nil
	}
	without := func(drop func(rune) bool) string {
		return eachName(path, func(name string) string {
			return string(Append(nil, []byte(shortened(strings.Map(func(r rune) rune {
				if drop(r) {
					return -1
				}
				return r
			}, name))), ""))
		})
	}
	for _, p := range []string{
		Portable(path, maxName),
		Portable(path, maxName/2),
		without(mark), // of earlier versions
		without(func(r rune) bool { return r == 0x200E || r == 0x200F }), // of libtorrent
		eachName(path, transmissionName),
		eachName(path, shortened),
	} {
		if p != path && !slices.Contains(paths, p) {
			paths = append(paths, p)
		}
	}
	return paths
}

// plain reports whether all programs store a file of that path in the same way, as almost always.
func plain(path string) bool {
	for name := range strings.SplitSeq(path, "/") {
		if len(name) > maxName/2 || name == "" || name[0] == ' ' || name[len(name)-1] == ' ' || name[len(name)-1] == '.' || isDevice(name) {
			return false
		}
	}
	for _, r := range path {
		if mark(r) || r < utf8.RuneSelf && strings.ContainsRune(reserved, r) {
			return false
		}
	}
	return true
}

func shortened(name string) string {
	if len(name) <= maxName {
		return name
	}
	stem, ext := splitExt(name)
	return Cut(stem, maxName-len(ext)) + ext
}

// transmissionName is name as Transmission 4 stores it.
func transmissionName(name string) string {
	name = strings.TrimSpace(name)
	if isDevice(name) {
		name = "_" + name
	}
	name = strings.Map(func(r rune) rune {
		if strings.ContainsRune(reserved, r) {
			return '_'
		}
		return r
	}, name)
	if trimmed := strings.TrimRight(name, "."); trimmed != "" {
		return trimmed
	}
	return "_"
}

// reserved are the characters that Windows does not take in a name, but for separators.
const reserved = `<>:"|?*`

// windowsName maps what Windows forbids: characters, names of devices with or without an extension,
// and dots and spaces at the end, which it would drop. The result is a copy.
func windowsName(name []byte) []byte {
	name = bytes.Map(func(r rune) rune {
		if strings.ContainsRune(reserved, r) {
			return '_'
		}
		return r
	}, name)
	for i := len(name); i > 0 && (name[i-1] == '.' || name[i-1] == ' '); i-- {
		name[i-1] = '_'
	}
	if isDevice(string(name)) {
		return slices.Insert(name, 0, '_')
	}
	return name
}

// isDevice reports whether name is that of a device of Windows, with an extension or without.
func isDevice(name string) bool {
	if len(name) < 3 {
		return false
	}
	device, _, _ := strings.Cut(name, ".")
	device = strings.ToUpper(strings.TrimRight(device, " "))
	switch device {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$":
		return true
	}
	port, ok := strings.CutPrefix(device, "COM")
	if !ok {
		port, ok = strings.CutPrefix(device, "LPT")
	}
	return ok && isPort(port)
}

// isPort reports whether p makes a device of COM or LPT: it is a digit, or a superscript one.
func isPort(p string) bool {
	r, n := utf8.DecodeRuneInString(p)
	return n > 0 && n == len(p) && ('1' <= r && r <= '9' || r == '¹' || r == '²' || r == '³')
}

// TellApart renames the files that would take the place of another: those whose paths are equal, or where one is
// a directory of another, even one that is written in another case. They get a number: "bar.1.txt". A directory
// keeps its name, then the file that comes first. A path is slash-separated; an empty one is of a file
// that is not stored, and stays empty.
func TellApart(paths []string) {
	folded := make([]string, len(paths))
	here := make(map[string]bool, len(paths)) // folded, of files
	for i, path := range paths {
		folded[i] = FoldCase(path)
		here[folded[i]] = true
	}
	// Of directories, which may be very many more than files, those are looked at alone that are in the place of a file.
	dirs := make(map[string]bool) // folded
	eachDirectory(folded, func(dir string) {
		if here[dir] {
			dirs[dir] = true
		}
	})
	taken := make(map[string]bool, len(paths))
	free := func(path, folded string) bool { return !dirs[folded] && !taken[path] }
	var late []int                  // files whose place is taken
	around := make(map[string]bool) // the directories that they are in, folded
	for i, path := range paths {
		switch {
		case path == "":
		case free(path, folded[i]):
			taken[path] = true
		default:
			late = append(late, i)
			around[parent(folded[i])] = true
		}
	}
	if len(late) > 0 {
		eachDirectory(folded, func(dir string) {
			if around[parent(dir)] {
				dirs[dir] = true
			}
		})
	}

	// Every name that may stay as it is has its place by now. The number to go on from is kept by
	// stem, so that a million equal names do not each try all the numbers before theirs.
	numbers := make(map[string]int)
	for _, i := range late {
		slash := strings.LastIndexByte(paths[i], '/') + 1
		stem, ext := stemToNumber(paths[i][slash:])
		series := paths[i][:slash] + stem + "/" + ext
		for {
			numbers[series]++
			name := stem + "." + strconv.Itoa(numbers[series]) + ext
			if path := paths[i][:slash] + name; free(path, FoldCase(path)) {
				taken[path] = true
				paths[i] = path
				break
			}
		}
	}
}

// eachDirectory calls visit for the directories of paths, and seldom twice for the same.
func eachDirectory(paths []string, visit func(dir string)) {
	last := ""
	for _, path := range paths {
		dir := parent(path)
		if dir == last {
			continue
		}
		last = dir
		for ; dir != ""; dir = parent(dir) {
			visit(dir)
		}
	}
}

// parent is the directory that a path is in, or empty.
func parent(path string) string { return path[:max(0, strings.LastIndexByte(path, '/'))] }

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

// FoldCase maps names that differ only in case to the same string.
func FoldCase(s string) string {
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
