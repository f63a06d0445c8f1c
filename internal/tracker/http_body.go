package tracker

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
)

// httpAnswer is how many bytes of an answer are read, and how many it may inflate to.
const httpAnswer = 1 << 20

var errAnswerTooLong = fmt.Errorf("answer over %d bytes", httpAnswer)

// readBody reads the body of an answer. Beside an error it returns what came before: the answer may be
// whole all the same.
//
// A body that begins as gzip does is inflated, whatever the header says: no answer begins so, and names
// for the encoding vary. Both what is read and what comes out are bounded, because gzip of nothing, over
// and over, inflates to nothing.
func readBody(body io.Reader) ([]byte, error) {
	r := bufio.NewReader(&boundedReader{body, httpAnswer})
	magic, _ := r.Peek(2) // an error comes again
	if string(magic) != "\x1f\x8b" {
		return io.ReadAll(r)
	}
	inflated, err := gzip.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("gzip: %w", err)
	}
	p, err := io.ReadAll(&boundedReader{inflated, httpAnswer})
	if err != nil && !errors.Is(err, errAnswerTooLong) {
		err = fmt.Errorf("gzip: %w", err)
	}
	return p, err
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
