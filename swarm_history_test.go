package torrent

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/merkle"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/shoal-go/torrent/internal/simnet/simtracker"
	"github.com/shoal-go/torrent/internal/simnet/simweb"
	"golang.org/x/time/rate"
)

// simHistory is a swarm drawn from a seed number: its content, its peers, how each behaves, and when they
// come and go.
type simHistory struct {
	seed    uint64
	rng     *rand.Rand
	net     *simnet.Network
	tracker *simtracker.Tracker
	version Version
	bare    bool // the content lacks its piece layers
	content *simContent
	choice  func(File) Priority
	wanted  []int // pieces that the clients want

	stash    map[*simpeer.Peer]bits.Set // what each anchor has, or will have
	anchors  []*simpeer.Peer            // honest ones that between them have everything that is available
	peers    []*simpeer.Peer            // all scripted peers
	web      []*simweb.Server           // web seeds
	webLies  bool                       // some of them lie
	liars    map[netip.Addr]bool
	clients  []*simDownload
	options  []simSetup
	restarts []simRestart

	ready    time.Duration  // when the last of the honest content is available
	hopeless bool           // no peer has some wanted piece
	patience time.Duration  // what absences may cost, beside the bytes
	silence  bool           // some peer may let a block wait until it is snubbed
	kinds    map[string]int // faults drawn
	mu       sync.Mutex
	accused  []string // blameless peers that a client dropped for an offence; mu guards it
	notes    []string
	trace    func(format string, args ...any) // shows every message; may be nil
}

// simSetup is how one client under test is set up.
type simSetup struct {
	host    *simnet.Host
	client  *Client
	options *Options
	onDisk  bool          // in a directory
	stops   time.Duration // closed after so long, and started again from its directory; 0 is never
}

func (h *simHistory) note(format string, args ...any) {
	h.notes = append(h.notes, fmt.Sprintf(format, args...))
}

func (h *simHistory) String() string { return strings.Join(h.notes, "\n") }

// chance draws true once in n times.
func (h *simHistory) chance(n int) bool { return h.rng.IntN(n) == 0 }

// between draws a number. Every order of magnitude is equally likely.
func (h *simHistory) between(low, high float64) float64 {
	return low * math.Pow(high/low, h.rng.Float64())
}

func (h *simHistory) seconds(low, high float64) time.Duration {
	return time.Duration(h.between(low, high) * float64(time.Second)).Round(time.Millisecond)
}

// drawHistory makes the swarm of a seed number. Nothing runs yet.
func drawHistory(n *simnet.Network, seed uint64) *simHistory {
	h := &simHistory{
		seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), net: n, tracker: simtracker.New(seed),
		liars: map[netip.Addr]bool{}, stash: map[*simpeer.Peer]bits.Set{}, kinds: map[string]int{}, patience: 10 * time.Second,
	}
	h.drawVersion()
	h.drawContent()
	for range 1 + h.rng.IntN(2)*h.rng.IntN(3) {
		h.drawClient()
	}
	h.drawAnchors()
	for range h.rng.IntN(4) {
		h.drawHonest()
	}
	for range h.rng.IntN(8) {
		kind := simKinds[h.rng.IntN(len(simKinds))]
		h.kinds[kind.name]++
		kind.draw(h, kind.name)
	}
	if h.version != V1 {
		for range h.rng.IntN(3) {
			kind := simKindsV2[h.rng.IntN(len(simKindsV2))]
			h.kinds[kind.name]++
			kind.draw(h, kind.name)
		}
	}
	return h
}

// drawVersion draws the version of the torrent, and whether it lacks its piece layers.
func (h *simHistory) drawVersion() {
	rng := rand.New(rand.NewPCG(h.seed, 2))
	h.version = []Version{V1, V1, V2, Hybrid}[rng.IntN(4)]
	h.bare = h.version != V1 && rng.IntN(2) == 0
	if h.version != V1 {
		h.kinds["version "+h.version.String()]++
		h.note("version %v, without piece layers: %t", h.version, h.bare)
	}
	if h.bare {
		h.kinds["without piece layers"]++
		h.patience += time.Minute // some may not answer for them
	}
}

func (h *simHistory) drawContent() {
	lengths := []int64{16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 1 << 20, 50_000, 100_001, 8 << 20}
	pieceLength := lengths[h.rng.IntN(len(lengths)-h.rng.IntN(2))]
	total := int64(h.between(200e3, 10e6))
	if h.chance(6) {
		total = int64(h.between(1, 200e3))
	}
	if h.version != V1 {
		pieceLength = 16 << 10 << merkle.Height(pieceLength>>14)
	}
	if pieceLength == 8<<20 {
		total = 12 << 20
	}
	var files []int64
	for left := total; left > 0; {
		n := left
		if h.chance(2) {
			n = 1 + h.rng.Int64N(left)
		}
		files = append(files, n)
		left -= n
		if h.chance(5) {
			files = append(files, 0)
		}
	}
	h.content = newSimVersion(h.version, h.bare, h.seed+1, pieceLength, files...)
	for i := range h.content.NumPieces() {
		h.wanted = append(h.wanted, i)
	}
	if len(files) > 2 && h.chance(3) {
		pick := h.rng.IntN(3)
		h.choice = func(f File) Priority { return []Priority{Normal, High, Skip}[(f.Index+pick)%3] }
		want := map[int]bool{}
		for f := range h.content.Files() {
			first, end := h.content.layout.PiecesOf(f.Index)
			for i := first; i < end && h.choice(f) != Skip; i++ {
				want[i] = true
			}
		}
		if len(want) == 0 { // all files that it chooses are empty
			h.choice = nil
		} else {
			h.wanted = slices.DeleteFunc(h.wanted, func(i int) bool { return !want[i] })
		}
	}
	h.note("%d bytes in %d files, %d pieces of %d bytes, %d wanted", total, len(files), h.content.NumPieces(), pieceLength, len(h.wanted))
}

// newHost makes a host with an address of its own, public or private. Rates are in bytes a second.
func (h *simHistory) newHost(up, down float64) *simnet.Host {
	k := h.net.Addresses() + 1
	ip := fmt.Sprintf("80.1.%d.%d", k/200, k%200+1)
	switch h.rng.IntN(5) {
	case 0:
		ip = fmt.Sprintf("10.1.%d.%d", k/200, k%200+1)
	case 1:
		ip = fmt.Sprintf("2a01:4f8::%x", k)
	}
	return h.net.NewHost(ip, up, down, time.Duration(h.rng.IntN(100))*time.Millisecond)
}

func (h *simHistory) drawClient() {
	down, up := h.between(200e3, 20e6), h.between(50e3, 5e6)
	host := h.newHost(up, down)
	o := &Options{Select: h.choice, Seed: h.chance(3)}
	c := &Client{NoDHT: true, NoUTP: !h.chance(3), Encryption: DisableEncryption, hooks: hooks{seed: h.seed<<8 + uint64(len(h.options)) + 1}}
	if !c.NoUTP {
		h.kinds["uTP"]++
	}
	if h.chance(4) {
		c.Encryption = PreferEncryption
	}
	if h.chance(6) {
		down = min(down, h.between(200e3, 2e6))
		o.DownloadLimit = rate.NewLimiter(rate.Limit(down), 1<<20)
	}
	if h.chance(6) {
		o.UploadLimit = rate.NewLimiter(rate.Limit(h.between(20e3, 1e6)), 1<<16)
	}
	if h.chance(6) {
		o.MaxPeers = 20
	}
	h.drawBuffer(host)
	if h.chance(8) {
		h.kinds["tiny reads"]++
		most := int(h.between(100, 5000))
		host.Plan = func() simnet.Fault { return simnet.Fault{ReadAtMost: most} }
	}
	if h.chance(6) {
		h.kinds["little memory"]++
		c.hooks.blockMemory = int64(h.between(blockSize/2, 1<<20))
	}
	s := simSetup{host: host, client: c, options: o, onDisk: h.chance(8)}
	if s.onDisk && h.chance(2) {
		h.kinds["stopped and started again"]++
		s.stops = h.seconds(0.5, 60)
		h.patience += 30 * time.Second
	}
	h.options = append(h.options, s)
	h.note("client %v, up %.0f, down %.0f%s, encryption %d, uTP %t, on disk %t, stops after %v", host, up, down, spoken(*o), c.Encryption, !c.NoUTP, s.onDisk, s.stops)
}

// drawBuffer gives some hosts small buffers, so that what they send is late or waits.
func (h *simHistory) drawBuffer(host *simnet.Host) {
	if h.chance(6) {
		h.kinds["small buffer"]++
		host.Buffer = int(h.between(2e3, 100e3))
	}
}

// newPeer makes a scripted peer, which the tracker tells every client of.
func (h *simHistory) newPeer(name string, rate float64, script simpeer.Script) *simpeer.Peer {
	script.Fast = script.Fast || h.chance(2)
	if h.version != V1 {
		script.AsksHashes = script.AsksHashes || h.chance(3)
	}
	if h.version == Hybrid {
		script.OnlyV1 = script.OnlyV1 || h.chance(4)
	}
	p := simpeer.New(name, h.newHost(rate, 0), uint16(1024+h.rng.IntN(60000)), h.content.truth, script)
	p.Tracker = h.tracker
	h.peers = append(h.peers, p)
	h.note("%s at %v, %.0f bytes a second%s", name, p.Addr(), rate, spoken(script))
	return p
}

// spoken lists the fields of a struct that are not zero.
func spoken(v any) string {
	var b strings.Builder
	s := reflect.ValueOf(v)
	for i := range s.NumField() {
		if f := s.Field(i); !f.IsZero() && f.Kind() == reflect.Func {
			fmt.Fprintf(&b, ", %s", s.Type().Field(i).Name)
		} else if !f.IsZero() {
			fmt.Fprintf(&b, ", %s %v", s.Type().Field(i).Name, f)
		}
	}
	return b.String()
}

// drawAnchors makes the honest peers that between them have the content. They have it in one of several ways.
func (h *simHistory) drawAnchors() {
	n := 1 + h.rng.IntN(3)
	kind := h.rng.IntN(8)
	pieces := h.content.NumPieces()
	switch {
	case kind == 0 && pieces > 1: // partial seeds, each piece with one of them
		h.kinds["partial seeds"]++
		n++
	case kind == 1 && pieces > 1: // the piece that is missing arrives late
		h.kinds["last piece late"]++
		n = 2
	case kind == 2 && pieces > 1 && len(h.wanted) > 1: // no peer has one of the wanted pieces
		h.kinds["piece missing"]++
		h.hopeless = true
	}
	for k := range n {
		p := h.newPeer("honest", h.between(20e3, 8e6), simpeer.Script{Eager: h.chance(4)})
		h.anchors = append(h.anchors, p)
		arrival := time.Duration(0)
		switch {
		case kind == 0 && pieces > 1:
			p.Have = bits.New(pieces)
			for i := range pieces {
				if i%n == k {
					p.Have.Add(i)
				}
			}
		case kind == 1 && pieces > 1:
			last := h.wanted[len(h.wanted)/2]
			if k == 0 {
				p.Have.Remove(last)
			} else {
				p.Have = bits.New(pieces)
				p.Have.Add(last)
				arrival = h.seconds(1, 300)
			}
		case h.hopeless:
			p.Have.Remove(h.wanted[0])
		case kind == 3: // haves one by one
			h.kinds["piece by piece"]++
			every := h.seconds(0.01, 60/float64(pieces)+0.02)
			h.stash[p] = p.Have.Clone()
			p.GainEach(every)
			h.ready = max(h.ready, every*time.Duration(pieces))
		case kind == 4 && k == 0: // comes and goes, each time at another port
			h.kinds["comes and goes"]++
			stays, away := h.seconds(20, 60), h.seconds(1, 20)
			p.Come(0, stays, away)
			for _, s := range h.options {
				p.Call(1, s.host.Addr(6881), stays/3)
			}
			h.silence = true
			h.anchors = h.anchors[:len(h.anchors)-1] // it does not count as one
			h.anchors = append(h.anchors, h.newPeer("honest", h.between(20e3, 8e6), simpeer.Script{}))
			p = h.anchors[len(h.anchors)-1]
		}
		if h.stash[p].Len() == 0 {
			h.stash[p] = p.Have.Clone()
		}
		if h.chance(4) {
			arrival = max(arrival, h.seconds(0.5, 60))
		}
		p.Come(arrival, 0, 0)
		if arrival > 0 {
			h.note("%v arrives after %v", p.Addr(), arrival)
			for _, s := range h.options {
				h.callsLater(p, arrival+time.Second, s.host.Addr(6881))
			}
		}
		h.ready = max(h.ready, arrival+2*time.Second)
	}
}

// callsLater has a peer dial a client once it has arrived, as one does that the tracker told of the client.
func (h *simHistory) callsLater(p *simpeer.Peer, after time.Duration, to netip.AddrPort) {
	p.Go(func() {
		if p.Wait(after) {
			p.Call(1, to, 90*time.Second)
		}
	})
}

// drawHonest makes one more honest peer. The bounds do not count on it.
func (h *simHistory) drawHonest() {
	p := h.newPeer("honest", h.between(2e3, 4e6), simpeer.Script{Takes: h.chance(2)})
	h.drawBuffer(p.Host)
	for i := range h.content.NumPieces() {
		if h.chance(3) {
			p.Have.Remove(i)
		}
	}
	if h.hopeless {
		p.Have.Remove(h.wanted[0])
	}
	if h.chance(4) {
		h.kinds["connections lost"]++
		p.Host.Plan = func() simnet.Fault { return simnet.Fault{ResetAfter: int64(h.between(1000, 1e6))} }
	} else if h.chance(4) {
		h.kinds["tiny reads"]++
		p.Host.Plan = func() simnet.Fault { return simnet.Fault{ReadAtMost: 7} }
	}
	if h.chance(3) {
		losesPower(p, h.seconds(1, 60))
		h.kinds["power lost"]++
		h.silence = true
	}
	p.Come(h.seconds(0.001, 60), 0, 0)
	if h.chance(2) {
		for _, s := range h.options {
			p.Call(1, s.host.Addr(6881), 30*time.Second)
		}
	}
}

// losesPower has a peer lose its power after a while.
func losesPower(p *simpeer.Peer, after time.Duration) {
	p.Go(func() {
		if p.Wait(after) {
			p.Host.Unplug()
		}
	})
}
