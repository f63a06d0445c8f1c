package metainfo

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"strconv"

	"github.com/shoal-go/torrent/internal/bencode"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/safename"
)

// parseFiles reads the list of files of a torrent. They all lie in the directory name.
func parseFiles(name string, list []byte, goos string) ([]layout.File, *Error) {
	if !bencode.IsList(list) {
		return nil, &Error{Field: "info.files", Reason: "not a list"}
	}
	count := 0
	for range bencode.Elems(list) {
		count++
	}
	if count == 0 {
		return nil, &Error{Field: "info.files", Reason: "no files"}
	}
	files := make([]layout.File, 0, count)
	total := int64(0)
	var paths []byte // of all files; they become parts of one string
	ends := make([]int, 0, count)
	targets := 0 // bytes of the paths that links point to
	for value := range bencode.Elems(list) {
		i := len(files)
		if !bencode.IsDict(value) {
			return nil, fileError(i, "", "not a dictionary")
		}
		f := readFileEntry(value)
		length, err := f.size(i)
		if err != nil {
			return nil, err
		}
		if length > math.MaxInt64-total {
			return nil, fileError(i, ".length", "sum of all lengths over 64 bits")
		}
		total += length
		if paths, err = f.appendPath(append(paths, name...), i, goos); err != nil {
			return nil, err
		}
		ends = append(ends, len(paths))
		file := layout.File{Length: length, Pad: f.symlink() || f.padding(length)}
		if f.symlink() && !f.padding(length) {
			file.Link = f.linkTarget(name, goos)
			targets += len(file.Link)
		}
		if len(paths)+targets > MaxPaths {
			return nil, fileError(i, ".path", fmt.Sprintf("all paths together over %d MiB", MaxPaths>>20))
		}
		files = append(files, file)
	}
	all, start := string(paths), 0
	for i, end := range ends {
		files[i].Path, start = all[start:end], end
	}
	tellApart(files, targets > 0)
	return files, nil
}

// tellApart gives each file and link a path of its own. Files that are not listed take no place.
func tellApart(files []layout.File, links bool) {
	paths := make([]string, len(files))
	for i, f := range files {
		if !f.Pad || f.Link != "" {
			paths[i] = f.Path
		}
	}
	safename.TellApart(paths)
	// A link follows a file that gets another name, if no file before that has the name that it points to.
	now := make(map[string]string)
	for i := range files {
		if _, known := now[files[i].Path]; links && !known {
			now[files[i].Path] = paths[i]
		}
		files[i].Path = cmp.Or(paths[i], files[i].Path)
	}
	for i := range files {
		if f := &files[i]; f.Link != "" {
			f.Link = cmp.Or(now[f.Link], f.Link)
		}
	}
}

// fileEntry is one element of the files list. Its values are encoded; those that are missing are nil.
type fileEntry struct {
	length, path []byte
	target       []byte // symlink path
	root         []byte // pieces root, of version 2
	attr         []byte // not encoded
}

func readFileEntry(dict []byte) (f fileEntry) {
	var plain []byte
	for key, value := range bencode.Keys(dict) {
		switch string(key) {
		case "length":
			f.length = value
		case "path":
			plain = value
		case "path.utf-8":
			if isPathText(value) {
				f.path = value
			}
		case "symlink path":
			f.target = value
		case "pieces root":
			f.root = value
		case "attr":
			f.attr, _ = bencode.String(value)
		}
	}
	if f.path == nil {
		f.path = plain
	}
	return f
}

// symlink reports whether the file is a symbolic link (BEP 47), which has no bytes of the content.
func (f *fileEntry) symlink() bool { return f.marked('l') }

// marked reports whether the file has an attribute (BEP 47).
func (f *fileEntry) marked(attr byte) bool { return bytes.IndexByte(f.attr, attr) >= 0 }

// padding reports whether the file is zeros that only fill up a piece (BEP 47). Some programs write it without the
// attribute, under the name that the BEP suggests: .pad/ and its length. BitComet has a name of its own.
func (f *fileEntry) padding(length int64) bool {
	if f.marked('p') {
		return true
	}
	if f.path == nil {
		return false
	}
	depth, named := 0, true
	for element := range bencode.Elems(f.path) {
		s, _ := bencode.String(element)
		if bytes.HasPrefix(s, []byte("_____padding_file_")) {
			return true
		}
		switch depth {
		case 0:
			named = string(s) == ".pad"
		case 1:
			named = named && string(s) == strconv.FormatInt(length, 10)
		}
		depth++
	}
	return named && depth == 2
}

// size is the number of bytes of file i in the content. A symbolic link has none.
func (f *fileEntry) size(i int) (int64, *Error) {
	if f.symlink() {
		return 0, nil
	}
	if f.length == nil {
		return 0, fileError(i, ".length", "missing")
	}
	n, ok := bencode.Int(f.length)
	if !ok {
		return 0, fileError(i, ".length", "not an integer")
	}
	if n < 0 {
		return 0, fileError(i, ".length", "negative")
	}
	return n, nil
}

// appendPath appends the elements of file i's path, with a slash before each. Padding and links need no path.
func (f *fileEntry) appendPath(dst []byte, i int, goos string) ([]byte, *Error) {
	if f.path == nil {
		if f.symlink() || f.marked('p') {
			return dst, nil
		}
		return nil, fileError(i, ".path", "missing")
	}
	dst, wrong := appendElements(dst, f.path, goos, false)
	if wrong != "" {
		return nil, fileError(i, ".path", wrong)
	}
	return dst, nil
}

// linkTarget is where a symbolic link points, as the path of a file below name. It is empty if the link says
// nothing of that, or has no path itself.
func (f *fileEntry) linkTarget(name, goos string) string {
	if f.path == nil {
		return ""
	}
	return f.pointsTo(name, goos)
}

// pointsTo is where the link points, or empty. libtorrent writes what the link on disk says, such as ../a, and leaves the dots out when
// it reads that.
func (f *fileEntry) pointsTo(name, goos string) string {
	if f.target == nil {
		return ""
	}
	target, wrong := appendElements([]byte(name), f.target, goos, true)
	if wrong != "" {
		return ""
	}
	return string(target)
}

// appendElements appends the elements of a path, a slash before each, or says what is wrong with it. Of a link it leaves out those
// that are . and .. alone.
func appendElements(dst, path []byte, goos string, link bool) (_ []byte, wrong string) {
	if !bencode.IsList(path) {
		return nil, "not a list"
	}
	depth := 0
	for element := range bencode.Elems(path) {
		s, ok := bencode.String(element)
		if !ok {
			return nil, "an element is not a string"
		}
		if depth++; depth > MaxPathDepth {
			return nil, fmt.Sprintf("more than %d elements", MaxPathDepth)
		}
		if link && (string(s) == "." || string(s) == "..") {
			continue
		}
		dst = safename.Append(append(dst, '/'), s, goos)
	}
	if depth == 0 {
		return nil, "empty"
	}
	return dst, ""
}

func fileError(i int, key, reason string) *Error {
	return &Error{Field: "info.files[" + strconv.Itoa(i) + "]" + key, Reason: reason}
}
