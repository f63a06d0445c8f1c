package torrent

import (
	"cmp"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/bits"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-go/torrent/internal/bencode"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/merkle"
	"github.com/shoal-go/torrent/internal/metainfo"
)

// CreateOptions say what kind of torrent Create makes. A nil *CreateOptions and the zero value both
// mean the defaults.
type CreateOptions struct {
	// Name is the name of the file, or of the directory of the files, in the torrent. Empty is the last
	// element of the path.
	Name string
	// Version is by which rules the torrent is made: V1, which every client reads, Hybrid, or V2. Version 2 alone does not
	// distinguish a directory that holds a single file from that file, so V2 makes the torrent of the file.
	Version Version
	// PieceLength is in bytes, 1 to 512 MiB. Other clients expect a power of two of at least 16 KiB, and versions other than V1
	// require one. 0 is the smallest such number that makes at most 2000 pieces, and at most 16 MiB.
	PieceLength int64
	// Private asks clients to take peers only from the trackers (BEP 27). It changes the info hash.
	Private bool
	// Trackers are the announce URLs (http, https or udp) in tiers (BEP 12).
	Trackers [][]string
	// WebSeeds are http or https URLs from which the content is available (BEP 19).
	WebSeeds []string
	// Comment and CreatedBy are free text. Empty text is left out.
	Comment, CreatedBy string
	// CreationDate is kept to the second. Zero is left out, so that the same content makes the same torrent.
	CreationDate time.Time
	// Pad inserts padding files (BEP 47), so that every file that is not empty begins with a piece of its own. In versions other
	// than V1 it does anyway.
	Pad bool
	// Include chooses the entries of a directory. It is called for each, with its slash-separated path below the
	// directory. If it returns false for a directory, everything in it is left out. Nil includes all.
	Include func(path string, entry fs.DirEntry) bool
	// Progress is called with the number of bytes hashed, of total. done never falls and ends at total. Calls
	// come one at a time, and hashing waits for them to return.
	Progress func(done, total int64)
}

// Create makes the torrent of a file, or of all files in a directory and the directories in it. It
// reads the content once, on all cores.
//
// Files are sorted by the bytes of their paths, hidden and empty ones included, so that the same content and options make the
// same torrent, with the same info hash as mktorrent. In versions other than V1 they are sorted name by name, and the info hashes
// are those of libtorrent without attributes. Path itself may be a symbolic link. A link, a device or another special file in a
// directory is an error that matches ErrUnsupported, unless Include leaves it out. So is a name that Read would change, because
// the content would not be found under it, and one that Read would take for that of padding, unless the version is V2. It is also
// an error if a file changes while Create reads it, or if there are no bytes of content.
func Create(path string, o *CreateOptions) (*Torrent, error) {
	return CreateContext(context.Background(), path, o)
}

// CreateContext is Create, but ends early when ctx ends, with its error. If the disk hangs, it ends a few seconds later, and a call
// of a function of o that is under way goes on.
func CreateContext(ctx context.Context, path string, o *CreateOptions) (*Torrent, error) {
	return createInTime(ctx, path, func() (*Torrent, error) { return createPath(ctx, path, cmp.Or(o, &CreateOptions{})) })
}

// createInTime returns the result of create, which makes a torrent of what is named. If ctx has ended, the error is that of ctx.
func createInTime(ctx context.Context, of string, create func() (*Torrent, error)) (*Torrent, error) {
	var made *Torrent
	err := inTime(ctx, func() (err error) {
		made, err = create()
		return err
	})
	switch {
	case err == nil:
		return made, nil
	case ctx.Err() != nil:
		err = contextError(ctx)
	}
	return nil, fmt.Errorf("create torrent of %s: %w", of, err)
}

func createPath(ctx context.Context, path string, o *CreateOptions) (*Torrent, error) {
	name := o.Name
	if name == "" {
		// "." and ".." stand for a directory that has a name.
		abs, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		name = filepath.Base(abs)
	}
	root, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	return create(ctx, systemFiles{}, root, name, o)
}

// contentFile is a file of the torrent to be made.
type contentFile struct {
	path    string // in its source; a padding file has none
	name    string // below the torrent's directory, with slashes
	length  int64
	offset  int64 // of its first byte in the content
	modTime time.Time
}

// create makes the torrent in three steps. It finds the content and lays it out. It makes a torrent of that with
// empty hashes, to find errors before it reads the content. Then it hashes the pieces.
func create(ctx context.Context, src source, root, name string, o *CreateOptions) (*Torrent, error) {
	p, err := newPlan(ctx, src, root, name, o)
	if err != nil {
		return nil, err
	}
	sums := newSums(p)
	t, err := p.torrent(sums)
	if err != nil {
		return nil, err
	}
	if err := p.checkNames(t); err != nil {
		return nil, err
	}
	if err := sumPieces(ctx, src, sums, p); err != nil {
		return nil, err
	}
	return p.torrent(sums)
}

// plan holds everything in a torrent except the hashes of its pieces.
type plan struct {
	o           *CreateOptions
	name        string
	files       []contentFile // in torrent order, padding included
	multi       bool          // the files are those of a directory
	length      int64         // bytes of content
	total       int64         // padding included
	pieceLength int64
	layout      layout.Layout // of files
}

// newPlan finds the content at root, and lays it out as o says.
func newPlan(ctx context.Context, src source, root, name string, o *CreateOptions) (p *plan, err error) {
	if err := checkURLs(o); err != nil {
		return nil, err
	}
	p = &plan{o: o, name: name, pieceLength: o.PieceLength}
	if p.files, p.multi, err = findContent(ctx, src, root, o.Include); err != nil {
		return nil, err
	}
	if p.length, err = layOut(p.files); err != nil {
		return nil, err
	}
	if p.length == 0 {
		return nil, errors.New("no content: there is no file, or all are empty")
	}
	if o.Version != V1 {
		slices.SortFunc(p.files, func(a, b contentFile) int {
			return slices.Compare(strings.Split(a.name, "/"), strings.Split(b.name, "/"))
		})
	}
	return p, p.cut()
}

// checkURLs returns an error for a tracker or web seed that no client could use.
func checkURLs(o *CreateOptions) error {
	for _, tracker := range slices.Concat(o.Trackers...) {
		if !metainfo.IsTracker(tracker) {
			return fmt.Errorf("tracker %q: not an http, https or udp URL", tracker)
		}
	}
	for _, seed := range o.WebSeeds {
		if !metainfo.IsWebSeed(seed) {
			return fmt.Errorf("web seed %q: not an http or https URL", seed)
		}
	}
	return nil
}

// cut chooses the piece length, and pads the files if the options or the version ask for it.
func (p *plan) cut() (err error) {
	if p.pieceLength == 0 {
		p.pieceLength = choosePieceLength(p.length)
	}
	if p.pieceLength < 1 || p.pieceLength > metainfo.MaxPieceLength {
		return fmt.Errorf("piece length %d is not within 1 and %d", p.pieceLength, metainfo.MaxPieceLength)
	}
	v2 := p.o.Version != V1
	switch {
	case p.o.Version > V2:
		return fmt.Errorf("%v: %w", p.o.Version, ErrUnsupported)
	case v2 && (p.pieceLength < metainfo.MinPieceLengthV2 || bits.OnesCount64(uint64(p.pieceLength)) != 1):
		return fmt.Errorf("piece length %d is not a power of two of at least %d, as version 2 requires", p.pieceLength, metainfo.MinPieceLengthV2)
	case p.o.Version == Hybrid && len(p.files) > 1:
		p.files = padAll(p.files, p.pieceLength)
	case (p.o.Pad || v2) && p.multi:
		p.files = pad(p.files, p.pieceLength)
	}
	if p.total, err = layOut(p.files); err != nil {
		return err
	}
	size := int64(0) // bytes of hashes a piece
	if p.o.Version != V2 {
		size += sha1.Size
	}
	if v2 {
		size += merkle.Size
	}
	if (p.total-1)/p.pieceLength >= metainfo.MaxSize/size {
		return fmt.Errorf("pieces of %d bytes are too short: the hashes of %d bytes would take more than %d MiB", p.pieceLength, p.total, metainfo.MaxSize>>20)
	}
	files := make([]layout.File, len(p.files))
	for i, f := range p.files {
		files[i] = layout.File{Path: f.name, Length: f.length, Pad: f.path == ""}
	}
	if v2 {
		p.layout = layout.NewAligned(p.pieceLength, files...)
	} else {
		p.layout = layout.New(p.pieceLength, files...)
	}
	return nil
}

// torrent returns the torrent of the plan and the hashes of its pieces.
func (p *plan) torrent(s *sums) (*Torrent, error) {
	info, err := p.encodeInfo(s)
	if err != nil {
		return nil, err
	}
	return newTorrent(info, outer{
		trackers:     p.o.Trackers,
		webSeeds:     p.o.WebSeeds,
		comment:      p.o.Comment,
		createdBy:    p.o.CreatedBy,
		creationDate: p.o.CreationDate,
		layers:       s.layers,
	})
}

// findContent lists the files below root, sorted. multi reports whether root is a directory.
func findContent(ctx context.Context, src source, root string, include func(string, fs.DirEntry) bool) (files []contentFile, multi bool, err error) {
	err = src.walk(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if path == root {
			multi = entry.IsDir()
		}
		name, err := src.rel(root, path)
		if err != nil {
			return err
		}
		if path != root && include != nil && !include(name, entry) {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if entry.IsDir() {
			return nil
		}
		// entry.Info may be out of date on Windows.
		info, err := src.lstat(path)
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
	return "a special file"
}

// choosePieceLength keeps the torrent small, with enough pieces that peers soon have some to share.
func choosePieceLength(length int64) int64 {
	const least, most, pieces = 16 << 10, 16 << 20, 2000
	n := int64(least)
	for n < most && n*pieces < length {
		n *= 2
	}
	return n
}

// pad inserts a padding file before every file that does not begin with a piece.
func pad(files []contentFile, pieceLength int64) []contentFile {
	padded := make([]contentFile, 0, 2*len(files))
	var fill int64 // bytes of the last piece that are taken
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

// padAll inserts a padding file behind every file that does not end with a piece, the last one included, as libtorrent does in
// hybrids of more than one file.
func padAll(files []contentFile, pieceLength int64) []contentFile {
	padded := make([]contentFile, 0, 2*len(files))
	for _, f := range files {
		padded = append(padded, f)
		if n := (pieceLength - f.length%pieceLength) % pieceLength; n > 0 {
			padded = append(padded, contentFile{name: ".pad/" + strconv.FormatInt(n, 10), length: n})
		}
	}
	return padded
}

// layOut gives each file its offset, and returns the bytes of all of them.
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

// encodeInfo encodes the info dictionary (BEP 3, BEP 52).
func (p *plan) encodeInfo(s *sums) ([]byte, error) {
	type entry struct {
		Attr   string   `bencode:"attr,omitempty"`
		Length int64    `bencode:"length"`
		Path   []string `bencode:"path"`
	}
	info := struct {
		FileTree    map[string]any `bencode:"file tree,omitempty"`
		Files       []entry        `bencode:"files,omitempty"`
		Length      int64          `bencode:"length,omitempty"`
		MetaVersion int            `bencode:"meta version,omitempty"`
		Name        string         `bencode:"name"`
		PieceLength int64          `bencode:"piece length"`
		Pieces      []byte         `bencode:"pieces,omitempty"`
		Private     bool           `bencode:"private,omitempty"`
	}{Name: p.name, PieceLength: p.pieceLength, Pieces: s.v1, Private: p.o.Private}
	if p.o.Version != V1 {
		info.MetaVersion, info.FileTree = 2, p.fileTree(s)
	}
	switch {
	case p.o.Version == V2:
	case !p.multi:
		info.Length = p.files[0].length
	default:
		for _, f := range p.files {
			e := entry{Length: f.length, Path: strings.Split(f.name, "/")}
			if f.path == "" {
				e.Attr = "p"
			}
			info.Files = append(info.Files, e)
		}
	}
	return bencode.Marshal(info)
}

// fileTree is the file tree of version 2.
func (p *plan) fileTree(s *sums) map[string]any {
	type leaf struct {
		Length int64  `bencode:"length"`
		Root   []byte `bencode:"pieces root,omitempty"`
	}
	tree := make(map[string]any)
	for i, f := range p.files {
		if f.path == "" {
			continue
		}
		names := []string{p.name}
		if p.multi {
			names = strings.Split(f.name, "/")
		}
		dir := tree
		for _, name := range names {
			below, ok := dir[name].(map[string]any)
			if !ok {
				below = make(map[string]any)
				dir[name] = below
			}
			dir = below
		}
		e := leaf{Length: f.length}
		if f.length > 0 {
			e.Root = s.roots[i][:]
		}
		dir[""] = e
	}
	return tree
}

// checkNames makes sure that the names in the torrent are those of the files, so that the content is found.
func (p *plan) checkNames(t *Torrent) error {
	if p.multi && !t.multi {
		if only := p.files[0].name; t.name != only {
			return unsafeName(only, t.name)
		}
		return nil
	}
	if t.name != p.name {
		return unsafeName(p.name, t.name)
	}
	for i, f := range t.layout.Files() {
		if p.files[i].path != "" && f.Pad {
			return fmt.Errorf("%s has the name of padding, and would be read as zeros: %w", p.files[i].path, ErrUnsupported)
		}
		if p.files[i].path != "" && t.multi && f.Path != p.name+"/"+p.files[i].name {
			return unsafeName(p.files[i].name, f.Path)
		}
	}
	return nil
}

func unsafeName(name, as string) error {
	return fmt.Errorf("name %q is not safe everywhere and would be read as %q: %w", name, as, ErrUnsupported)
}
