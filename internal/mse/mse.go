// Package mse is Message Stream Encryption, also known as protocol encryption: the handshake that
// hides from onlookers that a connection is BitTorrent's, and the connection that follows.
//
// The handshake agrees on a secret by Diffie and Hellman's method and mixes it with the info hash,
// which both sides must know. It hides; it does not authenticate, and RC4 is no protection against
// somebody who means it.
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

// Method is how a connection goes on after the handshake. Its values are the protocol's.
type Method uint32

const (
	Plaintext Method = 1 // as if there had been no handshake
	RC4       Method = 2 // each direction with a key of its own
)

// Options say what a side agrees to.
type Options struct {
	// Methods are those to offer or to accept, the one liked best first. Nil is RC4 alone.
	Methods []Method
}

func (o Options) methods() []Method {
	if o.Methods == nil {
		return []Method{RC4}
	}
	return o.Methods
}

// provide is the set of the methods, as it is sent.
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

// PlainSize is how many bytes IsPlain needs.
const PlainSize = 20

// IsPlain tells from the first PlainSize bytes of an accepted connection whether they begin a
// BitTorrent handshake (BEP 3). If not, they may be given to Accept.
func IsPlain(first []byte) bool { return bytes.HasPrefix(first, []byte("\x13BitTorrent protocol")) }

// interruptible runs a handshake on conn that is broken off when ctx ends, by a deadline in the past.
// The error then matches both ctx.Err() and its cause.
func interruptible(ctx context.Context, conn net.Conn, handshake func() error) error {
	stop := context.AfterFunc(ctx, func() { interrupt(conn) })
	err := handshake()
	if !stop() { // even if all went well: the deadline is set, or about to be
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

// interrupt ends what waits on conn.
func interrupt(conn net.Conn) { _ = conn.SetDeadline(time.Unix(1, 0)) }

var errNoSync = errors.New("what should end the padding did not come")

// synchronize reads the other side's padding, of unknown length, and the mark that ends it, and
// nothing beyond.
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

// overlap is how many bytes of the start of mark seen ends with.
func overlap(seen, mark []byte) int {
	n := min(len(seen), len(mark))
	for !bytes.HasSuffix(seen, mark[:n]) {
		n--
	}
	return n
}

// readFull fills p. The end of the stream comes too early for every part of a handshake.
func readFull(r io.Reader, p []byte) error {
	_, err := io.ReadFull(r, p)
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
