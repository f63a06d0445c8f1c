package torrent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/shoal-go/torrent/internal/mse"
	"github.com/shoal-go/torrent/internal/netaddr"
	"github.com/shoal-go/torrent/internal/wire"
)

// handshakeTimeout bounds a handshake, encryption included.
const handshakeTimeout = 10 * time.Second

var errSelf = errors.New("connected to self")

// errNotAllowed is the error for a known address that Client.Allow forbids now.
var errNotAllowed = errors.New("the client does not allow this address")

// A connection is a connection to a peer after the handshake of BEP 3.
type connection struct {
	net.Conn
	addr      netip.AddrPort // of the other end
	incoming  bool
	encrypted bool
	way       way
	theirs    wire.Handshake
	v2        bool // its info hash is that of version 2 (BEP 52), or the handshake upgraded it to that
}

// connect dials a peer and makes the handshake with it, by several ways. The first complete handshake wins. in is the info
// hash of the swarm. mayDial has counted the first connection that connect begins; connect counts the others.
func (c *Client) connect(ctx context.Context, addr netip.AddrPort, h infoHashes, in Hash, ways []way) (*connection, error) {
	if !c.allows(addr.Addr()) {
		return nil, &PeerError{addr, errNotAllowed}
	}
	var begun atomic.Bool
	try := func(ctx context.Context, by way, encrypt bool) (*connection, error) {
		if begun.Swap(true) {
			if err := c.redial(ctx, addr.Addr()); err != nil {
				return nil, err
			}
		}
		return c.tryConnect(ctx, by, addr, h, in, encrypt)
	}
	k, err := race(ctx, ways, &c.tasks, func(ctx context.Context, by way) (*connection, error) {
		k, err := try(ctx, by, c.Encryption != DisableEncryption)
		if errors.Is(err, errHungUp) && c.Encryption == PreferEncryption && ctx.Err() == nil {
			// A peer that does not know encryption hangs up. Try it unencrypted.
			k, err = try(ctx, by, false)
		}
		return k, err
	})
	if err != nil {
		return nil, &PeerError{addr, err}
	}
	return k, nil
}

// leftInFirst reports whether a peer that we dialled kept the connection in the first swarm of a hybrid, although it supports
// version 2.
func (h infoHashes) leftInFirst(k *connection) bool {
	return h.second != (Hash{}) && !k.v2 && k.theirs.V2()
}

// reconnect replaces a connection in the first swarm of a hybrid by one in the second. It is called if the peer supports version
// 2 but answered with the info hash of version 1, as libtorrent does if the connection is encrypted. In the first swarm most of
// version 2, such as the hashes of blocks, is not available.
func (c *Client) reconnect(ctx context.Context, k *connection, h infoHashes) (_ *connection, err error) {
	k.Close()
	for _, in := range []Hash{h.second, h.first} {
		if err := c.redial(ctx, k.addr.Addr()); err != nil {
			return nil, &PeerError{k.addr, err}
		}
		var again *connection
		if again, err = c.connect(ctx, k.addr, h, in, []way{k.way}); err == nil {
			return again, nil
		}
	}
	return nil, err
}

// errHungUp marks an encrypted handshake that failed and may succeed unencrypted.
var errHungUp = errors.New("encrypted handshake")

func (c *Client) tryConnect(ctx context.Context, by way, addr netip.AddrPort, h infoHashes, in Hash, encrypt bool) (_ *connection, err error) {
	conn, err := c.transport.dial(ctx, by, addr)
	if err != nil {
		return nil, err
	}
	defer closeUnless(&err, conn)
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	defer interrupt(ctx, conn)(&err)
	ours := c.handshake(h, in)
	k := &connection{Conn: conn, addr: addr, way: by}
	if encrypt {
		made, err := mse.Initiate(ctx, conn, in, c.Encryption.methods(), ours.Append(nil))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errHungUp, err)
		}
		k.Conn, k.encrypted = made, true
	} else if h.linked && netaddr.IsLocal(addr.Addr()) && hasLine(in) {
		return nil, errLine
	} else if _, err := conn.Write(ours.Append(nil)); err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	return k, c.readHandshake(k, h, &ours)
}

// errLine is the error for a dial with which the author of a magnet link may have aimed at a program that is not a peer.
var errLine = errors.New("handshake: an info hash that contains a line of text is not sent to a local address unencrypted")

// hasLine reports whether a program that reads lines could take a part of an info hash for a command: whether the hash contains a
// line break and, somewhere after it, three letters in a row.
func hasLine(h Hash) bool {
	at := bytes.IndexAny(h[:], "\r\n")
	if at < 0 {
		return false
	}
	letters := 0
	for _, c := range h[at:] {
		if c |= 0x20; 'a' <= c && c <= 'z' {
			letters++
		} else {
			letters = 0
		}
		if letters == 3 {
			return true
		}
	}
	return false
}

// readBeginning reads the beginning of the handshake on an incoming connection. Of a plain handshake it reads the bytes that show
// that it is plain. Of an encrypted one it reads the whole public key, so that a peer that sends less causes no computation.
func (c *Client) readBeginning(conn net.Conn) ([]byte, error) {
	begin := make([]byte, mse.KeySize)
	first, rest := begin[:mse.PlainSize], begin[mse.PlainSize:]
	if _, err := io.ReadFull(conn, first); err != nil {
		return nil, err
	}
	plain := mse.IsPlain(first)
	switch {
	case plain && c.Encryption == RequireEncryption:
		return nil, errors.New("not encrypted")
	case plain:
		return first, nil
	case c.Encryption == DisableEncryption:
		return nil, errors.New("encrypted, or no BitTorrent")
	}
	_, err := io.ReadFull(conn, rest)
	return begin, err
}

// answerHandshake makes the handshake on an incoming connection and finds the acceptor for its info hash. begin is what
// readBeginning returned. The handshake is encrypted if the peer began it so. answerHandshake closes conn on failure.
func (c *Client) answerHandshake(ctx context.Context, conn net.Conn, addr netip.AddrPort, begin []byte) (_ *connection, to acceptor, err error) {
	defer closeUnless(&err, conn)
	defer interrupt(ctx, conn)(&err)
	k := &connection{Conn: conn, addr: addr, incoming: true, way: wayOf(conn)}
	var p [wire.HandshakeSize]byte
	first := p[:mse.PlainSize]
	if copy(first, begin); !mse.IsPlain(first) {
		if err := c.awaitExchange(ctx, addr.Addr()); err != nil {
			return nil, to, err
		}
		k.Conn, _, err = mse.Accept(ctx, conn, begin, c.stream, c.Encryption.methods())
		if err != nil {
			return nil, to, err
		}
		k.encrypted = true
		if _, err := io.ReadFull(k, first); err != nil {
			return nil, to, err
		}
	}
	// A peer may wait for the answer before it sends its peer id. A tracker that tests whether the client can be reached never
	// sends one.
	head, id := p[:wire.HandshakeHead], p[wire.HandshakeHead:]
	if _, err := io.ReadFull(k, head[len(first):]); err != nil {
		return nil, to, err
	}
	if k.theirs, err = wire.ParseHandshake(head); err != nil {
		return nil, to, err
	}
	to, ok := c.acceptorFor(k.theirs.InfoHash)
	if !ok {
		return nil, to, fmt.Errorf("no download of info hash %s", Hash(k.theirs.InfoHash))
	}
	ours := c.handshake(to.hashes, to.hashes.answer(&k.theirs))
	k.v2 = to.hashes.v2 && ours.InfoHash == to.hashes.ofV2()
	if _, err := k.Write(ours.Append(nil)); err != nil {
		return nil, to, err
	}
	if _, err := io.ReadFull(k, id); err != nil {
		return nil, to, err
	}
	k.theirs.PeerID = [20]byte(id)
	if k.theirs.PeerID == ours.PeerID {
		return nil, to, errSelf // the end that dialled finds this out from the answer
	}
	return k, to, nil
}

// awaitExchange waits until the key exchange of an encrypted handshake may be answered.
func (c *Client) awaitExchange(ctx context.Context, from netip.Addr) error {
	for {
		c.mu.Lock()
		wait, ok := c.exchanges.Answer(from, time.Now())
		c.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// readHandshake reads and checks the answer to our own handshake.
func (c *Client) readHandshake(k *connection, h infoHashes, ours *wire.Handshake) error {
	var p [wire.HandshakeSize]byte
	if _, err := io.ReadFull(k, p[:]); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	theirs, err := wire.ParseHandshake(p[:])
	switch {
	case err != nil:
		return fmt.Errorf("handshake: %w", err)
	case !h.accepts(ours.InfoHash, theirs.InfoHash):
		return fmt.Errorf("handshake: info hash %s, want %s", Hash(theirs.InfoHash), Hash(ours.InfoHash))
	case theirs.PeerID == ours.PeerID:
		return errSelf
	}
	k.theirs, k.v2 = theirs, h.v2 && theirs.InfoHash == h.ofV2()
	return nil
}

// handshake returns our handshake in the swarm of one of the info hashes. Our peer id is the same in both.
func (c *Client) handshake(h infoHashes, in Hash) wire.Handshake {
	ours := wire.Handshake{InfoHash: in, PeerID: c.identity(h.first).id}
	ours.SetFast()
	ours.SetExtended()
	if h.v2 {
		ours.SetV2()
	}
	if c.dhtMember.member() != nil {
		ours.SetDHT()
	}
	return ours
}

// interrupt makes reads and writes of conn fail once ctx ends. The function that it returns undoes that, and adds the
// error of ctx if it was the reason.
func interrupt(ctx context.Context, conn net.Conn) func(*error) {
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	return func(err *error) {
		if !stop() && *err != nil {
			*err = fmt.Errorf("%w (%w)", *err, ctx.Err())
		} else if *err == nil {
			*err = ctx.Err()
		}
	}
}

func closeUnless(err *error, conn net.Conn) {
	if *err != nil {
		conn.Close()
	}
}
