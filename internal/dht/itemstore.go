package dht

import (
	"bytes"
	"net/netip"
	"time"

	"github.com/shoal-go/torrent/internal/krpc"
)

const (
	maxItems = 700
	itemLife = 2 * time.Hour
)

// itemStore holds the items that were put here (BEP 44), for two hours. When it is full, it evicts items of the
// network that has the most.
type itemStore struct {
	items  map[ID]*storedItem
	makers makers
}

type storedItem struct {
	Item            // without the salt, which no query asks for
	maker maker     // who put it first
	at    time.Time // when it was last put
}

func newItemStore() itemStore {
	return itemStore{items: make(map[ID]*storedItem), makers: make(makers)}
}

func (s *itemStore) get(target ID) *Item {
	if i := s.items[target]; i != nil {
		return &i.Item
	}
	return nil
}

// room reports whether an item would be stored if it were put from the address; if not, no token is given
// for it.
func (s *itemStore) room(self, target ID, from netip.AddrPort) bool {
	if s.items[target] != nil || len(s.items) < maxItems {
		return true
	}
	_, ok := s.victim(self, target, from)
	return ok
}

func (s *itemStore) victim(self, target ID, from netip.AddrPort) (ID, bool) {
	return victim(s.items, func(i *storedItem) maker { return i.maker }, s.makers, self, target, makerOf(from))
}

// put stores an item for which a token was shown, and copies it. If cas is not nil, it is the sequence
// number that the item is to replace.
func (s *itemStore) put(now time.Time, self ID, item *Item, cas *int64, from netip.AddrPort) *itemFault {
	if fault := item.check(); fault != nil {
		return fault
	}
	target := item.Target()
	old := s.items[target]
	if item.Key != nil && old != nil {
		switch {
		case cas != nil && *cas != old.Seq:
			return &itemFault{krpc.CASMismatch, "sequence number is not the expected one"}
		case item.Seq < old.Seq, item.Seq == old.Seq && !bytes.Equal(item.Value, old.Value):
			return &itemFault{krpc.SeqTooLow, "sequence number is not above the current one"}
		}
	}
	if item.Key != nil && !item.verified() { // last, since it costs most
		return &itemFault{krpc.InvalidSignature, "invalid signature"}
	}
	stored := &storedItem{maker: makerOf(from), at: now}
	if old != nil {
		stored.maker = old.maker
	} else {
		if len(s.items) >= maxItems {
			id, ok := s.victim(self, target, from)
			if !ok {
				return &itemFault{krpc.ServerError, "no room"}
			}
			s.drop(id)
		}
		s.makers.add(stored.maker, 1)
	}
	stored.Item = Item{Value: bytes.Clone(item.Value), Key: bytes.Clone(item.Key), Seq: item.Seq, Sig: bytes.Clone(item.Sig)}
	s.items[target] = stored
	return nil
}

// sweep forgets items that were not put again in time.
func (s *itemStore) sweep(now time.Time) {
	for target, i := range s.items {
		if now.Sub(i.at) > itemLife {
			s.drop(target)
		}
	}
}

func (s *itemStore) drop(target ID) {
	s.makers.add(s.items[target].maker, -1)
	delete(s.items, target)
}
