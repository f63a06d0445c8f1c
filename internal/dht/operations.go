package dht

import (
	"context"
	"crypto/ed25519"
	"crypto/sha1"
	"errors"
	"fmt"
	"iter"
	"math"
	"net/netip"
	"time"

	"github.com/shoal-go/torrent/internal/krpc"
)

// Peers looks up the peers of a torrent and yields them as they are found, each once. It ends when the
// lookup does; an error is the last that it yields.
func (n *Node) Peers(ctx context.Context, hash ID) iter.Seq2[netip.AddrPort, error] {
	return func(yield func(netip.AddrPort, error) bool) {
		if err := n.over(ctx); err != nil {
			yield(netip.AddrPort{}, fmt.Errorf("look up peers of %v: %w", hash, err))
			return
		}
		var peers []netip.AddrPort // found and not yielded yet; guarded by n.mu
		more := make(chan struct{}, 1)
		s := &search{target: hash, method: krpc.GetPeers}
		s.found = func(_ netip.Addr, found []netip.AddrPort) {
			peers = append(peers, found...)
			select {
			case more <- struct{}{}:
			default:
			}
		}
		ended := n.begin(s)
		defer n.cancel(s)
		for over := false; !over; {
			var err error
			select {
			case <-more:
			case <-ended:
				over = true
				if s.answers == 0 {
					err = ErrNoNodes
				}
			case <-ctx.Done():
				over, err = true, n.over(ctx)
			case <-n.ctx.Done():
				over, err = true, n.over(ctx)
			}
			n.mu.Lock()
			batch := peers
			peers = nil
			n.mu.Unlock()
			for _, p := range batch {
				if !yield(p, nil) {
					return
				}
			}
			if err != nil {
				yield(netip.AddrPort{}, fmt.Errorf("look up peers of %v: %w", hash, err))
			}
		}
	}
}

// Announce announces a torrent once, to the nodes nearest to its hash, and returns how many took it. An
// error means that none did.
func (n *Node) Announce(ctx context.Context, t Torrent) (nodes int, err error) {
	s := &search{target: t.Hash, method: krpc.GetPeers, store: announceTo(t)}
	if err := n.do(ctx, s); err != nil {
		return 0, fmt.Errorf("announce %v: %w", t.Hash, err)
	}
	if s.stores == 0 {
		return 0, fmt.Errorf("announce %v: %w", t.Hash, s.whyNot())
	}
	return s.stores, nil
}

// Scrape estimates how many seeds and other peers a torrent has (BEP 33).
func (n *Node) Scrape(ctx context.Context, hash ID) (seeds, others int, err error) {
	var seedFilter, peerFilter filter
	s := &search{target: hash, method: krpc.GetPeers, scrape: true}
	s.take = func(m *krpc.Message) bool {
		if m.SeedFilter != nil {
			seedFilter.join(m.SeedFilter)
		}
		if m.PeerFilter != nil {
			peerFilter.join(m.PeerFilter)
		} else if m.SeedFilter == nil { // a node that does not know BEP 33
			for _, p := range m.Values {
				peerFilter.add(p.Addr())
			}
		}
		return false
	}
	if err := n.do(ctx, s); err != nil {
		return 0, 0, fmt.Errorf("scrape %v: %w", hash, err)
	}
	return int(math.Round(seedFilter.count())), int(math.Round(peerFilter.count())), nil
}

// Get fetches an immutable item, whose hash is target.
func (n *Node) Get(ctx context.Context, target ID) (value []byte, err error) {
	s := &search{target: target, method: krpc.Get}
	s.take = func(m *krpc.Message) bool {
		if m.Key == nil && len(m.Value) <= maxValue && m.Value != nil && sha1.Sum(m.Value) == target {
			value = append([]byte(nil), m.Value...)
		}
		return value != nil
	}
	if err := n.do(ctx, s); err != nil {
		return nil, fmt.Errorf("get %v: %w", target, err)
	}
	if value == nil {
		return nil, fmt.Errorf("get %v: %w", target, ErrNotFound)
	}
	return value, nil
}

// GetSigned fetches the mutable item of a key and a salt: of those that the nodes near it hold the one with
// the highest sequence number.
func (n *Node) GetSigned(ctx context.Context, key ed25519.PublicKey, salt []byte) (*Item, error) {
	target := signedTarget(key, salt)
	var best *Item
	s := &search{target: target, method: krpc.Get}
	s.take = func(m *krpc.Message) bool {
		if m.Key == nil || m.Has&krpc.HasSeq == 0 || !key.Equal(ed25519.PublicKey(m.Key)) || best != nil && best.Seq >= m.Seq {
			return false
		}
		item := Item{Value: m.Value, Key: m.Key, Salt: salt, Seq: m.Seq, Sig: m.Sig}
		if item.check() == nil && item.verified() {
			best = item.clone()
		}
		return false
	}
	if err := n.do(ctx, s); err != nil {
		return nil, fmt.Errorf("get %v: %w", target, err)
	}
	if best == nil {
		return nil, fmt.Errorf("get %v: %w", target, ErrNotFound)
	}
	return best, nil
}

// Put stores an item at the nodes nearest to its target, and returns how many took it. An error means that none did, or that more
// of them have another version of it; a *Refusal says why. Items are forgotten after two hours, unless they are put again. If cas
// is not nil, a mutable item only replaces the one with that sequence number.
func (n *Node) Put(ctx context.Context, item *Item, cas *int64) (nodes int, err error) {
	target := item.Target()
	if err := item.Check(); err != nil {
		return 0, fmt.Errorf("put %v: %w", target, err)
	}
	s := &search{target: target, method: krpc.Get}
	s.store = func(m *krpc.Message, at *candidate) {
		m.Value, m.Token = item.Value, at.token
		if item.Key == nil {
			return
		}
		m.Has |= krpc.HasSeq
		m.Key, m.Salt, m.Seq, m.Sig = item.Key, item.Salt, item.Seq, item.Sig
		if cas != nil && at.seq != nil {
			m.Has |= krpc.HasCAS
			m.CAS = *cas
		}
	}
	if err := n.do(ctx, s); err != nil {
		return 0, fmt.Errorf("put %v: %w", target, err)
	}
	if s.stores == 0 || s.conflicts > s.stores {
		return s.stores, fmt.Errorf("put %v: %w", target, s.whyNot())
	}
	return s.stores, nil
}

// whyNot is the error of a search that stored nothing.
func (s *search) whyNot() error {
	if s.refusal != nil {
		return s.refusal
	}
	return ErrNoNodes
}

// begin starts a search in both families, and returns a channel that is closed when it has ended.
func (n *Node) begin(s *search) (ended <-chan struct{}) {
	over := make(chan struct{})
	s.ended = func(time.Time) { close(over) }
	n.mu.Lock()
	now := time.Now()
	s.far = n.core.rng.IntN(2) == 0
	n.core.start(s, n.core.fams[:]...)
	n.core.tick(now)
	n.unlock(now)
	return over
}

func (n *Node) cancel(s *search) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.core.cancel(s)
}

// do makes a search and waits for its end.
func (n *Node) do(ctx context.Context, s *search) error {
	if err := n.over(ctx); err != nil {
		return err
	}
	ended := n.begin(s)
	defer n.cancel(s)
	select {
	case <-ended:
		if s.answers == 0 {
			return ErrNoNodes
		}
		return nil
	case <-ctx.Done():
		return n.over(ctx)
	case <-n.ctx.Done():
		return n.over(ctx)
	}
}

// over is the error of a search that the end of the node or of a context ended, or nil if neither has ended.
func (n *Node) over(ctx context.Context) error {
	if n.Closed() {
		return ErrClosed
	}
	if cause := context.Cause(ctx); !errors.Is(cause, ctx.Err()) {
		return fmt.Errorf("%w: %w", ctx.Err(), cause)
	}
	return ctx.Err()
}
