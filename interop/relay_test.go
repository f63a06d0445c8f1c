//go:build linux

package interop

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/internal/wire"
)

// relay stands between one leecher and its seed and keeps account of what passes. The leecher is to
// speak plain BitTorrent to it, one connection at a time.
type relay struct {
	addr netip.AddrPort

	mu        sync.Mutex
	requested map[blockAt]int64 // bytes asked for, and neither sent nor taken back
	payload   int64             // bytes of blocks that passed, in all
	verified  torrent.Bitfield  // pieces that the leecher has: not to be asked for
	again     int64             // bytes of these that it asked for all the same
	more      chan struct{}     // closed, and replaced, when payload grows
}

type blockAt struct{ piece, begin uint32 }

// startRelay listens on addr, and connects every caller with the seed.
func startRelay(t *testing.T, addr netip.Addr, seed netip.AddrPort) *relay {
	t.Helper()
	l, err := net.Listen("tcp", netip.AddrPortFrom(addr, 0).String())
	require.NoError(t, err)
	r := &relay{addr: netip.MustParseAddrPort(l.Addr().String()), requested: map[blockAt]int64{}, more: make(chan struct{})}
	var calls sync.WaitGroup
	calls.Go(func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			calls.Go(func() { r.connect(from, seed) })
		}
	})
	t.Cleanup(func() { l.Close(); calls.Wait() })
	return r
}

// connect passes on what both ends say until one of them ends.
func (r *relay) connect(leecher net.Conn, seed netip.AddrPort) {
	defer leecher.Close()
	far, err := net.Dial("tcp", seed.String())
	if err != nil {
		return
	}
	defer far.Close()
	var ways sync.WaitGroup
	ways.Go(func() { r.pass(far, leecher, r.hear); leecher.Close(); far.Close() })
	ways.Go(func() { r.pass(leecher, far, r.see); leecher.Close(); far.Close() })
	ways.Wait()
}

// pass copies from one end to the other and tells of each message.
func (r *relay) pass(to, from net.Conn, message func(wire.Message)) {
	through := io.TeeReader(from, to)
	if _, err := io.ReadFull(through, make([]byte, wire.HandshakeSize)); err != nil {
		return
	}
	for in := wire.NewReader(through, 1<<20); ; {
		m, err := in.Next()
		if err == nil && m.ID == wire.Piece {
			err = in.SkipBlock()
		}
		if err != nil {
			return
		}
		message(m)
	}
}

// hear records what the leecher asks for.
func (r *relay) hear(m wire.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch m.ID {
	case wire.Request:
		r.requested[blockAt{m.Index, m.Begin}] = int64(m.Length)
		if r.verified.Has(int(m.Index)) {
			r.again += int64(m.Length)
		}
	case wire.Cancel:
		delete(r.requested, blockAt{m.Index, m.Begin})
	}
}

// see records what the seed sends.
func (r *relay) see(m wire.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch m.ID {
	case wire.Piece:
		delete(r.requested, blockAt{m.Index, m.Begin})
		r.payload += int64(m.Length)
		close(r.more)
		r.more = make(chan struct{})
	case wire.Reject:
		delete(r.requested, blockAt{m.Index, m.Begin})
	}
}

// passed is the payload that has passed, and a channel that is closed when it is more.
func (r *relay) passed() (int64, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.payload, r.more
}

// killed begins a new life of the leecher, which has verified these pieces. It returns what the last
// life had asked for and not been sent.
func (r *relay) killed(verified torrent.Bitfield) (asked int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.requested {
		asked += n
	}
	clear(r.requested)
	r.verified = verified
	return asked
}

func (r *relay) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Sprintf("%d bytes passed, %d asked for", r.payload, len(r.requested))
}
