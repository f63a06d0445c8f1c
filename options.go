package torrent

import (
	"context"
	"iter"
	"net/netip"
	"path"
	"strconv"
	"time"

	"golang.org/x/time/rate"

	"github.com/shoal-go/torrent/internal/layout"
)

const (
	blockSize = layout.BlockSize

	defaultMaxMemory   = 1 << 30
	defaultMaxPeers    = 80
	defaultClientPeers = 2000
)

// Options configure one download. A nil *Options and the zero value both mean the defaults. Start copies what it
// needs: later changes to the struct have no effect.
type Options struct {
	// Dir is the directory that the content is written to. It is made if it does not exist. Content that it already
	// holds is verified and used. Empty keeps the content in memory.
	Dir string
	// Select chooses what to download, by file. Nil is Normal for all. If it chooses nothing, the download waits for
	// another choice, by Download.Select.
	Select func(File) Priority
	// Peers are tried in addition to those from other sources, and are never given up.
	Peers []netip.AddrPort
	// Trackers are used in addition to the torrent's own, in tiers (BEP 12). They may be at any address. A tracker that a
	// torrent or link names may have been written by a stranger: it may be inside the user's network only at the usual path of
	// a tracker, such as /announce or /KEY/announce.php, or /announce/… on this machine. A redirect from the open internet
	// into the user's network is never followed.
	Trackers [][]string
	// WebSeeds are URLs of HTTP servers that have the content (BEP 19), in addition to the torrent's own. A URL is that of the
	// directory that holds the torrent's file or directory, or that of the file itself. They may be at any address. A web seed
	// that a torrent or link names may have been written by a stranger: no URL with a query is requested from it inside the
	// user's network. A redirect from the open internet into the user's network is never followed.
	WebSeeds []string
	// FindPeers is another source of peers. It is called at the start, every 15 minutes, and after a minute while no
	// peer is connected that sends much. Its peers are used as they come, and its sequence must end when ctx does. It is
	// called for private torrents, too, and for a hybrid with each of its info hashes in turn. A nil sequence has no peers.
	FindPeers func(ctx context.Context, h Hash) iter.Seq[netip.AddrPort]
	// MaxPeers bounds the connections of this download, beside Client.MaxPeers; 0 is 80.
	MaxPeers int
	// Seed continues sharing after completion, until the context ends or Close is called.
	Seed bool
	// SeedUntil is called about once a second while a download with Seed shares. When it returns true, sharing ends
	// as by Close. Nil is never.
	SeedUntil func(Stats) bool
	// Paused starts the download as if Pause had been called: content that is already there is checked, and nothing else
	// happens until Resume. A call of Pause after Start may come too late to keep the download from announcing itself.
	Paused bool
	// KeepResume keeps the resume sidecar beside the content in Dir once the content is complete. A later Start then hashes only
	// files whose size or modification time has changed since, and reads no others. It has no effect on a Storage of the caller's
	// own, which has its method Verified for this.
	KeepResume bool
	// Uploaded and Downloaded are bytes of payload of earlier runs. They are included in Stats and in announces to
	// trackers.
	Uploaded, Downloaded int64
	// DownloadLimit and UploadLimit bound this download's payload in bytes a second, on top of the client's; metadata and
	// hashes that are sent to peers count as well. Nil is no limit, and a limit of 0 lets nothing pass. They may be shared with
	// other downloads, and changed while in use. They may have any burst; a burst of 0 is set to 16 KiB.
	DownloadLimit *rate.Limiter
	UploadLimit   *rate.Limiter
	// Storage opens a storage of the caller's own for the content. Nil is memory, or files under Dir.
	Storage func(*Torrent) (Storage, error)
	// MaxMemory is how many bytes of content a download without Dir and Storage may keep in memory;
	// 0 is 1 GiB. A larger torrent is refused with ErrTooLarge before anything is allocated.
	MaxMemory int64
	// StallTimeout ends the download with ErrStalled if no block is received and no piece is verified for so
	// long. 0 is never.
	StallTimeout time.Duration
	// Client is the client that this download shares with others. Nil is a client of its own, which is closed with
	// it.
	Client *Client
}

func (o *Options) maxPeers() int {
	if o.MaxPeers > 0 {
		return o.MaxPeers
	}
	return defaultMaxPeers
}

// Priority is how much a file is wanted.
type Priority int8

const (
	// OnDemand files are fetched only where a reader of Download.Open reads, and just ahead of it. Fetched pieces are
	// kept and shared. Wait, Completed and Stats.Wanted are about the other files alone. Without Options.Seed the
	// download, and with it every wait of a reader, ends once these are complete. If there are no other files, the
	// download continues until it is closed.
	OnDemand Priority = -2
	Skip     Priority = -1 // not wanted
	Normal   Priority = 0  // wanted
	High     Priority = 1  // wanted before files that are Normal
)

// chosen reports whether all of a file is wanted.
func (p Priority) chosen() bool { return p >= Normal }

// String is on demand, skip, normal, high, or the number of another priority.
func (p Priority) String() string {
	switch p {
	case OnDemand:
		return "on demand"
	case Skip:
		return "skip"
	case Normal:
		return "normal"
	case High:
		return "high"
	}
	return strconv.Itoa(int(p))
}

// Glob chooses the files for which any of the patterns (as in path.Match) matches the path or the
// base name: Normal for these, Skip for the rest. A malformed pattern matches nothing.
func Glob(patterns ...string) func(File) Priority {
	return func(f File) Priority {
		for _, p := range patterns {
			if ok, _ := path.Match(p, f.Path); ok {
				return Normal
			}
			if ok, _ := path.Match(p, path.Base(f.Path)); ok {
				return Normal
			}
		}
		return Skip
	}
}
