package torrent

import (
	"encoding"
	"errors"
	"fmt"
	"net/netip"

	"github.com/shoal-go/torrent/internal/dht"
	"github.com/shoal-go/torrent/internal/metainfo"
	"github.com/shoal-go/torrent/internal/storage"
)

var (
	// ErrClosed is returned by calls after Close.
	ErrClosed = storage.ErrClosed
	// ErrTooLarge is returned for content in memory that exceeds Options.MaxMemory; a download with a Dir is not bounded.
	// DownloadedFile.Bytes returns it for a file that is longer than a slice can be, or if the program has too many memory maps.
	ErrTooLarge = storage.ErrTooLarge
	// ErrUnsupported is returned for input that is well formed but of a kind that this package does not
	// handle, such as a torrent of a version after 2.
	ErrUnsupported = metainfo.ErrUnsupported
	// ErrNotFound is returned by DHT.Get and DHT.GetSigned if nodes answered and none has the item.
	ErrNotFound = dht.ErrNotFound
	// ErrStalled ends a download that made no progress for Options.StallTimeout.
	ErrStalled = errors.New("torrent: no progress")
	// ErrInUse is returned by Start if another download already writes the same content to the same directory, or if the same
	// Client already has a download of the same info hash. It is also returned if a chosen file has the path of a file that the
	// Client's download of another torrent has chosen, even if their Dirs differ. On Linux this extends to the downloads of other
	// Clients, in this process or another. If these have chosen more than 16 files of a torrent, all that is in the directories of
	// the files is theirs, so two Clients cannot share such a directory. The other download releases the path when its Downloaded
	// is closed. The error names the path and the other info hash.
	ErrInUse = storage.ErrInUse
)

// MetainfoError reports which field of a torrent is malformed, and how.
type MetainfoError struct {
	Field  string // the keys that lead to it, such as "info.piece length" or "info.files[3].path"; "" is the whole file
	Reason string
	Err    error // the cause, or nil
}

func (e *MetainfoError) Error() string { return (*metainfo.Error)(e).Error() }

func (e *MetainfoError) Unwrap() error { return e.Err }

// TrackerError is the last error of a tracker.
type TrackerError struct {
	URL    string // of the tracker
	Reason string // in the tracker's words, or what went wrong on the way to it
	Err    error  // the cause, or nil
}

func (e *TrackerError) Error() string { return fmt.Sprintf("tracker %s: %s", e.URL, e.Reason) }

func (e *TrackerError) Unwrap() error { return e.Err }

// PeerError reports why a connection to a peer could not be made, or ended.
type PeerError struct {
	Addr netip.AddrPort // of the peer
	Err  error          // why
}

func (e *PeerError) Error() string { return fmt.Sprintf("peer %s: %v", e.Addr, e.Err) }

func (e *PeerError) Unwrap() error { return e.Err }

// MarshalText is Error as encoding.TextMarshaler has it, so that JSON shows it.
func (e *TrackerError) MarshalText() ([]byte, error) { return []byte(e.Error()), nil }

// MarshalText is Error as encoding.TextMarshaler has it, so that JSON shows it.
func (e *PeerError) MarshalText() ([]byte, error) { return []byte(e.Error()), nil }

// textError is an error in Stats or an Event. JSON, which shows other errors as {}, shows its text.
type textError struct{ error }

func (e textError) Unwrap() error { return e.error }

func (e textError) MarshalText() ([]byte, error) { return []byte(e.Error()), nil }

// asText returns err as one that is an encoding.TextMarshaler, or nil.
func asText(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := err.(encoding.TextMarshaler); ok {
		return err
	}
	return textError{err}
}

// errNoTorrent is the error of the zero Torrent.
var errNoTorrent = errors.New("torrent: not read from anything: use Read, Parse, Create or Magnet.Resolve")
