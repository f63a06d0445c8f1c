package torrent

import (
	"bytes"
	"context"
	"crypto/sha1"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/shoal-go/torrent/internal/merkle"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/shoal-go/torrent/internal/simnet/simweb"
	"github.com/shoal-go/torrent/internal/webseed"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"
)

// A simWebMeeting is a meeting with web seeds.
type simWebMeeting struct {
	*simMeeting
	servers []*simweb.Server
	http    *http.Transport
}

// foundWeb runs a test with a meeting in a simulated network.
func foundWeb(t *testing.T, content *simContent, f func(t *testing.T, m *simWebMeeting)) {
	found(t, content, func(t *testing.T, m *simMeeting) {
		w := &simWebMeeting{simMeeting: m}
		defer func() {
			m.end(t)
			m.client, m.peers = nil, nil
			for _, s := range w.servers {
				s.Close()
			}
		}()
		f(t, w)
	})
}

// serve adds a web seed; the k-th has the address 70.0.0.k, and a latency of 20 ms to the client.
func (m *simWebMeeting) serve(t *testing.T, rate float64, script simweb.Script) *simweb.Server {
	s, err := simweb.Serve(m.net.NewHost(fmt.Sprintf("70.0.0.%d", len(m.servers)+1), rate, 0, 10*time.Millisecond), m.content.truth, m.content.layout, script)
	require.NoError(t, err)
	m.servers = append(m.servers, s)
	m.options.WebSeeds = append(m.options.WebSeeds, s.URL())
	return s
}

// start has the client download from the peers and web seeds.
func (m *simWebMeeting) start(t *testing.T) {
	if m.host == nil {
		m.host = m.net.NewHost("81.0.0.1", 0, 0, 10*time.Millisecond)
	}
	for _, p := range m.peers {
		m.options.Peers = append(m.options.Peers, p.Addr())
	}
	m.http = &http.Transport{DialContext: m.host.Dial, MaxIdleConnsPerHost: 2}
	c := &Client{NoDHT: true, NoUTP: true, Encryption: DisableEncryption, HTTPClient: &http.Client{Transport: m.http}}
	m.client = simStart(t.Context(), t, m.host, m.content, nil, &m.options, c)
}

// run is start, and waits until all is done.
func (m *simWebMeeting) run(t *testing.T, atMost time.Duration) Stats {
	m.start(t)
	simWait(atMost, m.client)
	require.True(t, m.client.done(), "%s", m.client.describe())
	require.NoError(t, m.client.compare(nil))
	require.Empty(t, m.client.account(m.peers...))
	return m.client.Stats()
}

// From web servers alone, alike or not, content comes at the sum of their rates.
func TestWebSeedsIdealTime(t *testing.T) {
	const size = 300e6
	for name, c := range map[string]struct {
		rates []float64
		peers []float64
		most  float64 // of the ideal time
	}{
		"one":                             {rates: []float64{10e6}, most: 1.05},
		"three alike":                     {rates: []float64{10e6, 10e6, 10e6}, most: 1.05},
		"two fast and a slow one":         {rates: []float64{10e6, 10e6, 50e3}, most: 1.05},
		"one, and two slow peers":         {rates: []float64{10e6}, peers: []float64{1e6, 1e6}, most: 1 / 0.95},
		"one slow, and a fast peer":       {rates: []float64{1e6}, peers: []float64{20e6}, most: 1.05},
		"two as fast as six peers beside": {rates: []float64{5e6, 5e6}, peers: []float64{5e6, 5e6, 5e6, 2e6, 2e6, 1e6}, most: 1.05},
	} {
		for _, pieceLength := range []int64{256 << 10, 4 << 20} {
			t.Run(fmt.Sprintf("%s, pieces of %d KiB", name, pieceLength>>10), func(t *testing.T) {
				skipUnderRace(t, pieceLength < 1<<20 || len(c.rates) != 2)
				t.Parallel()
				foundWeb(t, newSimRepeating(1, pieceLength, size), func(t *testing.T, m *simWebMeeting) {
					sum := 0.0
					for _, r := range c.rates {
						sum += r
						m.serve(t, r, simweb.Script{})
					}
					for _, r := range c.peers {
						sum += r
						m.meet(t, r, simpeer.Script{})
					}
					s := m.run(t, time.Hour)
					ideal := size / sum
					took := m.client.took.Seconds()
					t.Logf("took %.3f s, ideal %.3f s: %.3f times; wasted %d, stolen %d", took, ideal, took/ideal, s.Wasted, s.Steals)
					for _, w := range m.servers {
						n, sent := w.Served()
						t.Logf("%d requests, %d bytes", n, sent)
					}
					require.LessOrEqual(t, took, c.most*ideal)
					require.Less(t, s.Wasted, int64(size/50))
				})
			})
		}
	}
}

// Servers that lie, die, are busy, lack a file, hang or redirect cost an honest one little more than the time it takes alone.
func TestWebSeedsMisbehave(t *testing.T) {
	const rate = 2e6
	for name, script := range map[string]simweb.Script{
		"lies":      {Corrupt: 3},
		"all lies":  {Corrupt: 1},
		"dies":      {DiesAfter: 100_000},
		"dies soon": {DiesAfter: 10},
		"busy":      {Busy: 1000},
		"lacks":     {Lacks: "file-1"},
		"hangs":     {Hangs: true},
		"redirects": {Redirects: "http://70.0.0.1/"},
		"to itself": {Redirects: "http://70.0.0.2/"},
		"to us":     {Redirects: "http://127.0.0.1/"},
		"rangeless": {Rangeless: true},
	} {
		t.Run(name, func(t *testing.T) {
			skipUnderRace(t, script.Corrupt != 3 && !script.Hangs && !script.Rangeless)
			t.Parallel()
			foundWeb(t, newSimContent(1, 256<<10, 10e6, 20e6, 100, 10e6), func(t *testing.T, m *simWebMeeting) {
				m.serve(t, rate, simweb.Script{})
				bad := m.serve(t, rate, script)
				s := m.run(t, 10*time.Minute)
				alone := float64(s.Length) / rate
				n, sent := bad.Served()
				t.Logf("took %v, alone %.1f s; it got %d requests and sent %d bytes; wasted %d: %+v", m.client.took, alone, n, sent, s.Wasted, s.WebSeeds[1])
				require.LessOrEqual(t, m.client.took.Seconds(), 1.05*alone+1)
			})
		})
	}
}

// A server without ranges is done in one pass, alone.
func TestWebSeedRangelessOnePass(t *testing.T) {
	foundWeb(t, newSimContent(1, 256<<10, 10e6, 20e6, 100, 10e6), func(t *testing.T, m *simWebMeeting) {
		w := m.serve(t, 2e6, simweb.Script{Rangeless: true})
		s := m.run(t, 10*time.Minute)
		n, sent := w.Served()
		t.Logf("took %v, %d requests, %d bytes of %d", m.client.took, n, sent, s.Length)
		require.LessOrEqual(t, float64(sent), 1.05*float64(s.Length))
	})
}

// A server that never comes further than where it broke off is not asked again at once, and what it sent in vain is counted.
func TestWebSeedNeverFurther(t *testing.T) {
	for name, script := range map[string]simweb.Script{
		"page":                   {Page: 6000},
		"page of several blocks": {Page: 100_000},
		"without ranges":         {Rangeless: true, DiesAfter: 3_000_000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			foundWeb(t, newSimContent(1, 256<<10, 10e6), func(t *testing.T, m *simWebMeeting) {
				w := m.serve(t, 2e6, script)
				m.start(t)
				simnet.Sleep(10 * time.Minute)
				n, sent := w.Served()
				s := m.client.Stats()
				t.Logf("%d requests, %d bytes, wasted %d: %+v", n, sent, s.Wasted, s.WebSeeds[0])
				require.LessOrEqual(t, n, 12)
				require.Error(t, s.WebSeeds[0].Err)
				require.GreaterOrEqual(t, s.Wasted, sent/3)
				require.Zero(t, s.WebSeeds[0].Requests)
			})
		})
	}
}

// A server that refuses one request beside another is asked by one at a time, and does not rest for it.
func TestWebSeedCrowded(t *testing.T) {
	foundWeb(t, newSimContent(1, 256<<10, 60e6), func(t *testing.T, m *simWebMeeting) {
		w := m.serve(t, 2e6, simweb.Script{Crowded: 1})
		s := m.run(t, 10*time.Minute)
		n, _ := w.Served()
		t.Logf("took %v, %d requests: %+v", m.client.took, n, s.WebSeeds[0])
		require.LessOrEqual(t, m.client.took.Seconds(), 1.1*float64(s.Length)/2e6+1)
		require.ErrorContains(t, s.WebSeeds[0].Err, "503")
	})
}

// A reader far ahead has what it waits for at once, though runs of much else are under way.
func TestWebSeedFollowsReader(t *testing.T) {
	foundWeb(t, newSimRepeating(1, 256<<10, 200e6), func(t *testing.T, m *simWebMeeting) {
		m.serve(t, 1e6, simweb.Script{})
		m.start(t)
		simnet.Sleep(20 * time.Second)
		v := m.client.Verified()
		require.Greater(t, v.Count(), 50)
		for i := range v.Count() - 24 {
			require.True(t, v.Has(i), "without peers it comes in order")
		}
		r, err := m.client.Open(t.Context(), m.content.name)
		require.NoError(t, err)
		defer r.Close()
		_, err = r.Seek(150e6, io.SeekStart)
		require.NoError(t, err)
		began := time.Now()
		_, err = io.ReadFull(r, make([]byte, 1000))
		require.NoError(t, err)
		t.Logf("first bytes after %v", time.Since(began))
		require.Less(t, time.Since(began), 1200*time.Millisecond, "a piece takes 0.26 s")
		began = time.Now()
		_, err = io.ReadFull(r, make([]byte, 10e6))
		require.NoError(t, err)
		t.Logf("10 MB more after %v", time.Since(began))
		require.Less(t, time.Since(began), 12*time.Second)
	})
}

// Limits hold for what web seeds send; a pause and a close stop it at once.
func TestWebSeedLimitPauseClose(t *testing.T) {
	foundWeb(t, newSimRepeating(1, 256<<10, 200e6), func(t *testing.T, m *simWebMeeting) {
		w := m.serve(t, 5e6, simweb.Script{})
		m.options.DownloadLimit = rate.NewLimiter(500e3, 64<<10)
		m.start(t)
		simnet.Sleep(30 * time.Second)
		got := m.client.Stats().Downloaded
		require.InDelta(t, 15e6, got, 1e6)
		m.options.DownloadLimit.SetLimit(rate.Inf)
		simnet.Sleep(2 * time.Second)
		require.Greater(t, m.client.Stats().Downloaded, got+5e6)
		m.client.Pause()
		simnet.Sleep(time.Second)
		before := m.client.Stats()
		_, sent := w.Served()
		require.Equal(t, Paused, before.State)
		require.Zero(t, before.WebSeeds[0].Requests)
		simnet.Sleep(time.Minute)
		require.Equal(t, before.Downloaded, m.client.Stats().Downloaded)
		_, later := w.Served()
		require.Less(t, later-sent, int64(1e6))
		m.client.Resume()
		simnet.Sleep(2 * time.Second)
		require.Greater(t, m.client.Stats().Downloaded, before.Downloaded+5e6)
		began := time.Now()
		require.NoError(t, m.client.Close())
		require.Less(t, time.Since(began), time.Second)
	})
}

// Web seeds cost no goroutine while nothing is wanted, and are asked again once something is.
func TestWebSeedComesBack(t *testing.T) {
	foundWeb(t, newSimContent(1, 256<<10, 10e6, 10e6), func(t *testing.T, m *simWebMeeting) {
		m.serve(t, 5e6, simweb.Script{})
		m.options.Seed = true
		m.options.Select = func(f File) Priority { return []Priority{Skip, Normal}[f.Index] }
		m.start(t)
		streams := func() int {
			m.client.mu.Lock()
			defer m.client.mu.Unlock()
			return len(m.client.webSeeds[0].streams)
		}
		simnet.Sleep(time.Second)
		require.Equal(t, 2, streams())
		simnet.Sleep(time.Minute)
		require.True(t, m.client.Stats().Complete)
		require.Zero(t, streams())
		m.client.Select(func(File) Priority { return Normal })
		simnet.Sleep(time.Second)
		require.Equal(t, 2, streams())
		simnet.Sleep(time.Minute)
		require.True(t, m.client.Verified().Has(0))
		require.True(t, m.client.Stats().Complete)
		require.Zero(t, streams())
		m.client.Pause()
		m.client.Resume()
		simnet.Sleep(time.Second)
		require.Zero(t, streams())
	})
}

// Only what is chosen is asked for, and what is on demand where a reader is.
func TestWebSeedSelection(t *testing.T) {
	foundWeb(t, newSimContent(1, 256<<10, 10e6, 10e6, 10e6), func(t *testing.T, m *simWebMeeting) {
		w := m.serve(t, 5e6, simweb.Script{})
		m.options.Seed = true
		m.options.Select = func(f File) Priority { return []Priority{Skip, Normal, OnDemand}[f.Index] }
		m.start(t)
		simnet.Sleep(time.Minute)
		s := m.client.Stats()
		require.True(t, s.Complete)
		require.Less(t, s.Downloaded, int64(11e6))
		_, sent := w.Served()
		require.Less(t, sent, int64(11e6))
		r, err := m.client.Open(t.Context(), m.content.layout.File(2).Path)
		require.NoError(t, err)
		_, err = io.ReadFull(r, make([]byte, 1e6))
		require.NoError(t, err)
		require.NoError(t, r.Close())
		simnet.Sleep(time.Minute)
		require.Less(t, m.client.Stats().Downloaded, int64(16e6))
	})
}

// A web seed of a torrent of version 2 that lacks its piece layers is asked for nothing before peers have given them.
func TestWebSeedWaitsForLayers(t *testing.T) {
	const arrives = 5 * time.Second
	foundWeb(t, newSimVersion(V2, true, 1, 64<<10, 3e6, 100, 2e6), func(t *testing.T, m *simWebMeeting) {
		m.serve(t, 1e6, simweb.Script{})
		p := m.meet(t, 1e6, simpeer.Script{Never: simpeer.Answers})
		p.Depart()
		p.Come(arrives, 0, 0)
		p.Go(func() {
			if p.Wait(arrives) {
				p.Dial(netip.MustParseAddrPort("81.0.0.1:6881"))
			}
		})
		s := m.run(t, time.Minute)
		require.Greater(t, m.client.took, arrives)
		require.NoError(t, s.WebSeeds[0].Err)
		require.EqualValues(t, s.Length, s.WebSeeds[0].Downloaded)
		require.Zero(t, s.Wasted)
	})
}

// A web seed's blocks are checked as they come where their hashes are known: it is found out by the first false one.
func TestWebSeedFalseBlocksOfVersion2(t *testing.T) {
	foundWeb(t, newSimVersion(V2, false, 1, 1<<20, 10e6), func(t *testing.T, m *simWebMeeting) {
		m.serve(t, 5e6, simweb.Script{Corrupt: 3})
		m.meet(t, 1e6, simpeer.Script{Fast: true})
		m.start(t)
		for i := range m.content.NumPieces() {
			var leaves []byte
			for block := range slices.Chunk(m.content.truth.Piece(i), blockSize) {
				leaf := merkle.HashBlock(block)
				leaves = append(leaves, leaf[:]...)
			}
			m.client.t.hashes.LearnBlocks(i, leaves)
		}
		simWait(time.Minute, m.client)
		require.NoError(t, m.client.compare(nil))
		s := m.client.Stats()
		require.Equal(t, WebSeedBanned, s.WebSeeds[0].State)
		require.LessOrEqual(t, s.Wasted, int64(3*blockSize))
		require.NotZero(t, s.Wasted)
	})
}

// A web seed that lacks one of many files costs no more than one that lacks one of few. It was a pass over all pieces, 18 ms of
// 100,000, under the mutex that peers need, too.
func TestFilesThatAWebSeedLacks(t *testing.T) {
	one := sha1.Sum([]byte("a"))
	cost := func(files int) (least time.Duration) {
		var b bytes.Buffer
		b.WriteString("d4:infod5:filesl")
		for i := range files {
			fmt.Fprintf(&b, "d6:lengthi1e4:pathl8:%08dee", i)
		}
		fmt.Fprintf(&b, "e4:name1:x12:piece lengthi1e6:pieces%d:%see", 20*files, bytes.Repeat(one[:], files))
		tor, err := Parse(&b)
		require.NoError(t, err)
		waits := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		c := &Client{NoDHT: true, NoUTP: true, NoListen: true, HTTPClient: &http.Client{Transport: waits}}
		defer c.Close()
		d, err := tor.Start(t.Context(), &Options{Client: c, WebSeeds: []string{"http://h.example/"}})
		require.NoError(t, err)
		defer d.Close()
		require.Eventually(t, func() bool {
			d.mu.Lock()
			defer d.mu.Unlock()
			return len(d.webSeeds[0].streams) > 0
		}, 2*time.Minute, time.Millisecond)
		d.mu.Lock()
		defer d.mu.Unlock()
		w := d.webSeeds[0]
		lacks := &webseed.Error{Fate: webseed.Missing}
		w.failed(w.streams[0], 0, lacks, time.Now())
		const batch = 15
		for n := range 10 {
			now := time.Now()
			for i := range batch {
				file := 1 + n*batch + i
				w.failed(w.streams[0], file, lacks, now)
				require.False(t, w.streams[0].supply.Has(file))
			}
			if took := time.Since(now); n == 0 || took < least {
				least = took
			}
		}
		hour := time.Now().Add(time.Hour)
		w.rested(hour)
		require.True(t, w.streams[0].supply.HasAll(), "an hour later")
		return least
	}
	few, many := cost(1000), cost(100_000)
	require.Less(t, many, 20*few, "few %v, many %v", few, many)
}

// A download whose limit lets little or nothing pass does not keep another from the host that both have web seeds at.
func TestWebSeedsOfOneHost(t *testing.T) {
	for _, limit := range []rate.Limit{0, 20e3} {
		synctest.Test(t, func(t *testing.T) {
			files := fstest.MapFS{"a": {Data: make([]byte, 8<<20)}, "b": {Data: bytes.Repeat([]byte("b"), 4<<20)}}
			serve := http.FileServerFS(files)
			c := &Client{NoDHT: true, NoUTP: true, NoListen: true, HTTPClient: &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				w := httptest.NewRecorder()
				serve.ServeHTTP(w, r)
				resp := w.Result()
				resp.Request = r
				return resp, nil
			})}}
			defer c.Close()
			start := func(name string, limit *rate.Limiter) *Download {
				tor, err := CreateFS(t.Context(), fstest.MapFS{name: files[name]}, &CreateOptions{PieceLength: 1 << 20, WebSeeds: []string{"http://h.example/"}, Private: true})
				require.NoError(t, err)
				d, err := tor.Start(t.Context(), &Options{Client: c, DownloadLimit: limit})
				require.NoError(t, err)
				return d
			}
			a := start("a", rate.NewLimiter(limit, 16<<10))
			defer a.Close()
			time.Sleep(time.Second)
			began := time.Now()
			b := start("b", nil)
			defer b.Close()
			select {
			case <-b.Done():
			case <-time.After(time.Hour):
			}
			require.Less(t, time.Since(began), 2*turnHeld)
			time.Sleep(100 * time.Second)
			require.InDelta(t, float64(limit)*(101+time.Since(began).Seconds()-100), float64(a.Stats().Downloaded), 200e3, "it goes on")
		})
	}
}

// Limited downloads from a server that sends whole files only take their turns there file by file: one broken off begins again.
func TestWebSeedRangelessTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := fstest.MapFS{}
		for _, name := range []string{"a", "b", "c"} {
			files[name] = &fstest.MapFile{Data: bytes.Repeat([]byte(name), 2<<20)}
		}
		serve := http.FileServerFS(files)
		c := &Client{NoDHT: true, NoUTP: true, NoListen: true, HTTPClient: &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			w := httptest.NewRecorder()
			whole := r.Clone(r.Context())
			whole.Header.Del("Range")
			serve.ServeHTTP(w, whole)
			resp := w.Result()
			resp.Request = r
			return resp, nil
		})}}
		defer c.Close()
		var downloads []*Download
		for name, file := range files {
			tor, err := CreateFS(t.Context(), fstest.MapFS{name: file}, &CreateOptions{PieceLength: 1 << 20, WebSeeds: []string{"http://h.example/"}, Private: true})
			require.NoError(t, err)
			d, err := tor.Start(t.Context(), &Options{Client: c, DownloadLimit: rate.NewLimiter(100e3, 16<<10)})
			require.NoError(t, err)
			defer d.Close()
			downloads = append(downloads, d)
		}
		began := time.Now()
		for _, d := range downloads {
			select {
			case <-d.Done():
			case <-time.After(10 * time.Minute):
				require.FailNow(t, "not done", "%+v", d.Stats())
			}
		}
		require.Less(t, time.Since(began), time.Minute)
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
