package simpeer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/wire"
)

// session is one connection of a Peer.
type session struct {
	peer *Peer
	conn net.Conn
	wake *sync.Cond    // for the writing goroutine, on peer.mu
	done chan struct{} // closed when the connection is over
	over bool
	fast bool // both ends speak BEP 6
	v2   bool // it is in the swarm of version 2 (BEP 52)

	out        []byte    // messages to be written before the next block
	queue      []request // blocks to be sent
	late       int       // how many of these are sent after a choke
	choking    bool      // we choke them
	sent       int       // blocks
	interested bool      // they are interested in us
	heard      int       // messages they sent
	cancelled  map[request]bool

	theirs    bits.Set  // what they have
	choked    bool      // they choke us
	wanting   bool      // we are interested in them
	asked     []request // of them, in order
	remaining []int     // pieces that we are taking of them, last first

	askedHashes map[wire.HashRequest]bool // of them, and not answered
	hashesLeft  int                       // how often they are still asked for hashes
}

// speak runs one connection from its first byte to its last.
func (p *Peer) speak(conn net.Conn, dialled bool) {
	defer conn.Close()
	s := &session{
		peer: p, conn: conn, wake: sync.NewCond(&p.mu), done: make(chan struct{}),
		choking: true, choked: true, theirs: bits.New(p.content.NumPieces()),
		cancelled: map[request]bool{}, askedHashes: map[wire.HashRequest]bool{}, hashesLeft: maxHashesAsked,
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
		p.sessions = slices.DeleteFunc(p.sessions, func(o *session) bool { return o == s })
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
	if p.Never&Reads != 0 {
		<-p.ctx.Done()
		return
	}
	var violation *wire.ProtocolError
	if errors.As(s.read(), &violation) {
		p.blame("sent what breaks the protocol: %v", violation)
	}
}

// ID returns the peer id, which differs by port and address.
func (p *Peer) ID() (id [20]byte) {
	copy(id[:], "-SIM001-")
	copy(id[8:], fmt.Sprintf("%05d", p.port))
	binary.BigEndian.PutUint32(id[16:], crc32.ChecksumIEEE(p.Host.IP().AsSlice()))
	return id
}

// shakeHands reports whether messages follow.
func (s *session) shakeHands(dialled bool) bool {
	p := s.peer
	ours := wire.Handshake{InfoHash: p.content.InfoHash, PeerID: p.ID()}
	if p.Fast {
		ours.SetFast()
	}
	if p.speaksV2() {
		ours.SetV2()
	}
	hello := func() []byte {
		b := ours.Append(nil)
		if p.Handshake != nil {
			b = p.Handshake(b)
		}
		return b
	}
	if dialled {
		if p.speaksV2() && p.chance(2) { // of a hybrid, either will do
			ours.InfoHash = p.content.InfoHashV2
		}
		s.conn.Write(hello())
	}
	b := make([]byte, wire.HandshakeSize)
	if _, err := io.ReadFull(s.conn, b); err != nil {
		return false
	}
	theirs, err := wire.ParseHandshake(b)
	if err != nil || theirs.InfoHash != p.content.InfoHash && !(p.speaksV2() && theirs.InfoHash == p.content.InfoHashV2) {
		return false // encrypted, or about other content
	}
	if p.Never&ShakesHands != 0 {
		io.Copy(io.Discard, s.conn)
		return false
	}
	if !dialled {
		ours.InfoHash = theirs.InfoHash
		if p.speaksV2() && theirs.V2() {
			ours.InfoHash = p.content.InfoHashV2
		}
		if _, err := s.conn.Write(hello()); err != nil {
			return false
		}
	}
	s.fast = p.Fast && theirs.Fast()
	answer := ours.InfoHash
	if dialled {
		answer = theirs.InfoHash
	}
	s.v2 = p.speaksV2() && answer == p.content.InfoHashV2
	return len(hello()) == wire.HandshakeSize
}

// speaksV2 reports whether the peer speaks version 2 of its content.
func (p *Peer) speaksV2() bool { return p.content.InfoHashV2 != [20]byte{} && !p.OnlyV1 }

// chance draws true once in n times.
func (p *Peer) chance(n int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rng.IntN(n) == 0
}

// open says what the peer has, and starts what the script does by the clock. The caller holds s.peer.mu.
func (s *session) open() {
	p := s.peer
	has := p.Have.Clone()
	if p.ClaimsAll {
		has = bits.Full(p.content.NumPieces())
	}
	switch {
	case p.Opening != nil:
		s.say(p.Opening(p.content))
	case s.fast && has.Full():
		s.say(wire.AppendSimple(nil, wire.HaveAll))
	case s.fast && has.Count() == 0:
		s.say(wire.AppendSimple(nil, wire.HaveNone))
	case has.Count() > 0:
		s.say(wire.AppendBitfield(nil, has.AppendTo(nil)))
	}
	if p.Eager {
		s.choking = false
		s.say(wire.AppendSimple(nil, wire.Unchoke))
	}
	if p.Flap > 0 {
		s.every(p.Flap, func() {
			if s.choking = !s.choking; s.choking {
				s.choke()
			} else {
				s.say(wire.AppendSimple(nil, wire.Unchoke))
			}
		})
	}
	if p.NoiseEvery > 0 {
		k := 0
		s.every(p.NoiseEvery, func() {
			s.say(p.Noise[k%len(p.Noise)].make(s))
			k++
		})
	}
	if p.Floods {
		s.every(100*time.Millisecond, func() {
			if len(s.out) > 1<<20 {
				return
			}
			for range 200 {
				piece := p.rng.IntN(p.content.NumPieces())
				s.out = wire.AppendRequest(s.out, uint32(piece), 0, uint32(min(layout.BlockSize, p.content.PieceSize(piece))))
			}
			s.wake.Broadcast()
		})
	}
	if p.AsksHashes && s.v2 {
		s.every(hashesEvery, s.askForHashes)
	}
	if p.LeaveAfter > 0 {
		p.running.Go(func() {
			select {
			case <-s.done:
			case <-p.Host.Network().Pause(p.LeaveAfter):
				s.conn.Close()
			}
		})
	}
}

// say queues bytes to be written before the next block. The caller holds s.peer.mu.
func (s *session) say(b []byte) {
	s.out = append(s.out, b...)
	s.wake.Broadcast()
}

// every calls do, with mu held, every d until the connection is over.
func (s *session) every(d time.Duration, do func()) {
	s.peer.running.Go(func() {
		for {
			select {
			case <-s.done:
				return
			case <-s.peer.Host.Network().Pause(d):
			}
			s.peer.mu.Lock()
			do()
			s.peer.mu.Unlock()
		}
	})
}

// choke sends a choke and drops what was asked for, which BEP 6 demands to be rejected. The caller holds s.peer.mu.
func (s *session) choke() {
	s.say(wire.AppendSimple(nil, wire.Choke))
	if s.peer.SendsLate {
		s.late = len(s.queue)
		return
	}
	if s.fast && !s.peer.DropsSilently {
		for _, r := range s.queue {
			s.say(wire.AppendReject(nil, r.index, r.begin, r.length))
		}
	}
	s.queue = nil
}

// write sends messages, and blocks that were asked for, until the connection is over.
func (s *session) write() {
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

// answer sends a block. The mutex is released while the block is written. The caller holds s.peer.mu.
func (s *session) answer(r request) bool {
	p := s.peer
	b := p.content.Block(r.index, r.begin, r.length)
	if b == nil || !p.Have.Has(int(r.index)) {
		return true // only claimed
	}
	p.blocks++
	s.sent++
	lie := p.Corrupt > 0 && p.blocks%p.Corrupt == 0
	if lie {
		b = slices.Clone(b)
		b[p.rng.IntN(len(b))] ^= 0x5a
	}
	last := p.ResetAfter > 0 && s.sent >= p.ResetAfter
	times := 1
	if p.Twice {
		times = 2
	}
	short := 0
	if p.Shortens > 0 && p.blocks%p.Shortens == 0 {
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

// payload writes a block as fast as the script allows.
func (s *session) payload(b []byte) error {
	p := s.peer
	if p.StallAfter > 0 && s.sent > p.StallAfter {
		s.conn.Write(b[:len(b)/2])
		<-s.done
		return io.ErrClosedPipe
	}
	for p.Drip > 0 && len(b) > 0 {
		if _, err := s.conn.Write(b[:1]); err != nil {
			return err
		}
		b = b[1:]
		select {
		case <-s.done:
			return io.ErrClosedPipe
		case <-p.Host.Network().Pause(p.Drip):
		}
	}
	_, err := s.conn.Write(b)
	return err
}
