package tracker

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/account"
	"github.com/shoal-go/torrent/internal/simnet"
)

// gzipped returns p compressed with gzip.
func gzipped(p string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	io.WriteString(z, p)
	z.Close()
	return b.Bytes()
}

// holder returns a holder of an account with room.
func holder() *account.Holder { return account.New(0).Join(func() {}) }

func TestReadBody(t *testing.T) {
	long, full := strings.Repeat("x", httpAnswer+1), strings.Repeat("x", httpAnswer)
	whole := gzipped(onePeer)
	broken := errors.New("broken")
	for _, c := range []struct {
		name string
		body io.Reader
		want string
		err  error
	}{
		{"nothing", strings.NewReader(""), "", nil},
		{"one byte", strings.NewReader("\x1f"), "\x1f", nil},
		{"plain", strings.NewReader(onePeer), onePeer, nil},
		{"plain, cut", io.MultiReader(strings.NewReader(onePeer), iotest.ErrReader(broken)), onePeer, broken},
		{"as long as allowed", strings.NewReader(full), full, nil},
		{"too long", strings.NewReader(long), full, errAnswerTooLong},
		{"gzip", bytes.NewReader(whole), onePeer, nil},
		{"gzip, byte by byte", iotest.OneByteReader(bytes.NewReader(whole)), onePeer, nil},
		{"gzip in two parts", bytes.NewReader(append(gzipped(onePeer[:9]), gzipped(onePeer[9:])...)), onePeer, nil},
		{"gzip without its checksum", bytes.NewReader(whole[:len(whole)-8]), onePeer, io.ErrUnexpectedEOF},
		{"gzip without half its checksum", bytes.NewReader(whole[:len(whole)-5]), onePeer, io.ErrUnexpectedEOF},
		{"gzip with a wrong checksum", bytes.NewReader(append(whole[:len(whole)-8:len(whole)-8], "12345678"...)), onePeer, gzip.ErrChecksum},
		{"gzip followed by something else", bytes.NewReader(append(whole[:len(whole):len(whole)], "<!doctype html>"...)), onePeer, gzip.ErrHeader},
		{"gzip, broken", io.MultiReader(bytes.NewReader(whole[:len(whole)-8]), iotest.ErrReader(broken)), onePeer, broken},
		{"a header of gzip alone", bytes.NewReader(whole[:5]), "", io.ErrUnexpectedEOF},
		{"gzip that inflates to as much as allowed", bytes.NewReader(gzipped(full)), full, nil},
		{"gzip that inflates to more", bytes.NewReader(gzipped(long)), full, errAnswerTooLong},
		{"gzip of nothing", bytes.NewReader(gzipped("")), "", nil},
		{"gzip of nothing, too long", bytes.NewReader(bytes.Repeat(gzipped(""), httpAnswer/len(gzipped(""))+1)), "", errAnswerTooLong},
		{"gzip of something, then of nothing for too long", bytes.NewReader(append(whole[:len(whole):len(whole)], bytes.Repeat(gzipped(""), httpAnswer)...)), onePeer, errAnswerTooLong},
		{"gzip with a name without end", bytes.NewReader(append([]byte("\x1f\x8b\x08\x08\x00\x00\x00\x00\x00\xff"), long...)), "", gzip.ErrHeader},
	} {
		t.Run(c.name, func(t *testing.T) {
			body, err := readBody(c.body, holder())
			if c.err == nil {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, c.err)
			}
			require.Equal(t, c.want, string(body))
		})
	}
}

// An answer is accepted whatever its encoding and however its body ends, if it has peers.
func TestHTTPBodies(t *testing.T) {
	whole := gzipped(onePeer)
	send := func(encoding string, body []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if encoding != "" {
				w.Header().Set("Content-Encoding", encoding)
			}
			w.Write(body)
		}
	}
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		after  time.Duration
		reason string
	}{
		{"gzip", send("gzip", whole), 0, ""},
		{"x-gzip", send("x-gzip", whole), 0, ""},
		{"gzip in capitals", send("GZIP", whole), 0, ""},
		{"gzip not declared", send("", whole), 0, ""},
		{"gzip declared but not used", send("gzip", []byte(onePeer)), 0, ""},
		{"gzip without its end", send("gzip", whole[:len(whole)-8]), 0, ""},
		{"gzip cut within the answer", send("gzip", whole[:len(whole)-20]), 0, "gzip: unexpected EOF"},
		{"a body shorter than Content-Length", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, onePeer)
		}, 0, ""},
		{"gzip shorter than Content-Length, without its end", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "x-gzip")
			w.Header().Set("Content-Length", "1000")
			w.Write(whole[:len(whole)-4])
		}, 0, ""},
		{"chunks without the last", func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, onePeer)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, 0, ""},
		{"half an answer, shorter than Content-Length", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, onePeer[:40])
		}, 0, "unexpected EOF"},
		{"a body that never ends", func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, onePeer)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, httpTimeout, ""},
		{"a long tail", send("", append([]byte(onePeer), make([]byte, 2*httpAnswer)...)), 0, ""},
		{"another status", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			w.WriteHeader(500)
			io.WriteString(w, onePeer)
		}, 0, "HTTP status 500"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newTrackerRig(t, []string{"http://10.0.1.1/announce"})
				r.serve("10.0.1.1", c.answer)
				trackers, _ := r.start()
				simnet.Sleep(c.after + time.Second)
				stats := trackers.Status()[0]
				if c.reason != "" {
					require.ErrorContains(t, stats.Err, c.reason)
					require.Empty(t, r.foundBy())
					return
				}
				require.Nil(t, stats.Err)
				require.Equal(t, 1, stats.Peers)
				require.Equal(t, 7, stats.Swarm.Leechers)
			})
		})
	}
}

// Empty gzip members inflate to nothing, so a bound on the inflated length is never reached.
func TestGzipOfNothingWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrackerRig(t, []string{"http://10.0.1.1/announce"})
		var sent atomic.Int64
		r.serve("10.0.1.1", func(w http.ResponseWriter, req *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			for block := bytes.Repeat(gzipped(""), 1000); req.Context().Err() == nil && sent.Load() < 100<<20; {
				n, err := w.Write(block)
				sent.Add(int64(n))
				if err != nil {
					return
				}
			}
		})
		trackers, _ := r.start()
		simnet.Sleep(time.Second)
		require.ErrorContains(t, trackers.Status()[0].Err, "answer over 1048576 bytes")
		require.Less(t, sent.Load(), int64(8<<20), "what the network holds is more than what was read")
	})
}

func FuzzReadBody(f *testing.F) {
	f.Add([]byte(onePeer))
	f.Add(gzipped(onePeer))
	f.Add(gzipped(onePeer)[:40])
	f.Add(bytes.Repeat(gzipped(""), 3))
	f.Add([]byte("\x1f\x8b\x08\x1f\x00\x00\x00\x00\x00\xff\x02\x00xx"))
	f.Fuzz(func(t *testing.T, p []byte) {
		body, err := readBody(bytes.NewReader(p), holder())
		require.LessOrEqual(t, len(body), httpAnswer)
		if !bytes.HasPrefix(p, []byte("\x1f\x8b")) {
			require.NoError(t, err)
			require.True(t, bytes.Equal(p, body))
		}
		again, err := readBody(bytes.NewReader(gzipped(string(p))), holder())
		require.NoError(t, err)
		require.True(t, bytes.Equal(p, again))
	})
}

func BenchmarkGzipOfNothing(b *testing.B) {
	p := bytes.Repeat(gzipped(""), httpAnswer/len(gzipped(""))+1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := readBody(bytes.NewReader(p), holder()); !errors.Is(err, errAnswerTooLong) {
			b.Fatal(fmt.Errorf("read: %w", err))
		}
	}
}
