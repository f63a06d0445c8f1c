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

	defaultMaxMemory = 1 << 30
	defaultMaxPeers  = 80
)

// Options say how one download is made. A nil *Options and the zero value both mean the defaults.
// Start copies what it needs: changing the struct later changes nothing.
type Options struct {
	// Dir is the directory that the content is written to. It is made if it is not there. Content that it
	// already holds is verified and used. Empty keeps the content in memory.
	Dir string
	// Select chooses what to download, by file. Nil is Normal for all. If it chooses nothing the download waits for
	// another choice, by Download.Select.
	Select func(File) Priority
	// Peers are tried beside those from other sources, and are never given up.
	Peers []netip.AddrPort
	// Trackers are announced to beside the torrent's own, in tiers (BEP 12). These may be anywhere. One that a torrent
	// or link names may be inside the user's network only at the path of a tracker, as /announce or /KEY/announce.php, or
	// /announce/… on this machine, since a stranger may have written it; a redirect from the open internet never leads inside.
	Trackers [][]string
	// WebSeeds are URLs of HTTP servers that have the content (BEP 19), beside the torrent's own: of the directory that holds
	// the torrent's file or directory, or of the file itself. These may be anywhere. One that a torrent or link names is asked
	// for nothing inside the user's network by a URL with a query, since a stranger may have written it; a redirect from the open internet never
	// leads inside.
	WebSeeds []string
	// FindPeers is another source of peers. It is called at the start, every 15 minutes, and after a minute while no
	// peer is connected. Its peers are used as they come, and its sequence must end when ctx does. It is called for
	// private torrents, too, and for a hybrid with each of its info hashes in turn.
	FindPeers func(ctx context.Context, h Hash) iter.Seq[netip.AddrPort]
	// MaxPeers bounds the connections of this download; 0 is 80.
	MaxPeers int
	// Seed continues sharing after completion, until the context ends or Close is called.
	Seed bool
	// SeedUntil is called about once a second while a download with Seed shares. When it returns true, sharing ends
	// as by Close. Nil is never.
	SeedUntil func(Stats) bool
	// Paused begins as after Pause: what is there is checked, and nothing else is done until Resume. A Pause that follows Start
	// may come when trackers were told already.
	Paused bool
	// KeepResume has the resume sidecar stay beside the content in Dir once it is complete. A later Start then hashes only
	// files whose size or modification time has changed since, and reads no other. What a Storage of the caller's own knows to be
	// whole is its own to say, by Verified.
	KeepResume bool
	// Uploaded and Downloaded are bytes of payload of earlier runs. They are included in Stats and in what trackers
	// are told.
	Uploaded, Downloaded int64
	// DownloadLimit and UploadLimit bound this download's payload in bytes a second, on top of the
	// client's. Nil is no limit, and a limit of 0 lets nothing pass. They may be shared with other downloads, and changed
	// while in use. Any burst will do; one of 0 is set to 16 KiB.
	DownloadLimit *rate.Limiter
	UploadLimit   *rate.Limiter
	// Storage opens a place of the caller's own for the content. Nil is memory, or files under Dir.
	Storage func(*Torrent) (Storage, error)
	// MaxMemory is how many bytes of content a download without Dir and Storage may keep in memory;
	// 0 is 1 GiB. A larger torrent is refused with ErrTooLarge before anything is allocated.
	MaxMemory int64
	// StallTimeout ends the download with ErrStalled if no block is received and no piece is verified for so
	// long. 0 is never.
	StallTimeout time.Duration
	// Client is what this download shares with others. Nil is a client of its own, which is closed with it.
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
	// OnDemand is fetched only where a reader of Download.Open is, and just ahead of it. What was fetched stays and is
	// shared. Wait, Completed and Stats.Wanted are about the other files alone: without Options.Seed the download, and
	// what readers wait for, ends once these are complete. If there are none it goes on until it is closed.
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
