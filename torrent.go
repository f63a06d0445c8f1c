package torrent

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"time"

	"github.com/shoal-go/torrent/internal/bencode"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/listing"
	"github.com/shoal-go/torrent/internal/metainfo"
	"github.com/shoal-go/torrent/internal/piecehash"
)

// Torrent is the content of a .torrent file (BEP 3, BEP 52). It does not change, except that downloads may add piece layers that
// the file lacked. It may be used from several goroutines at once.
type Torrent struct {
	raw      []byte // the whole file, as it was read
	info     []byte // the info dictionary, as it stands in raw
	infoHash Hash   // SHA-1 of info; of version 2 alone SHA-256, cut to 20 bytes

	version    Version
	infoHashV2 HashV2            // unless the version is V1
	hashes     *piecehash.Pieces // likewise

	name         string // sanitised: the file, or the directory that holds the files
	length       int64  // bytes of content, padding left out
	layout       layout.Layout
	pieces       []byte // 20 bytes a piece; none of version 2 alone
	private      bool
	trackers     [][]string
	webSeeds     []string
	nodes        []string // host:port, BEP 5
	comment      string
	createdBy    string
	creationDate time.Time

	peers []netip.AddrPort // of a magnet link, tried in addition to others

	multi bool // has a files list, so name is a directory
}

// Version says by which rules a torrent was made.
type Version uint8

const (
	V1     Version = iota // BEP 3
	Hybrid                // both: a program that knows only one of them downloads the same files
	V2                    // BEP 52
)

var versionNames = [...]string{"1", "hybrid", "2"}

// String is 1, hybrid or 2.
func (v Version) String() string {
	if int(v) < len(versionNames) {
		return versionNames[v]
	}
	return "version " + strconv.Itoa(int(v))
}

// MarshalText is String as encoding.TextMarshaler has it.
func (v Version) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// Version returns the version of the torrent.
func (t *Torrent) Version() Version { return t.version }

// File is one file of a torrent.
type File struct {
	// Path is slash-separated and safe to join to a directory: "name", or "name/sub/file". It is the path of the
	// torrent, changed only where no file system could use it safely. If the file system at hand does not accept it,
	// the file has a similar name there. It may contain invisible characters; PrintTree shows them.
	Path string
	// Length is in bytes.
	Length int64
	// Index is the position in the torrent's list of files, from 0. Padding files are counted, and so is the padding
	// between files that version 2 implies without listing it.
	Index int
	// Offset is the offset of the file's first byte in the content, padding included.
	Offset int64
	// LinkTarget is where a symbolic link points (BEP 47): a path in the form of Path, of a file or a directory that the torrent
	// may or may not have. It is empty if the file is no link. A link has no bytes and is not downloaded. With Options.Dir it is
	// made once all wanted files are complete, if it leads to a wanted file or directory, directly or through other links, and not
	// to a directory that contains the link. An existing file in its place is not replaced. If the system has no symbolic links,
	// the link is left out, and this is logged.
	LinkTarget string
}

// Name is the suggested name of the file, or of the directory that holds the files.
func (t *Torrent) Name() string { return t.name }

// InfoHash identifies the torrent where 20 bytes are used: SHA-1 over the info dictionary as it was written, or for version 2
// alone the first 20 bytes of InfoHashV2.
func (t *Torrent) InfoHash() Hash { return t.infoHash }

// InfoHashV2 returns the info hash of a torrent of version 2 or a hybrid: SHA-256 over the info dictionary as it was
// written. It returns false for a torrent of version 1 alone.
func (t *Torrent) InfoHashV2() (HashV2, bool) { return t.infoHashV2, t.version != V1 }

// Length is the content's size in bytes, padding files left out.
func (t *Torrent) Length() int64 { return t.length }

// Size is the number of bytes of all pieces, padding files included. It is the size of a Storage.
func (t *Torrent) Size() int64 { return t.layout.Size() }

// Bytes returns the .torrent file as it was read. If it lacked piece layers (BEP 52), as the torrent of a magnet link does, the
// layers that a download of t has learned since are added. The caller may change the result.
func (t *Torrent) Bytes() []byte { return bytes.Clone(t.encoded()) }

// encoded is like Bytes, but the result must not be written to.
func (t *Torrent) encoded() []byte {
	if t.version == V1 {
		return t.raw
	}
	return metainfo.WithLayers(t.raw, t.hashes.Learned())
}

// String is the name and the info hash, for logs.
func (t *Torrent) String() string { return fmt.Sprintf("%s (%s)", t.name, t.infoHash) }

// PieceLength is the size in bytes of every piece but the last, which of version 2 and hybrids is the last of each file.
// Piece i begins at i times PieceLength in the content, as File.Offset counts it.
func (t *Torrent) PieceLength() int64 { return t.layout.PieceLength() }

// NumPieces is the number of pieces, at least one.
func (t *Torrent) NumPieces() int { return t.layout.NumPieces() }

// Private reports whether peers may come only from the torrent's trackers (BEP 27).
func (t *Torrent) Private() bool { return t.private }

// Trackers returns the announce URLs in tiers (BEP 12). The caller may change the result.
func (t *Torrent) Trackers() [][]string {
	tiers := make([][]string, len(t.trackers))
	for i, tier := range t.trackers {
		tiers[i] = append([]string(nil), tier...)
	}
	return tiers
}

// WebSeeds are the URLs of url-list (BEP 19).
func (t *Torrent) WebSeeds() []string { return append([]string(nil), t.webSeeds...) }

// Comment is the author's free text, or empty.
func (t *Torrent) Comment() string { return t.comment }

// CreatedBy names the program that made the torrent, or is empty.
func (t *Torrent) CreatedBy() string { return t.createdBy }

// CreationDate is when the torrent was made; zero if it does not say.
func (t *Torrent) CreationDate() time.Time { return t.creationDate }

// Files yields the files in torrent order, symbolic links among them and padding files left out.
func (t *Torrent) Files() iter.Seq[File] {
	return func(yield func(File) bool) {
		for i, f := range t.layout.Files() {
			if (!f.Pad || f.Link != "") && !yield(t.file(i)) {
				return
			}
		}
	}
}

// PrintTree writes the directories and files as a tree for people to read: one line each, with a size
// and a name, and at the end the number of files and the total size. The size of a directory is that of
// everything in it. Names are sorted as people count (2 before 10), and a directory that holds only one
// other directory shares its line. A symbolic link is followed by an arrow and the path in the torrent that it
// points to, and does not count as a file. Padding files are left out. The error is w's.
//
// Each name takes one line and moves no other column, no matter what characters it has.
func (t *Torrent) PrintTree(w io.Writer) error {
	l := listing.Listing{Name: t.name, Directory: t.multi, Length: t.length}
	for f := range t.Files() {
		l.Files = append(l.Files, listing.File{Path: f.Path, Length: f.Length, LinkTarget: f.LinkTarget})
	}
	return l.Print(w)
}

// file is the file with index i.
func (t *Torrent) file(i int) File {
	f := t.layout.File(i)
	return File{Path: f.Path, Length: f.Length, Index: i, Offset: f.Offset, LinkTarget: f.Link}
}

// pieceHash is the SHA-1 that piece i must have.
func (t *Torrent) pieceHash(i int) (h Hash) {
	copy(h[:], t.pieces[20*i:])
	return h
}

// Read reads the .torrent file at path. Its errors are those of opening and reading the file, and
// those of Parse.
func Read(path string) (*Torrent, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// A file that is too large is refused before it is read. A special file has size 0 here.
	if st, err := f.Stat(); err == nil && st.Size() > metainfo.MaxSize {
		return nil, fmt.Errorf("%s: %w", path, (*MetainfoError)(metainfo.TooLarge()))
	}
	t, err := Parse(f)
	if _, ok := errors.AsType[*MetainfoError](err); ok {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, err
}

// Parse reads a .torrent file of version 1 (BEP 3), of version 2 (BEP 52), or a hybrid of both, from r up to its end. The
// error is a *MetainfoError if the file ends early, exceeds the bounds of this package or has a malformed info dictionary,
// if the two file lists of a hybrid disagree, or if piece layers do not hash to their roots or belong to no file. For a
// newer version the error matches ErrUnsupported. Missing layers are not an error: a download asks its peers for them.
//
// Outside the info dictionary, malformed values are left out, bytes after the end of the file's dictionary are
// ignored, and if a key is repeated the last one counts. URLs of trackers and web seeds that this package cannot use
// are left out as well. Names of files are changed where they would be unsafe.
func Parse(r io.Reader) (*Torrent, error) {
	raw, err := io.ReadAll(io.LimitReader(r, metainfo.MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read torrent: %w", err)
	}
	return parseMetainfo(raw, runtime.GOOS)
}

// WriteTo writes the .torrent file, which is Bytes.
func (t *Torrent) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(t.encoded())
	return int64(n), err
}

// outer holds the values of a .torrent file outside its info dictionary. All of them are optional.
type outer struct {
	trackers           [][]string
	webSeeds           []string
	nodes              []string // host:port
	comment, createdBy string
	creationDate       time.Time
	layers             map[string][]byte // of version 2, by root
}

// newTorrent makes a torrent of an encoded info dictionary and the outer fields, under the rules of Parse. It
// keeps no reference to its arguments.
func newTorrent(info []byte, o outer) (*Torrent, error) {
	// After an info dictionary that ended early, its rest would be read as outer fields.
	if n, err := bencode.Scan(info, metainfo.Limits()); err != nil {
		return nil, malformed("info", err)
	} else if n < len(info) {
		return nil, malformed("info", &bencode.SyntaxError{Offset: n, Reason: "bytes behind the value"})
	}

	file := struct {
		Announce     string            `bencode:"announce,omitempty"`
		AnnounceList [][]string        `bencode:"announce-list,omitempty"`
		Comment      string            `bencode:"comment,omitempty"`
		CreatedBy    string            `bencode:"created by,omitempty"`
		CreationDate int64             `bencode:"creation date,omitempty"`
		Info         bencode.Raw       `bencode:"info"`
		Nodes        [][]any           `bencode:"nodes,omitempty"`
		Layers       map[string][]byte `bencode:"piece layers,omitempty"`
		URLList      []string          `bencode:"url-list,omitempty"`
	}{Comment: o.comment, CreatedBy: o.createdBy, Info: info, Layers: o.layers, URLList: o.webSeeds}
	for _, tier := range o.trackers {
		if len(tier) > 0 {
			file.AnnounceList = append(file.AnnounceList, tier)
		}
	}
	if len(file.AnnounceList) > 0 {
		file.Announce = file.AnnounceList[0][0]
		if len(file.AnnounceList) == 1 && len(file.AnnounceList[0]) == 1 {
			file.AnnounceList = nil
		}
	}
	for _, node := range o.nodes {
		host, port, err := net.SplitHostPort(node)
		if err != nil {
			return nil, malformed("nodes", err)
		}
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return nil, malformed("nodes", err)
		}
		file.Nodes = append(file.Nodes, []any{host, n})
	}
	if !o.creationDate.IsZero() {
		file.CreationDate = o.creationDate.Unix()
	}
	raw, err := bencode.Marshal(file)
	if err != nil {
		return nil, fmt.Errorf("make torrent: %w", err)
	}
	return parseMetainfo(raw, runtime.GOOS)
}

// parseMetainfo reads a whole .torrent file, which the result keeps. Names are made safe for goos.
func parseMetainfo(raw []byte, goos string) (*Torrent, error) {
	f, err := metainfo.Parse(raw, goos)
	if err != nil {
		return nil, (*MetainfoError)(err)
	}
	t := &Torrent{
		raw: raw, info: f.Encoded,
		name: f.Info.Name, multi: f.Info.Multi, length: f.Info.Length, layout: f.Info.Layout,
		private: f.Info.Private, pieces: f.Info.Pieces,
		trackers: f.Trackers, webSeeds: f.WebSeeds, nodes: f.Nodes,
		comment: f.Comment, createdBy: f.CreatedBy, creationDate: f.CreationDate,
	}
	if f.Info.V2 {
		t.infoHashV2 = sha256.Sum256(t.info)
		t.hashes = piecehash.New(t.layout, f.Info.Roots, f.Info.Layers)
		t.version = V2
		t.infoHash = t.infoHashV2.truncated()
	}
	if f.Info.V1 {
		t.infoHash = sha1.Sum(t.info)
		if f.Info.V2 {
			t.version = Hybrid
		}
	}
	return t, nil
}

func malformed(field string, err error) *MetainfoError {
	return (*MetainfoError)(metainfo.Malformed(field, err))
}
