package torrent

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"time"

	"github.com/shoal-go/torrent/internal/outbox"
	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/pex"
	"github.com/shoal-go/torrent/internal/printable"
	"github.com/shoal-go/torrent/internal/wire"
)

// clientName is our name and version, as told to peers and trackers.
const clientName = "shoal/0.1"

// An extension is an extension of the protocol (BEP 10): its name, and the function that acts on its messages.
type extension struct {
	name    string
	offered func(d *Download) bool // whether it is offered to the peers of d
	receive func(p *peer, payload []byte, now time.Time) error
}

// extensionTable holds the extensions that we speak. Peers name each to us by its index; 0 is the handshake.
var extensionTable = [numExtensions]extension{
	extPEX:       {"ut_pex", (*Download).gossips, (*peer).receivePEX},
	extMetadata:  {"ut_metadata", always, (*peer).receiveMetadata},
	extDontHave:  {"lt_donthave", always, (*peer).receiveDontHave},
	extHolePunch: {"ut_holepunch", (*Download).punches, (*peer).receiveHolePunch},
}

const (
	extPEX = 1 + iota
	extMetadata
	extDontHave
	extHolePunch
	numExtensions
)

func always(*Download) bool { return true }

// extensions records what a peer said in its extension handshakes.
type extensions struct {
	number     [numExtensions]byte // by which it names each extension; 0 if it does not speak it
	client     string
	uploadOnly bool           // it wants nothing (BEP 21)
	listens    netip.AddrPort // where it accepts connections, if known
	saidYourIP bool           // it told us our address
	pex        pex.Exchange
	punching   punching

	handshake []byte // the last one, unless it is long; used by the reading goroutine only

	metadataServed int64 // bytes of the info dictionary that it was sent
}

// maxSavedHandshake is the length of the longest extension handshake that is recognised when it is repeated.
const maxSavedHandshake = 1 << 10

// extHandshake is our extension handshake. The caller holds d.mu.
func (d *Download) extHandshake(to netip.AddrPort) wire.ExtHandshake {
	h := wire.ExtHandshake{
		M:            make(map[string]int),
		V:            clientName,
		ReqQ:         outbox.MaxQueued,
		P:            int(d.client.publicPort()),
		YourIP:       to.Addr().AsSlice(),
		MetadataSize: int64(len(d.t.info)),
		UploadOnly:   new(d.sated()),
	}
	for n, e := range extensionTable {
		if n > 0 && e.offered(d) {
			h.M[e.name] = n
		}
	}
	return h
}

// The caller holds p.d.mu.
func (p *peer) sendExtHandshake() {
	h := p.d.extHandshake(p.conn.addr)
	p.sendExtended(0, h.Append(nil))
}

// sendExtended sends an extended message under the number that the peer gave it. The caller holds p.d.mu.
func (p *peer) sendExtended(number byte, payload []byte) {
	p.send(func(b []byte) []byte { return wire.AppendExtended(b, number, payload) })
}

// actExtended acts on a message of BEP 10.
func (p *peer) actExtended(m wire.Message, now time.Time) error {
	if !p.extended {
		return errors.New("extended message without the extension protocol")
	}
	p.charge(int64(len(m.Payload)), now)
	if m.ExtID == 0 {
		return p.receiveExtHandshake(m.Payload, now)
	}
	if int(m.ExtID) < len(extensionTable) {
		if e := extensionTable[m.ExtID]; e.offered(p.d) {
			return e.receive(p, m.Payload, now)
		}
	}
	return nil // unknown ones are ignored
}

func (p *peer) receiveExtHandshake(payload []byte, now time.Time) error {
	if bytes.Equal(payload, p.ext.handshake) && len(payload) > 0 {
		return nil
	}
	if len(payload) <= maxSavedHandshake {
		p.ext.handshake = bytes.Clone(payload)
	}
	h := wire.ParseExtHandshake(payload)
	d := p.d
	d.mu.Lock()
	defer d.unlock(now)
	defer p.chargeSince(d.picker.Work(), now)
	for n, e := range extensionTable {
		if id, said := h.M[e.name]; said && n > 0 {
			p.ext.number[n] = byte(id)
		}
	}
	if h.V != "" {
		p.ext.client = printable.Line(h.V)
	}
	if h.ReqQ > 0 {
		p.supply.SetLimit(h.ReqQ)
	}
	if h.UploadOnly != nil {
		p.ext.uploadOnly = *h.UploadOnly
		if p.ext.uploadOnly && d.sharing() && d.sated() {
			return errBothSeeds
		}
	}
	if p.conn.incoming && h.P != 0 && !p.ext.listens.IsValid() {
		p.ext.listens = netip.AddrPortFrom(p.conn.addr.Addr(), uint16(h.P))
		d.discovery.candidates.Claimed(p.ext.listens, now)
	}
	if ip, ok := netip.AddrFromSlice(h.YourIP); ok && !p.ext.saidYourIP {
		p.ext.saidYourIP = true
		d.discovery.candidates.Told(p.conn.addr.Addr(), netip.AddrPortFrom(ip, d.client.publicPort()), now)
	}
	d.refill(&p.supply, now)
	return nil
}

// receiveMetadata answers a request for a block of the info dictionary (BEP 9).
func (p *peer) receiveMetadata(payload []byte, now time.Time) error {
	m := wire.ParseMetadataMessage(payload)
	if m.Type != wire.MetadataRequest {
		return nil
	}
	d := p.d
	d.mu.Lock()
	defer d.mu.Unlock()
	number := p.ext.number[extMetadata]
	if number == 0 {
		return nil
	}
	answer := wire.MetadataMessage{Type: wire.MetadataReject, Piece: m.Piece}
	begin := int64(m.Piece) * wire.MetadataBlock
	if size := int64(len(d.t.info)); begin < size && p.ext.metadataServed < maxMetadataServed(size) && p.out.Backlog() < maxMetadataWaiting {
		answer.Type = wire.MetadataData
		answer.TotalSize = size
		answer.Data = d.t.info[begin:min(begin+wire.MetadataBlock, size)]
		p.ext.metadataServed += int64(len(answer.Data))
	}
	p.charge(answerWork+int64(len(answer.Data))/(blockSize/blockWork), now)
	if answer.Type == wire.MetadataReject {
		p.sendExtended(number, answer.Append(nil))
	} else if !p.out.AddAnswer(wire.AppendExtended(nil, number, answer.Append(nil))) {
		p.stopLocked(errNotReading)
	}
	return nil
}

// gossips reports whether peers may be told of other peers.
func (d *Download) gossips() bool { return !d.t.private }

// receivePEX takes the addresses that a peer knows (BEP 11).
func (p *peer) receivePEX(payload []byte, now time.Time) error {
	d := p.d
	d.mu.Lock()
	defer d.unlock(now)
	defer p.chargeSince(d.picker.Work(), now)
	named, err := p.ext.pex.Receive(payload, p.conn.addr.Addr(), now)
	by := peerlist.Network(p.conn.addr.Addr())
	for q := range named {
		if q.Flags&wire.PEXSeed != 0 && d.sated() {
			continue // seeds are of no use to each other
		}
		d.discovery.add(q.Addr, peerlist.FromPEX, by, now)
		if q.Flags&wire.PEXHolePunch != 0 {
			d.discovery.candidates.AddRelay(q.Addr, p.conn.addr)
		}
	}
	return err
}

// sendPEX tells the peer, once a minute, which peers came and left since the last time. The caller holds p.d.mu.
func (p *peer) sendPEX(now time.Time) {
	number := p.ext.number[extPEX]
	if number == 0 || !p.d.gossips() || !p.ext.pex.Due(now) {
		return
	}
	if message := p.ext.pex.Message(p.conn.addr.Addr(), p.others(), now); message != nil {
		p.sendExtended(number, message)
	}
}

// others yields the other peers that are known to listen. The caller holds p.d.mu.
func (p *peer) others() iter.Seq[pex.Peer] {
	return func(yield func(pex.Peer) bool) {
		for _, q := range p.d.swarm.peers {
			if q == p || !q.ext.listens.IsValid() {
				continue
			}
			var flags byte
			if q.isSeed() || q.ext.uploadOnly {
				flags |= wire.PEXSeed
			}
			if q.conn.encrypted {
				flags |= wire.PEXEncrypts
			}
			if q.conn.way == byUTP {
				flags |= wire.PEXUTP
			}
			if q.ext.number[extHolePunch] != 0 {
				flags |= wire.PEXUTP | wire.PEXHolePunch
			}
			if !q.conn.incoming {
				flags |= wire.PEXReachable
			}
			if !yield(pex.Peer{Addr: q.ext.listens, Flags: flags}) {
				return
			}
		}
	}
}

// receiveDontHave records that the peer no longer has a piece (BEP 54).
func (p *peer) receiveDontHave(payload []byte, now time.Time) error {
	i, err := wire.ParseDontHave(payload)
	if err != nil {
		return err
	}
	d := p.d
	if uint64(i) >= uint64(d.t.NumPieces()) {
		return fmt.Errorf("don't have of piece %d, where there are %d", i, d.t.NumPieces())
	}
	d.mu.Lock()
	defer d.unlock(now)
	defer p.chargeSince(d.picker.Work(), now)
	if cancel := d.picker.DontHave(&p.supply, int(i)); len(cancel) > 0 {
		d.cancelAll(cancel)
		d.pending.released = true
	}
	d.updateInterest(p)
	return nil
}

// maxMetadataWaiting is how many bytes may wait for a peer before its requests for metadata are rejected. It may request
// them again: a peer that requests all of a long dictionary at once does nothing wrong.
const maxMetadataWaiting = 1 << 20

// maxMetadataServed is how many bytes of an info dictionary of the given size are sent to one peer: a few times its
// size.
func maxMetadataServed(size int64) int64 { return 4*size + 64<<10 }
