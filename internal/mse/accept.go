package mse

import (
	"context"
	"crypto/rc4"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// errUnknownStream is returned by Accept if find does not know the StreamID that the peer sent.
var errUnknownStream = errors.New("no such info hash here")

// Accept makes the handshake on a connection that a peer dialled. first is what was read of it already, at most
// KeySize bytes. find returns the info hash of a StreamID; it is called at most once.
//
// Reads of the connection that Accept returns give the initial payload first. The connection goes on by the first of
// o.Methods that the peer offered. A deadline of conn stays. After an error the caller must close conn. If ctx ends, the
// error matches both ctx.Err() and its cause.
func Accept(ctx context.Context, conn net.Conn, first []byte, find func(id [20]byte) (infoHash [20]byte, ok bool), o Options) (net.Conn, [20]byte, error) {
	if len(first) > keySize {
		return nil, [20]byte{}, fmt.Errorf("mse: %d bytes already read", len(first))
	}
	var made net.Conn
	var infoHash [20]byte
	err := interruptible(ctx, conn, func() (err error) {
		made, infoHash, err = accept(conn, first, find, o)
		return err
	})
	if err != nil {
		return nil, [20]byte{}, err
	}
	return made, infoHash, nil
}

func accept(conn net.Conn, first []byte, find func([20]byte) ([20]byte, bool), o Options) (made net.Conn, infoHash [20]byte, err error) {
	var theirs [keySize]byte
	if err := readFull(conn, theirs[copy(theirs[:], first):]); err != nil {
		return nil, infoHash, err
	}
	private, secret, err := answerKey(theirs)
	if err != nil {
		return nil, infoHash, err
	}

	// Our key is written while the padding behind theirs is read, so that the two sides cannot wait for each other
	// on a connection without buffers.
	sent := make(chan error, 1)
	go func() {
		public := private.public()
		_, err := conn.Write(appendPad(public[:]))
		sent <- err
	}()
	asked, err := readOffer(conn, secret, find)
	if err != nil {
		interrupt(conn)
	}
	if sendErr := <-sent; err == nil {
		err = sendErr
	}
	if err != nil {
		return nil, infoHash, err
	}

	chosen := o.choose(asked.provided)
	if chosen == 0 {
		return nil, infoHash, fmt.Errorf("peer provides method %#x, not %#x", uint32(asked.provided), uint32(o.provide()))
	}
	b := make([]byte, vcSize, vcSize+4+2+maxPad)
	b = binary.BigEndian.AppendUint32(b, uint32(chosen))
	b = appendZeroPad(b)
	asked.w.XORKeyStream(b, b)
	if _, err := conn.Write(b); err != nil {
		return nil, infoHash, err
	}
	if chosen == RC4 {
		return &encrypted{Conn: conn, initial: asked.initial, r: asked.r, w: asked.w}, asked.infoHash, nil
	}
	if len(asked.initial) > 0 {
		return &plain{Conn: conn, initial: asked.initial}, asked.infoHash, nil
	}
	return conn, asked.infoHash, nil
}

// asked is what the initiator sent in the third step.
type asked struct {
	infoHash [20]byte
	provided Method
	initial  []byte
	r, w     *rc4.Cipher
}

// readOffer reads the padding behind the initiator's key and all of the third step.
func readOffer(r io.Reader, secret [keySize]byte, find func([20]byte) ([20]byte, bool)) (a asked, err error) {
	mark := hash("req1", secret[:])
	if err := synchronize(r, mark[:]); err != nil {
		return a, err
	}
	var id [20]byte
	if err := readFull(r, id[:]); err != nil {
		return a, err
	}
	infoHash, ok := find(veil(id, secret))
	if !ok {
		return a, errUnknownStream
	}
	a.infoHash = infoHash
	a.r, a.w = ciphers(secret, infoHash)

	var b [max(vcSize+4+2, maxPad+2)]byte
	if err := readEncrypted(r, a.r, b[:vcSize+4+2]); err != nil {
		return a, err
	}
	if subtle.ConstantTimeCompare(b[:vcSize], make([]byte, vcSize)) != 1 {
		return a, errors.New("wrong verification constant")
	}
	a.provided = Method(binary.BigEndian.Uint32(b[vcSize:]))
	pad := int(binary.BigEndian.Uint16(b[vcSize+4:]))
	if pad > maxPad {
		return a, errPad
	}
	if err := readEncrypted(r, a.r, b[:pad+2]); err != nil {
		return a, err
	}
	a.initial = make([]byte, binary.BigEndian.Uint16(b[pad:]))
	return a, readEncrypted(r, a.r, a.initial)
}

// veil hides an id with the secret, or reveals it.
func veil(id [20]byte, secret [keySize]byte) [20]byte {
	key := hash("req3", secret[:])
	subtle.XORBytes(id[:], id[:], key[:])
	return id
}
