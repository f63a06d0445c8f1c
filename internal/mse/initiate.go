package mse

import (
	"context"
	"crypto/rc4"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// Initiate makes the handshake on a connection that we dialled, to a peer that must know infoHash. initial, at most 65535
// bytes, is sent with it, always encrypted. In BitTorrent it is the handshake of BEP 3.
//
// The connection that Initiate returns goes on by the method that the peer chose of those offered. For Plaintext it is
// conn itself. A deadline of conn stays. After an error the caller must close conn. If ctx ends, the error matches both
// ctx.Err() and its cause.
func Initiate(ctx context.Context, conn net.Conn, infoHash [20]byte, o Options, initial []byte) (net.Conn, error) {
	if len(initial) > maxInitial {
		return nil, fmt.Errorf("mse: initial payload of %d bytes", len(initial))
	}
	var made net.Conn
	err := interruptible(ctx, conn, func() (err error) {
		made, err = initiate(conn, infoHash, o, initial)
		return err
	})
	if err != nil {
		return nil, err
	}
	return made, nil
}

func initiate(conn net.Conn, infoHash [20]byte, o Options, initial []byte) (net.Conn, error) {
	private := newPrivateKey()
	public := private.public()
	if _, err := conn.Write(appendPad(public[:])); err != nil {
		return nil, err
	}
	var theirs [keySize]byte
	if err := readFull(conn, theirs[:]); err != nil {
		return nil, err
	}
	secret, err := private.secret(theirs)
	if err != nil {
		return nil, err
	}
	w, r := ciphers(secret, infoHash)
	if _, err := conn.Write(offer(secret, infoHash, w, o, initial)); err != nil {
		return nil, err
	}

	var mark [vcSize]byte // the verification constant as the peer encrypts it
	r.XORKeyStream(mark[:], mark[:])
	if err := synchronize(conn, mark[:]); err != nil {
		return nil, err
	}
	chosen, err := readChoice(conn, r)
	if err != nil {
		return nil, err
	}
	switch {
	case chosen&o.provide() == 0:
		return nil, fmt.Errorf("peer chose method %#x of %#x", uint32(chosen), uint32(o.provide()))
	case chosen == Plaintext:
		return conn, nil
	case chosen == RC4:
		return &encrypted{Conn: conn, r: r, w: w}, nil
	}
	return nil, fmt.Errorf("peer chose method %#x", uint32(chosen))
}

// offer is the third step of the handshake: a proof that we know the secret, the hidden info hash, the methods, and the
// initial payload.
func offer(secret [keySize]byte, infoHash [20]byte, w *rc4.Cipher, o Options, initial []byte) []byte {
	sync := hash("req1", secret[:])
	id := veil(StreamID(infoHash), secret)
	b := append(sync[:], id[:]...)
	open := len(b)
	b = append(b, make([]byte, vcSize)...)
	b = binary.BigEndian.AppendUint32(b, uint32(o.provide()))
	b = appendZeroPad(b)
	b = binary.BigEndian.AppendUint16(b, uint16(len(initial)))
	b = append(b, initial...)
	w.XORKeyStream(b[open:], b[open:])
	return b
}

// readChoice reads what follows the verification constant in the fourth step: the method that the
// acceptor chose, and padding.
func readChoice(r io.Reader, c *rc4.Cipher) (Method, error) {
	var b [max(4+2, maxPad)]byte
	if err := readEncrypted(r, c, b[:4+2]); err != nil {
		return 0, err
	}
	chosen := Method(binary.BigEndian.Uint32(b[:])) & (Plaintext | RC4) // other bits are reserved
	pad := int(binary.BigEndian.Uint16(b[4:]))
	if pad > maxPad {
		return 0, errPad
	}
	return chosen, readEncrypted(r, c, b[:pad])
}

var errPad = errors.New("padding longer than allowed")

// readEncrypted fills p from r and decrypts it.
func readEncrypted(r io.Reader, c *rc4.Cipher, p []byte) error {
	if err := readFull(r, p); err != nil {
		return err
	}
	c.XORKeyStream(p, p)
	return nil
}
