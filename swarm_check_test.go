package torrent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/torrent/internal/netaddr"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
)

// ideal is the least time in which the anchors could send everything that is wanted to every client, and
// the clients' links could carry it. Each piece comes from the anchor that has sent it first.
func (h *simHistory) ideal() time.Duration {
	busy := map[*simpeer.Peer]float64{}
	most, total := 0.0, 0.0
	for range h.options {
		for _, i := range h.wanted {
			size := float64(h.content.layout.PieceSize(i))
			var best *simpeer.Peer
			for _, p := range h.anchors {
				if h.stash[p].Has(i) && (best == nil || busy[p]+size/p.Host.Uplink() < busy[best]+size/best.Host.Uplink()) {
					best = p
				}
			}
			if best == nil {
				continue // no anchor will ever have it
			}
			busy[best] += size / best.Host.Uplink()
			most = max(most, busy[best])
			total += size
		}
	}
	for _, s := range h.options {
		down := s.host.Downlink()
		if l := s.options.DownloadLimit; l != nil {
			down = min(down, float64(l.Limit()))
		}
		most = max(most, total/float64(len(h.options))/down)
	}
	return time.Duration(most * float64(time.Second))
}

// start starts the clients, no two in the same instant, so that what they do by the clock has an order.
func (h *simHistory) start(t *testing.T) {
	for _, s := range h.options {
		<-h.net.Pause(time.Microsecond)
		ctx := t.Context()
		if s.onDisk {
			s.options.Dir = t.TempDir()
		}
		if h.hopeless {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, h.bound(0))
			t.Cleanup(cancel)
		}
		simpeer.Watch(s.host, h.content.truth).Trace = h.trace
		s.client.Logger = h.witness(s)
		d := simStart(ctx, t, s.host, h.content, h.tracker, s.options, s.client)
		h.clients = append(h.clients, d)
		if s.stops > 0 {
			h.restarts = append(h.restarts, simRestart{s.stops, func() {
				if !d.done() {
					d.restart(ctx, t)
				}
			}})
		}
	}
	slices.SortFunc(h.restarts, func(a, b simRestart) int { return cmp.Compare(a.after, b.after) })
}

// simRestart is a client that will be closed and started again.
type simRestart struct {
	after time.Duration
	do    func()
}

// bound is how long a download may take if so many bytes of pieces were spoiled.
func (h *simHistory) bound(spoiled int64) time.Duration {
	ideal := h.ideal()
	wanted := int64(0)
	for _, i := range h.wanted {
		wanted += h.content.layout.PieceSize(i)
	}
	again := time.Duration(float64(ideal) * float64(spoiled) / float64(max(wanted, 1)))
	slowest := math.Inf(1)
	for _, p := range h.anchors {
		slowest = min(slowest, p.Host.Uplink())
	}
	piece := time.Duration(float64(min(h.content.layout.PieceLength(), h.content.layout.Size())) / slowest * float64(time.Second))
	bound := h.ready + ideal*3/2 + 2*again + piece + h.patience
	if h.silence {
		bound += snubTimeout + 5*time.Second
	}
	spoils := spoiled > 0 || h.webLies // the ledger does not see what web seeds send

	if h.silence && spoils { // then a piece that is asked of one peer alone may wait for two such peers
		bound += 2 * (snubTimeout + 5*time.Second)
	}
	if len(h.web) > 0 { // what they spoil is asked of one peer alone
		bound += 2 * piece
	}
	if h.version != V1 && spoils { // a piece waits for the hashes of its blocks
		bound += 3 * blocksPatience
	}
	return bound
}

// check requires of a history that has run what every history must show.
func (h *simHistory) check(t *testing.T, sum *simFigures) {
	var faults []string
	for _, s := range h.clients {
		sum.owed, sum.held = max(sum.owed, s.owed), max(sum.held, s.held)
		faults = append(faults, s.account()...)
		if !s.done() {
			faults = append(faults, fmt.Sprintf("%v: not done after %v: %v", s.host, time.Since(s.began), s.describe()))
			continue
		}
		if h.hopeless {
			if _, err := s.Wait(); !errors.Is(err, context.DeadlineExceeded) {
				faults = append(faults, fmt.Sprintf("%v: ended with %v", s.host, err))
			}
			faults = append(faults, h.checkBans(s, sum)...)
			continue
		}
		if err := s.compare(h.choice); err != nil {
			faults = append(faults, fmt.Sprintf("%v: %v", s.host, err))
		}
		spoiled := s.ledger.Account().LieBytes / blockSize * h.content.layout.PieceLength()
		bound := h.bound(spoiled)
		if s.took > bound {
			faults = append(faults, fmt.Sprintf("%v: took %v, bound is %v", s.host, s.took, bound))
		}
		sum.download(h.seed, s.took, bound)
		faults = append(faults, h.checkBans(s, sum)...)
		faults = append(faults, h.checkBytes(s, sum)...)
	}
	h.mu.Lock()
	faults = append(faults, h.accused...)
	h.mu.Unlock()
	for _, p := range h.peers {
		faults = append(faults, p.Faults()...)
	}
	sum.history(h)
	if len(faults) > 0 {
		t.Error(strings.Join(faults, "\n"))
	}
}

// checkBans finds proven liars that are not banned, and honest peers that are.
func (h *simHistory) checkBans(s *simDownload, sum *simFigures) (faults []string) {
	var proven, lied []netip.AddrPort
	l := s.ledger.Account()
	proven = slices.Collect(maps.Keys(l.Proven))
	lied = slices.Collect(maps.Keys(l.Lies))
	for _, a := range proven {
		if !s.banned(a) && len(h.web) == 0 { // a web seed may have sent a part of what the ledger saw come whole
			faults = append(faults, fmt.Sprintf("%v: %v lied, provably, and is not banned", s.host, a))
		}
	}
	liars := map[netip.Addr]bool{} // true if banned
	for _, a := range lied {
		liars[a.Addr()] = liars[a.Addr()] || s.banned(a)
	}
	for _, p := range h.peers {
		_, lied := liars[p.Host.IP()]
		if p.Lies() || (lied || h.liars[p.Host.IP()]) && !netaddr.IsLocal(p.Host.IP()) {
			continue
		}
		sum.honest++
		if s.banned(p.Addr()) {
			faults = append(faults, fmt.Sprintf("%v: %s at %v never lied, and is banned", s.host, p.Name, p.Addr()))
			sum.honestBanned++
		}
	}
	sum.proven += len(proven)
	sum.liars += len(liars)
	for _, banned := range liars {
		if banned {
			sum.liarsBanned++
		}
	}
	return faults
}

// checkBytes finds bytes that came beyond the content and that nothing explains.
func (h *simHistory) checkBytes(s *simDownload, sum *simFigures) (faults []string) {
	s.mu.Lock()
	steals := s.steals + s.picker.Steals()
	s.mu.Unlock()
	l := s.ledger.Account()
	spoiled := int64(0)
	for _, n := range l.Lies {
		spoiled += n * min(h.content.layout.PieceLength(), h.content.layout.Size())
	}
	wanted := int64(0)
	for _, i := range h.wanted {
		wanted += h.content.layout.PieceSize(i)
	}
	if more := l.Again + l.First - wanted; more > l.Seconds*blockSize+2*spoiled+l.Dropped {
		faults = append(faults, fmt.Sprintf("%v: %d bytes came again, %d blocks were asked of a second peer, %d bytes spoiled",
			s.host, more, l.Seconds, spoiled))
	}
	sum.received += l.Received
	for kind, n := range l.Waste {
		sum.wasted[kind] += n
	}
	sum.steals += steals
	return faults
}

// run runs a history, and checks it.
func (h *simHistory) run(t *testing.T, sum *simFigures) {
	defer synctest.Wait()
	defer h.end(t)
	h.start(t)
	began := time.Now()
	for _, r := range h.restarts {
		simWait(r.after-time.Since(began), h.clients...)
		r.do()
	}
	simWait(12*time.Hour, h.clients...)
	h.check(t, sum)
}

// end closes what a history began, and requires that nothing is left of it.
func (h *simHistory) end(t *testing.T) {
	for _, s := range h.clients {
		s.end(t)
	}
	for _, p := range h.peers {
		p.Stop()
	}
	for _, w := range h.web {
		w.Close()
	}
}

// simWitness reads in a client's log why it drops peers. A peer that does nothing wrong must not be dropped
// for an offence. What is logged goes on to another handler.
type simWitness struct {
	slog.Handler
	history *simHistory
	client  *simnet.Host
}

// witness returns a logger for a client. It goes on to where the client's own went.
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

// noOffence reports whether a connection may end for that reason though its peer does nothing wrong.
func noOffence(why error) bool {
	var network *net.OpError
	return errors.As(why, &network) || slices.ContainsFunc([]error{
		io.EOF, io.ErrUnexpectedEOF, errTwice, errTurnover, errShared, errBothSeeds, errUseless, ErrClosed,
	}, func(e error) bool { return errors.Is(why, e) })
}

// blameless reports whether all peers of an address keep to the protocol.
func (h *simHistory) blameless(ip netip.Addr) bool {
	for _, p := range h.peers {
		script := p.Script
		script.Fast, script.Eager, script.Takes = false, false, false
		script.OnlyV1, script.AsksHashes, script.RefusesHashes = false, false, false
		script.Never &^= simpeer.AnswersHashes
		script.Flap, script.Rejects, script.Drip, script.StallAfter, script.ResetAfter, script.LeaveAfter = 0, 0, 0, 0, 0, 0
		if p.Host.IP() == ip && !reflect.ValueOf(script).IsZero() {
			return false
		}
	}
	return true
}
