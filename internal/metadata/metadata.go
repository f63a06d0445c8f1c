// Package metadata decides which info dictionary of a torrent to believe of those that peers send (BEP 9).
//
// It is plain data: it knows no connection and no clock. One Assembler serves one magnet link, whose lock
// guards it and its peers.
package metadata

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/expiring"
	"github.com/shoal-go/torrent/internal/netaddr"
	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/wire"
)

const (
	maxSize   = 32 << 20  // bytes of an info dictionary
	maxDrafts = 256 << 20 // bytes that all drafts with memory claim; the bytes that they hold are in the account of the client

	// Timeout is how long a peer may answer none of its requests.
	Timeout         = 15 * time.Second
	askedAtOnce     = 4               // requests outstanding to a peer
	askAgain        = 2 * time.Second // until a piece is requested from another idle peer as well
	sizePatience    = time.Minute     // until a peer must have said how long the metadata is
	rejectPause     = 5 * time.Second // before the next request to a peer that rejected one
	maxRejectPauses = 3               // in a row
	maxUnasked      = 16              // answers of a peer to no request that are tolerated
	maxSilent       = 512             // hosts of silent peers that are remembered
	maxSuspects     = 4096            // peers that wrote in a false draft that are remembered
	maxLeft         = 64              // drafts that are kept though all that wrote in them have left
)

// An Assembler puts the info dictionary of a torrent together from what peers send of it.
//
// The pieces cannot be verified one by one: the info hash covers only the whole. So the peers that claim the same length write
// one draft together. If it turns out to be false, each of its authors continues alone with the pieces that it wrote, and a peer
// that wrote a false draft alone is a liar.
//
// The memory of drafts is bounded. Drafts with a peer of a smaller crowd get memory first, so that no network keeps the peers of
// others out. Among equals, shorter drafts get it first, because a lie about them is found out sooner.
type Assembler struct {
	peers    map[*Peer]struct{}
	drafts   map[draftKey]*Draft
	suspects map[netip.AddrPort]struct{} // wrote in a draft of several authors that was false
	silent   map[netip.Prefix]struct{}   // hosts that left requests unanswered and never sent a piece
	most     int64                       // bytes of all drafts that have memory
	scratch  []asking                    // the result of askedFor, reused
}

// A Peer is a connected peer that may have the metadata.
type Peer struct {
	addr    netip.AddrPort
	network string
	joined  time.Time
	size    int64     // of the metadata, as it claims; 0 if unsaid
	asked   []ask     // outstanding requests
	heard   time.Time // last answer, or the first request after a quiet time
	rejects int       // pauses in a row
	paused  time.Time // not to be asked before
	unasked int
	useful  bool // it sent a piece that was wanted
}

type ask struct {
	piece int
	at    time.Time
}

// draftKey identifies a draft: by its length, and by its author if it has only one.
type draftKey struct {
	size int64
	only netip.AddrPort
}

// A Draft is an info dictionary in the making.
type Draft struct {
	draftKey
	pieces  []piece // nil unless there is memory for the draft
	missing int
	held    int // bytes that its pieces take
}

// pieceOverhead is what a piece takes before it is here.
const pieceOverhead = 64

type piece struct {
	data   []byte // nil while missing
	author netip.AddrPort
}

// ErrLied marks errors that only a peer that lies can cause.
var ErrLied = errors.New("lies about the metadata")

// New returns an assembler without peers.
func New() *Assembler {
	return &Assembler{
		peers:    make(map[*Peer]struct{}),
		drafts:   make(map[draftKey]*Draft),
		suspects: make(map[netip.AddrPort]struct{}),
		silent:   make(map[netip.Prefix]struct{}),
		most:     maxDrafts,
	}
}

// Join adds a peer, Leave removes it; what it wrote stays.
func (m *Assembler) Join(addr netip.AddrPort, now time.Time) *Peer {
	p := &Peer{addr: addr, network: peerlist.Network(addr.Addr()), joined: now}
	m.peers[p] = struct{}{}
	return p
}

func (m *Assembler) Leave(p *Peer) {
	local := netaddr.IsLocal(p.addr.Addr()) // any number of peers may stand behind it
	if len(p.asked) > 0 && !p.useful && !local {
		expiring.Remember(m.silent, netaddr.Host(p.addr.Addr()), maxSilent)
	}
	delete(m.peers, p)
	if p.size != 0 {
		m.ration()
	}
}

// Offer records the length that a peer claims.
func (m *Assembler) Offer(p *Peer, size int64) error {
	switch {
	case size == p.size:
		return nil
	case p.size != 0:
		return fmt.Errorf("%w: %d bytes, then %d", ErrLied, p.size, size)
	case size < 0 || size > maxSize:
		return fmt.Errorf("%w: %d bytes", ErrLied, size)
	}
	p.size = size
	m.draft(m.key(p))
	m.ration()
	return nil
}

// Next returns the pieces to request from a peer now, and counts them as requested. A late piece is requested from a second peer,
// and then from peers of other networks, one at a time. Hosts that were silent before come last, and peers that have only just
// connected are left out. So silent peers that reconnect do not keep a piece from being requested from a peer that has it.
func (m *Assembler) Next(p *Peer, now time.Time) (pieces []int) {
	if p.size == 0 || len(p.asked) == askedAtOnce || now.Before(p.paused) {
		return nil
	}
	key := m.key(p)
	d := m.drafts[key]
	asked := m.askedFor(p, key, len(d.pieces))
	patience := askAgain
	if _, silent := m.silent[netaddr.Host(p.addr.Addr())]; silent && !p.useful {
		patience = Timeout
	}
	mayRepeat := p.useful || now.Sub(p.joined) >= askAgain
	for _, again := range []bool{false, mayRepeat} {
		for i := range asked {
			if len(p.asked) == askedAtOnce {
				return pieces
			}
			if d.pieces[i].data != nil || p.isAsked(i) {
				continue
			}
			if a := &asked[i]; a.copies == 0 || again && a.few() && now.Sub(a.last) >= patience {
				if len(p.asked) == 0 {
					p.heard = now
				}
				p.asked = append(p.asked, ask{i, now})
				pieces = append(pieces, i)
			}
		}
	}
	return pieces
}

// An asking is the state of the requests for one piece of a draft.
type asking struct {
	copies int
	last   time.Time
	near   bool // one of them is of the same network as the peer that may be asked
}

// few reports whether so few peers are asked that another one may be.
func (a *asking) few() bool { return a.copies == 1 || !a.near }

// askedFor returns the state of the requests for each piece of the draft of p. The result is valid until the next call.
func (m *Assembler) askedFor(p *Peer, key draftKey, pieces int) []asking {
	m.scratch = slices.Grow(m.scratch[:0], pieces)[:pieces]
	clear(m.scratch)
	for q := range m.peers {
		if q.size != key.size || m.key(q) != key {
			continue
		}
		for _, ask := range q.asked {
			if ask.piece >= pieces {
				continue // of a draft that lost its memory
			}
			a := &m.scratch[ask.piece]
			a.near = a.near || q.network == p.network
			if a.copies++; ask.at.After(a.last) {
				a.last = ask.at
			}
		}
	}
	return m.scratch
}

func (p *Peer) isAsked(piece int) bool {
	return slices.ContainsFunc(p.asked, func(a ask) bool { return a.piece == piece })
}

// Received records a piece, whose data it copies. If the piece completes its draft, Received returns the draft.
func (m *Assembler) Received(p *Peer, x wire.MetadataMessage, now time.Time) (whole *Draft, err error) {
	if ok, err := p.answered(x.Piece, now); !ok {
		return nil, err
	}
	p.rejects = 0
	d := m.drafts[m.key(p)]
	begin := int64(x.Piece) * wire.MetadataBlock
	switch {
	case x.TotalSize != 0 && x.TotalSize != p.size:
		return nil, fmt.Errorf("%w: %d bytes, then %d", ErrLied, p.size, x.TotalSize)
	case int64(len(x.Data)) != min(wire.MetadataBlock, d.size-begin):
		return nil, fmt.Errorf("%w: a piece of %d bytes at %d of %d", ErrLied, len(x.Data), begin, d.size)
	case d.pieces == nil || d.pieces[x.Piece].data != nil:
		return nil, nil
	}
	p.useful = true
	d.pieces[x.Piece] = piece{bytes.Clone(x.Data), p.addr}
	d.held += len(x.Data)
	if d.missing--; d.missing == 0 {
		return d, nil
	}
	return nil, nil
}

// Rejected records that a peer will not send a piece. Perhaps it does not have the metadata yet.
func (m *Assembler) Rejected(p *Peer, piece int, now time.Time) error {
	if ok, err := p.answered(piece, now); !ok {
		return err
	}
	if now.Before(p.paused) {
		return nil
	}
	if p.rejects++; p.rejects > maxRejectPauses {
		return errors.New("rejects all requests for metadata")
	}
	p.paused = now.Add(rejectPause)
	return nil
}

// answered removes a request from those outstanding. A few answers to none are tolerated.
func (p *Peer) answered(piece int, now time.Time) (ok bool, err error) {
	k := slices.IndexFunc(p.asked, func(a ask) bool { return a.piece == piece })
	if k < 0 {
		if p.unasked++; p.unasked > maxUnasked {
			err = errors.New("sends metadata that was not asked for")
		}
		return false, err
	}
	p.asked = slices.Delete(p.asked, k, k+1)
	p.heard = now
	return true, nil
}

// Steps returns how many pieces Next examines at most.
func (p *Peer) Steps() int64 { return 2 * p.size / wire.MetadataBlock }

// Useful reports whether the peer sent a piece that was wanted.
func (p *Peer) Useful() bool { return p.useful }

// Overdue returns why a peer is no longer worth waiting for, or nil.
func (p *Peer) Overdue(now time.Time) error {
	switch {
	case p.size == 0 && now.Sub(p.joined) >= sizePatience:
		return errors.New("has no metadata")
	case len(p.asked) > 0 && now.Sub(p.heard) >= Timeout:
		return errors.New("does not answer requests for metadata")
	}
	return nil
}

// Refute records that a whole draft does not have the info hash. It returns the liar, if it is known by
// now.
func (m *Assembler) Refute(d *Draft) (liar netip.AddrPort, ok bool) {
	if m.drafts[d.draftKey] == d {
		delete(m.drafts, d.draftKey)
	}
	author := d.pieces[0].author
	if !slices.ContainsFunc(d.pieces, func(w piece) bool { return w.author != author }) {
		liar, ok = author, true
	} else {
		for i, w := range d.pieces {
			expiring.Remember(m.suspects, w.author, maxSuspects)
			own := m.draft(draftKey{d.size, w.author})
			if own.pieces == nil {
				own.begin()
			}
			if own.pieces[i].data == nil {
				own.pieces[i] = w
				own.held += len(w.data)
				own.missing--
			}
		}
	}
	for p := range m.peers {
		if p.size != 0 {
			m.draft(m.key(p))
		}
	}
	m.ration()
	return liar, ok
}

// Liars returns the peers that claim another length than that of the true text, and the authors of pieces
// that differ from it.
func (m *Assembler) Liars(text []byte) (liars []netip.AddrPort) {
	for p := range m.peers {
		if p.size != 0 && p.size != int64(len(text)) {
			liars = append(liars, p.addr)
		}
	}
	for _, d := range m.drafts {
		if d.size != int64(len(text)) {
			continue
		}
		for i, w := range d.pieces {
			truth := text[i*wire.MetadataBlock : min((i+1)*wire.MetadataBlock, len(text))]
			if w.data != nil && !bytes.Equal(w.data, truth) && !slices.Contains(liars, w.author) {
				liars = append(liars, w.author)
			}
		}
	}
	return liars
}

// Text returns the whole of a draft.
func (d *Draft) Text() []byte {
	b := make([]byte, 0, d.size)
	for _, w := range d.pieces {
		b = append(b, w.data...)
	}
	return b
}

// Progress returns how many bytes of the metadata the most complete draft has, and the length that its peers claim. Both are zero
// before a peer has claimed a length.
func (m *Assembler) Progress() (have, size int64) {
	for _, d := range m.drafts {
		n := int64(0)
		for _, w := range d.pieces {
			n += int64(len(w.data))
		}
		if size == 0 || n > have || n == have && d.size < size {
			have, size = n, d.size
		}
	}
	return have, size
}

// key returns the key of the draft that a peer writes in.
func (m *Assembler) key(p *Peer) draftKey {
	k := draftKey{size: p.size}
	if _, suspect := m.suspects[p.addr]; suspect {
		k.only = p.addr
	}
	return k
}

func (m *Assembler) draft(k draftKey) *Draft {
	d := m.drafts[k]
	if d == nil {
		d = &Draft{draftKey: k}
		m.drafts[k] = d
	}
	return d
}

func (d *Draft) begin() {
	d.pieces = make([]piece, (d.size+wire.MetadataBlock-1)/wire.MetadataBlock)
	d.missing = len(d.pieces)
	d.held = pieceOverhead * len(d.pieces)
}

// Held returns how many bytes of memory all drafts use.
func (m *Assembler) Held() (n int) {
	for _, d := range m.drafts {
		n += d.held
	}
	return n
}

// GiveWay drops the draft that takes the most, and returns the peers that write in it. The caller disconnects them.
func (m *Assembler) GiveWay() (authors []*Peer) {
	var most *Draft
	for _, d := range m.drafts {
		if most == nil || d.held > most.held || d.held == most.held && d.size > most.size {
			most = d
		}
	}
	if most == nil {
		return nil
	}
	m.drafts[most.draftKey] = &Draft{draftKey: most.draftKey}
	for p := range m.peers {
		if p.size != 0 && m.key(p) == most.draftKey {
			authors = append(authors, p)
		}
	}
	return authors
}

// ration decides which drafts have memory. Drafts that a peer writes in come before others, then those with a peer of a smaller
// crowd, and then the shorter ones. Of those that no peer writes in any more, few are kept: those of which the most is here.
func (m *Assembler) ration() {
	crowd := make(map[*Draft]int, len(m.peers)) // the smallest of the peers of those that are live
	addrs := make([]netip.Addr, 0, len(m.peers))
	of := make([]*Draft, 0, len(m.peers))
	for p := range m.peers {
		if p.size != 0 {
			addrs, of = append(addrs, p.addr.Addr()), append(of, m.drafts[m.key(p)])
		}
	}
	for k, size := range peerlist.Crowds(addrs) {
		if d := of[k]; crowd[d] == 0 || size < crowd[d] {
			crowd[d] = size
		}
	}
	type claim struct {
		*Draft
		crowd int // 0 if no peer writes in it
		kept  int // what is here of it, if no peer writes in it
	}
	order := make([]claim, 0, len(m.drafts))
	for _, d := range m.drafts {
		c := claim{d, crowd[d], 0}
		if c.crowd == 0 {
			c.kept = d.held
		}
		order = append(order, c)
	}
	slices.SortFunc(order, func(a, b claim) int {
		return cmp.Or(-cmp.Compare(min(a.crowd, 1), min(b.crowd, 1)), cmp.Compare(a.crowd, b.crowd), cmp.Compare(b.kept, a.kept), cmp.Compare(a.size, b.size), a.only.Compare(b.only))
	})
	sum, left := int64(0), 0
	for _, d := range order {
		sum += d.size
		switch fits, live := sum <= m.most, d.crowd > 0; {
		case live && fits && d.pieces == nil:
			d.begin()
		case live && !fits && d.pieces != nil:
			m.drafts[d.draftKey] = &Draft{draftKey: d.draftKey} // the old one may be being hashed
		case !live && (!fits || d.pieces == nil || d.missing == len(d.pieces) || left == maxLeft):
			delete(m.drafts, d.draftKey)
		case !live:
			left++
		}
	}
}
