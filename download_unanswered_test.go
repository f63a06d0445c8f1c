package torrent

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/storage"
)

// A hangingStore hangs in the calls that are named, from when it is told to until it answers again.
type hangingStore struct {
	storage.Store
	hangs   *atomic.Pointer[string]
	answers <-chan struct{}
}

func (s hangingStore) call(name string) {
	if h := s.hangs.Load(); h != nil && slices.Contains(strings.Fields(*h), name) {
		<-s.answers
	}
}

func (s hangingStore) ReadAt(p []byte, off int64) (int, error) {
	s.call("read")
	return s.Store.ReadAt(p, off)
}

func (s hangingStore) WriteBlocks(blocks [][]byte, off int64) error {
	s.call("write")
	return s.Store.WriteBlocks(blocks, off)
}

func (s hangingStore) SetWanted(wanted []bool) error {
	s.call("choose")
	return s.Store.SetWanted(wanted)
}

func (s hangingStore) LoadResume() (bits.Set, map[int]bits.Set) {
	s.call("resume")
	return s.Store.LoadResume()
}

func (s hangingStore) Finish() error {
	s.call("finish")
	return s.Store.Finish()
}

func (s hangingStore) Move(ctx context.Context, dir string, claims func() (bits.Set, map[int]bits.Set), progress func(done, total int64)) error {
	s.call("move")
	return s.Store.Move(ctx, dir, claims, progress)
}

func (s hangingStore) Close() error {
	s.call("close")
	return s.Store.Close()
}

func (s hangingStore) Rest() error {
	s.call("rest")
	return s.Store.Rest()
}

// hangingClient is a client whose stores are hangingStores.
func hangingClient(t *testing.T, h *simnet.Host, hangs *atomic.Pointer[string], answers <-chan struct{}) *Client {
	c := simClient(t, h, nil)
	c.hooks.openFiles = func(content storage.Content, dir string, log *slog.Logger) (storage.Store, error) {
		s, err := new(storage.Claims).OpenFiles(content, dir, log)
		return hangingStore{s, hangs, answers}, err
	}
	return c
}

// Nothing waits for a disk that hangs much longer than for the end of the context.
func TestAHungDiskOutlastsNoContext(t *testing.T) {
	complete := func(t *testing.T, d *Download) *Downloaded {
		files, err := d.Wait()
		require.NoError(t, err)
		return files
	}
	for name, test := range map[string]func(t *testing.T, content *simContent, o *Options, hang func(call string), ctx context.Context){
		"start": func(t *testing.T, content *simContent, o *Options, hang func(string), ctx context.Context) {
			began := time.Now()
			hang("choose close")
			_, err := content.own().Start(ctx, o)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Equal(t, time.Minute+unanswered, time.Since(began), "it waits once, not for each call")
		},
		"first check": func(t *testing.T, content *simContent, o *Options, hang func(string), ctx context.Context) {
			hang("resume")
			d, err := content.own().Start(ctx, o)
			require.NoError(t, err)
			_, err = d.Wait()
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorIs(t, d.Close(), context.DeadlineExceeded)
		},
		"download all": func(t *testing.T, content *simContent, o *Options, hang func(string), ctx context.Context) {
			hang("write")
			_, err := content.own().DownloadAll(ctx, o)
			require.ErrorIs(t, err, context.DeadlineExceeded)
		},
		"finish": func(t *testing.T, content *simContent, o *Options, hang func(string), ctx context.Context) {
			hang("finish")
			d, err := content.own().Start(ctx, o)
			require.NoError(t, err)
			simnet.Sleep(30 * time.Second)
			require.ErrorIs(t, d.Close(), context.DeadlineExceeded)
			require.Empty(t, d.Stats().Peers)
		},
		"choice": func(t *testing.T, content *simContent, o *Options, hang func(string), ctx context.Context) {
			d, err := content.own().Start(ctx, o)
			require.NoError(t, err)
			complete(t, d)
			hang("choose")
			d.Select(nil)
			require.Error(t, ctx.Err())
		},
		"open on demand": func(t *testing.T, content *simContent, o *Options, hang func(string), ctx context.Context) {
			o.Select = func(File) Priority { return OnDemand }
			d, err := content.own().Start(ctx, o)
			require.NoError(t, err)
			simnet.Sleep(time.Second)
			hang("choose")
			_, err = d.Open(ctx, content.layout.File(0).Path)
			require.ErrorIs(t, err, context.DeadlineExceeded)
		},
		"rest": func(t *testing.T, content *simContent, o *Options, hang func(string), ctx context.Context) {
			d, err := content.own().Start(ctx, o)
			require.NoError(t, err)
			<-d.Done()
			hang("rest")
			require.ErrorIs(t, d.Close(), context.DeadlineExceeded)
			require.True(t, d.Stats().Complete, "Stats waits for no disk")
		},
		"recheck": func(t *testing.T, content *simContent, o *Options, hang func(string), ctx context.Context) {
			d, err := content.own().Start(t.Context(), o)
			require.NoError(t, err)
			complete(t, d)
			hang("read")
			require.ErrorIs(t, d.Recheck(ctx), context.DeadlineExceeded)
		},
		"move": func(t *testing.T, content *simContent, o *Options, hang func(string), ctx context.Context) {
			d, err := content.own().Start(t.Context(), o)
			require.NoError(t, err)
			complete(t, d)
			hang("move")
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			began := time.Now()
			require.ErrorIs(t, d.Move(ended, t.TempDir()), context.Canceled)
			require.Zero(t, time.Since(began), "nothing is asked of the disk")
			require.ErrorIs(t, d.Move(ctx, t.TempDir()), context.DeadlineExceeded)
		},
		"files": func(t *testing.T, content *simContent, o *Options, hang func(string), ctx context.Context) {
			o.Seed = false
			d, err := content.own().Start(ctx, o)
			require.NoError(t, err)
			files := complete(t, d)
			hang("close")
			require.ErrorIs(t, files.Close(), context.DeadlineExceeded)
		},
	} {
		t.Run(name, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				host := n.NewHost("80.0.0.1", 0, 0, 0)
				content := newSimContent(1, 64<<10, 1<<20)
				simSeed(t, simClient(t, host, nil), content)
				answers := make(chan struct{})
				var hangs atomic.Pointer[string]
				leech := hangingClient(t, n.NewHost("81.0.0.1", 0, 0, 0), &hangs, answers)
				answer := sync.OnceFunc(func() { close(answers) })
				defer answer()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				begin := time.Now()
				o := &Options{Client: leech, Dir: t.TempDir(), Peers: []netip.AddrPort{host.Addr(6881)}, Seed: true}
				test(t, content, o, func(call string) { hangs.Store(&call) }, ctx)
				require.LessOrEqual(t, time.Since(begin), time.Minute+10*time.Second)
				if name != "recheck" && name != "move" { // whose downloads have a context that has not ended
					leech.Close()
					require.LessOrEqual(t, time.Since(begin), time.Minute+20*time.Second)
				}
				answer() // and all that is left ends
				synctest.Wait()
			})
		})
	}
}

// A store is closed also if storage is too slow to be waited for when the context of its download ends.
func TestStoreOfACancelledDownloadIsClosed(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		host := n.NewHost("80.0.0.1", 0, 0, 0)
		content := newSimContent(1, 64<<10, 1<<20)
		simSeed(t, simClient(t, host, nil), content)
		answers := make(chan struct{})
		var hangs atomic.Pointer[string]
		leech := hangingClient(t, n.NewHost("81.0.0.1", 0, 0, 0), &hangs, answers)
		ctx, cancel := context.WithCancel(t.Context())
		d, err := content.own().Start(ctx, &Options{Client: leech, Dir: t.TempDir(), Peers: []netip.AddrPort{host.Addr(6881)}})
		require.NoError(t, err)
		call := "write"
		hangs.Store(&call)
		simnet.Sleep(10 * time.Second)
		cancel()
		_, err = d.Wait()
		require.ErrorIs(t, err, context.Canceled)
		close(answers)
		simnet.Sleep(10 * time.Second)
		require.ErrorIs(t, d.store.Close(), ErrClosed, "it was closed before")
	})
}
