package tracker

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/shoal-go/torrent/internal/account"
)

// httpAnswer is the greatest length of the body of an answer in bytes, before and after it is inflated.
const httpAnswer = 1 << 20

var errAnswerTooLong = fmt.Errorf("answer over %d bytes", httpAnswer)

// errNoRoom is the error of a long answer that the account has no room for, or has evicted.
var errNoRoom = errors.New("no memory for the rest of a long answer")

// readBody reads the body of an answer and charges its memory to h. With an error it also returns what it read before, which
// may be the whole answer.
//
// A body that begins like gzip is inflated, whatever Content-Encoding says: no bencoded answer begins so, and servers use
// different names for gzip. The lengths before and after inflating are both bounded, because many empty gzip members inflate
// to nothing.
func readBody(body io.Reader, h *account.Holder) ([]byte, error) {
	r := bufio.NewReader(&boundedReader{body, httpAnswer})
	magic, _ := r.Peek(2) // the next read returns the error again
	if string(magic) != "\x1f\x8b" {
		return readAll(r, h)
	}
	inflated, err := gzip.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("gzip: %w", err)
	}
	p, err := readAll(&boundedReader{inflated, httpAnswer}, h)
	if err != nil && !errors.Is(err, errAnswerTooLong) && err != errNoRoom {
		err = fmt.Errorf("gzip: %w", err)
	}
	return p, err
}

// readAll is io.ReadAll, but charges its memory to h. r has at most httpAnswer bytes.
func readAll(r io.Reader, h *account.Holder) ([]byte, error) {
	p := make([]byte, 0, 4<<10)
	for {
		n, err := r.Read(p[len(p):cap(p)])
		p = p[:len(p)+n]
		switch {
		case err == io.EOF:
			return p, nil
		case err != nil:
			return p, err
		case len(p) < cap(p):
			continue
		}
		most := min(2*cap(p), httpAnswer+1)
		if !h.Set(account.Incoming, most) {
			return nil, errNoRoom
		}
		p = slices.Grow(p, most-len(p))
	}
}

// boundedReader reads at most left bytes from r. If r has more, it fails with errAnswerTooLong.
type boundedReader struct {
	r    io.Reader
	left int
}

func (b *boundedReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p[:min(len(p), b.left+1)])
	if n > b.left {
		n, err = b.left, errAnswerTooLong
	}
	b.left -= n
	return n, err
}
