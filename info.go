package torrent

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/shoal-go/torrent/internal/bencode"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/safename"
)

const (
	maxPieceLength = 512 << 20 // bytes
	maxPathDepth   = 128       // elements of a file's path
	maxPaths       = 64 << 20  // bytes of all paths together, each with the torrent's name
)

// parseInfo fills in t from t.info, which must be a sound dictionary.
func (t *Torrent) parseInfo(goos string) error {
	k := readInfoKeys(t.info)
	// Of a hybrid (BEP 52) the keys of version 1 are enough.
	if k.v2 && k.pieces == nil {
		return &MetainfoError{"info.pieces", "missing: a torrent of version 2 alone", ErrUnsupported}
	}
	name, err := stringField("info.name", k.name)
	if err != nil {
		return err
	}
	t.name = string(safename.Append(nil, name, goos))
	pieceLength, err := intField("info.piece length", k.pieceLength)
	if err != nil {
		return err
	}
	if pieceLength < 1 || pieceLength > maxPieceLength {
		return &MetainfoError{Field: "info.piece length", Reason: fmt.Sprintf("%d bytes, not within 1 and %d", pieceLength, maxPieceLength)}
	}
	if t.pieces, err = stringField("info.pieces", k.pieces); err != nil {
		return err
	}
	t.private = isPrivate(k.private)

	var files []layout.File
	if k.files != nil {
		// BEP 3 allows no length beside files. If there is one it is the sum; libtorrent, too, ignores it.
		t.multi = true
		files, err = parseFiles(t.name, k.files, goos)
	} else {
		files, err = parseSingle(t.name, k.length)
	}
	if err != nil {
		return err
	}
	return t.layOut(pieceLength, files)
}

// infoKeys are values of an info dictionary, encoded. Those that are missing are nil.
type infoKeys struct {
	name, pieceLength, pieces, private, length, files []byte
	v2                                                bool // has keys of version 2
}

func readInfoKeys(info []byte) (k infoKeys) {
	var nameUTF8 []byte
	for key, value := range bencode.Keys(info) {
		switch string(key) {
		case "name":
			k.name = value
		case "name.utf-8":
			if isText(value) {
				nameUTF8 = value
			}
		case "piece length":
			k.pieceLength = value
		case "pieces":
			k.pieces = value
		case "private":
			k.private = value
		case "length":
			k.length = value
		case "files":
			k.files = value
		case "meta version", "file tree":
			k.v2 = true
		}
	}
	if nameUTF8 != nil {
		k.name = nameUTF8
	}
	return k
}

// layOut cuts the files into pieces. There must be one hash for each.
func (t *Torrent) layOut(pieceLength int64, files []layout.File) error {
	total := int64(0)
	for i := range files {
		total += files[i].Length
		if !files[i].Pad {
			t.length += files[i].Length
		}
	}
	if t.length == 0 {
		return &MetainfoError{Field: "info", Reason: "no content: all files are empty"}
	}
	// The number of pieces is compared before it becomes an int, which may be too small for it.
	want := (total-1)/pieceLength + 1
	if len(t.pieces)%20 != 0 || int64(len(t.pieces)/20) != want {
		return &MetainfoError{Field: "info.pieces", Reason: fmt.Sprintf("%d bytes, not 20 for each of %d pieces", len(t.pieces), want)}
	}
	t.layout = layout.New(pieceLength, files...)
	return nil
}

// isPrivate reports whether a torrent with this value of private, or nil, is private (BEP 27). A value that is
// not an integer was written on purpose, so it means yes unless it reads as no. Other clients read any such
// value as no.
func isPrivate(value []byte) bool {
	if n, ok := bencode.Int(value); ok {
		return n != 0
	}
	s, ok := bencode.String(value)
	return value != nil && !(ok && (len(s) == 0 || string(s) == "0"))
}

func parseSingle(name string, length []byte) ([]layout.File, error) {
	n, err := intField("info.length", length)
	if err != nil {
		return nil, err
	}
	if n < 0 {
		return nil, &MetainfoError{Field: "info.length", Reason: "negative"}
	}
	return []layout.File{{Path: name, Length: n}}, nil
}

// parseFiles reads the list of files of a torrent. They all lie in the directory name.
func parseFiles(name string, list []byte, goos string) ([]layout.File, error) {
	if !bencode.IsList(list) {
		return nil, &MetainfoError{Field: "info.files", Reason: "not a list"}
	}
	count := 0
	for range bencode.Elems(list) {
		count++
	}
	if count == 0 {
		return nil, &MetainfoError{Field: "info.files", Reason: "no files"}
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
		if len(paths)+targets > maxPaths {
			return nil, fileError(i, ".path", fmt.Sprintf("all paths together over %d MiB", maxPaths>>20))
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
		case "attr":
			f.attr, _ = bencode.String(value)
		}
	}
	if f.path == nil {
		f.path = plain
	}
	return f
}

// symlink reports whether the file is a symbolic link (BEP 47). Links are not made on disk, and nothing is in
// their place.
func (f *fileEntry) symlink() bool { return bytes.IndexByte(f.attr, 'l') >= 0 }

// padding reports whether the file is zeros that only fill up a piece (BEP 47). Some programs write it without the
// attribute, under the name that the BEP suggests: .pad/ and its length. BitComet has a name of its own.
func (f *fileEntry) padding(length int64) bool {
	if bytes.IndexByte(f.attr, 'p') >= 0 {
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
			named = string(s) == strconv.FormatInt(length, 10)
		}
		if depth++; !named || depth > 2 {
			return false
		}
	}
	return depth == 2
}

// size is the number of bytes of file i in the content. A symbolic link has none.
func (f *fileEntry) size(i int) (int64, error) {
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
func (f *fileEntry) appendPath(dst []byte, i int, goos string) ([]byte, error) {
	if f.path == nil {
		if f.symlink() || bytes.IndexByte(f.attr, 'p') >= 0 {
			return dst, nil
		}
		return nil, fileError(i, ".path", "missing")
	}
	dst, wrong := appendElements(dst, f.path, goos)
	if wrong != "" {
		return nil, fileError(i, ".path", wrong)
	}
	return dst, nil
}

// linkTarget is where a symbolic link points, as the path of a file below name. It is empty if the link says
// nothing of that, or has no path itself.
func (f *fileEntry) linkTarget(name, goos string) string {
	if f.path == nil || f.target == nil {
		return ""
	}
	target, wrong := appendElements([]byte(name), f.target, goos)
	if wrong != "" {
		return ""
	}
	return string(target)
}

// appendElements appends the elements of a path, a slash before each, or says what is wrong with it.
func appendElements(dst, path []byte, goos string) (_ []byte, wrong string) {
	if !bencode.IsList(path) {
		return nil, "not a list"
	}
	depth := 0
	for element := range bencode.Elems(path) {
		s, ok := bencode.String(element)
		if !ok {
			return nil, "an element is not a string"
		}
		if depth++; depth > maxPathDepth {
			return nil, fmt.Sprintf("more than %d elements", maxPathDepth)
		}
		dst = safename.Append(append(dst, '/'), s, goos)
	}
	if depth == 0 {
		return nil, "empty"
	}
	return dst, ""
}

func fileError(i int, key, reason string) *MetainfoError {
	return &MetainfoError{Field: "info.files[" + strconv.Itoa(i) + "]" + key, Reason: reason}
}

func intField(field string, value []byte) (int64, error) {
	if value == nil {
		return 0, &MetainfoError{Field: field, Reason: "missing"}
	}
	n, ok := bencode.Int(value)
	if !ok {
		return 0, &MetainfoError{Field: field, Reason: "not an integer"}
	}
	return n, nil
}

func stringField(field string, value []byte) ([]byte, error) {
	if value == nil {
		return nil, &MetainfoError{Field: field, Reason: "missing"}
	}
	s, ok := bencode.String(value)
	if !ok {
		return nil, &MetainfoError{Field: field, Reason: "not a string"}
	}
	return s, nil
}

// isText reports whether value is a string in valid UTF-8.
func isText(value []byte) bool {
	s, ok := bencode.String(value)
	return ok && utf8.Valid(s)
}

// isPathText reports whether value can be a path: a list that is not empty, of strings in valid UTF-8.
func isPathText(value []byte) bool {
	n := 0
	for element := range bencode.Elems(value) {
		if !isText(element) {
			return false
		}
		n++
	}
	return n > 0
}
