package torrent_test

import (
	"context"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"golang.org/x/time/rate"

	"github.com/shoal-go/torrent"
)

// Programs are written against these: a change here breaks them.
var (
	_ func(string) (*torrent.Torrent, error)                         = torrent.Read
	_ func(io.Reader) (*torrent.Torrent, error)                      = torrent.Parse
	_ func(string, *torrent.CreateOptions) (*torrent.Torrent, error) = torrent.Create
	_ func(...string) func(torrent.File) torrent.Priority            = torrent.Glob

	_ func(context.Context, fs.FS, *torrent.CreateOptions) (*torrent.Torrent, error) = torrent.CreateFS

	_ func(string) (*torrent.Magnet, error) = torrent.ParseMagnet

	_ func(*torrent.Torrent) string                 = (*torrent.Torrent).Name
	_ func(*torrent.Torrent) torrent.Hash           = (*torrent.Torrent).InfoHash
	_ func(*torrent.Torrent) int64                  = (*torrent.Torrent).Length
	_ func(*torrent.Torrent) int64                  = (*torrent.Torrent).PieceLength
	_ func(*torrent.Torrent) int                    = (*torrent.Torrent).NumPieces
	_ func(*torrent.Torrent) bool                   = (*torrent.Torrent).Private
	_ func(*torrent.Torrent) [][]string             = (*torrent.Torrent).Trackers
	_ func(*torrent.Torrent) []string               = (*torrent.Torrent).WebSeeds
	_ func(*torrent.Torrent) string                 = (*torrent.Torrent).Comment
	_ func(*torrent.Torrent) string                 = (*torrent.Torrent).CreatedBy
	_ func(*torrent.Torrent) time.Time              = (*torrent.Torrent).CreationDate
	_ func(*torrent.Torrent) iter.Seq[torrent.File] = (*torrent.Torrent).Files
	_ func(*torrent.Torrent, io.Writer) error       = (*torrent.Torrent).PrintTree
	_ func(*torrent.Torrent) *torrent.Magnet        = (*torrent.Torrent).Magnet
	_ io.WriterTo                                   = (*torrent.Torrent)(nil)
	_ func(torrent.Hash) string                     = torrent.Hash.String
	_ torrent.File                                  = torrent.File{Path: "", Length: int64(0)}

	_ func(*torrent.Torrent, context.Context, *torrent.Options) (*torrent.Downloaded, error) = (*torrent.Torrent).DownloadAll
	_ func(*torrent.Torrent, context.Context, *torrent.Options) (*torrent.Download, error)   = (*torrent.Torrent).Start
	_ func(*torrent.Torrent, context.Context, string) (torrent.Bitfield, error)              = (*torrent.Torrent).Verify

	_ func(torrent.Bitfield) int           = torrent.Bitfield.Len
	_ func(torrent.Bitfield, int) bool     = torrent.Bitfield.Has
	_ func(torrent.Bitfield) int           = torrent.Bitfield.Count
	_ func(torrent.Bitfield) iter.Seq[int] = torrent.Bitfield.All

	_ func(*torrent.Magnet) string                                                       = (*torrent.Magnet).String
	_ func(*torrent.Magnet, context.Context, *torrent.Options) (*torrent.Torrent, error) = (*torrent.Magnet).Resolve
	_                                                                                    = torrent.Magnet{InfoHash: torrent.Hash{}, Name: "", Trackers: []string{}, WebSeeds: []string{}, Peers: []string{}}

	_ = torrent.Options{
		Dir: "", Select: func(torrent.File) torrent.Priority { return torrent.Normal }, Peers: []netip.AddrPort{}, MaxPeers: int(0), Seed: false,
		SeedUntil: func(torrent.Stats) bool { return true }, Uploaded: int64(0), Downloaded: int64(0),
		DownloadLimit: (*rate.Limiter)(nil), UploadLimit: (*rate.Limiter)(nil),
		Storage:   func(*torrent.Torrent) (torrent.Storage, error) { return nil, nil },
		MaxMemory: int64(0), StallTimeout: time.Duration(0), Client: (*torrent.Client)(nil),
	}
	_ = [...]torrent.Priority{torrent.OnDemand, torrent.Skip, torrent.Normal, torrent.High}
	_ = torrent.Priority(int8(0))

	_ = torrent.Client{
		Listen: "", NoListen: false, MaxPeers: int(0), DownloadLimit: (*rate.Limiter)(nil), UploadLimit: (*rate.Limiter)(nil),
		Encryption: torrent.EncryptionPolicy(0), LocalDiscovery: false,
		Dial:         func(ctx context.Context, network, addr string) (net.Conn, error) { return nil, nil },
		ListenPacket: func(ctx context.Context, network, addr string) (net.PacketConn, error) { return nil, nil },
		HTTPClient:   (*http.Client)(nil), Logger: (*slog.Logger)(nil),
		Proxy: (*url.URL)(nil), Bind: netip.Addr{}, Allow: func(netip.Addr) bool { return true }, MapPorts: false,
	}
	_ = [...]torrent.EncryptionPolicy{torrent.PreferEncryption, torrent.RequireEncryption, torrent.DisableEncryption}

	_ func(*torrent.Client) iter.Seq[*torrent.Download] = (*torrent.Client).Downloads
	_ func(*torrent.Client) error                       = (*torrent.Client).Close
	_ func(*torrent.Client) error                       = (*torrent.Client).Open
	_ func(*torrent.Client, net.Listener) error         = (*torrent.Client).Serve

	_ func(*torrent.Client) torrent.ClientStats                     = (*torrent.Client).Stats
	_ func(*torrent.Client, torrent.Hash) (*torrent.Download, bool) = (*torrent.Client).Download

	_ func(*torrent.Download) *torrent.Torrent                                    = (*torrent.Download).Torrent
	_ func(*torrent.Download) <-chan struct{}                                     = (*torrent.Download).Done
	_ func(*torrent.Download) (*torrent.Downloaded, error)                        = (*torrent.Download).Wait
	_ func(*torrent.Download) iter.Seq2[*torrent.DownloadedFile, error]           = (*torrent.Download).Completed
	_ func(*torrent.Download, context.Context, string) (io.ReadSeekCloser, error) = (*torrent.Download).Open
	_ func(*torrent.Download, func(torrent.File) torrent.Priority)                = (*torrent.Download).Select
	_ func(*torrent.Download, context.Context) (torrent.Scrape, error)            = (*torrent.Download).Scrape
	_ func(*torrent.Download) torrent.Stats                                       = (*torrent.Download).Stats
	_ func(*torrent.Download) error                                               = (*torrent.Download).Close

	_ func(*torrent.Download, ...netip.AddrPort)                       = (*torrent.Download).AddPeers
	_ func(*torrent.Download, ...string)                               = (*torrent.Download).AddTrackers
	_ func(*torrent.Download)                                          = (*torrent.Download).Announce
	_ func(*torrent.Download)                                          = (*torrent.Download).Pause
	_ func(*torrent.Download)                                          = (*torrent.Download).Resume
	_ func(*torrent.Download, context.Context) error                   = (*torrent.Download).Recheck
	_ func(*torrent.Download, context.Context, string) error           = (*torrent.Download).Move
	_ func(*torrent.Download, context.Context) iter.Seq[torrent.Event] = (*torrent.Download).Events
	_ func(*torrent.Download) torrent.Bitfield                         = (*torrent.Download).Verified
	_ func(*torrent.Download) iter.Seq2[torrent.File, int64]           = (*torrent.Download).Files

	_ = [...]torrent.State{torrent.Checking, torrent.Downloading, torrent.Seeding, torrent.Paused, torrent.Stopped}

	_ = torrent.Stats{
		Length: int64(0), Wanted: int64(0), Verified: int64(0), Downloaded: int64(0), Uploaded: int64(0), Wasted: int64(0),
		DownloadRate: float64(0), UploadRate: float64(0), ETA: time.Duration(0), Checking: false, Checked: int64(0),
		Peers: []torrent.PeerStats{}, Known: int(0), Dialling: int(0), Banned: int(0), Trackers: []torrent.TrackerStats{},
	}

	_ func(*torrent.Downloaded) iter.Seq[*torrent.DownloadedFile] = (*torrent.Downloaded).Files
	_ func(*torrent.Downloaded, string) (fs.File, error)          = (*torrent.Downloaded).Open
	_ func(*torrent.Downloaded, string) ([]byte, error)           = (*torrent.Downloaded).ReadFile
	_ io.Closer                                                   = (*torrent.Downloaded)(nil)
	_ fs.ReadFileFS                                               = (*torrent.Downloaded)(nil)
	_ fs.StatFS                                                   = (*torrent.Downloaded)(nil)
	_ fs.ReadDirFS                                                = (*torrent.Downloaded)(nil)

	_ func(*torrent.DownloadedFile) string          = (*torrent.DownloadedFile).Path
	_ func(*torrent.DownloadedFile) int64           = (*torrent.DownloadedFile).Length
	_ func(*torrent.DownloadedFile) ([]byte, error) = (*torrent.DownloadedFile).Bytes

	_ func(*torrent.DownloadedFile) (fs.File, error) = (*torrent.DownloadedFile).Open

	_ torrent.Storage = interface {
		io.ReaderAt
		io.WriterAt
		Sync() error
		Close() error
	}(nil)
	_ interface {
		io.ReaderAt
		io.WriterAt
		Sync() error
		Close() error
	} = torrent.Storage(nil)

	_ = torrent.CreateOptions{
		Name: "", PieceLength: int64(0), Private: false, Trackers: [][]string{}, WebSeeds: []string{}, Comment: "", CreatedBy: "",
		CreationDate: time.Time{}, Pad: false, Progress: func(done, total int64) {},
	}

	_       = [...]error{torrent.ErrClosed, torrent.ErrTooLarge, torrent.ErrUnsupported, torrent.ErrStalled, torrent.ErrInUse}
	_ error = (*torrent.MetainfoError)(nil)
	_ error = (*torrent.TrackerError)(nil)
	_ error = (*torrent.PeerError)(nil)
	_       = torrent.MetainfoError{Field: ""}
	_       = torrent.TrackerError{URL: "", Reason: ""}
	_       = torrent.PeerError{Addr: netip.AddrPort{}}
)
