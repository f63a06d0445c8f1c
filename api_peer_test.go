package torrent_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/shoal-go/torrent"
	"github.com/stretchr/testify/require"
)

// Peers that speak raw BEP 3.

const (
	msgChoke, msgUnchoke, msgInterested, msgNotInterested, msgHave, msgBitfield, msgRequest, msgPiece, msgCancel = 0, 1, 2, 3, 4, 5, 6, 7, 8
)

// remote is a scripted peer that others dial.
type remote struct {
	s      *share
	addr   netip.AddrPort
	conns  atomic.Int32 // that have shaken hands
	open   atomic.Int32 // of these, how many are open
	most   atomic.Int32 // how many were open at once
	sent   atomic.Int64 // bytes of blocks
	mu     sync.Mutex
	asked  map[int]bool // pieces with requested blocks
	order  []int        // the piece of each request
	allow  map[int]bool // pieces that a gated peer sends
	opened chan struct{}
}

// line is one connection of a remote.
type line struct {
	net.Conn
	*remote
	r *bufio.Reader
	w sync.Mutex
}

// script starts a remote; each connection that begins with a plain handshake for the share runs play.
func (s *share) script(t *testing.T, play func(l *line)) *remote {
	return s.listen(t, func(l *line) {
		theirs := make([]byte, 68)
		if _, err := io.ReadFull(l.r, theirs); err != nil || string(theirs[:20]) != "\x13BitTorrent protocol" {
			return // an encrypted handshake: hang up, so that a plain one is tried
		}
		l.conns.Add(1)
		n := l.open.Add(1)
		for m := l.most.Load(); n > m && !l.most.CompareAndSwap(m, n); m = l.most.Load() {
		}
		defer l.open.Add(-1)
		l.greet(s.InfoHash())
		play(l)
	})
}

// listen starts a remote that runs play on each connection.
func (s *share) listen(t *testing.T, play func(l *line)) *remote {
	listen := net.Listen
	if s.host != nil {
		listen = func(network, addr string) (net.Listener, error) { return s.host.Listen(network, ":0") }
	}
	ln, err := listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &remote{s: s, addr: netip.MustParseAddrPort(ln.Addr().String()), asked: make(map[int]bool), allow: make(map[int]bool), opened: make(chan struct{})}
	var lines sync.WaitGroup
	ctx := t.Context()
	lines.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			lines.Go(func() {
				defer c.Close()
				defer context.AfterFunc(ctx, func() { c.Close() })()
				play(&line{Conn: c, remote: p, r: bufio.NewReader(c)})
			})
		}
	})
	t.Cleanup(func() { ln.Close(); lines.Wait() })
	return p
}

// call connects to addr as a peer does. It runs play in a goroutine.
func (s *share) call(t *testing.T, addr netip.AddrPort, play func(l *line)) *remote {
	t.Helper()
	dial := new(net.Dialer).DialContext
	if s.host != nil {
		dial = s.host.Dial
	}
	c, err := dial(t.Context(), "tcp", addr.String())
	require.NoError(t, err)
	p := &remote{s: s, addr: addr, asked: make(map[int]bool), opened: make(chan struct{})}
	l := &line{Conn: c, remote: p, r: bufio.NewReader(c)}
	l.greet(s.InfoHash())
	_, err = io.ReadFull(l.r, make([]byte, 68))
	require.NoError(t, err)
	var playing sync.WaitGroup
	playing.Go(func() { defer c.Close(); play(l) })
	t.Cleanup(func() { c.Close(); playing.Wait() })
	return p
}

func (l *line) greet(h torrent.Hash) {
	b := append([]byte("\x13BitTorrent protocol\x00\x00\x00\x00\x00\x00\x00\x00"), h[:]...)
	l.Write(append(b, fmt.Sprintf("-XX0000-%012d", l.addr.Port())...))
}

func (l *line) say(id byte, numbers ...int) { l.sayBytes(id, nil, numbers...) }

func (l *line) sayBytes(id byte, payload []byte, numbers ...int) error {
	b := binary.BigEndian.AppendUint32(nil, uint32(1+4*len(numbers)+len(payload)))
	b = append(b, id)
	for _, n := range numbers {
		b = binary.BigEndian.AppendUint32(b, uint32(n))
	}
	l.w.Lock()
	defer l.w.Unlock()
	_, err := l.Write(append(b, payload...))
	return err
}

// hear reads one message that is not a keep-alive.
func (l *line) hear() (id byte, payload []byte, err error) {
	for {
		var n uint32
		if err := binary.Read(l.r, binary.BigEndian, &n); err != nil {
			return 0, nil, err
		}
		if n == 0 {
			continue
		}
		b := make([]byte, n)
		_, err = io.ReadFull(l.r, b)
		return b[0], b[1:], err
	}
}

// offer says which pieces the peer has, all if none is named, and unchokes.
func (l *line) offer(pieces ...int) {
	bits := make([]byte, (l.s.NumPieces()+7)/8)
	for i := range l.s.NumPieces() {
		if len(pieces) == 0 || slices.Contains(pieces, i) {
			bits[i/8] |= 0x80 >> (i % 8)
		}
	}
	l.sayBytes(msgBitfield, bits)
	l.say(msgUnchoke)
}

// request reads the next request.
func (l *line) request() (piece, begin, length int, err error) {
	for {
		id, b, err := l.hear()
		if err != nil {
			return 0, 0, 0, err
		}
		if id == msgRequest && len(b) == 12 {
			be := binary.BigEndian
			piece, begin, length = int(be.Uint32(b)), int(be.Uint32(b[4:])), int(be.Uint32(b[8:]))
			l.mu.Lock()
			l.asked[piece] = true
			l.order = append(l.order, piece)
			l.mu.Unlock()
			return piece, begin, length, nil
		}
	}
}

func (l *line) block(piece, begin, length int) []byte {
	off := piece*int(l.s.PieceLength()) + begin
	return l.s.raw[off : off+length]
}

// answer sends a block as it is.
func (l *line) answer(piece, begin, length int) error {
	l.sent.Add(int64(length))
	return l.sayBytes(msgPiece, l.block(piece, begin, length), piece, begin)
}

// serve answers all requests until the other end hangs up.
func (l *line) serve() {
	for {
		piece, begin, length, err := l.request()
		if err != nil || l.answer(piece, begin, length) != nil {
			return
		}
	}
}

// gated is a remote that has everything and sends only the pieces that give allows. What was requested before
// give allows it is sent as soon as it does.
func (s *share) gated(t *testing.T) *remote {
	return s.script(t, func(l *line) {
		l.offer()
		var sending sync.WaitGroup
		defer sending.Wait()
		stop := make(chan struct{})
		defer close(stop)
		for {
			piece, begin, length, err := l.request()
			if err != nil {
				return
			}
			sending.Go(func() {
				for {
					l.mu.Lock()
					ok, opened := l.allow[piece], l.opened
					l.mu.Unlock()
					if ok {
						l.answer(piece, begin, length)
						return
					}
					select {
					case <-opened:
					case <-stop:
						return
					}
				}
			})
		}
	})
}

// give has a gated remote send these pieces, all if none is named.
func (p *remote) give(pieces ...int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.s.NumPieces() {
		if len(pieces) == 0 || slices.Contains(pieces, i) {
			p.allow[i] = true
		}
	}
	close(p.opened)
	p.opened = make(chan struct{})
}

func (p *remote) wasAsked(piece int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[piece]
}

func (p *remote) askedPieces() (pieces []int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.asked {
		pieces = append(pieces, i)
	}
	slices.Sort(pieces)
	return pieces
}
