package torrent

import (
	"bytes"
	"cmp"
	"maps"
	"math"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/printable"
)

// Stats is a snapshot of a download.
type Stats struct {
	State State // present state

	// Bytes: of everything, of what is chosen, of what is chosen and verified. Files that are OnDemand are not chosen.
	Length, Wanted, Verified int64

	Downloaded, Uploaded int64   // payload bytes received and sent, those of Options included
	Wasted               int64   // payload bytes that came twice, came late, were not requested, or failed their hash
	DownloadRate         float64 // bytes of payload a second, over the last seconds
	UploadRate           float64
	ETA                  time.Duration // until what is chosen is complete; negative if unknown

	Checking bool  // hashing what storage holds, at the start or in a Recheck
	Checked  int64 // bytes hashed so far, in this or the last one

	Moved, ToMove int64 // bytes that a Move has copied and is to copy; both are zero while there is none

	Peers                   []PeerStats    // the connected ones
	Known, Dialling, Banned int            // addresses: heard of, being dialled, banned
	FromDHT                 int            // of those heard of, how many the DHT named first
	WebSeeds                []WebSeedStats // those of the user first; at most 25 are used
	Trackers                []TrackerStats
	Pieces, PiecesVerified  int   // all, and those verified, chosen or not
	PiecesStarted           int   // of which blocks are here or on their way
	Steals                  int64 // blocks that were asked of a second peer
	StorageErrors           int   // times that storage failed or held other than what was verified
	StorageError            error // the last of these, or nil
	Complete                bool  // all that is chosen is verified
}

// PeerStats describes a connected peer.
type PeerStats struct {
	Addr      netip.AddrPort // where it is, with the port of this connection
	Client    string         // name and version as the peer gives them (BEP 10), or the start of its peer id
	Source    string         // where its address came from: user, tracker, lsd, magnet, incoming, finder, dht, pex
	Incoming  bool           // it connected to us
	Encrypted bool
	Transport string // tcp or utp

	DownloadRate, UploadRate float64 // bytes of payload a second
	Downloaded, Uploaded     int64   // bytes of payload

	AmChoking, AmInterested     bool // our side of BEP 3
	PeerChoking, PeerInterested bool // the peer's
	Snubbed                     bool // it let requests time out
	Pieces                      int  // that it has
	Requests                    int  // outstanding to it
	Queued                      int  // of its requests that wait here
}

// Stats returns a snapshot of the download. It is cheap: no I/O, and nothing waits for it.
func (d *Download) Stats() Stats {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	s := Stats{
		State:          d.state(),
		Length:         d.t.length,
		Wanted:         d.selection.choice.wanted,
		Verified:       d.selection.choice.verified,
		Downloaded:     d.o.Downloaded + d.traffic.downloaded,
		Uploaded:       d.o.Uploaded + d.traffic.uploaded,
		Wasted:         d.traffic.wasted,
		DownloadRate:   d.traffic.down.Rate(now),
		UploadRate:     d.traffic.up.Rate(now),
		ETA:            -1,
		Checking:       d.progress.checking || d.disk.checking,
		Checked:        d.progress.checked,
		Moved:          d.moving.done.Load(),
		ToMove:         d.moving.total.Load(),
		Known:          d.discovery.candidates.Known(),
		FromDHT:        d.discovery.fromDHT,
		Dialling:       d.discovery.candidates.Dialling(),
		Banned:         d.discovery.candidates.Bans(),
		Trackers:       trackerStats(d.discovery.trackers),
		Pieces:         d.t.NumPieces(),
		PiecesVerified: d.picker.Verified().Count(),
		PiecesStarted:  d.picker.NumStarted(),
		Steals:         d.picker.Steals(),
		StorageErrors:  d.disk.errors,
		StorageError:   asText(d.disk.lastError),
		Complete:       d.progress.complete,
	}
	if left := s.Wanted - s.Verified; left == 0 {
		s.ETA = 0
	} else if s.DownloadRate > 0 {
		s.ETA = time.Duration(min(float64(left)/s.DownloadRate*float64(time.Second), math.MaxInt64/2))
	}
	for _, p := range d.swarm.peers {
		if p.closing == nil {
			s.Peers = append(s.Peers, p.stats(now))
		}
	}
	for _, w := range d.webSeeds {
		s.WebSeeds = append(s.WebSeeds, w.stats(now))
	}
	return s
}

// The caller holds p.d.mu.
func (p *peer) stats(now time.Time) PeerStats {
	client := p.ext.client
	if client == "" {
		client = printable.Line(string(p.conn.theirs.PeerID[:8]))
	}
	return PeerStats{
		Addr: p.conn.addr, Client: client, Source: p.from.String(), Incoming: p.conn.incoming, Encrypted: p.conn.encrypted,
		Transport:    p.conn.way.String(),
		DownloadRate: p.down.Rate(now), UploadRate: p.up.Rate(now),
		Downloaded: p.down.Total(), Uploaded: p.up.Total(),
		AmChoking: p.amChoking, AmInterested: p.amInterested,
		PeerChoking: p.supply.Choking, PeerInterested: p.peerInterested,
		Snubbed: p.supply.Snubbed(), Pieces: p.supply.Count(), Requests: p.supply.Outstanding(), Queued: p.out.Waiting(),
	}
}

// ClientStats is a snapshot of what a client's downloads do together.
type ClientStats struct {
	// Bytes of payload since the client was opened, received, sent, and received in vain: as in Stats, but of all
	// downloads, ended ones included, and without those of earlier runs. They never fall.
	Downloaded, Uploaded, Wasted int64

	Downloads  int            // that are running, sharing ones included
	Resolving  []ResolveStats // the magnet links that are being resolved, in the order in which that began
	Peers      int            // connected, of all downloads and magnet links
	Dialling   int            // addresses being dialled
	Greeting   int            // incoming connections in their handshake
	Memory     int64          // bytes that unfinished pieces hold in memory
	MemoryMost int64          // the bound on Memory
	DHT        DHTStats       // zero before the client joins

	UDPErr   error // why nothing can be sent by UDP at present, as with a Proxy that does none, or nil
	ProxyErr error // with Proxy, why it is out of reach at present, or nil

	PortMappings []PortMapping // with MapPorts, what routers grant
	PortMapErr   error         // with MapPorts, why there is no other mapping, or nil

	Addr net.Addr // where the client accepts peers, or nil
}

// ResolveStats describes a magnet link while Magnet.Resolve fetches its metadata.
type ResolveStats struct {
	InfoHash Hash      // of version 2 alone, its first 20 bytes
	Name     string    // as the link has it
	Since    time.Time // when Resolve was called

	Metadata, Length int64 // bytes of the info dictionary that are here, and of how many; zero before a peer says so

	Peers, Known, Dialling int            // addresses: connected to, heard of, being dialled
	Tried                  int            // dials so far
	Trackers               []TrackerStats // of version 1, if the link is to a hybrid
	PeerErr                error          // why the last peer that was tried was of no use, or nil
}

// totals are bytes of payload.
type totals struct{ downloaded, uploaded, wasted int64 }

func (t *totals) add(u totals) {
	t.downloaded += u.downloaded
	t.uploaded += u.uploaded
	t.wasted += u.wasted
}

// totals are the download's so far.
func (d *Download) totals() totals {
	d.mu.Lock()
	defer d.mu.Unlock()
	return totals{d.traffic.downloaded, d.traffic.uploaded, d.traffic.wasted}
}

// retire adds the totals of d to those of ended downloads. Nothing of d runs any more.
func (c *Client) retire(d *Download) {
	last := d.totals()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.registry.counted, d)
	c.registry.ended.add(last)
}

// Stats returns a snapshot. It is cheap: no I/O, and nothing waits for it.
func (c *Client) Stats() ClientStats {
	s := ClientStats{Addr: c.Addr()}
	if node := c.dhtMember.member(); node != nil {
		s.DHT = (&DHT{node: node}).Stats()
	} else if c.NoDHT {
		s.DHT.Err = asText(errNoDHT)
	}
	c.mu.Lock()
	ways := c.sockets // nil before Open, which is not waited for
	counted := slices.Collect(maps.Keys(c.registry.counted))
	sum := c.registry.ended
	for _, d := range c.registry.downloads {
		if d != nil {
			s.Downloads++
		}
	}
	resolving := slices.Collect(maps.Keys(c.registry.resolving))
	s.Peers, s.Dialling = c.budget.InUse()
	s.Greeting = c.handshakes.Len()
	s.PortMappings, s.PortMapErr = c.mapped.stats(), asText(c.mapped.err)
	blocks := c.blockPool
	c.mu.Unlock()
	if ways != nil {
		s.UDPErr, s.ProxyErr = asText(unsupported(ways.UDPErr())), asText(ways.ProxyErr())
	}
	for _, d := range counted {
		sum.add(d.totals())
	}
	for _, r := range resolving {
		s.Resolving = append(s.Resolving, r.stats())
	}
	slices.SortFunc(s.Resolving, func(a, b ResolveStats) int {
		return cmp.Or(a.Since.Compare(b.Since), bytes.Compare(a.InfoHash[:], b.InfoHash[:]))
	})
	s.Downloaded, s.Uploaded, s.Wasted = sum.downloaded, sum.uploaded, sum.wasted
	if blocks != nil {
		s.Memory, s.MemoryMost = blocks.Held()
	}
	return s
}
