package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
)

// The size of a Reader's buffer, in bytes. There may be hundreds of peers. Most of them are slow, so a small buffer is enough. If
// a peer sends faster than we read, reading several blocks with one system call saves more than the copy from the buffer costs: a
// buffer of 64 KiB saves a fifth of the time, and a larger one little more.
const (
	minBuffer = 4 << 10
	maxBuffer = 64 << 10
	// maxQuiet is how many times in a row the buffer may be filled with little before it shrinks.
	maxQuiet = 64
	// maxKept is how many bytes of a payload are kept, except that of a bitfield. No useful message is longer.
	maxKept = 32 << 10
)

// SkipBitfields makes a Reader skip the payload of bitfields.
const SkipBitfields = -1

// Reader reads messages from a stream. It belongs to one goroutine.
type Reader struct {
	src        io.Reader
	buf        []byte // buf[start:end] was read from src and is not consumed yet
	start, end int
	quiet      int              // how many times in a row the buffer was filled by reads of few bytes each
	left       uint32           // bytes of the block of the current piece message that are not read yet
	bitfield   int              // the greatest length of a bitfield in bytes, or SkipBitfields
	holds      func(n int) bool // see Charge
	grows      func(n int) bool // likewise
	held       int              // the last argument of holds
	refused    bool             // holds has returned false
}

// NewReader returns a Reader of the messages after the handshake on r. bitfield is the greatest length that a bitfield may have,
// in bytes, or SkipBitfields.
func NewReader(r io.Reader, bitfield int) *Reader {
	free := func(int) bool { return true }
	return &Reader{src: r, buf: make([]byte, minBuffer), bitfield: bitfield, holds: free, grows: free}
}

// Charge makes the Reader call holds whenever its memory changes. n is the memory in bytes beyond that of the smallest buffer.
// Once holds returns false, Next returns ErrNoRoom and reads nothing more. It calls grows before the buffer gets larger, which that
// does not if grows returns false.
func (r *Reader) Charge(holds, grows func(n int) bool) { r.holds, r.grows = holds, grows }

// ErrNoRoom is the error of Next after the function passed to Charge returned false.
var ErrNoRoom = errors.New("no memory for the rest of a message")

// Next reads one message. For a Piece message it stops before the block, which ReadBlock reads and SkipBlock skips. The next call
// of Next skips the rest of the block. The payload of a message with an unknown id is skipped. Of the payload of an extended
// message or of hashes, only the first 32 KiB are kept, which is more than anything that we request. A message over 1 MiB is
// refused.
//
// The error is a *ProtocolError if the message violates the protocol, io.EOF if the stream ended between two messages,
// io.ErrUnexpectedEOF if it ended within a message, else the error of the stream.
func (r *Reader) Next() (Message, error) {
	if err := r.SkipBlock(); err != nil {
		return Message{}, err
	}
	if r.held > len(r.buf)-minBuffer {
		r.hold(len(r.buf) - minBuffer) // the last payload is no longer valid
	}
	if r.refused {
		return Message{}, ErrNoRoom
	}
	if r.quiet > maxQuiet && len(r.buf) > minBuffer && r.buffered() <= minBuffer {
		r.rebuffer(minBuffer)
	}
	if err := r.fill(4); err != nil {
		return Message{}, err
	}
	size := binary.BigEndian.Uint32(r.buf[r.start:])
	if size == 0 {
		r.start += 4
		return Message{ID: KeepAlive}, nil
	}
	if err := r.fill(5); err != nil {
		return Message{}, err
	}
	m := Message{ID: ID(r.buf[r.start+4])}
	fixed, err := r.check(m.ID, size)
	if err != nil {
		return Message{}, err
	}
	if err := r.fill(4 + fixed); err != nil {
		return Message{}, err
	}
	p := r.buf[r.start+5 : r.start+4+fixed]
	r.start += 4 + fixed
	rest := size - uint32(fixed)
	switch m.ID {
	case Have, Suggest, AllowedFast:
		m.Index = binary.BigEndian.Uint32(p)
	case Request, Cancel, Reject:
		m.Index = binary.BigEndian.Uint32(p)
		m.Begin = binary.BigEndian.Uint32(p[4:])
		m.Length = binary.BigEndian.Uint32(p[8:])
	case Piece:
		m.Index = binary.BigEndian.Uint32(p)
		m.Begin = binary.BigEndian.Uint32(p[4:])
		m.Length = rest
		r.left, rest = rest, 0
	case Port:
		m.Index = uint32(binary.BigEndian.Uint16(p))
	case Bitfield:
		if r.bitfield != SkipBitfields {
			m.Payload, err = r.payload(int(rest))
			rest = 0
		}
	case Extended, AskHashes, Hashes, HashReject:
		if m.ID == Extended {
			m.ExtID = p[0]
		}
		kept := min(rest, maxKept)
		m.Payload, err = r.payload(int(kept))
		rest -= kept
		if rest > 0 {
			m.Payload = bytes.Clone(m.Payload) // discard may overwrite the buffer
		}
	}
	if err == nil {
		err = r.discard(rest)
	}
	if err != nil {
		return Message{}, err
	}
	return m, nil
}

// check returns an error if a message with this id cannot have size bytes, including its id. fixed is the length of the part that
// every message with this id has, including the id.
func (r *Reader) check(id ID, size uint32) (fixed int, err error) {
	atMost := uint64(0) // bytes after the fixed part
	switch id {
	case Choke, Unchoke, Interested, NotInterested, HaveAll, HaveNone:
		fixed = 1
	case Have, Suggest, AllowedFast:
		fixed = 5
	case Request, Cancel, Reject:
		fixed = 13
	case Port:
		fixed = 3
	case Piece:
		fixed, atMost = 9, MaxBlock
	case Bitfield:
		if fixed, atMost = 1, maxUnknown-1; r.bitfield != SkipBitfields {
			atMost = uint64(r.bitfield)
		}
	case Extended:
		fixed, atMost = 2, maxUnknown-2
	case AskHashes, HashReject, Hashes:
		// Everything after the id is Payload. Only a Hashes message has hashes after the request.
		n := uint64(1 + hashRequestSize)
		if s := uint64(size); s != n && (id != Hashes || s < n || s > 1+maxHashesSize || (s-n)%32 != 0) {
			return 0, violation("%v of %d bytes", id, size)
		}
		return 1, nil
	default:
		fixed, atMost = 1, maxUnknown-1
	}
	if s := uint64(size); s < uint64(fixed) || s > uint64(fixed)+atMost {
		return 0, violation("%v of %d bytes", id, size)
	}
	return fixed, nil
}

// ReadBlock reads the next len(dst) bytes of the block of the current Piece message. It may be called several times. It is an
// error to read more than is left. Bytes that are not in the buffer and do not fit in it are read from the stream directly into
// dst.
func (r *Reader) ReadBlock(dst []byte) error {
	if uint64(len(dst)) > uint64(r.left) {
		return errors.New("wire: read beyond the block")
	}
	r.left -= uint32(len(dst))
	for {
		n := copy(dst, r.buf[r.start:r.end])
		r.start += n
		dst = dst[n:]
		switch {
		case len(dst) == 0:
			return nil
		case len(dst) < len(r.buf):
			if err := r.fill(len(dst)); err != nil {
				return unexpected(err)
			}
		default:
			n, err := io.ReadAtLeast(r.src, dst, len(dst)-len(r.buf)+1)
			if err != nil {
				return unexpected(err)
			}
			dst = dst[n:]
		}
	}
}

// SkipBlock discards the rest of the block of the current Piece message.
func (r *Reader) SkipBlock() error {
	n := r.left
	r.left = 0
	return r.discard(n)
}

// buffered returns the number of bytes in the buffer.
func (r *Reader) buffered() int { return r.end - r.start }

// fill reads until the buffer holds at least n bytes. n must not exceed the size of the buffer.
func (r *Reader) fill(n int) error {
	have := r.end - r.start
	if have >= n {
		return nil
	}
	copy(r.buf, r.buf[r.start:r.end])
	r.start, r.end = 0, have
	most := 0
	var err error
	for r.end < n && err == nil {
		var got int
		got, err = r.src.Read(r.buf[r.end:])
		r.end += got
		most = max(most, got)
	}
	switch {
	case r.end == len(r.buf) && most > len(r.buf)/2 && len(r.buf) < maxBuffer:
		r.quiet = 0
		r.rebuffer(4 * len(r.buf))
	case most > len(r.buf)/8:
		r.quiet = 0
	default:
		r.quiet++
	}
	switch {
	case r.end >= n:
		return nil // if the last read returned an error too, the next one returns it again
	case r.end > 0:
		return unexpected(err)
	}
	return err
}

// hold calls holds with n, and reports whether the Reader may go on.
func (r *Reader) hold(n int) bool {
	r.held = n
	r.refused = r.refused || !r.holds(n)
	return !r.refused
}

// rebuffer changes the size of the buffer. size must be at least r.buffered().
func (r *Reader) rebuffer(size int) {
	if size > len(r.buf) && !r.grows(size-minBuffer) || !r.hold(size-minBuffer) {
		return
	}
	buf := make([]byte, size)
	r.end = copy(buf, r.buf[r.start:r.end])
	r.start, r.buf = 0, buf
}

// payload returns the next n bytes. If they do not fit in the buffer, it allocates a slice, which grows as bytes arrive, so that
// a peer cannot make us allocate more than twice what it sends.
func (r *Reader) payload(n int) ([]byte, error) {
	if n <= len(r.buf) {
		if err := r.fill(n); err != nil {
			return nil, unexpected(err)
		}
		p := r.buf[r.start : r.start+n : r.start+n]
		r.start += n
		return p, nil
	}
	buffer := len(r.buf) - minBuffer
	first := min(n, max(2*minBuffer, r.buffered()))
	if !r.hold(buffer + first) {
		return nil, ErrNoRoom
	}
	p := make([]byte, 0, first)
	p = append(p, r.buf[r.start:r.end]...)
	r.start = r.end
	for {
		had := len(p)
		p = p[:min(cap(p), n)]
		if _, err := io.ReadFull(r.src, p[had:]); err != nil {
			return nil, unexpected(err)
		}
		if len(p) == n {
			return p, nil
		}
		more := min(len(p), n-len(p))
		if !r.hold(buffer + len(p) + more) {
			return nil, ErrNoRoom
		}
		p = append(make([]byte, 0, len(p)+more), p...)
	}
}

// discard skips the next n bytes.
func (r *Reader) discard(n uint32) error {
	for n > 0 {
		if r.start == r.end {
			if err := r.fill(1); err != nil {
				return unexpected(err)
			}
		}
		k := min(n, uint32(r.end-r.start))
		r.start += int(k)
		n -= k
	}
	return nil
}

// unexpected returns io.ErrUnexpectedEOF for io.EOF, and any other error unchanged.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
