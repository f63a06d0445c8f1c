// Package mse implements Message Stream Encryption, also known as protocol encryption: a handshake that hides that a
// connection is BitTorrent's, and the connection that follows.
//
// The handshake makes a secret by Diffie-Hellman key exchange and mixes it with the info hash, which both sides must
// know. It hides the connection and does not authenticate the peer. RC4 does not withstand a determined attack.
//
// Initiate and Accept may be called from any goroutine. A connection that they return may be read by one and written
// by another.
package mse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"
)

// Method is the encryption of a connection after the handshake, as the protocol numbers it.
type Method uint32

const (
	Plaintext Method = 1 // as if there had been no handshake
	RC4       Method = 2 // encrypted, with a key for each direction
)

// Options say what a side agrees to.
type Options struct {
	// Methods are the methods to offer or to accept, the preferred one first. Nil is RC4 alone.
	Methods []Method
}

func (o Options) methods() []Method {
	if o.Methods == nil {
		return []Method{RC4}
	}
	return o.Methods
}

// provide is the set of the methods as it is sent.
func (o Options) provide() (set Method) {
	for _, m := range o.methods() {
		set |= m
	}
	return set
}

// choose picks a method that the other side provides, or 0.
func (o Options) choose(provided Method) Method {
	i := slices.IndexFunc(o.methods(), func(m Method) bool { return provided&m != 0 })
	if i < 0 {
		return 0
	}
	return o.methods()[i]
}

const (
	maxPad     = 512       // bytes of PadA, PadB, PadC and PadD each
	maxInitial = 1<<16 - 1 // bytes of the initial payload
	vcSize     = 8         // bytes of the verification constant, which is zeros
)

const (
	PlainSize = 20      // bytes that IsPlain needs
	KeySize   = keySize // bytes of a public key; Accept does costly work once it has the peer's
)

// IsPlain reports whether the first PlainSize bytes of an accepted connection begin an unencrypted BitTorrent handshake
// (BEP 3). If not, they are part of a public key: they, or the whole key, may be passed to Accept.
func IsPlain(first []byte) bool { return bytes.HasPrefix(first, []byte("\x13BitTorrent protocol")) }

// interruptible runs a handshake on conn, and interrupts it when ctx ends by a deadline in the past. The error then
// matches both ctx.Err() and its cause.
func interruptible(ctx context.Context, conn net.Conn, handshake func() error) error {
	stop := context.AfterFunc(ctx, func() { interrupt(conn) })
	err := handshake()
	if !stop() { // even without an error: the deadline is set, or about to be
		err = ctx.Err()
		if cause := context.Cause(ctx); cause != err {
			err = fmt.Errorf("%w: %w", err, cause)
		}
	}
	if err != nil {
		return fmt.Errorf("mse: %w", err)
	}
	return nil
}

// interrupt makes reads and writes of conn fail.
func interrupt(conn net.Conn) { _ = conn.SetDeadline(time.Unix(1, 0)) }

var errNoSync = errors.New("the end of the padding did not come")

// synchronize reads the padding of the other side, whose length is unknown, and the mark that ends it, and no further.
func synchronize(r io.Reader, mark []byte) error {
	var seen [maxPad + 20]byte
	for n := 0; ; {
		need := len(mark) - overlap(seen[:n], mark)
		if need == 0 {
			return nil
		}
		if n+need > maxPad+len(mark) {
			return errNoSync
		}
		if err := readFull(r, seen[n:n+need]); err != nil {
			return err
		}
		n += need
	}
}

// overlap is how many bytes from the start of mark are at the end of seen.
func overlap(seen, mark []byte) int {
	n := min(len(seen), len(mark))
	for !bytes.HasSuffix(seen, mark[:n]) {
		n--
	}
	return n
}

// readFull fills p. The end of the stream is unexpected everywhere in a handshake.
func readFull(r io.Reader, p []byte) error {
	_, err := io.ReadFull(r, p)
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
