package torrent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"slices"

	"github.com/shoal-go/torrent/internal/simnet"
)

// simWitness reads a client's log for why it drops its peers: those that do nothing wrong are dropped for
// no offence. What is logged goes on to another handler.
type simWitness struct {
	slog.Handler
	history *simHistory
	client  *simnet.Host
}

// witness returns a log for a client that goes to where the client's own went.
func (h *simHistory) witness(s simSetup) *slog.Logger {
	to := slog.DiscardHandler
	if s.client.Logger != nil {
		to = s.client.Logger.Handler()
	}
	return slog.New(simWitness{to, h, s.host})
}

func (w simWitness) Enabled(context.Context, slog.Level) bool { return true }

func (w simWitness) WithAttrs(attrs []slog.Attr) slog.Handler {
	w.Handler = w.Handler.WithAttrs(attrs)
	return w
}

func (w simWitness) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "disconnected" {
		said := map[string]any{}
		r.Attrs(func(a slog.Attr) bool {
			said[a.Key] = a.Value.Any()
			return true
		})
		peer, why := said["peer"].(netip.AddrPort), said["why"].(error)
		if !noOffence(why) && w.history.blameless(peer.Addr()) {
			w.history.mu.Lock()
			w.history.accused = append(w.history.accused, fmt.Sprintf("%v dropped %v: %v", w.client, peer, why))
			w.history.mu.Unlock()
		}
	}
	if !w.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return w.Handler.Handle(ctx, r)
}

// noOffence tells whether a connection may end for that reason though its peer does nothing wrong.
func noOffence(why error) bool {
	var network *net.OpError
	return errors.As(why, &network) || slices.ContainsFunc([]error{
		io.EOF, io.ErrUnexpectedEOF, errTwice, errTurnover, errShared, errBothSeeds, errUseless, ErrClosed,
	}, func(e error) bool { return errors.Is(why, e) })
}

// blameless tells whether all peers of an address keep to the protocol.
func (h *simHistory) blameless(ip netip.Addr) bool {
	for _, p := range h.peers {
		script := p.Script
		script.Fast, script.Eager, script.Takes = false, false, false
		script.Flap, script.Rejects, script.Drip, script.StallAfter, script.ResetAfter, script.LeaveAfter = 0, 0, 0, 0, 0, 0
		if p.Host.IP() == ip && !reflect.ValueOf(script).IsZero() {
			return false
		}
	}
	return true
}
