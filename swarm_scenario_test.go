package torrent

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/blockpool"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/shoal-go/torrent/internal/storage/disktest"
)

// Seven peers that misbehave beside one honest seed cost no more than a tenth of the time that the seed alone
// would take, and the time after which a peer counts as snubbed.
func TestOneHonestAmongSeven(t *testing.T) {
	const rate, size = 1e6, 60e6
	for name, kinds := range map[string][7]simpeer.Script{
		"liars and idlers": {
			{Corrupt: 3}, {Corrupt: 20, Fast: true}, {Never: simpeer.Answers}, {Never: simpeer.Answers, Fast: true},
			{Flap: 300 * time.Millisecond}, {ResetAfter: 10}, {Drip: time.Second},
		},
		"noise and stalls": {
			{Noise: simpeer.Noises(), NoiseEvery: time.Second}, {Twice: true}, {StallAfter: 5}, {SendsLate: true, Flap: time.Second},
			{Floods: true}, {Shortens: 4}, {Never: simpeer.Reads},
		},
		"liars all":     {{Corrupt: 1}, {Corrupt: 2}, {Corrupt: 3}, {Corrupt: 5}, {Corrupt: 10}, {Corrupt: 30}, {Corrupt: 100}},
		"idlers all":    {{Never: simpeer.Answers}, {Never: simpeer.Answers}, {Never: simpeer.Answers}, {Never: simpeer.Answers}, {Never: simpeer.Answers}, {Never: simpeer.Answers}, {Never: simpeer.Answers}},
		"drippers all":  {{Drip: time.Second}, {Drip: time.Second}, {Drip: time.Second}, {Drip: time.Second}, {Drip: time.Second}, {Drip: time.Second}, {Drip: time.Second}},
		"stallers all":  {{StallAfter: 1}, {StallAfter: 10}, {StallAfter: 20}, {StallAfter: 40}, {StallAfter: 80}, {StallAfter: 160}, {StallAfter: 320}},
		"flappers all":  {{Flap: 1e8}, {Flap: 2e8}, {Flap: 5e8}, {Flap: 1e9, SendsLate: true}, {Flap: 2e9}, {Flap: 5e9}, {Flap: 1e10, DropsSilently: true, Fast: true}},
		"claimants all": {{ClaimsAll: true}, {ClaimsAll: true}, {ClaimsAll: true}, {ClaimsAll: true}, {ClaimsAll: true}, {ClaimsAll: true}, {ClaimsAll: true}},
	} {
		for _, pieceLength := range []int64{64 << 10, 256 << 10, 1 << 20, 8 << 20} {
			t.Run(fmt.Sprintf("%s, pieces of %d KiB", name, pieceLength>>10), func(t *testing.T) {
				skipUnderRace(t, pieceLength != 256<<10 || strings.HasSuffix(name, " all"))
				t.Parallel()
				found(t, newSimContent(1, pieceLength, size), func(t *testing.T, m *simMeeting) {
					m.meet(t, rate, simpeer.Script{})
					for _, k := range kinds {
						p := m.meet(t, rate, k)
						if k.ClaimsAll {
							p.Have = bits.New(p.Have.Len())
						}
					}
					m.run(t, time.Hour)
					alone := size / rate
					require.LessOrEqual(t, m.client.took.Seconds(), 1.1*alone+snubTimeout.Seconds())
					t.Logf("took %v, alone %v s", m.client.took, alone)
				})
			})
		}
	}
}

// Seeds that differ much, or are many and slow, are together as fast as the sum of their rates, even when the
// slow one had a head start and so began the first pieces.
func TestIdealTime(t *testing.T) {
	const size = 300e6
	for name, c := range map[string]struct {
		rates []float64
		head  time.Duration // before all but the first are there
	}{
		"one slow and three fast":             {rates: []float64{40e3, 20e6, 20e6, 20e6}},
		"one slow, and later three fast ones": {rates: []float64{40e3, 20e6, 20e6, 20e6}, head: 20 * time.Second},
		"thirty alike":                        {rates: slices.Repeat([]float64{1e6}, 30)},
	} {
		for _, pieceLength := range []int64{256 << 10, 1 << 20, 4 << 20, 16 << 20} {
			t.Run(fmt.Sprintf("%s, pieces of %d KiB", name, pieceLength>>10), func(t *testing.T) {
				skipUnderRace(t, pieceLength != 4<<20 || c.head == 0)
				t.Parallel()
				found(t, newSimRepeating(1, pieceLength, size), func(t *testing.T, m *simMeeting) {
					sum := 0.0
					for k, rate := range c.rates {
						sum += rate
						p := m.meet(t, rate, simpeer.Script{})
						if k > 0 && c.head > 0 {
							p.Depart()
							p.Come(c.head, 0, 0)
							p.Go(func() {
								if p.Wait(c.head) {
									p.Dial(netip.MustParseAddrPort("81.0.0.1:6881"))
								}
							})
						}
					}
					m.run(t, time.Hour)
					ideal := size / sum
					took := (m.client.took - c.head).Seconds()
					t.Logf("took %.3f s, ideal %.3f s: %.3f times", took, ideal, took/ideal)
					require.LessOrEqual(t, took, 1.05*ideal)
				})
			})
		}
	}
}

// However many slow peers there are and however long the pieces, started pieces share one budget of memory.
// That costs no time: what does not fit goes to storage block by block.
func TestStartedMemory(t *testing.T) {
	const size, peers, rate = 400e6, 70, 200e3
	for _, pieceLength := range []int64{1 << 20, 4 << 20, 16 << 20} {
		t.Run(fmt.Sprintf("pieces of %d KiB", pieceLength>>10), func(t *testing.T) {
			skipUnderRace(t, pieceLength != 4<<20)
			t.Parallel()
			found(t, newSimRepeating(1, pieceLength, size), func(t *testing.T, m *simMeeting) {
				for range peers {
					m.meet(t, rate, simpeer.Script{})
				}
				m.run(t, time.Hour)
				t.Logf("took %v, kept %d bytes at most", m.client.took, m.client.kept)
				require.LessOrEqual(t, m.client.kept, int64(blockpool.Limit))
				require.Less(t, m.client.took.Seconds(), 1.1*size/(peers*rate))
			})
		})
	}
}

// Five hundred peers that have half of the pieces each fill the downlink, and few blocks are stolen on the
// way.
func TestFiveHundredPeers(t *testing.T) {
	t.Parallel()
	const peers, rate, downlink = 500, 100e3, 40e6
	size := int64(128 << 20)
	if raceEnabled() {
		size = 32 << 20
	}
	found(t, newSimRepeating(1, 64<<10, size), func(t *testing.T, m *simMeeting) {
		for k := range peers {
			p := m.meet(t, rate, simpeer.Script{})
			for i := range m.content.NumPieces() {
				if (i*31+k*17)%7 < 3 {
					p.Have.Remove(i)
				}
			}
		}
		m.host = m.net.NewHost("81.0.0.1", 0, downlink, 10*time.Millisecond)
		m.options.MaxPeers = peers
		m.run(t, time.Hour)
		s := m.client.Stats()
		t.Logf("took %v, wasted %d bytes, %d thefts", m.client.took, s.Wasted, s.Steals)
		require.Less(t, m.client.took.Seconds(), 1.2*float64(size)/downlink+12)
		require.Less(t, s.Wasted, size/10)
	})
}

// One small file of a large torrent costs only its own pieces, and makes no other file.
func TestOneFileOfFiveGigabytes(t *testing.T) {
	dir := t.TempDir()
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimRepeating(1, 1<<20, 5e9)
		content.multi = true
		content.layout = layout.New(1<<20, layout.File{Path: "d/a", Length: 2_100_000_001},
			layout.File{Path: "d/b/wanted", Length: 1e6}, layout.File{Path: "d/c", Length: 5e9 - 2_100_000_001 - 1e6})
		m := &simMeeting{net: n, content: content}
		defer m.end(t)
		peer := m.meet(t, 1e6, simpeer.Script{Fast: true})
		o := &Options{Dir: dir, Select: Glob("wanted"), Peers: []netip.AddrPort{peer.Addr()}}
		m.client = simStart(t.Context(), t, n.NewHost("81.0.0.1", 0, 0, 0), content, nil, o, nil)
		simWait(time.Minute, m.client)
		require.NoError(t, m.client.compare(o.Select))
		require.Empty(t, m.client.account(peer))

		first, end := content.layout.PiecesOf(1)
		got := m.client.ledger.Account().Received
		require.EqualValues(t, (end-first)<<20, got)
		for i := range end - first {
			require.True(t, m.client.verified().Has(first+i))
		}
		var files []string
		for _, name := range filesUnder(t, dir) {
			if !strings.HasPrefix(name, ".") {
				files = append(files, name)
			}
		}
		require.Equal(t, []string{"d/b/wanted"}, files)
		t.Logf("1000000 of 5000000000 bytes chosen: %d bytes of %d pieces fetched", got, end-first)
	})
}

// A close while pieces of 16 MiB are under way costs no more than the block that was arriving.
func TestCloseInMidPiece(t *testing.T) {
	dir := t.TempDir()
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		rng := rand.New(rand.NewPCG(1, 1))
		content := newSimContent(1, 16<<20, 20<<20, 9<<20, 10<<20+77)
		peer := simpeer.New("seed", n.NewHost("80.0.0.1", 1e6, 0, 10*time.Millisecond), 6881, content.truth, simpeer.Script{Fast: true})
		require.NoError(t, peer.Arrive())
		defer peer.Stop()
		var received, wire int64
		closes := int64(0)
		for whole := false; !whole; closes++ {
			host := n.NewHost(fmt.Sprintf("81.0.0.%d", closes+1), 0, 0, 0)
			d := simStart(t.Context(), t, host, content, nil, &Options{Dir: dir, Peers: []netip.AddrPort{peer.Addr()}}, nil)
			simWait(time.Duration(rng.IntN(8000))*time.Millisecond, d)
			wire += host.UnderWay()
			whole = d.done()
			d.end(t)
			received += d.ledger.Account().Received
			require.Empty(t, d.account(peer))
		}
		again := received - content.layout.Size()
		t.Logf("%d closes: %d bytes were on the wire, %d of content came twice", closes-1, wire, again)
		require.LessOrEqual(t, again, (closes-1)*blockSize)
	})
	have, err := newSimContent(1, 16<<20, 20<<20, 9<<20, 10<<20+77).Verify(t.Context(), dir)
	require.NoError(t, err)
	require.Equal(t, have.Len(), have.Count())
}

// A whole download on a disk that forgets what was not synced, with many losses of power. It takes no piece
// for verified that is not there, fetches none again that the sidecar claims, and ends with the content.
func TestDownloadLosesPower(t *testing.T) {
	t.Parallel()
	losses, claims, stops, failures := 0, 0, 0, 0
	for seed := range uint64(20) {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			rng := rand.New(rand.NewPCG(seed, 1))
			content := newSimContent(seed, 3*blockSize/2<<rng.IntN(3), 10_000, 700_000, 100, 100_000, 300_001, 60_000)
			peer := simpeer.New("seed", n.NewHost("80.0.0.1", 20e3, 0, 20*time.Millisecond), 6881, content.truth, simpeer.Script{Fast: rng.IntN(2) == 0})
			require.NoError(t, peer.Arrive())
			defer peer.Stop()
			disk := disktest.New()
			for life, whole := 1, false; !whole; life++ {
				claimed := claimedOn(t, content, disk.Crash(rng))
				claims += claimed.Count()
				o := &Options{Dir: "disk", Peers: []netip.AddrPort{peer.Addr()}}
				if life < 4 {
					o.Select = func(File) Priority { return Priority(rng.IntN(3) - 1) }
				}
				host := n.NewHost(fmt.Sprintf("81.0.0.%d", life), 0, 0, 0)
				d := simStart(t.Context(), t, host, content, nil, o, &Client{NoDHT: true, NoUTP: true, Encryption: DisableEncryption, hooks: hooks{openFiles: disk.OpenFiles}})
				synctest.Wait()
				for i := range d.verified().All() {
					require.Truef(t, holdsPiece(t, disk, content, i), "seed %d, life %d: piece %d is taken for verified", seed, life, i)
				}
				if rng.IntN(6) == 0 {
					disk.FailSyncs(syscall.EIO)
				}
				simWait(time.Duration(rng.IntN(60_000))*time.Millisecond, d)
				if rng.IntN(4) == 0 {
					stops++
					d.Close()
				}
				losses++
				after := disk.Crash(rng)
				if d.done() && d.life.result != nil && d.life.result != ErrClosed {
					require.ErrorIs(t, d.life.result, syscall.EIO)
					failures++
				}
				whole = d.verified().Full()
				d.Close()
				d.client.Close()
				for i := range claimed.All() {
					require.Falsef(t, d.ledger.Came(i), "seed %d, life %d: piece %d was claimed, and came again", seed, life, i)
				}
				require.Empty(t, d.account(peer))
				disk = after
			}
		})
	}
	require.Greater(t, claims, losses, "or this test shows nothing")
	t.Logf("%d losses of power, %d of them after a clean stop; %d downloads that the disk failed; %d claims, all true", losses, stops, failures, claims)
}

// claimedOn is the pieces that the sidecar on a disk claims if all files are chosen. It requires that they are there.
func claimedOn(t *testing.T, content *simContent, disk *disktest.Disk) bits.Set {
	s, err := disk.OpenFiles(content.content(), "", nil)
	require.NoError(t, err)
	require.NoError(t, s.SetWanted(slices.Repeat([]bool{true}, content.layout.NumFiles())))
	have, partial := s.LoadResume()
	for i := range have.All() {
		require.Truef(t, holdsPiece(t, disk, content, i), "piece %d is claimed", i)
	}
	for i, blocks := range partial {
		for k := range blocks.All() {
			at := content.layout.PieceOffset(i) + int64(k)*blockSize
			b := make([]byte, min(blockSize, content.layout.PieceSize(i)-int64(k)*blockSize))
			_, err := s.ReadAt(b, at)
			require.NoError(t, err)
			require.Truef(t, bytes.Equal(content.truth.Run(at, int64(len(b))), b), "block %d of piece %d is claimed", k, i)
		}
	}
	return have
}

// holdsPiece reports whether a disk holds a piece as it should be.
func holdsPiece(t *testing.T, disk *disktest.Disk, content *simContent, i int) bool {
	s, err := disk.OpenFiles(content.content(), "", nil)
	require.NoError(t, err)
	b := make([]byte, content.layout.PieceSize(i))
	at := content.layout.PieceOffset(i)
	_, err = s.ReadAt(b, at)
	return err == nil && bytes.Equal(content.truth.Run(at, int64(len(b))), b)
}

// verified is the pieces that the download takes for verified.
func (s *simDownload) verified() *bits.Set {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := s.picker.Verified().Clone()
	return &have
}

// diskHistories are what a download does with its disk. prepare runs before calls fail.
var diskHistories = map[string]struct {
	prepare func(r *failingRig)
	history func(r *failingRig) *life
}{
	"download": {history: func(r *failingRig) *life { return r.start(Options{}).whole() }},
	"keep the sidecar": {history: func(r *failingRig) *life {
		l := r.start(Options{KeepResume: true}).whole()
		if l.err != nil {
			return l
		}
		l.end()
		return r.start(Options{KeepResume: true}).whole()
	}},
	"choose more": {history: func(r *failingRig) *life {
		l := r.start(Options{Seed: true, Select: Glob("file-0")}).whole()
		if l.err != nil {
			return l
		}
		l.Select(Glob("file-*"))
		return l.whole()
	}},
	"choose less, and go on": {
		prepare: func(r *failingRig) {
			l := r.start(Options{Select: Glob("file-2")}).whole()
			require.NoError(r.test, l.err)
			l.end()
		},
		history: func(r *failingRig) *life { return r.start(Options{}).whole() },
	},
	"go on": {
		prepare: func(r *failingRig) {
			l := r.start(Options{})
			time.Sleep(5 * time.Second)
			have := l.end()
			require.Positive(r.test, have.Count())
			require.Less(r.test, have.Count(), have.Len())
		},
		history: func(r *failingRig) *life { return r.start(Options{}).whole() },
	},
	"stop and go on": {history: func(r *failingRig) *life {
		l := r.start(Options{})
		time.Sleep(5 * time.Second)
		if l.Download == nil {
			return l
		}
		l.end()
		return r.start(Options{}).whole()
	}},
	"no memory for blocks": {history: func(r *failingRig) *life {
		r.blocks = blockSize
		return r.start(Options{}).whole()
	}},
	"found": {
		prepare: func(r *failingRig) {
			r.write("content-1/dir-0/file-0.part", 0, 70_000)
			r.write("content-1/dir-2/file-2", 2, 60_000) // too long
			r.write("other", 3, 40_000)
			require.NoError(r.test, r.disk.Link("other", r.disk, "content-1/dir-0/file-3"))
			f, err := r.disk.Open("content-1/dir-2/file-2", os.O_RDWR)
			require.NoError(r.test, err)
			_, err = f.WriteAt(make([]byte, 100), 20_000)
			require.NoError(r.test, err)
			require.NoError(r.test, f.Close())
		},
		history: func(r *failingRig) *life { return r.start(Options{}).whole() },
	},
	"another program writes": {history: func(r *failingRig) *life {
		l := r.start(Options{Seed: true}).whole()
		if l.err != nil {
			return l
		}
		fail := r.disk.Fail
		r.disk.Fail = nil
		r.write("content-1/dir-0/file-0", 2, 70_000)
		r.disk.Fail = fail
		if err := l.Recheck(r.test.Context()); err != nil {
			l.check("Recheck", err)
			return l
		}
		return l.whole()
	}},
	"share": {history: func(r *failingRig) *life {
		l := r.start(Options{Seed: true}).whole()
		if l.err != nil {
			return l
		}
		r.take(l)
		return l
	}},
}

// takesHandle are the calls that need one more handle, if only for the time being. Those of an os.Root open the
// directories that lead to the file.
var takesHandle = map[string]bool{
	"open the disk": true, "open": true, "mkdir": true, "stat": true, "rename": true, "remove": true, "link": true,
	"chtimes": true, "sync directory": true, "lock": true, "claim": true, "unlock": true,
}

// Whatever one call of the disk fails, a download ends with an error that says what failed, or becomes complete. Nothing
// that was verified is fetched again, no handle is left and nothing hangs. A lack of handles is passed through by a
// download that has begun.
func TestEachDiskCallFails(t *testing.T) {
	t.Parallel()
	for name, tt := range diskHistories {
		for _, why := range []error{errInjected, syscall.EMFILE} {
			t.Run(fmt.Sprintf("%s: %v", name, why), func(t *testing.T) {
				t.Parallel()
				eachCall(t, why, func(t *testing.T, c *nthCall) {
					n := simnet.New()
					defer n.Close()
					r := newFailingRig(t, n, c)
					defer r.stop()
					if tt.prepare != nil {
						tt.prepare(r)
					}
					r.disk.Fail = func(call, name string) error {
						if why == syscall.EMFILE && !takesHandle[call] {
							return nil
						}
						return c.fail(call + " " + name)
					}
					l := tt.history(r)
					if l.err != nil {
						require.ErrorContains(t, l.err, c.hit())
						require.False(t, why == syscall.EMFILE && l.Download != nil, "%v", l.err)
					}
					have := l.end()
					r.disk.Fail = nil
					r.again(have)
				})
			})
		}
	}
}
