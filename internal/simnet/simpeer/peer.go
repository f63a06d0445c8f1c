// Package simpeer has what is at the other end of a client's connections in a test: peers of a simulated
// network that speak the wire protocol by a script, honest or not, the content that they share, and a
// ledger that listens in on the client and judges what it did.
//
//	content := simpeer.NewContent(1, 64<<10, 1<<20)
//	p := simpeer.New("liar", n.NewHost("80.0.0.1", 1e6, 0, 0), 6881, content, simpeer.Script{Corrupt: 3})
//	err := p.Arrive() // and Stop at the end
//	ledger := simpeer.Watch(clientsHost, content)
//	… // a client downloads
//	ledger.Account().Faults // must be empty, and p.Faults() too
//
// It knows the protocol, but nothing of a download. Fields of a Peer are set before its first connection;
// methods may be called from any goroutine of the bubble.
package simpeer

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simtracker"
)

// Peer is a scripted peer in a simulated network: an honest one, or one that misbehaves as its Script says. It
// sends blocks of its content in the order they were asked for. What the other ends of its connections do
// wrong is in Faults.
type Peer struct {
	Script
	Name    string
	Host    *simnet.Host
	Tracker *simtracker.Tracker // learns where the peer listens; nil is none
	Have    bits.Set            // pieces that it can send; mu guards it once the peer has connections

	content *Content
	ctx     context.Context // ends when the peer leaves for good
	leave   context.CancelFunc

	mu       sync.Mutex // guards what follows, and the sessions
	rng      *rand.Rand
	port     uint16
	listener net.Listener
	sessions []*session
	running  sync.WaitGroup

	blocks int              // that it sent
	hashes int              // hash requests that it answered
	lies   map[request]bool // false blocks that it sent whole
	taken  int64            // bytes of blocks that came from others
	faults []string         // what others did wrong
}

// request is a block that is asked for.
type request struct{ index, begin, length uint32 }

// New makes a peer that has all of the content. It does nothing until it is told to.
func New(name string, host *simnet.Host, port uint16, content *Content, script Script) *Peer {
	ctx, leave := context.WithCancel(context.Background())
	return &Peer{
		ctx: ctx, leave: leave,
		Name: name, Host: host, port: port, content: content, Script: script,
		rng:  rand.New(rand.NewPCG(uint64(port), uint64(host.IP().As16()[15]))),
		Have: bits.Full(content.NumPieces()),
		lies: map[request]bool{},
	}
}

// Addr is the address at which the peer listens.
func (p *Peer) Addr() netip.AddrPort {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.Host.Addr(p.port)
}

// Arrive begins to listen, and tells the tracker.
func (p *Peer) Arrive() error {
	l, err := p.Host.Listen("tcp", fmt.Sprintf(":%d", p.port))
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.listener = l
	p.mu.Unlock()
	if p.Tracker != nil {
		p.Tracker.Add(p.Host.Addr(p.port))
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

// Depart stops listening and closes every connection. The peer may arrive again.
func (p *Peer) Depart() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		p.listener.Close()
		p.listener = nil
		if p.Tracker != nil {
			p.Tracker.Remove(p.Host.Addr(p.port))
		}
	}
	for _, s := range p.sessions {
		s.conn.Close()
	}
}

// Stop departs for good. It returns when all goroutines of the peer have ended.
func (p *Peer) Stop() {
	p.leave()
	p.Depart()
	p.running.Wait()
}

// Dial connects to a client. It returns when that connection is over.
func (p *Peer) Dial(to netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(p.ctx, 10*time.Second)
	defer cancel()
	conn, err := p.Host.Dial(ctx, "tcp", to.String())
	if err != nil {
		return err
	}
	p.speak(conn, true)
	return nil
}

// Wait waits for d. It returns false, at once, if the peer leaves for good.
func (p *Peer) Wait(d time.Duration) bool {
	select {
	case <-p.ctx.Done():
		return false
	case <-p.Host.Network().Pause(d):
		return true
	}
}

// Lies reports whether the peer sends false blocks or hashes.
func (p *Peer) Lies() bool { return p.Corrupt > 0 || p.CorruptHashes > 0 }

// Faults returns what the other ends of the peer's connections did wrong.
func (p *Peer) Faults() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.faults)
}

// Go runs f in a goroutine that Stop waits for.
func (p *Peer) Go(f func()) { p.running.Go(f) }

// blame records that the other end did something wrong.
func (p *Peer) blame(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.blameLocked(format, args...)
}

// blameLocked is blame under the mutex. The caller holds p.mu.
func (p *Peer) blameLocked(format string, args ...any) {
	if len(p.faults) < 10 {
		p.faults = append(p.faults, p.Name+": "+fmt.Sprintf(format, args...))
	}
}

// GainEach has the peer begin with nothing and gain the pieces that it had one by one.
func (p *Peer) GainEach(every time.Duration) {
	p.mu.Lock()
	stash := p.Have
	p.Have = bits.New(stash.Len())
	p.mu.Unlock()
	p.running.Go(func() {
		for i := range stash.All() {
			if !p.Wait(every) {
				return
			}
			p.Gain(i)
		}
	})
}

// Come has the peer arrive after a while. Unless stays is 0, it departs after that time and comes back when
// it was away for a while, each time at another port.
func (p *Peer) Come(after, stays, away time.Duration) {
	p.running.Go(func() {
		for p.Wait(after) && p.Arrive() == nil && stays > 0 && p.Wait(stays) {
			p.Depart()
			after = away
			p.mu.Lock()
			p.port++
			p.mu.Unlock()
		}
	})
}

// Call has the peer keep n connections to a client. It dials again some time after one has ended.
func (p *Peer) Call(n int, to netip.AddrPort, again time.Duration) {
	for range n {
		p.running.Go(func() {
			for p.Dial(to); p.Wait(again); {
				p.Dial(to)
			}
		})
	}
}
