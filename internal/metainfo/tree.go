package metainfo

import (
	"fmt"
	"math"
	"strconv"

	"github.com/shoal-go/torrent/internal/bencode"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/merkle"
	"github.com/shoal-go/torrent/internal/safename"
)

// A fileTree is the file tree of version 2 (BEP 52) as a list of files, padding between them.
type fileTree struct {
	name  string
	multi bool
	files []layout.File
	roots []merkle.Hash // by file

	goos        string
	pieceLength int64
	size        int64  // of files so far
	paths       int    // bytes
	at          []byte // the path of the entry that is being read, as the torrent says it
}

// parseTree reads a file tree. A tree of one file alone is that file, unless multi says that it lies in a directory.
func parseTree(name string, tree []byte, pieceLength int64, multi bool, goos string) (*fileTree, *Error) {
	if tree == nil {
		return nil, &Error{Field: "info.file tree", Reason: "missing"}
	}
	if !bencode.IsDict(tree) {
		return nil, &Error{Field: "info.file tree", Reason: "not a dictionary"}
	}
	t := &fileTree{name: name, multi: true, goos: goos, pieceLength: pieceLength}
	if key, ok := onlyFile(tree); ok && !multi {
		t.name, t.multi = string(safename.Append(nil, key, goos)), false
		if err := t.directory(nil, tree); err != nil {
			return nil, err
		}
		t.files[0].Path = t.name
		return t, nil
	}
	if err := t.directory([]byte(name), tree); err != nil {
		return nil, err
	}
	links := false
	for i := range t.files {
		links = links || t.files[i].Link != ""
	}
	tellApart(t.files, links)
	return t, nil
}

// onlyFile returns the name of the one entry of a tree, if that is a file.
func onlyFile(tree []byte) (name []byte, ok bool) {
	entries := 0
	for key, value := range bencode.Keys(tree) {
		entries++
		name, ok = key, len(key) > 0 && isLeaf(value)
	}
	return name, ok && entries == 1
}

// isLeaf reports whether an entry of a tree is a file: a dictionary whose first key is empty.
func isLeaf(value []byte) bool { return bencode.HasFirst(value, "") }

// directory reads the entries of a directory, whose path is safe already, and of all in it. How deep they lie is bounded by maxDepth.
func (t *fileTree) directory(path, dict []byte) (err *Error) {
	type end struct{ path, at int } // of the names of a directory
	ends := []end{{len(path), 0}}
	bencode.Tree(dict, func(depth int, key, value []byte) (into, stop bool) {
		ends = ends[:depth+1]
		path, t.at = path[:ends[depth].path], t.at[:ends[depth].at]
		if depth > 0 {
			t.at = append(t.at, '/')
		}
		t.at = append(t.at, key...)
		switch {
		case len(key) == 0:
			err = t.wrong("", "an entry without a name beside others, or at the root")
			return false, true
		case !bencode.IsDict(value):
			err = t.wrong("", "not a dictionary")
			return false, true
		}
		path = safename.Append(append(path, '/'), key, t.goos)
		if isLeaf(value) {
			err = t.file(path, value)
			return false, err != nil
		}
		ends = append(ends, end{len(path), len(t.at)})
		return true, false
	})
	return err
}

// file reads an entry of the empty key, which has no other beside it. Other bytes may follow dict.
func (t *fileTree) file(path, dict []byte) *Error {
	var props []byte
	entries := 0
	for key, value := range bencode.Keys(dict) {
		if entries++; len(key) == 0 {
			props = value
		}
	}
	if entries > 1 {
		return t.wrong("", "both a file and a directory")
	}
	if !bencode.IsDict(props) {
		return t.wrong("", "not a dictionary")
	}
	e := readFileEntry(props)
	if e.marked('p') {
		return t.wrong(".attr", "a padding file")
	}
	file := layout.File{Path: string(path)}
	var root merkle.Hash
	if e.symlink() {
		for element := range bencode.Elems(e.target) {
			if _, ok := bencode.String(element); !ok {
				return t.wrong(".symlink path", "an element is not a string")
			}
		}
		file.Pad = true
		file.Link = e.pointsTo(t.name, t.goos)
	} else {
		var err *Error
		if file.Length, root, err = t.content(&e); err != nil {
			return err
		}
	}
	if t.paths += len(file.Path) + len(file.Link); t.paths > MaxPaths {
		return &Error{Field: "info.file tree", Reason: fmt.Sprintf("all paths together over %d MiB", MaxPaths>>20)}
	}
	return t.add(file, root)
}

// content reads the length of a file and the root of its hash tree.
func (t *fileTree) content(e *fileEntry) (length int64, root merkle.Hash, err *Error) {
	length, ok := bencode.Int(e.length)
	switch {
	case e.length == nil:
		return 0, root, t.wrong(".length", "missing")
	case !ok:
		return 0, root, t.wrong(".length", "not an integer")
	case length < 0:
		return 0, root, t.wrong(".length", "negative")
	case length == 0:
		return 0, root, nil
	}
	s, ok := bencode.String(e.root)
	switch {
	case e.root == nil:
		return 0, root, t.wrong(".pieces root", "missing")
	case !ok:
		return 0, root, t.wrong(".pieces root", "not a string")
	case len(s) != merkle.Size:
		return 0, root, t.wrong(".pieces root", fmt.Sprintf("%d bytes, not %d", len(s), merkle.Size))
	}
	if root = merkle.Hash(s); root == (merkle.Hash{}) {
		return 0, root, t.wrong(".pieces root", "zeros")
	}
	return length, root, nil
}

// add appends a file, and before it padding up to the next piece.
func (t *fileTree) add(file layout.File, root merkle.Hash) *Error {
	fill := (t.pieceLength - t.size%t.pieceLength) % t.pieceLength
	if file.Length > 0 && file.Length > math.MaxInt64-t.size-fill {
		return t.wrong(".length", "sum of all lengths over 64 bits")
	}
	if file.Length > 0 && fill > 0 {
		t.files = append(t.files, layout.File{Path: t.name + "/.pad/" + strconv.FormatInt(fill, 10), Length: fill, Pad: true})
		t.roots = append(t.roots, merkle.Hash{})
		t.size += fill
	}
	t.size += file.Length
	t.files = append(t.files, file)
	t.roots = append(t.roots, root)
	return nil
}

// wrong is the error for a key of the entry that is being read.
func (t *fileTree) wrong(key, reason string) *Error {
	return &Error{Field: fmt.Sprintf("info.file tree[%.200q]%s", t.at, key), Reason: reason}
}

// match returns the roots of the files of a hybrid, by their index in the list of version 1. Both lists must describe the same
// content: the same files at the same offsets in the same order, where only padding between them, and at the end, need not be
// named alike.
func (t *fileTree) match(list []layout.File, multi bool) ([]merkle.Hash, *Error) {
	if multi != t.multi {
		return nil, inconsistent("one file, where the file tree has a directory")
	}
	roots := make([]merkle.Hash, len(list))
	k := 0
	var offset, offset2 int64
	for i := range list {
		f := &list[i]
		if f.Pad && f.Link == "" {
			offset += f.Length
			continue
		}
		for k < len(t.files) && t.files[k].Pad && t.files[k].Link == "" {
			offset2 += t.files[k].Length
			k++
		}
		if k == len(t.files) {
			return nil, inconsistent(fmt.Sprintf("files[%d] is not in the file tree", i))
		}
		switch g := &t.files[k]; {
		case f.Path != g.Path || f.Link != g.Link || f.Pad != g.Pad:
			return nil, inconsistent(fmt.Sprintf("files[%d] is %.200q, and %.200q in the file tree", i, f.Path, g.Path))
		case f.Length != g.Length:
			return nil, inconsistent(fmt.Sprintf("files[%d] has %d bytes, and %d in the file tree", i, f.Length, g.Length))
		case f.Length > 0 && offset != offset2:
			return nil, inconsistent(fmt.Sprintf("files[%d] begins at %d, and at %d in the file tree", i, offset, offset2))
		}
		roots[i] = t.roots[k]
		offset += f.Length
		offset2 += t.files[k].Length
		k++
	}
	for ; k < len(t.files); k++ {
		if f := &t.files[k]; !f.Pad || f.Link != "" {
			return nil, inconsistent(fmt.Sprintf("%.200q of the file tree is not in files", f.Path))
		}
	}
	if fill := (t.pieceLength - t.size%t.pieceLength) % t.pieceLength; offset != t.size && offset != t.size+fill {
		return nil, inconsistent(fmt.Sprintf("%d bytes, and %d in the file tree", offset, t.size))
	}
	return roots, nil
}

func inconsistent(reason string) *Error {
	return &Error{Field: "info.files", Reason: "not what the file tree says: " + reason}
}
