package portmap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/shoal-go/torrent/internal/netaddr"
)

const (
	firstWait = 250 * time.Millisecond // for an answer; doubled each time
	maxTries  = 6
	maxErrors = 16 // of a socket, in a row
)

var errSilent = errors.New("no answer")

// A router is a gateway and the ways to talk to it.
type router struct {
	Gateway
	listenPacket func(ctx context.Context, network, addr string) (net.PacketConn, error)
	dial         func(ctx context.Context, network, addr string) (net.Conn, error)
}

// exchange sends the packets that questions returns, repeatedly, and passes answers to hear until hear returns true.
// Both are told how many waits for an answer are over; hear is called at the end of each, too, without a packet.
func (r *router) exchange(ctx context.Context, questions func(waits int) []packet, hear func(b []byte, from netip.AddrPort, waits int) bool) error {
	network := netaddr.FamilyOf(r.Local).Network("udp")
	conn, err := r.listenPacket(ctx, network, netip.AddrPortFrom(r.Local, 0).String())
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	var sendErr error
	b := make([]byte, maxSSDP+1) // longer answers are cut, and refused for their length
	for waits := range maxTries {
		for _, p := range questions(waits) {
			if _, err := conn.WriteTo(p.data, net.UDPAddrFromAddrPort(p.to)); err != nil {
				sendErr = err // others may get through, or this one at the next try
			}
		}
		if err := conn.SetReadDeadline(time.Now().Add(firstWait << waits)); err != nil {
			return interrupted(ctx, err)
		}
		for failed := 0; ; {
			n, from, err := conn.ReadFrom(b)
			switch {
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case err == nil:
				failed = 0
				if hear(b[:n], netaddr.Of(from), waits) {
					return nil
				}
				continue
			case !errors.Is(err, os.ErrDeadlineExceeded):
				if failed++; failed < maxErrors && !errors.Is(err, net.ErrClosed) {
					continue // of a packet sent before, perhaps
				}
				return err
			}
			break
		}
		if hear(nil, netip.AddrPort{}, waits+1) {
			return nil
		}
	}
	if sendErr != nil {
		return sendErr
	}
	return errSilent
}

// interrupted returns why an operation failed: the error of ctx if it has ended, otherwise err.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// ask sends a request to the port for PCP and NAT-PMP until hear takes an answer that came from there.
func (r *router) ask(ctx context.Context, request []byte, hear func(b []byte) bool) error {
	port := netip.AddrPortFrom(r.Router, routerPort)
	return r.exchange(ctx,
		func(int) []packet { return []packet{{port, request}} },
		func(b []byte, from netip.AddrPort, _ int) bool { return from == port && hear(b) })
}

// A refusal is a router's answer that it refuses a request.
type refusal struct {
	by     Protocol
	reason string
	wait   time.Duration // how long it is of no use to ask again, if the router says so
}

func (e *refusal) Error() string {
	return fmt.Sprintf("%s refused: %s", e.by, e.reason)
}

// reasonOf names a result code.
func reasonOf(names []string, result int) string {
	if result < len(names) && names[result] != "" {
		return names[result]
	}
	return fmt.Sprintf("result %d", result)
}
