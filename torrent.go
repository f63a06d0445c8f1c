package torrent

import (
	"bytes"
	"fmt"
	"io"
	"iter"
	"net/netip"
	"time"

	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/listing"
	"github.com/shoal-go/torrent/internal/piecehash"
)

// Torrent is what a .torrent file says (BEP 3, BEP 52). It does not change and may be used from any goroutine.
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

	peers []netip.AddrPort // of a magnet link, tried beside others

	multi bool // has a files list, so name is a directory
}

// File is one file of a torrent.
type File struct {
	// Path is slash-separated and safe to join to a directory: "name", or "name/sub/file". It is what the torrent
	// says but for what is safe nowhere. A file system that does not take it has the file under a similar name.
	// It may hold characters that are not seen; PrintTree shows them.
	Path string
	// Length is in bytes.
	Length int64
	// Index is the place in the torrent's list of files, from 0, with padding files counted, also those that version 2 does
	// not list between files that begin with a piece.
	Index int
	// Offset is the place of its first byte in the content, padding included.
	Offset int64
	// LinkTarget is where a symbolic link points (BEP 47): a path in the form of Path, of a file or a directory
	// that the torrent may or may not have. It is empty if the file is no link. A link has no bytes, is not downloaded
	// and is not made on disk.
	LinkTarget string
}

// Name is the suggested name of the file, or of the directory that holds the files.
func (t *Torrent) Name() string { return t.name }

// InfoHash identifies the torrent where 20 bytes are used: SHA-1 over the info dictionary as it was written, or for version 2
// alone the first 20 bytes of InfoHashV2.
func (t *Torrent) InfoHash() Hash { return t.infoHash }

// Length is the content's size in bytes, padding files left out.
func (t *Torrent) Length() int64 { return t.length }

// Size is the number of bytes of all pieces, padding files included: what a Storage spans.
func (t *Torrent) Size() int64 { return t.layout.Size() }

// Bytes is the .torrent file as it was read. The result is the caller's own.
func (t *Torrent) Bytes() []byte { return bytes.Clone(t.raw) }

// String is the name and the info hash, for logs.
func (t *Torrent) String() string { return fmt.Sprintf("%s (%s)", t.name, t.infoHash) }

// PieceLength is the size in bytes of every piece but the last, which of version 2 and hybrids is the last of each file.
func (t *Torrent) PieceLength() int64 { return t.layout.PieceLength() }

// NumPieces is the number of pieces, at least one.
func (t *Torrent) NumPieces() int { return t.layout.NumPieces() }

// Private reports whether peers may come only from the torrent's trackers (BEP 27).
func (t *Torrent) Private() bool { return t.private }

// Trackers are the announce URLs in tiers (BEP 12). The result is the caller's own.
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
