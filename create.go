package torrent

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-go/torrent/internal/bencode"
)

// CreateOptions say what kind of torrent Create makes. A nil *CreateOptions and the zero value both
// mean the defaults.
type CreateOptions struct {
	// Name is what the file, or the directory of the files, is called in the torrent. Empty is the
	// last element of the path.
	Name string
	// PieceLength is in bytes, 1 to 512 MiB; other clients want a power of two of at least 16 KiB.
	// 0 is the least such number that makes at most 2000 pieces, and at most 16 MiB.
	PieceLength int64
	// Private asks clients to take peers from the trackers alone (BEP 27). It is part of what the
	// info hash is made of.
	Private bool
	// Trackers are the announce URLs (http, https or udp) in tiers (BEP 12).
	Trackers [][]string
	// WebSeeds are http or https URLs where the content is to be had (BEP 19).
	WebSeeds []string
	// Comment and CreatedBy are free text; empty is left out.
	Comment, CreatedBy string
	// CreationDate is kept to the second. Zero is left out, so that equal content makes equal torrents.
	CreationDate time.Time
	// Pad lets every file but the empty ones begin with a piece of its own, by padding files between
	// them (BEP 47).
	Pad bool
	// Include chooses what of a directory goes in: it is asked for each entry, by its path below the
	// directory with slashes, and leaves out with a directory all that is in it. Nil is everything.
	Include func(path string, entry fs.DirEntry) bool
	// Progress is told how many of the total bytes are hashed. done never falls and ends at total.
	// Calls come one at a time, from goroutines that wait for it to return.
	Progress func(done, total int64)
}

// Create makes the torrent of a file, or of all files in a directory and the directories in it. The
// content is read once, on all cores.
//
// Files come in the order of their paths as bytes, hidden and empty ones with the others, so that the
// same content and options make the same torrent, and the same info hash as mktorrent. Path itself
// may be a symbolic link. In a directory a link, a device or whatever else is not a file or a
// directory is an error that matches ErrUnsupported, rather than a torrent that lacks it; Include can
// leave it out. So is a name that Read would have to change, for then the content would not be found
// under it. A file that changes while Create reads it, and content of no bytes, are errors too.
func Create(path string, o *CreateOptions) (*Torrent, error) {
	return CreateContext(context.Background(), path, o)
}

// CreateContext is Create that ends early, with ctx's error, when ctx does.
func CreateContext(ctx context.Context, path string, o *CreateOptions) (*Torrent, error) {
	if o == nil {
		o = &CreateOptions{}
	}
	t, err := create(ctx, path, o)
	if err != nil {
		if ctx.Err() != nil {
			err = contextError(ctx)
		}
		return nil, fmt.Errorf("create torrent of %s: %w", path, err)
	}
	return t, nil
}

// contentFile is a file whose bytes go into a torrent.
type contentFile struct {
	path    string // on disk; a padding file has none
	name    string // below the torrent's directory, with slashes
	length  int64
	offset  int64 // of its first byte in the content
	modTime time.Time
}

func create(ctx context.Context, path string, o *CreateOptions) (*Torrent, error) {
	for _, tracker := range slices.Concat(o.Trackers...) {
		if !isTracker(tracker) {
			return nil, fmt.Errorf("tracker %q: not a http, https or udp URL", tracker)
		}
	}
	for _, seed := range o.WebSeeds {
		if !isWebSeed(seed) {
			return nil, fmt.Errorf("web seed %q: not a http or https URL", seed)
		}
	}
	name := o.Name
	if name == "" {
		// Of "." or "..", the name is that of the directory.
		abs, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		name = filepath.Base(abs)
	}

	files, multi, err := findContent(ctx, path, o.Include)
	if err != nil {
		return nil, err
	}
	length, err := layOut(files)
	if err != nil {
		return nil, err
	}
	if length == 0 {
		return nil, errors.New("no content: there is no file that is not empty")
	}
	pieceLength := o.PieceLength
	if pieceLength == 0 {
		pieceLength = choosePieceLength(length)
	}
	if pieceLength < 1 || pieceLength > maxPieceLength {
		return nil, fmt.Errorf("piece length %d is not within 1 and %d", pieceLength, maxPieceLength)
	}
	total := length
	if o.Pad && multi {
		files = pad(files, pieceLength)
		if total, err = layOut(files); err != nil {
			return nil, err
		}
	}
	if (total-1)/pieceLength >= maxMetainfo/sha1.Size {
		return nil, fmt.Errorf("pieces of %d bytes are too short: the hashes of %d bytes would take more than %d MiB", pieceLength, total, maxMetainfo>>20)
	}

	describe := func(pieces []byte) (*Torrent, error) {
		info, err := encodeInfo(name, files, multi, pieceLength, pieces, o.Private)
		if err != nil {
			return nil, err
		}
		return newTorrent(info, outer{
			trackers:     o.Trackers,
			webSeeds:     o.WebSeeds,
			comment:      o.Comment,
			createdBy:    o.CreatedBy,
			creationDate: o.CreationDate,
		})
	}
	// What no torrent can say is better known before the content is read than after.
	pieces := make([]byte, ((total-1)/pieceLength+1)*sha1.Size)
	t, err := describe(pieces)
	if err != nil {
		return nil, err
	}
	if err := checkNames(t, name, files); err != nil {
		return nil, err
	}
	if err := sumPieces(ctx, pieces, files, total, pieceLength, progressOf(length, o.Progress)); err != nil {
		return nil, err
	}
	return describe(pieces)
}

// findContent lists the files below path, sorted. multi tells whether path is a directory.
func findContent(ctx context.Context, path string, include func(string, fs.DirEntry) bool) (files []contentFile, multi bool, err error) {
	root, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, false, err
	}
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if path == root {
			multi = entry.IsDir()
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if path != root && include != nil && !include(name, entry) {
			if entry.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		if entry.IsDir() {
			return nil
		}
		// Not entry.Info, which on Windows may be out of date.
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is %s, neither a file nor a directory: %w", path, kindOf(info.Mode()), ErrUnsupported)
		}
		files = append(files, contentFile{path: path, name: name, length: info.Size(), modTime: info.ModTime()})
		return nil
	})
	slices.SortFunc(files, func(a, b contentFile) int { return strings.Compare(a.name, b.name) })
	return files, multi, err
}

func kindOf(mode fs.FileMode) string {
	switch {
	case mode&fs.ModeSymlink != 0:
		return "a symbolic link"
	case mode&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeDevice != 0:
		return "a device"
	}
	return "something special"
}

// choosePieceLength keeps the torrent small and yet the pieces many enough that peers soon have some
// to share.
func choosePieceLength(length int64) int64 {
	const least, most, pieces = 16 << 10, 16 << 20, 2000
	n := int64(least)
	for n < most && n*pieces < length {
		n *= 2
	}
	return n
}

// pad puts padding files before all files that would else not begin with a piece.
func pad(files []contentFile, pieceLength int64) []contentFile {
	padded := make([]contentFile, 0, 2*len(files))
	var fill int64 // how much of the last piece is taken
	for _, f := range files {
		if fill > 0 && f.length > 0 {
			n := pieceLength - fill
			padded = append(padded, contentFile{name: ".pad/" + strconv.FormatInt(n, 10), length: n})
			fill = 0
		}
		padded = append(padded, f)
		fill = (fill + f.length%pieceLength) % pieceLength
	}
	return padded
}

// layOut gives each source its offset, and returns the bytes of all.
func layOut(files []contentFile) (total int64, err error) {
	for i := range files {
		if files[i].length > math.MaxInt64-total {
			return 0, errors.New("more than 2⁶³ bytes of content")
		}
		files[i].offset = total
		total += files[i].length
	}
	return total, nil
}

// encodeInfo encodes the info dictionary (BEP 3).
func encodeInfo(name string, files []contentFile, multi bool, pieceLength int64, pieces []byte, private bool) ([]byte, error) {
	type entry struct {
		Attr   string   `bencode:"attr,omitempty"`
		Length int64    `bencode:"length"`
		Path   []string `bencode:"path"`
	}
	info := struct {
		Files       []entry `bencode:"files,omitempty"`
		Length      int64   `bencode:"length,omitempty"`
		Name        string  `bencode:"name"`
		PieceLength int64   `bencode:"piece length"`
		Pieces      []byte  `bencode:"pieces"`
		Private     bool    `bencode:"private,omitempty"`
	}{Name: name, PieceLength: pieceLength, Pieces: pieces, Private: private}
	if !multi {
		info.Length = files[0].length
		return bencode.Marshal(info)
	}
	for _, f := range files {
		e := entry{Length: f.length, Path: strings.Split(f.name, "/")}
		if f.path == "" {
			e.Attr = "p"
		}
		info.Files = append(info.Files, e)
	}
	return bencode.Marshal(info)
}

// checkNames makes sure that the content is found again under the names that the torrent has for it.
func checkNames(t *Torrent, name string, files []contentFile) error {
	if t.name != name {
		return fmt.Errorf("name %q is not safe everywhere and would be read as %q: %w", name, t.name, ErrUnsupported)
	}
	for i, f := range t.layout.Files() {
		if files[i].path != "" && t.multi && f.Path != name+"/"+files[i].name {
			return fmt.Errorf("name %q is not safe everywhere and would be read as %q: %w", files[i].name, f.Path, ErrUnsupported)
		}
	}
	return nil
}
