package metainfo

import (
	"bytes"
	"fmt"
	"math/bits"

	"github.com/shoal-go/torrent/internal/bencode"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/merkle"
	"github.com/shoal-go/torrent/internal/safename"
)

const (
	// MaxPieceLength bounds the piece length in bytes.
	MaxPieceLength = 512 << 20
	// MinPieceLengthV2 is the least piece length of version 2 in bytes.
	MinPieceLengthV2 = merkle.BlockSize
	MaxPathDepth     = 128      // elements of a file's path
	MaxPaths         = 64 << 20 // bytes of all paths together, each with the torrent's name
	// maxPieces bounds the pieces of version 2, for which no hash need be there.
	maxPieces = 2 << 20
)

// Info is what an info dictionary says, and the piece layers beside it.
type Info struct {
	V1, V2  bool   // a hybrid is both
	Name    string // sanitised: the file, or the directory that holds the files
	Multi   bool   // Name is a directory
	Length  int64  // bytes of content, padding left out
	Layout  layout.Layout
	Private bool
	Pieces  []byte // of version 1: 20 bytes a piece

	// Of version 2, by the index of a file in Layout.
	Roots  []merkle.Hash // padding and empty files have none
	Layers [][]byte      // of files longer than a piece; nil if it is not there
}

// parse fills in t from an info dictionary, which must be sound.
func (t *Info) parse(info []byte, goos string) *Error {
	k := readInfoKeys(info)
	if err := t.parseVersion(&k); err != nil {
		return err
	}
	if t.V2 {
		if err := checkOrder(info); err != nil {
			return err
		}
	}
	name, err := stringField("info.name", k.name)
	if err != nil {
		return err
	}
	t.Name = string(safename.Append(nil, name, goos))
	pieceLength, err := intField("info.piece length", k.pieceLength)
	if err != nil {
		return err
	}
	if pieceLength < 1 || pieceLength > MaxPieceLength {
		return &Error{Field: "info.piece length", Reason: fmt.Sprintf("%d bytes, not within 1 and %d", pieceLength, MaxPieceLength)}
	}
	if t.V2 && (pieceLength < MinPieceLengthV2 || bits.OnesCount64(uint64(pieceLength)) != 1) {
		return &Error{Field: "info.piece length", Reason: fmt.Sprintf("%d bytes, no power of two of at least %d", pieceLength, MinPieceLengthV2)}
	}
	t.Private = isPrivate(k.private)

	var files []layout.File
	if t.V1 {
		if t.Pieces, err = stringField("info.pieces", k.pieces); err != nil {
			return err
		}
		if k.files != nil {
			// BEP 3 allows no length beside files. If there is one it is the sum; libtorrent, too, ignores it.
			t.Multi = true
			files, err = parseFiles(t.Name, k.files, goos)
		} else {
			files, err = parseSingle(t.Name, k.length)
		}
		if err != nil {
			return err
		}
	}
	if !t.V2 {
		return t.layOut(pieceLength, files)
	}
	tree, err := parseTree(t.Name, k.tree, pieceLength, t.Multi, goos)
	if err != nil {
		return err
	}
	if !t.V1 {
		t.Name, t.Multi = tree.name, tree.multi
		files, t.Roots = tree.files, tree.roots
	} else if t.Roots, err = tree.match(files, t.Multi); err != nil {
		return err
	}
	return t.layOut(pieceLength, files)
}

// parseVersion finds out of which versions the torrent is. A newer one is refused before anything else is (BEP 52).
func (t *Info) parseVersion(k *infoKeys) *Error {
	if k.metaVersion != nil {
		n, err := intField("info.meta version", k.metaVersion)
		if err != nil {
			return err
		}
		if n != 2 {
			return &Error{"info.meta version", fmt.Sprintf("version %d", n), ErrUnsupported}
		}
		t.V2 = true
	} else if k.tree != nil {
		return &Error{Field: "info.meta version", Reason: "missing beside a file tree"}
	}
	t.V1 = !t.V2 || k.pieces != nil || k.files != nil || k.length != nil
	return nil
}

// checkOrder refuses keys that are out of order, which version 2 does not tolerate: the order of a file tree is that of the content.
func checkOrder(info []byte) *Error {
	var last []byte
	for key, value := range bencode.Keys(info) {
		switch {
		case last != nil && bytes.Compare(last, key) > 0:
			return &Error{Field: "info", Reason: fmt.Sprintf("keys out of order: %.200q after %.200q", key, last)}
		case string(key) == "file tree" && !bencode.Sorted(value):
			return &Error{Field: "info.file tree", Reason: "keys out of order"}
		case !bencode.Sorted(value):
			return &Error{Field: "info", Reason: fmt.Sprintf("keys out of order in %.200q", key)}
		}
		last = key
	}
	return nil
}

// infoKeys are values of an info dictionary, encoded. Those that are missing are nil.
type infoKeys struct {
	name, pieceLength, pieces, private, length, files []byte
	metaVersion, tree                                 []byte // of version 2
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
		case "meta version":
			k.metaVersion = value
		case "file tree":
			k.tree = value
		}
	}
	if nameUTF8 != nil {
		k.name = nameUTF8
	}
	return k
}

// layOut cuts the files into pieces. There must be one hash of version 1 for each, if it is of that.
func (t *Info) layOut(pieceLength int64, files []layout.File) *Error {
	total := int64(0)
	for i := range files {
		total += files[i].Length
		if !files[i].Pad {
			t.Length += files[i].Length
		}
	}
	if t.Length == 0 {
		return &Error{Field: "info", Reason: "no content: all files are empty"}
	}
	// The number of pieces is compared before it becomes an int, which may be too small for it.
	want := (total-1)/pieceLength + 1
	if t.V1 && (len(t.Pieces)%20 != 0 || int64(len(t.Pieces)/20) != want) {
		return &Error{Field: "info.pieces", Reason: fmt.Sprintf("%d bytes, not 20 for each of %d pieces", len(t.Pieces), want)}
	}
	if !t.V2 {
		t.Layout = layout.New(pieceLength, files...)
		return nil
	}
	if want > maxPieces {
		return &Error{Field: "info.file tree", Reason: fmt.Sprintf("%d pieces, more than %d", want, maxPieces)}
	}
	t.Layout = layout.NewAligned(pieceLength, files...)
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

func parseSingle(name string, length []byte) ([]layout.File, *Error) {
	n, err := intField("info.length", length)
	if err != nil {
		return nil, err
	}
	if n < 0 {
		return nil, &Error{Field: "info.length", Reason: "negative"}
	}
	return []layout.File{{Path: name, Length: n}}, nil
}
