//go:build linux

package interop

import (
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/internal/wire"
)

// mostWhole is how many pieces may have passed a steady relay whole that the leecher has not verified. Then it waits.
const mostWhole = 2

// relay stands between one leecher and its seed and keeps account of what passes. The leecher is to
// speak plain BitTorrent to it.
type relay struct {
	addr netip.AddrPort

	mu          sync.Mutex
	requested   map[blockAt]int64 // bytes asked for, and neither sent nor taken back
	payload     int64             // bytes of blocks that passed, in all
	verified    torrent.Bitfield  // pieces that the leecher has: not to be asked for
	again       int64             // bytes of these that it asked for all the same
	more        chan struct{}     // closed, and replaced, when payload grows
	pieces      *torrent.Torrent
	came        map[blockAt]int64 // bytes of the blocks that passed in this life, of pieces not said to be verified
	steady      bool              // it waits for the leecher to verify pieces
	connections int               // that are open
	changed     sync.Cond         // any of the last three
}

type blockAt struct{ piece, begin uint32 }

// startRelay listens on addr, and connects every caller with the seed.
func startRelay(t *testing.T, addr netip.Addr, seed netip.AddrPort, pieces *torrent.Torrent) *relay {
	t.Helper()
	l, err := net.Listen("tcp", netip.AddrPortFrom(addr, 0).String())
	require.NoError(t, err)
	r := &relay{addr: netip.MustParseAddrPort(l.Addr().String()), requested: map[blockAt]int64{}, more: make(chan struct{}),
		pieces: pieces, came: map[blockAt]int64{}}
	r.changed.L = &r.mu
	var calls sync.WaitGroup
	calls.Go(func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			r.count(1)
			calls.Go(func() { r.connect(from, seed); r.count(-1) })
		}
	})
	t.Cleanup(func() { l.Close(); r.setSteady(false); calls.Wait() })
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
		delete(r.came, blockAt{m.Index, m.Begin})
		r.changed.Broadcast()
		if r.verified.Has(int(m.Index)) {
			r.again += int64(m.Length)
		}
	case wire.Cancel:
		delete(r.requested, blockAt{m.Index, m.Begin})
	}
}

// see records what the seed sends. If it is steady, it waits until the leecher has verified most of that.
func (r *relay) see(m wire.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch m.ID {
	case wire.Piece:
		delete(r.requested, blockAt{m.Index, m.Begin})
		r.payload += int64(m.Length)
		close(r.more)
		r.more = make(chan struct{})
		r.came[blockAt{m.Index, m.Begin}] = int64(m.Length)
		for r.steady && r.whole() >= mostWhole {
			r.changed.Wait()
		}
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

// whole is how many pieces came whole that the leecher has not verified. The caller holds r.mu.
func (r *relay) whole() (pieces int) {
	came := map[uint32]int64{}
	for at, n := range r.came {
		came[at.piece] += n
	}
	for piece, n := range came {
		if n == min(r.pieces.PieceLength(), r.pieces.Size()-int64(piece)*r.pieces.PieceLength()) {
			pieces++
		}
	}
	return pieces
}

// settle records that the leecher has verified a piece.
func (r *relay) settle(piece uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.came, func(at blockAt, _ int64) bool { return at.piece == piece })
	r.changed.Broadcast()
}

// setSteady has it wait for the leecher, or no longer.
func (r *relay) setSteady(steady bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.steady = steady
	r.changed.Broadcast()
}

// count adds to the open connections.
func (r *relay) count(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.connections += n
	r.changed.Broadcast()
}

// killed begins a new life of the leecher, which has verified these pieces. It returns what the last
// life had asked for and not been sent, and what it had been sent of pieces that are not verified.
func (r *relay) killed(verified torrent.Bitfield) (asked, lost int64) {
	r.setSteady(false)
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.connections > 0 {
		r.changed.Wait()
	}
	for _, n := range r.requested {
		asked += n
	}
	for at, n := range r.came {
		if !verified.Has(int(at.piece)) {
			lost += n
		}
	}
	clear(r.requested)
	clear(r.came)
	r.verified = verified
	return asked, lost
}

func (r *relay) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Sprintf("%d bytes passed, %d asked for", r.payload, len(r.requested))
}
