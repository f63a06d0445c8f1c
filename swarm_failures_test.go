package torrent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/netaddr"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/shoal-go/torrent/internal/storage/disktest"
)

// nthCall has one call fail: the n-th. All calls are counted together, whatever they are.
type nthCall struct {
	err error

	mu     sync.Mutex
	n      int // 0 is none
	calls  int
	failed string // the call that failed; "" if there were not as many
}

var errInjected = errors.New("injected")

// fail is the error of a call, or nil.
func (c *nthCall) fail(call string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls++; c.calls != c.n {
		return nil
	}
	c.failed = call
	return c.err
}

// hit is the call that failed, or "".
func (c *nthCall) hit() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

// ours reports whether err is nil or that of the call that failed.
func (c *nthCall) ours(err error) bool { return err == nil || errors.Is(err, c.err) && c.hit() != "" }

// eachCall runs a history in which the first call fails, then one in which the second one does, and so on until
// none does, each in a bubble, which a goroutine that is left ends.
func eachCall(t *testing.T, err error, history func(t *testing.T, c *nthCall)) {
	counts, step := map[string]int{}, 1
	if raceEnabled() {
		step = 10
	}
	for n := 1; ; n += step {
		c := &nthCall{err: err, n: n}
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer func() {
				if why := recover(); why != nil {
					fmt.Fprintf(os.Stderr, "Call %d failed, %s:\n", n, c.hit())
					panic(why)
				}
			}()
			synctest.Test(t, func(t *testing.T) { history(t, c) })
		}()
		<-done
		if t.Failed() {
			t.Fatalf("when call %d failed: %s", n, c.hit())
		}
		if c.hit() == "" {
			t.Logf("%d calls or less: %v", n-1, counts)
			return
		}
		counts[strings.Fields(c.hit())[0]]++
	}
}

// quietClient is a client on a simulated host that logs nothing: it is one of a thousand.
func quietClient(t *testing.T, h *simnet.Host) *Client {
	c := simClient(t, h, nil)
	c.Logger = nil
	return c
}

// failingRig is a host whose calls fail, and a seed of what it downloads.
type failingRig struct {
	test    *testing.T
	call    *nthCall
	net     *simnet.Network
	content *simContent
	seed    *simpeer.Peer
	disk    *disktest.Disk
	hosts   int
	blocks  int64 // bytes of memory for blocks of started pieces; 0 is the default
}

func newFailingRig(t *testing.T, n *simnet.Network, c *nthCall) *failingRig {
	content := newSimContent(1, 32<<10, 70_000, 0, 50_000, 40_000)
	r := &failingRig{test: t, call: c, net: n, content: content, disk: disktest.New()}
	r.seed = simpeer.New("seed", n.NewHost("80.0.0.1", 20e3, 0, 10*time.Millisecond), 6881, content.truth, simpeer.Script{Fast: true})
	require.NoError(t, r.seed.Arrive())
	return r
}

// life is one start of the download, until it was closed.
type life struct {
	*failingRig
	host   *simnet.Host
	ledger *simpeer.Ledger
	client *Client
	*Download
	complete *Downloaded // once it was
	err      error       // why it did not start, or did not become complete
}

// start starts the download. It may fail as the call did.
func (r *failingRig) start(o Options) *life {
	r.hosts++
	l := &life{failingRig: r, host: r.net.NewHost(fmt.Sprintf("81.0.0.%d", r.hosts), 0, 0, 10*time.Millisecond)}
	l.ledger = simpeer.Watch(l.host, r.content.truth)
	l.client = quietClient(r.test, l.host)
	l.client.hooks.openFiles, l.client.hooks.blockMemory = r.disk.OpenFiles, r.blocks
	o.Client, o.Peers = l.client, append(o.Peers, r.seed.Addr())
	if o.Storage == nil {
		o.Dir = "disk"
	}
	l.Download, l.err = r.content.Start(r.test.Context(), &o)
	l.check("Start", l.err)
	return l
}

// check requires that err is nil or that of the call that failed.
func (l *life) check(what string, err error) {
	l.test.Helper()
	require.Truef(l.test, l.call.ours(err), "%s: %v", what, err)
}

// wait waits until the download is complete or has failed, and reports whether it is complete.
func (l *life) wait() bool {
	l.test.Helper()
	if l.err != nil {
		return false
	}
	select {
	case <-l.Done():
	case <-time.After(time.Hour):
		require.FailNow(l.test, "it hangs", "%+v", l.Stats())
	}
	files, err := l.Wait()
	if l.err = err; err == nil {
		l.complete = files
	}
	l.check("Wait", err)
	return err == nil
}

// whole waits until the download is complete, and reads it.
func (l *life) whole() *life {
	l.test.Helper()
	if l.wait() {
		l.read()
	}
	return l
}

// take has another peer download from this one.
func (r *failingRig) take(l *life) {
	r.hosts++
	p := simpeer.New("leech", r.net.NewHost(fmt.Sprintf("82.0.0.%d", r.hosts), 0, 0, 10*time.Millisecond), 6881, r.content.truth, simpeer.Script{Fast: true, Takes: true})
	p.Have = bits.New(r.content.NumPieces())
	defer p.Stop()
	p.Go(func() { p.Dial(l.host.Addr(6881)) })
	simnet.Sleep(time.Minute)
	assert.Empty(r.test, p.Faults())
}

// write has another program write a file: content from where one of its files begins.
func (r *failingRig) write(name string, file, n int) {
	r.test.Helper()
	require.NoError(r.test, r.disk.MkdirAll(filepath.Dir(name)))
	f, err := r.disk.Open(name, os.O_RDWR|os.O_CREATE)
	require.NoError(r.test, err)
	begin := r.content.layout.File(file).Offset
	_, err = f.WriteAt(r.content.truth.Run(begin, int64(n)), 0)
	require.NoError(r.test, err)
	require.NoError(r.test, f.Close())
}

// read requires that the files hold what they should.
func (l *life) read() {
	l.test.Helper()
	files := l.complete
	for f := range files.Files() {
		at := l.content.layout.File(f.index).Offset
		b, err := f.Bytes()
		l.check("Bytes", err)
		if err == nil {
			require.True(l.test, int64(len(b)) == f.Length() && l.content.truth.Equal(at, b), "wrong bytes of %s", f.Path())
		}
		b, err = fs.ReadFile(files, f.Path())
		l.check("ReadFile", err)
		if err == nil {
			require.True(l.test, int64(len(b)) == f.Length() && l.content.truth.Equal(at, b), "wrong bytes of %s", f.Path())
		}
	}
}

// end closes everything, requires that nothing is left open, and returns what was verified.
func (l *life) end() bits.Set {
	l.test.Helper()
	have := bits.New(l.content.NumPieces())
	if l.Download != nil {
		l.check("Close", l.Close())
		if l.complete != nil {
			l.check("Close of the files", l.complete.Close())
		}
		l.mu.Lock()
		have = l.picker.Verified().Clone()
		l.mu.Unlock()
	}
	l.check("Close of the client", l.client.Close())
	synctest.Wait()
	conns, listeners := l.host.Open()
	require.Zero(l.test, conns, "connections left open")
	require.Zero(l.test, listeners, "listeners left open")
	require.Empty(l.test, l.failingRig.disk.Held())
	if l.Download != nil {
		held, _ := l.client.blockPool.Held()
		require.Zero(l.test, held, "bytes still kept for started pieces")
	}
	return have
}

// again starts the download once more, when no call fails any more, and requires that it becomes complete and fetches
// nothing of what was verified.
func (r *failingRig) again(have bits.Set) {
	r.test.Helper()
	l := r.start(Options{})
	require.NoError(r.test, l.err)
	require.True(r.test, l.wait(), "%v", l.err)
	for i := range have.All() {
		require.Falsef(r.test, l.ledger.Came(i), "piece %d was verified, and came again", i)
	}
	l.read()
	have = l.end()
	require.True(r.test, have.Full())
	for _, name := range r.disk.Names() {
		require.NotContains(r.test, name, fmt.Sprintf("%x", r.content.infoHash), "something is left beside the content")
	}
}

func (r *failingRig) stop() {
	r.seed.Stop()
	assert.Empty(r.test, r.seed.Faults())
}

// failingStorage is a user's storage that remembers what it verified, and whose calls fail.
type failingStorage struct {
	*simStorage
	call   *nthCall
	open   int
	pieces bits.Set
}

func (s *failingStorage) start(*Torrent) (Storage, error) {
	if err := s.call.fail("open storage"); err != nil {
		return nil, err
	}
	s.open++
	return s, nil
}

func (s *failingStorage) ReadAt(p []byte, off int64) (int, error) {
	if err := s.call.fail("read"); err != nil {
		n, _ := s.simStorage.ReadAt(p[:len(p)/2], off)
		return n, err
	}
	return s.simStorage.ReadAt(p, off)
}

func (s *failingStorage) WriteAt(p []byte, off int64) (int, error) {
	if err := s.call.fail("write"); err != nil {
		n, _ := s.simStorage.WriteAt(p[:len(p)/2], off)
		return n, err
	}
	return s.simStorage.WriteAt(p, off)
}

func (s *failingStorage) Sync() error { return s.call.fail("sync") }

func (s *failingStorage) Close() error {
	s.open--
	return s.call.fail("close")
}

func (s *failingStorage) PieceVerified(i int) error {
	if err := s.call.fail("tell"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pieces.Add(i)
	return nil
}

func (s *failingStorage) Verified() (Bitfield, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Bitfield{s.pieces.Clone()}, s.call.fail("ask")
}

// The same of a user's own storage.
func TestEachStorageCallFails(t *testing.T) {
	t.Parallel()
	for _, blocks := range []int64{0, blockSize} {
		t.Run(fmt.Sprintf("%d bytes for blocks", blocks), func(t *testing.T) {
			eachCall(t, errInjected, func(t *testing.T, c *nthCall) {
				n := simnet.New()
				defer n.Close()
				r := newFailingRig(t, n, c)
				defer r.stop()
				r.blocks = blocks
				st := &failingStorage{simStorage: newSimStorage(r.content), call: c, pieces: bits.New(r.content.NumPieces())}
				l := r.start(Options{Storage: st.start, Seed: true}).whole()
				if l.err == nil {
					r.take(l)
				}
				if l.err != nil {
					require.NotEqual(t, c.err.Error(), l.err.Error(), "it does not say what failed")
				}
				have := l.end()
				require.Zero(t, st.open, "not closed")
				require.Empty(t, st.wrong)
				c.mu.Lock()
				c.n = 0
				c.mu.Unlock()
				l = r.start(Options{Storage: st.start})
				require.NoError(t, l.err)
				require.True(t, l.whole().err == nil, "%v", l.err)
				for i := range have.All() {
					require.Falsef(t, l.ledger.Came(i), "piece %d was verified, and came again", i)
				}
				l.end()
				require.Zero(t, st.open, "not closed")
			})
		})
	}
}

// serveTracker has a host answer every announce with some peers.
func serveTracker(t *testing.T, h *simnet.Host, peers ...netip.AddrPort) (url string) {
	l, err := h.Listen("tcp", ":80")
	require.NoError(t, err)
	answer := fmt.Sprintf("d8:intervali60e5:peers%d:%se", 6*len(peers), netaddr.AppendCompact(nil, peers))
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, answer) })}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return "http://" + h.IP().String() + "/announce"
}

// Whatever one call of the sockets fails, a download becomes complete and is shared with others, unless there is no socket to
// listen on. Then Start says so, and works when it is called again. Nothing is left open.
func TestEachSocketCallFails(t *testing.T) {
	t.Parallel()
	for name, configure := range map[string]func(c *Client, h *simnet.Host, lan *simnet.LAN){
		"TCP":       func(*Client, *simnet.Host, *simnet.LAN) {},
		"encrypted": func(c *Client, _ *simnet.Host, _ *simnet.LAN) { c.Encryption = RequireEncryption },
		"uTP":       func(c *Client, _ *simnet.Host, _ *simnet.LAN) { c.NoUTP, c.NoTCP = false, true },
		"DHT, and either": func(c *Client, _ *simnet.Host, _ *simnet.LAN) {
			c.NoDHT, c.NoUTP, c.DHTNodes = false, false, []string{"80.0.0.1:6881"}
		},
		"local discovery": func(c *Client, h *simnet.Host, lan *simnet.LAN) {
			c.LocalDiscovery, c.hooks.listenMulticast = true, lan.Listener(h)
		},
	} {
		for _, why := range []error{errInjected, syscall.EMFILE, syscall.ENOBUFS, syscall.ECONNABORTED} {
			t.Run(fmt.Sprintf("%s: %v", name, why), func(t *testing.T) {
				t.Parallel()
				eachCall(t, why, func(t *testing.T, call *nthCall) {
					n := simnet.New()
					defer n.Close()
					content := newSimContent(1, 32<<10, 100_000)
					host := func(ip string) *simnet.Host { return n.NewHost(ip, 0, 0, 10*time.Millisecond) }
					seed, us, leech := host("80.0.0.1"), host("80.0.0.2"), host("80.0.0.3")
					var lan simnet.LAN
					client := func(h *simnet.Host) *Client {
						c := quietClient(t, h)
						configure(c, h, &lan)
						return c
					}
					simSeed(t, client(seed), content)
					content.trackers = [][]string{{serveTracker(t, host("80.0.0.9"), seed.Addr(6881))}}
					us.Fail = call.fail

					c := client(us)
					start := func() (*Download, error) {
						return content.Start(t.Context(), &Options{Client: c, Seed: true, Storage: newSimStorage(content).open})
					}
					d, err := start()
					if err != nil {
						require.ErrorIs(t, err, why)
						require.ErrorContains(t, err, "listen")
						d, err = start()
					}
					require.NoError(t, err)
					other := client(leech)
					content.trackers = nil
					took := simLeech(t, other, content, us.Addr(6881))
					for _, d := range []*Download{d, took} {
						select {
						case <-d.Done():
							_, err := d.Wait()
							require.NoError(t, err)
						case <-time.After(time.Hour):
							require.FailNow(t, "it hangs", "%+v", d.Stats())
						}
					}
					require.NoError(t, d.Close())
					require.NoError(t, took.Close())
					require.NoError(t, other.Close())
					err = c.Close()
					require.True(t, call.ours(err), "%v", err)
					synctest.Wait()
					conns, listeners := us.Open()
					require.Zero(t, conns, "connections left open")
					require.Zero(t, listeners, "listeners left open")
				})
			})
		}
	}
}
