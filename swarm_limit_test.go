package torrent

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/shoal-go/torrent/internal/wire"
)

// drained returns a limiter whose first burst is spent.
func drained(limit rate.Limit, burst int) *rate.Limiter {
	lim := rate.NewLimiter(limit, burst)
	lim.AllowN(time.Now(), burst)
	return lim
}

// limitRow is a transfer under a limit: by one client, from or to so many others.
type limitRow struct {
	upload bool
	limit  rate.Limit // bytes a second
	burst  int
	peers  int
}

func (r limitRow) String() string {
	direction := "download"
	if r.upload {
		direction = "upload"
	}
	return fmt.Sprintf("| %s | %.0f | %d | %d |", direction, float64(r.limit), r.burst, r.peers)
}

const limitTableHead = "| direction | limit, bytes/s | burst | peers | measured | off by |\n|---|---|---|---|---|---|"

// result is the row with the rate that was measured.
func (r limitRow) result(measured float64) string {
	return fmt.Sprintf("%v %.0f | %+.2f %% |", r, measured, 100*(measured/float64(r.limit)-1))
}

// drain is how long clients take to find each other and to use up the first burst.
func (r limitRow) drain() time.Duration {
	return 3*time.Second + time.Duration(float64(r.burst)/float64(r.limit)*float64(time.Second))
}

// window is the time over which the average is taken: ten seconds, or a hundred blocks if those take longer, or 20,000 blocks
// if those take less.
func (r limitRow) window() time.Duration {
	block := time.Duration(blockSize / float64(r.limit) * float64(time.Second))
	return min(max(10*time.Second, 100*block), 20_000*block)
}

// content is enough for both, in one file for each peer.
func (r limitRow) content() *simContent {
	const piece = 256 << 10
	n := 1.2*float64(r.limit)*(r.drain()+r.window()).Seconds() + float64(r.burst) + 1<<20
	size := (int64(n)/piece/int64(r.peers) + 1) * piece
	content := newSimRepeating(1, piece, size*int64(r.peers))
	content.private = true // so that the others do not find each other
	content.multi = true
	files := make([]layout.File, r.peers)
	for k := range r.peers {
		files[k] = layout.File{Path: fmt.Sprintf("%s/%d", content.name, k), Length: size}
	}
	content.layout = layout.New(piece, files...)
	return content
}

// measure runs the transfer, and returns its rate in bytes a second once the first burst is drained.
// client makes the k-th client, number 0 being the one under the limit, and reports where it listens
// once that is known.
func (r limitRow) measure(tb testing.TB, client func(k int) (c *Client, addr func() netip.AddrPort)) float64 {
	content := r.content()
	start := func(c *Client, sel func(File) Priority, st *simStorage, peers []netip.AddrPort) *Download {
		d, err := content.Start(tb.Context(), &Options{Client: c, Seed: true, Select: sel, Peers: peers, Storage: st.open})
		require.NoError(tb, err)
		return d
	}
	us, addr := client(0)
	lim := rate.NewLimiter(r.limit, r.burst)
	var d *Download
	if r.upload {
		us.UploadLimit = lim
		d = start(us, nil, newSimStorage(content).fill(), nil)
		<-d.Done()
		for k := range r.peers {
			c, _ := client(1 + k)
			start(c, nil, newSimStorage(content), []netip.AddrPort{addr()})
		}
	} else {
		us.DownloadLimit = lim
		var from []netip.AddrPort
		for k := range r.peers {
			// Each of the others is a partial seed of one file: to hash everything for each takes long.
			c, addr := client(1 + k)
			st := newSimStorage(content)
			for i := range st.written.Len() / r.peers {
				st.written.Add(k*st.written.Len()/r.peers + i)
			}
			own := func(f File) Priority {
				if f.Index == k {
					return Normal
				}
				return Skip
			}
			<-start(c, own, st, nil).Done()
			from = append(from, addr())
		}
		d = start(us, nil, newSimStorage(content), from)
	}
	count := func() int64 {
		s := d.Stats()
		return s.Downloaded + s.Uploaded
	}
	time.Sleep(r.drain())
	before, began := count(), time.Now()
	time.Sleep(r.window())
	return float64(count()-before) / time.Since(began).Seconds()
}

// Every limit is kept to within five percent, whatever the bucket holds and whichever client is at the other end.
func TestLimitTable(t *testing.T) {
	t.Parallel()
	var rows []limitRow
	for _, upload := range []bool{false, true} {
		for _, limit := range []rate.Limit{16 << 10, 256 << 10, 4 << 20, 100e6} {
			for _, peers := range []int{1, 40} {
				rows = append(rows, limitRow{upload, limit, 1 << 10, peers})
				if limit < 100e6 {
					rows = append(rows, limitRow{upload, limit, int(limit), peers})
				}
			}
		}
	}
	table := make([]string, len(rows))
	t.Run("rows", func(t *testing.T) {
		for k, row := range rows {
			t.Run(row.String(), func(t *testing.T) {
				if testing.Short() && row.limit == 100e6 || raceEnabled() && row.limit > 256<<10 {
					t.Skip("takes some seconds, and minutes under the race detector")
				}
				t.Parallel()
				simnet.Run(t, func(t *testing.T, n *simnet.Network) {
					got := row.measure(t, func(k int) (*Client, func() netip.AddrPort) {
						h := n.NewHost(fmt.Sprintf("80.0.0.%d", k+1), 0, 0, 5*time.Millisecond) // one /24, so that a choke stops them
						return simClient(t, h, nil), func() netip.AddrPort { return h.Addr(6881) }
					})
					table[k] = row.result(got)
					require.InEpsilon(t, float64(row.limit), got, 0.05)
				})
			})
		}
	})
	t.Logf("under the virtual clock:\n%s\n%s", limitTableHead, strings.Join(table, "\n"))
}

// BenchmarkLimit measures the same over loopback, in real time: the low limits together, and those that keep
// the machine busy one by one.
func BenchmarkLimit(b *testing.B) {
	measure := func(r limitRow) string {
		var all []*Client
		got := r.measure(b, func(int) (*Client, func() netip.AddrPort) {
			c := &Client{NoDHT: true, NoUTP: true, Listen: "127.0.0.1:0"}
			all = append(all, c)
			return c, func() netip.AddrPort { return netip.MustParseAddrPort(c.Addr().String()) }
		})
		for _, c := range all {
			require.NoError(b, c.Close())
		}
		return r.result(got)
	}
	for b.Loop() {
		var table [12]string
		var slow sync.WaitGroup
		var fast []func()
		k := 0
		for _, upload := range []bool{false, true} {
			for _, limit := range []rate.Limit{16 << 10, 1 << 20, 100e6} {
				for _, peers := range []int{1, 40} {
					line, row := &table[k], limitRow{upload, limit, 64 << 10, peers}
					k++
					if limit < 100e6 {
						slow.Go(func() { *line = measure(row) })
					} else {
						fast = append(fast, func() { *line = measure(row) })
					}
				}
			}
		}
		slow.Wait()
		for _, do := range fast {
			do()
		}
		b.Logf("over loopback:\n%s\n%s", limitTableHead, strings.Join(table[:], "\n"))
	}
}

// rates measures over ten seconds how fast each download is, and all together.
func rates(all ...*Download) (sum float64, each []float64) {
	var before []int64
	for _, d := range all {
		before = append(before, d.Stats().Downloaded)
	}
	time.Sleep(10 * time.Second)
	for k, d := range all {
		each = append(each, float64(d.Stats().Downloaded-before[k])/10)
		sum += each[k]
	}
	return sum, each
}

// Downloads of one client or of several may share a limit. It may be set for one of them alone, and may change
// at any time.
func TestLimitShared(t *testing.T) {
	t.Parallel()
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		lim := rate.NewLimiter(1<<20, 4<<10)
		own := rate.NewLimiter(128<<10, 4<<10)
		first, second := n.NewHost("80.0.0.1", 0, 0, 5*time.Millisecond), n.NewHost("80.0.0.2", 0, 0, 5*time.Millisecond)
		a, b := simClient(t, first, nil), simClient(t, second, nil)
		a.DownloadLimit, b.DownloadLimit = lim, lim
		var all []*Download
		for k, c := range []*Client{a, a, b, b} {
			content := newSimRepeating(uint64(k+1), 256<<10, 256<<20)
			h := n.NewHost(fmt.Sprintf("81.0.%d.1", k), 0, 0, 5*time.Millisecond)
			simSeed(t, simClient(t, h, nil), content)
			o := &Options{Client: c, Peers: []netip.AddrPort{h.Addr(6881)}, Storage: newSimStorage(content).open}
			if k == 3 {
				o.DownloadLimit = own
			}
			d, err := content.Start(t.Context(), o)
			require.NoError(t, err)
			all = append(all, d)
		}
		simnet.Sleep(3 * time.Second)
		sum, each := rates(all...)
		require.InEpsilon(t, 1<<20, sum, 0.05)
		require.InEpsilon(t, 128<<10, each[3], 0.05)
		for _, rate := range each[:3] {
			require.InEpsilon(t, (1<<20-128<<10)/3, rate, 0.1, "%v", each)
		}

		for _, limit := range []rate.Limit{4 << 20, 64 << 10, 0, 512 << 10} {
			lim.SetLimit(limit)
			own.SetLimit(rate.Inf)
			time.Sleep(2 * time.Second)
			sum, each := rates(all...)
			require.InDelta(t, float64(limit), sum, 0.05*float64(limit)+1, "%v", each)
		}
		lim.SetLimit(rate.Inf)
		sum, _ = rates(all...)
		require.Greater(t, sum, 20e6)
	})
}

// A limit that is used up starves neither handshakes nor messages.
func TestLimitLeavesMessagesAlone(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, blockSize, 64*blockSize)
		us := n.NewHost("80.0.0.1", 0, 0, 0)
		c := simClient(t, us, nil)
		c.UploadLimit, c.DownloadLimit = drained(1000, 1000), drained(1000, 1000)
		store := newSimStorage(content)
		for i := range 32 {
			store.written.Add(i)
		}
		d, err := content.Start(t.Context(), &Options{Client: c, Seed: true, Storage: store.open})
		require.NoError(t, err)
		simnet.Sleep(time.Second)
		for k := range 4 {
			s := speak(t, n.NewHost(fmt.Sprintf("80.0.1.%d", k), 0, 0, 0), content, us.Addr(6881), speech{fast: true})
			s.sayID(wire.HaveAll)
			s.sayID(wire.Interested)
			s.sayID(wire.Unchoke)
			simnet.Sleep(100 * time.Millisecond)
			require.Subset(t, s.take(), []string{"bitfield", "interested", "unchoke"})
			s.ask(0, 1, 2, 63)
			simnet.Sleep(100 * time.Millisecond)
			require.Equal(t, []string{"reject 63/0"}, s.take())
			s.say(wire.AppendCancel(nil, 2, 0, blockSize))
			simnet.Sleep(100 * time.Millisecond)
			require.Equal(t, []string{"reject 2/0"}, s.take())
		}
		require.Less(t, d.Stats().Uploaded, int64(2*blockSize))
	})
}

// Time in which a writer waits for its peer to read is credited to a limit once.
func TestLimitWithPeersThatReadSlowly(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		const limit, window = 16 << 10, 100 * time.Second
		content := newSimContent(1, blockSize, 512*blockSize)
		us := n.NewHost("80.0.0.1", 0, 0, 0)
		us.Buffer = 1 << 10
		c := simClient(t, us, nil)
		c.UploadLimit = rate.NewLimiter(limit, 1<<20)
		store := newSimStorage(content)
		for i := 1; i < content.NumPieces(); i++ {
			store.written.Add(i)
		}
		d, err := content.Start(t.Context(), &Options{Client: c, Seed: true, Storage: store.open})
		require.NoError(t, err)
		simnet.Sleep(time.Second)
		join := func(k int, down float64) *speaker {
			s := speak(t, n.NewHost(fmt.Sprintf("80.0.1.%d", k), 0, down, 0), content, us.Addr(6881), speech{fast: true})
			s.sayID(wire.HaveNone)
			s.sayID(wire.Interested)
			return s
		}
		fast := join(1, 0)
		slow := []*speaker{join(2, 400), join(3, 400), join(4, 400)}
		simnet.Sleep(15 * time.Second)
		require.True(t, c.UploadLimit.AllowN(time.Now(), 1<<20))
		for i := range uint32(400) {
			fast.ask(1 + i)
		}
		for k, s := range slow {
			s.ask(make([]uint32, 1000)...) // what the client lacks, for which it sends as many rejects
			s.ask(uint32(500 + k))
		}
		before := d.Stats().Uploaded
		simnet.Sleep(window)
		require.InEpsilon(t, limit, float64(d.Stats().Uploaded-before)/window.Seconds(), 0.05)
	})
}

// Requests that a choke drops cost a download limit nothing: other peers are asked for as much.
func TestLimitForgetsWhatIsChoked(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		const limit = 200e3
		m := &simMeeting{net: n, content: newSimContent(1, 64<<10, 4<<20)}
		defer m.end(t)
		for range 3 {
			m.meet(t, 10e3, simpeer.Script{Flap: 500 * time.Millisecond})
		}
		m.meet(t, 1e6, simpeer.Script{})
		m.options.DownloadLimit = rate.NewLimiter(limit, 64<<10)
		m.run(t, time.Minute)
		require.InEpsilon(t, 4<<20/limit, m.client.took.Seconds(), 0.1)
	})
}

// Metadata counts against the limit as blocks do, and hosts that reconnect get no more of it. But it does not wait behind blocks,
// so that a resolver is served in time.
func TestLimitCountsMetadata(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		const limit, window = 64 << 10, 100 * time.Second
		content := newSimResolvable(t, 3000, false) // four blocks of metadata
		us := n.NewHost("80.0.0.1", 0, 0, 0)
		c := simClient(t, us, nil)
		c.UploadLimit = drained(limit, 64<<10)
		d := simSeed(t, c, content)
		simnet.Sleep(time.Second)
		for k := range 4 {
			s := speak(t, n.NewHost(fmt.Sprintf("80.0.1.%d", k), 0, 0, 0), content, us.Addr(6881), speech{fast: true})
			s.sayID(wire.HaveNone)
			s.sayID(wire.Interested)
			simnet.Sleep(time.Second)
			for i := range uint32(500) {
				s.ask(i)
			}
		}
		resolve := func(ip string) *speaker {
			s := speak(t, n.NewHost(ip, 0, 0, 0), content, us.Addr(6881), speech{fast: true, extended: true})
			s.sayID(wire.HaveNone)
			s.sayHello(wire.ExtHandshake{M: map[string]int{"ut_metadata": 9}})
			for i := range 16 {
				m := wire.MetadataMessage{Type: wire.MetadataRequest, Piece: i % 4}
				s.say(wire.AppendExtended(nil, extMetadata, m.Append(nil)))
			}
			return s
		}
		answers := func(s *speaker) (n int) {
			for _, w := range s.take() {
				if strings.HasPrefix(w, `extended 9 "d8:msg_typei1e`) {
					n++
				}
			}
			return n
		}
		before, metadata, began := d.Stats().Uploaded, 0, time.Now()
		for round := 0; time.Since(began) < window; round++ {
			greedy := resolve(fmt.Sprintf("80.0.2.%d", round%8))
			simnet.Sleep(2 * time.Second)
			metadata += answers(greedy)
			greedy.Close()
		}
		blocks := float64(d.Stats().Uploaded-before) / window.Seconds()
		rate := float64(metadata*wire.MetadataBlock) / window.Seconds()
		require.InEpsilon(t, limit, blocks+rate, 0.1)
		require.InEpsilon(t, limit/2, rate, 0.2, "while blocks are waiting, no more than half of the limit")

		simnet.Sleep(time.Second)
		honest := resolve("80.0.3.1")
		simnet.Sleep(3 * time.Second)
		require.GreaterOrEqual(t, answers(honest), 4)
	})
}

// Hashes of version 2 count against the limit as blocks do.
func TestLimitCountsHashes(t *testing.T) {
	lim := rate.NewLimiter(1e-3, 1<<20)
	tor, addr := shareV2(t, CreateOptions{Version: V2}, Options{UploadLimit: lim})
	p := dialV2(t, tor, addr)
	for _, r := range []wire.HashRequest{{Base: 1, Length: 4, Proofs: 1}, {Length: 2}} {
		before := lim.Tokens()
		r.Root = rootV2(longV2)
		hashes := p.ask(t, r)
		require.NotEmpty(t, hashes)
		require.InDelta(t, len(hashes), before-lim.Tokens(), 100, "and the header")
		require.Less(t, lim.Tokens(), before-float64(len(hashes)))
	}
	before := lim.Tokens()
	require.Nil(t, p.ask(t, wire.HashRequest{Root: rootV2(longV2), Base: 2, Length: 2}))
	require.InDelta(t, before, lim.Tokens(), 1, "a reject is nothing")
}

// Peers that let us request, answer nothing, and choke together before they are snubbed, have a download limit used up by none of the
// requests to them.
func TestLimitBesideSilentPeers(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		const limit, size = 200e3, 32 << 20
		content := newSimRepeating(1, 256<<10, size)
		us := n.NewHost("80.0.0.1", 0, 0, 10*time.Millisecond)
		c := simClient(t, us, nil)
		c.DownloadLimit = drained(limit, 64<<10)
		d, err := content.Start(t.Context(), &Options{Client: c, Storage: newSimStorage(content).open})
		require.NoError(t, err)
		simnet.Sleep(time.Second)
		began := time.Now()
		all := bits.Full(content.NumPieces())
		for k := range 60 {
			s := speak(t, n.NewHost(fmt.Sprintf("%d.0.0.1", 100+k), 0, 0, 10*time.Millisecond), content, us.Addr(6881), speech{})
			s.say(wire.AppendBitfield(nil, all.AppendTo(nil)))
			s.sayID(wire.Unchoke)
			go func() {
				const every = 19 * time.Second
				for s.pause(every - time.Since(began)%every) {
					s.sayID(wire.Choke)
					s.pause(2 * time.Millisecond)
					s.sayID(wire.Unchoke)
				}
			}()
		}
		simnet.Sleep(time.Second)
		seed := honestSeed(t, n, content)
		defer seed.Stop()
		d.AddPeers(seed.Addr())
		_, err = d.Wait()
		require.NoError(t, err)
		require.InEpsilon(t, size/limit, time.Since(began).Seconds(), 0.2)
	})
}

// One host that takes from each of many torrents under one upload limit leaves as much of it to a peer of another as it gets.
func TestLimitBesideAHostOfManyTorrents(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		const limit, torrents = 100e3, 20
		us := n.NewHost("80.0.0.1", 0, 0, 10*time.Millisecond)
		c := simClient(t, us, nil)
		c.UploadLimit = drained(limit, 16<<10)
		var all []*simContent
		for k := range torrents {
			all = append(all, newSimRepeating(uint64(k+1), 256<<10, 16<<20))
			simSeed(t, c, all[k])
		}
		simnet.Sleep(time.Second)
		h := n.NewHost("100.0.0.1", 0, 0, 10*time.Millisecond)
		for _, content := range all[1:] {
			s := speak(t, h, content, us.Addr(6881), speech{fast: true})
			s.sayID(wire.HaveNone)
			s.sayID(wire.Interested)
			go func() {
				for asked := 0; s.pause(100 * time.Millisecond); {
					for _, w := range s.take() {
						if strings.HasPrefix(w, "piece") || strings.HasPrefix(w, "unchoke") {
							asked++
							s.ask(uint32(asked % 64))
						}
					}
				}
			}()
		}
		simnet.Sleep(time.Minute)
		d := simLeech(t, simClient(t, n.NewHost("90.0.0.1", 0, 0, 10*time.Millisecond), nil), all[0], us.Addr(6881))
		simnet.Sleep(20 * time.Second)
		_, each := rates(d)
		require.Greater(t, each[0], 0.4*limit)
	})
}
