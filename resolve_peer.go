package torrent

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/shoal-go/torrent/internal/metadata"
	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/pex"
	"github.com/shoal-go/torrent/internal/ratelimit"
	"github.com/shoal-go/torrent/internal/wire"
)

// metadataConn is a connection to a peer that may have the metadata of a magnet link. One goroutine
// reads and one writes. The resolver's mutex guards what changes.
type metadataConn struct {
	r     *resolver
	conn  *connection
	waker               // of write
	ended chan struct{} // closed with closing

	id     int // number of the connection within the resolver
	joined time.Time
	idler  bool      // it made the connection, and had the grace of a newcomer before; fixed
	earned time.Time // when it last sent metadata that was requested; zero if never

	work    ratelimit.Account // of its messages; of the reading goroutine
	source  *metadata.Peer
	number  byte // the peer's number for ut_metadata; 0 until the peer said so
	pex     pex.Exchange
	refused []int // pieces that the peer requested, and whose rejects are to be sent
	closing error // why the connection ends; nil until it does
}

// maxRefused is how many requests of a peer may wait for their rejects. Further requests get none.
const maxRefused = 64

// begin makes a peer of a connection that is in the client's count, and runs it. The caller holds r.mu.
func (r *resolver) begin(k *connection, now time.Time) {
	r.numbered++
	p := &metadataConn{
		r: r, conn: k, waker: newWaker(), ended: make(chan struct{}), id: r.numbered, joined: now,
		work: ratelimit.NewAccount(workRate, workAtOnce, now), source: r.metadata.Join(k.addr, now),
	}
	if host, public := hostOf(k.addr.Addr()); public {
		p.work = r.work.Open(host, p.work)
	}
	p.idler = k.incoming && r.places.HasLeftIdle(k.addr.Addr(), now)
	r.peers[p] = struct{}{}
	if !k.theirs.Extended() {
		p.end(errors.New("does not support extensions"))
	}
	r.tasks.Go(func() {
		defer r.signal()
		r.note(&PeerError{k.addr, p.speak()})
	})
}

// speak asks a peer for metadata until the connection ends, and returns why it did.
func (p *metadataConn) speak() error {
	r, k := p.r, p.conn
	defer k.Close()
	defer context.AfterFunc(r.ctx, func() { p.stop(context.Cause(r.ctx)) })()
	r.log.Debug("connected", "peer", k.addr, "encrypted", k.encrypted)
	r.signal()

	written := make(chan struct{})
	go func() {
		defer close(written)
		p.stop(p.write())
	}()
	p.stop(p.read())
	<-written
	err := p.closing

	now := time.Now()
	r.mu.Lock()
	defer r.unlock()
	delete(r.peers, p)
	r.metadata.Leave(p.source)
	r.charge()
	if errors.Is(err, metadata.ErrLied) {
		r.ban(k.addr)
	}
	if host, public := hostOf(k.addr.Addr()); public {
		r.work.Close(host, p.work, now)
	}
	if !k.incoming { // the port of an incoming connection is not one that the peer listens at
		if p.source.Useful() {
			r.servedBy(k.addr)
		}
		if err == errTurnover {
			r.discovery.candidates.MadeRoom(k.addr)
		}
		r.discovery.candidates.Left(k.addr, p.source.Useful() && p.source.Overdue(now) == nil, now)
	}
	for q := range r.peers {
		q.signal() // the pieces that were requested from p may be requested from q
	}
	if len(r.peers) == 0 {
		r.discovery.wakeSources(true)
	}
	return err
}

// maxServed is how many peers that were of use the torrent is told of.
const maxServed = 200

// servedBy records that a connection that was of use is over. The last maxServed peers are remembered. The caller holds r.mu.
func (r *resolver) servedBy(peer netip.AddrPort) {
	r.served = slices.DeleteFunc(r.served, func(other netip.AddrPort) bool { return other == peer })
	if len(r.served) == maxServed {
		r.served = slices.Delete(r.served, 0, 1)
	}
	r.served = append(r.served, peer)
}

// stop ends the connection. The first reason is kept.
func (p *metadataConn) stop(why error) {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	p.end(why)
}

// end is like stop. The place of the connection is free at once. The caller holds p.r.mu.
func (p *metadataConn) end(why error) {
	if p.closing == nil {
		p.closing = why
		p.r.quits(p, why)
		p.r.places.PeerLeft(p.conn.addr.Addr(), time.Now())
		close(p.ended)
		p.r.tasks.Go(func() { p.conn.Close() }) // a connection of the user's own may take its time
		if p.conn.incoming {
			p.r.accepted--
		}
		p.r.client.leftPeer(p.conn.addr.Addr())
	}
}

// write sends the first messages and then requests for metadata, until the connection ends.
func (p *metadataConn) write() error {
	r := p.r
	var b []byte
	if p.conn.theirs.Fast() {
		b = wire.AppendSimple(b, wire.HaveNone) // BEP 6 requires this, a have-all or a bitfield first
	}
	hello := wire.ExtHandshake{
		M:      map[string]int{extensionTable[extPEX].name: extPEX, extensionTable[extMetadata].name: extMetadata},
		V:      clientName,
		P:      int(r.client.publicPort()),
		YourIP: p.conn.addr.Addr().AsSlice(),
	}
	b = wire.AppendExtended(b, 0, hello.Append(nil))
	keepAlive := time.NewTimer(keepAliveAfter)
	defer keepAlive.Stop()
	for {
		if len(b) > 0 {
			p.conn.SetWriteDeadline(time.Now().Add(metadata.Timeout))
			if _, err := p.conn.Write(b); err != nil {
				return err
			}
			keepAlive.Reset(keepAliveAfter)
		}
		b = b[:0]
		select {
		case <-p.ended:
			return nil
		case <-keepAlive.C:
			b = wire.AppendKeepAlive(b)
		case <-p.wake:
			b = p.asks(b, time.Now())
		}
	}
}

// asks appends the messages that are due.
func (p *metadataConn) asks(b []byte, now time.Time) []byte {
	r := p.r
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.number == 0 {
		return b
	}
	for _, piece := range p.refused {
		m := wire.MetadataMessage{Type: wire.MetadataReject, Piece: piece}
		b = wire.AppendExtended(b, p.number, m.Append(nil))
	}
	p.refused = p.refused[:0]
	for _, piece := range r.metadata.Next(p.source, now) {
		m := wire.MetadataMessage{Type: wire.MetadataRequest, Piece: piece}
		b = wire.AppendExtended(b, p.number, m.Append(nil))
	}
	return b
}

// read acts on messages until the connection ends, and returns why it ended. It ignores other messages than those of extensions,
// because without the metadata they cannot be used.
func (p *metadataConn) read() error {
	holder := p.r.client.account.Join(func() { go p.stop(errHoldsMost) })
	defer holder.Leave()
	rd := wire.NewReader(p.conn, wire.SkipBitfields)
	charge(rd, holder)
	for {
		p.conn.SetReadDeadline(time.Now().Add(silenceTimeout))
		m, err := rd.Next()
		now := time.Now()
		switch {
		case err != nil:
		case m.ID == wire.Piece:
			err = errors.New("sent an unrequested block")
		case m.ID == wire.Extended:
			err = p.actExtended(m, now)
		}
		if err == nil {
			err = p.charge(m, now)
		}
		if err != nil {
			return err
		}
	}
}

func (p *metadataConn) actExtended(m wire.Message, now time.Time) (err error) {
	switch m.ExtID {
	case 0:
		err = p.receiveHandshake(m.Payload)
	case extPEX:
		err = p.receivePEX(m.Payload, now)
	case extMetadata:
		err = p.receiveMetadata(m.Payload, now)
	}
	p.signal()
	return err
}

// extendedWork returns the work that an extension message causes. After each, the writer looks for pieces to request from the
// peer.
func (p *metadataConn) extendedWork(payload []byte) int64 {
	return answerWork + int64(len(payload)) + p.source.Steps()
}

// charge charges the peer with the work that a message causes. If that is too much, it returns only when the next one may be
// read.
func (p *metadataConn) charge(m wire.Message, now time.Time) error {
	work := int64(messageWork)
	if m.ID == wire.Extended {
		work = p.extendedWork(m.Payload)
	}
	p.work.Pace(p.r.client.workRate(), now)
	if !pause(p.work.Charge(work, now), p.ended) {
		return p.closing
	}
	return nil
}

func (p *metadataConn) receiveHandshake(payload []byte) error {
	h := wire.ParseExtHandshake(payload)
	if h.M == nil {
		return nil // the list of its extensions could not be read; it may send another
	}
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	if id, said := h.M[extensionTable[extMetadata].name]; said {
		p.number = byte(id)
	}
	if p.number == 0 {
		return errors.New("does not send metadata")
	}
	if h.MetadataSize == 0 {
		return nil // the peer does not have the metadata yet, and may send another handshake when it does
	}
	err := p.r.metadata.Offer(p.source, h.MetadataSize)
	p.r.charge()
	return err
}

func (p *metadataConn) receivePEX(payload []byte, now time.Time) error {
	r := p.r
	r.mu.Lock()
	defer r.mu.Unlock()
	named, err := p.pex.Receive(payload, p.conn.addr.Addr(), now)
	by := peerlist.Network(p.conn.addr.Addr())
	for q := range named {
		r.discovery.add(q.Addr, peerlist.FromPEX, by, now)
	}
	r.signal()
	return err
}

func (p *metadataConn) receiveMetadata(payload []byte, now time.Time) error {
	m := wire.ParseMetadataMessage(payload)
	r := p.r
	r.mu.Lock()
	var whole *metadata.Draft
	var err error
	switch m.Type {
	case wire.MetadataRequest:
		if len(p.refused) < maxRefused {
			p.refused = append(p.refused, m.Piece)
		}
	case wire.MetadataReject:
		err = r.metadata.Rejected(p.source, m.Piece, now)
	case wire.MetadataData:
		if whole, err = r.metadata.Received(p.source, m, now); err == nil {
			p.work.Earn(p.extendedWork(payload)) // few pieces that were not requested get here
			r.lastProgress, p.earned = now, now
			r.holder.Gave(int64(len(m.Data) / 2))
			r.charge()
		}
	}
	r.mu.Unlock()
	if whole != nil {
		r.judge(whole)
	}
	return err
}
