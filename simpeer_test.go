package torrent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simtracker"
	"github.com/shoal-go/torrent/internal/wire"
)

// simPeer is a scripted speaker of the wire protocol in a simulated network: an honest one, or one
// that misbehaves as its simScript says. It answers with blocks of its content in the order they were
// asked for, and watches over those who speak to it: what they do wrong is in faults.
type simPeer struct {
	simScript
	name    string
	host    *simnet.Host
	content *simTruth
	tracker *simtracker.Tracker // told where the peer is, if not nil
	ctx     context.Context
	leave   context.CancelFunc // for good

	mu       sync.Mutex // guards what follows, and the sessions
	rng      *rand.Rand
	port     uint16
	have     bits.Set // what it can give
	listener net.Listener
	sessions []*simSession
	running  sync.WaitGroup

	blocks int                 // sent, in all
	lies   map[simRequest]bool // sent whole, and false
	taken  int64               // bytes it was given by others
	faults []string            // what others did wrong
}

// simRequest is a block that a session was asked for.
type simRequest struct{ index, begin, length uint32 }

// simSession is one connection of a simPeer.
type simSession struct {
	peer *simPeer
	conn net.Conn
	wake *sync.Cond    // for the writing goroutine, on peer.mu
	done chan struct{} // closed when the connection is over
	over bool
	fast bool // both ends speak BEP 6

	out        []byte       // messages to be written before the next block
	queue      []simRequest // blocks to be sent
	late       int          // of these, how many are sent in spite of a choke
	choking    bool         // we choke them
	sent       int          // blocks
	interested bool         // they are interested in us
	heard      int          // messages they sent
	cancelled  map[simRequest]bool

	theirs    bits.Set     // what they have
	choked    bool         // they choke us
	wanting   bool         // we are interested in them
	asked     []simRequest // of them, in order
	remaining []int        // pieces that we are taking of them, last first
}

// newSimPeer makes a peer that has all of the content and starts nothing.
func newSimPeer(name string, host *simnet.Host, port uint16, content *simTruth, script simScript) *simPeer {
	ctx, leave := context.WithCancel(context.Background())
	return &simPeer{
		ctx: ctx, leave: leave,
		name: name, host: host, port: port, content: content, simScript: script,
		rng:  rand.New(rand.NewPCG(uint64(port), uint64(host.IP().As16()[15]))),
		have: bits.Full(content.NumPieces()),
		lies: map[simRequest]bool{},
	}
}

func (p *simPeer) addr() netip.AddrPort {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.host.Addr(p.port)
}

// arrive begins to listen, and says so to the tracker.
func (p *simPeer) arrive() error {
	l, err := p.host.Listen("tcp", fmt.Sprintf(":%d", p.port))
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.listener = l
	p.mu.Unlock()
	if p.tracker != nil {
		p.tracker.Add(p.host.Addr(p.port))
	}
	p.running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			p.running.Go(func() { p.speak(conn, false) })
		}
	})
	return nil
}

// depart stops listening and closes every connection; the peer may arrive again.
func (p *simPeer) depart() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		p.listener.Close()
		p.listener = nil
		if p.tracker != nil {
			p.tracker.Remove(p.host.Addr(p.port))
		}
	}
	for _, s := range p.sessions {
		s.conn.Close()
	}
}

// stop departs for good and returns when all goroutines of the peer have ended.
func (p *simPeer) stop() {
	p.leave()
	p.depart()
	p.running.Wait()
}

// dial connects to somebody, and returns when that connection is over.
func (p *simPeer) dial(to netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(p.ctx, 10*time.Second)
	defer cancel()
	conn, err := p.host.Dial(ctx, "tcp", to.String())
	if err != nil {
		return err
	}
	p.speak(conn, true)
	return nil
}

// wait returns false if the peer left for good before d had passed.
func (p *simPeer) wait(d time.Duration) bool {
	select {
	case <-p.ctx.Done():
		return false
	case <-p.host.Network().Pause(d):
		return true
	}
}

// speak is one connection from its first byte to its last.
func (p *simPeer) speak(conn net.Conn, dialled bool) {
	defer conn.Close()
	s := &simSession{
		peer: p, conn: conn, wake: sync.NewCond(&p.mu), done: make(chan struct{}),
		choking: true, choked: true, theirs: bits.New(p.content.NumPieces()),
		cancelled: map[simRequest]bool{},
	}
	p.mu.Lock()
	if p.ctx.Err() != nil || p.listener == nil && !dialled {
		p.mu.Unlock()
		return
	}
	p.sessions = append(p.sessions, s)
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.sessions = slices.DeleteFunc(p.sessions, func(o *simSession) bool { return o == s })
		s.over = true
		close(s.done)
		s.wake.Broadcast()
		p.mu.Unlock()
	}()
	if !s.shakeHands(dialled) {
		return
	}
	p.running.Go(s.write)
	p.mu.Lock()
	s.open()
	p.mu.Unlock()
	if p.never&readsNothing != 0 {
		<-p.ctx.Done()
		return
	}
	if err := s.read(); err != nil {
		var violation *wire.ProtocolError
		if errors.As(err, &violation) {
			p.blame("sent what breaks the protocol: %v", violation)
		}
	}
}

// lying tells whether the peer sends what is not true.
func (p *simPeer) lying() bool { return p.corrupt > 0 }

// found returns what others did wrong, as far as the peer has seen.
func (p *simPeer) found() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.faults)
}

// start runs f in a goroutine that stop waits for.
func (p *simPeer) start(f func()) { p.running.Go(f) }

// blame takes note that the other end did something wrong.
func (p *simPeer) blame(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.blameLocked(format, args...)
}

func (p *simPeer) blameLocked(format string, args ...any) {
	if len(p.faults) < 10 {
		p.faults = append(p.faults, p.name+": "+fmt.Sprintf(format, args...))
	}
}

func (s *simSession) shakeHands(dialled bool) bool {
	p := s.peer
	ours := wire.Handshake{InfoHash: p.content.infoHash}
	copy(ours.PeerID[:], "-SIM001-")
	copy(ours.PeerID[8:], fmt.Sprintf("%05d", p.port))
	sum := crc32.ChecksumIEEE(p.host.IP().AsSlice())
	binary.BigEndian.PutUint32(ours.PeerID[16:], sum)
	if p.fast {
		ours.SetFast()
	}
	hello := ours.Append(nil)
	if p.handshake != nil {
		hello = p.handshake(hello)
	}
	if dialled {
		s.conn.Write(hello)
	}
	b := make([]byte, wire.HandshakeSize)
	if _, err := io.ReadFull(s.conn, b); err != nil {
		return false
	}
	theirs, err := wire.ParseHandshake(b)
	if err != nil || theirs.InfoHash != p.content.infoHash {
		return false // perhaps encrypted, which we do not speak, or about something else
	}
	if p.never&shakesHands != 0 {
		io.Copy(io.Discard, s.conn)
		return false
	}
	if !dialled {
		if _, err := s.conn.Write(hello); err != nil {
			return false
		}
	}
	s.fast = p.fast && theirs.Fast()
	return len(hello) == wire.HandshakeSize
}

// open says what the peer has, and starts what its script does by the clock. The caller holds mu.
func (s *simSession) open() {
	p := s.peer
	has := p.have.Clone()
	if p.claimsAll {
		has = bits.Full(p.content.NumPieces())
	}
	switch {
	case p.opening != nil:
		s.say(p.opening(p.content))
	case s.fast && has.Full():
		s.say(wire.AppendSimple(nil, wire.HaveAll))
	case s.fast && has.Count() == 0:
		s.say(wire.AppendSimple(nil, wire.HaveNone))
	case has.Count() > 0:
		s.say(wire.AppendBitfield(nil, has.AppendTo(nil)))
	}
	if p.eager {
		s.choking = false
		s.say(wire.AppendSimple(nil, wire.Unchoke))
	}
	if p.flap > 0 {
		s.every(p.flap, func() {
			if s.choking = !s.choking; s.choking {
				s.choke()
			} else {
				s.say(wire.AppendSimple(nil, wire.Unchoke))
			}
		})
	}
	if p.noiseEvery > 0 {
		k := 0
		s.every(p.noiseEvery, func() {
			s.say(p.noise[k%len(p.noise)].make(s))
			k++
		})
	}
	if p.floods {
		s.every(100*time.Millisecond, func() {
			if len(s.out) > 1<<20 {
				return
			}
			for range 200 {
				piece := p.rng.IntN(p.content.NumPieces())
				s.out = wire.AppendRequest(s.out, uint32(piece), 0, uint32(min(blockSize, p.content.PieceSize(piece))))
			}
			s.wake.Broadcast()
		})
	}
	if p.leaveAfter > 0 {
		p.running.Go(func() {
			select {
			case <-s.done:
			case <-p.host.Network().Pause(p.leaveAfter):
				s.conn.Close()
			}
		})
	}
}

// say queues bytes to be written before the next block. The caller holds mu.
func (s *simSession) say(b []byte) {
	s.out = append(s.out, b...)
	s.wake.Broadcast()
}

// every calls do, with mu held, until the connection is over.
func (s *simSession) every(d time.Duration, do func()) {
	s.peer.running.Go(func() {
		for {
			select {
			case <-s.done:
				return
			case <-s.peer.host.Network().Pause(d):
			}
			s.peer.mu.Lock()
			do()
			s.peer.mu.Unlock()
		}
	})
}

// choke says so and drops what was asked for, which with BEP 6 has to be rejected. The caller holds mu.
func (s *simSession) choke() {
	s.say(wire.AppendSimple(nil, wire.Choke))
	if s.peer.sendsLate {
		s.late = len(s.queue)
		return
	}
	if s.fast && !s.peer.dropsSilently {
		for _, r := range s.queue {
			s.say(wire.AppendReject(nil, r.index, r.begin, r.length))
		}
	}
	s.queue = nil
}

// write sends what is to be said and what was asked for until the connection is over.
func (s *simSession) write() {
	p := s.peer
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		for !s.over && len(s.out) == 0 && (len(s.queue) == 0 || s.choking && s.late == 0) {
			s.wake.Wait()
		}
		if s.over {
			return
		}
		if out := s.out; len(out) > 0 {
			s.out = nil
			p.mu.Unlock()
			_, err := s.conn.Write(out)
			p.mu.Lock()
			if err != nil {
				return
			}
			continue
		}
		r := s.queue[0]
		s.queue = s.queue[1:]
		s.late = max(0, s.late-1)
		if !s.answer(r) {
			s.conn.Close()
			return
		}
	}
}

// answer sends a block. The caller holds mu, which is given up while the block is written.
func (s *simSession) answer(r simRequest) bool {
	p := s.peer
	b := p.content.block(r.index, r.begin, r.length)
	if b == nil || !p.have.Has(int(r.index)) {
		return true // claimed only
	}
	p.blocks++
	s.sent++
	lie := p.corrupt > 0 && p.blocks%p.corrupt == 0
	if lie {
		b = slices.Clone(b)
		b[p.rng.IntN(len(b))] ^= 0x5a
	}
	last := p.resetAfter > 0 && s.sent >= p.resetAfter
	times := 1
	if p.twice {
		times = 2
	}
	short := 0
	if p.shortens > 0 && p.blocks%p.shortens == 0 {
		short = 1 + p.rng.IntN(max(len(b)-1, 1))
		if p.blocks%2 == 0 { // or long
			short, b = -short, append(slices.Clone(b), make([]byte, short)...)
		}
	}
	p.mu.Unlock()
	defer p.mu.Lock()
	for range times {
		if _, err := s.conn.Write(wire.AppendPieceHeader(nil, r.index, r.begin, uint32(int(r.length)-short))); err != nil {
			return false
		}
		if err := s.payload(b[:min(len(b), int(r.length)-short)]); err != nil {
			return false
		}
	}
	if lie {
		p.mu.Lock()
		p.lies[r] = true
		p.mu.Unlock()
	}
	if last {
		s.conn.(*simnet.Conn).Reset()
	}
	return !last
}

// payload writes a block as fast as the script lets it.
func (s *simSession) payload(b []byte) error {
	p := s.peer
	if p.stallAfter > 0 && s.sent > p.stallAfter {
		s.conn.Write(b[:len(b)/2])
		<-s.done
		return io.ErrClosedPipe
	}
	for p.drip > 0 && len(b) > 0 {
		if _, err := s.conn.Write(b[:1]); err != nil {
			return err
		}
		b = b[1:]
		select {
		case <-s.done:
			return io.ErrClosedPipe
		case <-p.host.Network().Pause(p.drip):
		}
	}
	_, err := s.conn.Write(b)
	return err
}
