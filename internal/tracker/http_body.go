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

// httpAnswer is how many bytes of an answer are read, and how many it may inflate to.
const httpAnswer = 1 << 20

var errAnswerTooLong = fmt.Errorf("answer over %d bytes", httpAnswer)

// errNoRoom is the error of a long answer that the account has no room for, or that gave way to another holder.
var errNoRoom = errors.New("no memory for the rest of a long answer")

// readBody reads the body of an answer, whose memory is charged to h. Beside an error it returns what came before: the answer may be
// whole all the same.
//
// A body that begins as gzip does is inflated, whatever the header says: no answer begins so, and names
// for the encoding vary. Both what is read and what comes out are bounded, because gzip of nothing, over
// and over, inflates to nothing.
func readBody(body io.Reader, h *account.Holder) ([]byte, error) {
	r := bufio.NewReader(&boundedReader{body, httpAnswer})
	magic, _ := r.Peek(2) // an error comes again
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

// readAll is io.ReadAll with its memory charged to h, of not much more than httpAnswer.
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

// boundedReader reads from r, and fails with errAnswerTooLong where r has more than left bytes.
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
