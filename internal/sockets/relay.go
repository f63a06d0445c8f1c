package sockets

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/shoal-go/torrent/internal/netaddr"
)

// refusedPause is the time until an association is requested again from a proxy that does not support UDP.
const refusedPause = 10 * time.Minute

// A relay is a net.PacketConn through a SOCKS proxy. It outlasts the UDP association that it has with the proxy: when that
// ends, it opens another. Without an association, writes fail and reads wait.
type relay struct {
	s      *Sockets
	ctx    context.Context
	cancel context.CancelFunc
	soon   chan struct{} // of capacity 1; full when the proxy has come back

	mu      sync.Mutex
	conn    net.PacketConn // the association; nil if there is none
	err     error          // why there is none; nil if that is not known yet
	changed chan struct{}  // closed, and replaced, when conn or err changes
	asked   []*asking      // queries that are not answered yet
}

// openRelay returns a relay at once, and opens an association in a goroutine.
func (s *Sockets) openRelay() (net.PacketConn, error) {
	r := &relay{s: s, soon: make(chan struct{}, 1), changed: make(chan struct{})}
	r.ctx, r.cancel = context.WithCancel(s.ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return nil, net.ErrClosed
	}
	s.relay = r
	s.start(r.run)
	return r, nil
}

// run opens one association after another until the relay is closed.
func (r *relay) run() {
	defer r.set(nil, net.ErrClosed)
	again := false
	for pause := firstPause; r.ctx.Err() == nil; {
		conn, err := r.s.proxy.ListenPacket(r.ctx, "udp4", "")
		if err != nil {
			again = true
			r.set(nil, err)
			wait := pause
			if pause = min(2*pause, longestPause); errors.Is(err, errors.ErrUnsupported) {
				wait = refusedPause
			}
			r.rest(wait)
			continue
		}
		began := time.Now()
		ended := r.set(conn, nil)
		r.s.changed(again)
		again = true
		for { // until ReadFrom finds that it has ended
			select {
			case <-ended:
			case <-r.ctx.Done():
			}
			var now net.PacketConn
			if now, ended = r.current(); now != conn || r.ctx.Err() != nil {
				break
			}
		}
		conn.Close()
		if time.Since(began) >= longestPause {
			pause = firstPause
			continue
		}
		r.rest(pause)
		pause = min(2*pause, longestPause)
	}
}

func (r *relay) rest(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.soon:
	case <-r.ctx.Done():
	}
}

// hurry ends the pause before the next association.
func (r *relay) hurry() {
	select {
	case r.soon <- struct{}{}:
	default:
	}
}

// set records the association, or why there is none. The returned channel is closed when that changes.
func (r *relay) set(conn net.PacketConn, err error) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conn, r.err = conn, err
	close(r.changed)
	r.changed = make(chan struct{})
	return r.changed
}

func (r *relay) current() (net.PacketConn, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.conn, r.changed
}

// lost records that an association has ended.
func (r *relay) lost(conn net.PacketConn, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn == conn {
		r.conn, r.err = nil, fmt.Errorf("%w: %w", ErrCutOff, err)
		close(r.changed)
		r.changed = make(chan struct{})
	}
}

func (r *relay) error() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// ReadFrom waits for a packet, whatever association it comes through. It keeps back answers to the queries of ask.
func (r *relay) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		conn, changed := r.current()
		if r.ctx.Err() != nil {
			return 0, nil, net.ErrClosed
		}
		if conn == nil {
			select {
			case <-changed:
			case <-r.ctx.Done():
			}
			continue
		}
		n, from, err := conn.ReadFrom(b)
		switch {
		case err == nil && r.answers(b[:n], netaddr.Of(from)):
		case err == nil:
			return n, from, nil
		case errors.Is(err, net.ErrClosed):
			r.lost(conn, err)
		default:
			return 0, nil, err
		}
	}
}

// WriteTo sends a packet. If there is no association, it fails at once.
func (r *relay) WriteTo(b []byte, to net.Addr) (int, error) {
	conn, _ := r.current()
	if conn == nil {
		return 0, &net.OpError{Op: "write", Net: "udp", Addr: to, Err: syscall.ENETUNREACH}
	}
	return conn.WriteTo(b, to)
}

// Close ends the relay.
func (r *relay) Close() error {
	r.cancel()
	if conn, _ := r.current(); conn != nil {
		conn.Close()
	}
	return nil
}

// LocalAddr returns a placeholder. The proxy chooses the address that other hosts see.
func (r *relay) LocalAddr() net.Addr {
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.IPv4Unspecified(), 1))
}

func (r *relay) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (r *relay) SetReadDeadline(time.Time) error  { return errors.ErrUnsupported }
func (r *relay) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }
