package torrent

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/choker"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/ratelimit"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/storage"
	"github.com/shoal-go/torrent/internal/wire"
)

// snubTimeout is how long a peer that was asked for blocks may be silent while it is not known how long they take.
const snubTimeout = 20 * time.Second

// The messages of a client to its only peer, in answer to the peer's messages.
func TestAsking(t *testing.T) {
	bitfield := func(pieces ...int) []byte {
		has := set(3, pieces...)
		return wire.AppendBitfield(nil, has.AppendTo(nil))
	}
	reject := func(piece, block uint32) []byte {
		return wire.AppendReject(nil, piece, block*blockSize, blockSize)
	}
	unchoke, choke := wire.AppendSimple(nil, wire.Unchoke), wire.AppendSimple(nil, wire.Choke)
	content := newSimContent(1, 2*blockSize, 6*blockSize)
	piece := func(index, block uint32, b []byte) []byte {
		return append(wire.AppendPieceHeader(nil, index, block*blockSize, uint32(len(b))), b...)
	}
	truth := func(index, block uint32) []byte {
		return piece(index, block, content.truth.Block(index, block*blockSize, blockSize))
	}
	lie := func(index, block uint32) []byte { return piece(index, block, make([]byte, blockSize)) }
	of := func(index uint32, words ...string) []string {
		for _, block := range []string{"/0", "/1"} {
			words = append(words, several("request %d"+block, index)...)
		}
		return words
	}
	type turn struct {
		say  []byte
		wait time.Duration // and a millisecond
		hear []string
		over bool
	}
	for name, c := range map[string]struct {
		fast  bool
		turns []turn
	}{
		"a late bitfield adds to what is known": {turns: []turn{
			{say: unchoke},
			{say: bitfield(), hear: nil},
			{say: bitfield(1), hear: of(1, "interested")},
			{say: bitfield(2), hear: of(2)},
			{say: wire.AppendHave(nil, 0), hear: of(0)},
		}},
		"a choke takes everything back": {turns: []turn{
			{say: bitfield(1), hear: []string{"interested"}},
			{say: unchoke, hear: of(1)},
			{say: truth(1, 0)},
			{say: choke},
			{say: unchoke, hear: []string{"request 1/1"}},
			{say: truth(1, 1), hear: []string{"cancel 1/1", "have 1", "not interested"}},
		}},
		"with BEP 6 only a reject does": {fast: true, turns: []turn{
			{say: bitfield(1), hear: []string{"have none", "interested"}},
			{say: unchoke, hear: of(1)},
			{say: choke},
			{say: unchoke},
			{say: reject(1, 1), hear: []string{"request 1/1"}},
		}},
		"who rejects a piece twice does not have it": {fast: true, turns: []turn{
			{say: append(bitfield(1), unchoke...), hear: of(1, "have none", "interested")},
			{say: reject(1, 0), hear: []string{"request 1/0"}},
			{say: reject(1, 0), hear: []string{"not interested"}},
		}},
		"a silent peer is asked for one block, until it sends that": {turns: []turn{
			{say: append(bitfield(0), unchoke...), hear: of(0, "interested")},
			{wait: snubTimeout - tick},
			{wait: 2 * tick, hear: []string{"cancel 0/0", "cancel 0/1", "request 0/0"}},
			{say: truth(0, 0), hear: []string{"cancel 0/0", "request 0/1"}},
		}},
		"a reject of what was never asked": {fast: true, turns: []turn{
			{say: append(bitfield(1), unchoke...), hear: of(1, "have none", "interested")},
			{say: reject(0, 0), over: true},
		}},
		"a block that was never asked": {fast: true, turns: []turn{
			{say: append(bitfield(1), unchoke...), hear: of(1, "have none", "interested")},
			{say: truth(0, 0), over: true},
		}},
		"without BEP 6 a few are forgiven, and wasted": {turns: []turn{
			{say: truth(0, 0)},
			{say: append(bitfield(0), unchoke...), hear: of(0, "interested")},
			{say: append(truth(0, 0), truth(0, 1)...), hear: []string{"have 0", "not interested"}},
		}},
		"without BEP 6 many are not": {turns: func() (turns []turn) {
			for range maxUnrequested {
				turns = append(turns, turn{say: truth(0, 0)})
			}
			return append(turns, turn{say: truth(0, 0), over: true})
		}()},
		"a whole piece that is false ends it": {turns: []turn{
			{say: append(bitfield(0), unchoke...), hear: of(0, "interested")},
			{say: append(truth(0, 0), lie(0, 1)...), over: true},
		}},
		"a have of no piece ends it": {turns: []turn{
			{say: wire.AppendHave(nil, 2), hear: []string{"interested"}},
			{say: wire.AppendHave(nil, 3), over: true},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				us := n.NewHost("80.0.0.1", 0, 0, 0)
				d := simStart(t.Context(), t, us, content, nil, nil, nil)
				defer d.end(t)
				simnet.Sleep(time.Second)
				s := speak(t, n.NewHost("80.0.0.2", 0, 0, 0), content, us.Addr(6881), speech{fast: c.fast})
				defer s.Close()
				for k, turn := range c.turns {
					s.say(turn.say)
					simnet.Sleep(turn.wait + roundEvery + time.Millisecond)
					require.Equal(t, turn.hear, s.take(), "turn %d", k)
					require.Equal(t, turn.over, s.hungUp(), "turn %d", k)
				}
			})
		})
	}
}

// Blocks that one peer does not send are requested from another at once.
func TestAskingAnother(t *testing.T) {
	content := newSimContent(1, blockSize, 2*blockSize)
	lie := append(wire.AppendPieceHeader(nil, 0, 0, blockSize), make([]byte, blockSize)...)
	for name, say := range map[string][]byte{
		"choke":         wire.AppendSimple(nil, wire.Choke),
		"a false block": lie,
		"no message":    {0, 0, 0, 2, byte(wire.Choke), 0},
	} {
		t.Run(name, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				us := n.NewHost("80.0.0.1", 0, 0, 0)
				d := simStart(t.Context(), t, us, content, nil, nil, nil)
				defer d.end(t)
				simnet.Sleep(time.Second)
				var both [2]*speaker
				for k := range both {
					both[k] = speak(t, n.NewHost(fmt.Sprintf("80.0.0.%d", k+2), 0, 0, 0), content, us.Addr(6881), speech{})
					defer both[k].Close()
					has := set(2, k)
					if k == 1 {
						has.Add(0)
					}
					both[k].say(wire.AppendBitfield(nil, has.AppendTo(nil)))
					both[k].sayID(wire.Unchoke)
					simnet.Sleep(time.Millisecond)
				}
				require.Equal(t, []string{"interested", "request 0/0"}, both[0].take())
				require.Equal(t, []string{"interested", "request 1/0"}, both[1].take())
				both[0].say(say)
				simnet.Sleep(roundEvery + time.Millisecond)
				require.Equal(t, []string{"request 0/0"}, both[1].take())
			})
		})
	}
}

// A banned peer is refused when it calls again, from any port.
func TestBannedCallsAgain(t *testing.T) {
	content := newSimContent(1, blockSize, 2*blockSize)
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		us, them := n.NewHost("80.0.0.1", 0, 0, 0), n.NewHost("80.0.0.2", 0, 0, 0)
		d := simStart(t.Context(), t, us, content, nil, nil, nil)
		defer d.end(t)
		simnet.Sleep(time.Second)
		for call := range 3 {
			s := speak(t, them, content, us.Addr(6881), speech{})
			defer s.Close()
			simnet.Sleep(time.Second)
			require.Equal(t, call > 0, s.hungUp())
			s.say(wire.AppendBitfield(nil, []byte{0xc0}))
			s.say(append(wire.AppendPieceHeader(wire.AppendSimple(nil, wire.Unchoke), 0, 0, blockSize), make([]byte, blockSize)...))
			simnet.Sleep(time.Second)
			require.True(t, s.hungUp())
		}
	})
}

// fastRig is a client that shares 64 pieces of two blocks, a host to speak to it from, and the pieces
// that the client lets that host ask for in spite of a choke.
type fastRig struct {
	content *simContent
	us      netip.AddrPort
	seed    *Download
	them    *simnet.Host
	set     []uint32
	others  []uint32 // the rest of the pieces
}

func newFastRig(t *testing.T, n *simnet.Network) *fastRig {
	r := &fastRig{content: newSimContent(1, 2*blockSize, 64*2*blockSize), them: n.NewHost("80.4.4.200", 0, 0, 0)}
	us := n.NewHost("80.0.0.1", 0, 0, 0)
	r.us = us.Addr(6881)
	r.seed = simSeed(t, simClient(t, us, nil), r.content)
	r.set = choker.AllowedFast(r.them.IP(), r.content.infoHash, 64, fastSetSize)
	for i := range uint32(64) {
		if !slices.Contains(r.set, i) {
			r.others = append(r.others, i)
		}
	}
	simnet.Sleep(time.Second)
	return r
}

// several is the same message for each number, as a speaker hears them.
func several(format string, numbers ...uint32) (words []string) {
	for _, i := range numbers {
		words = append(words, fmt.Sprintf(format, i))
	}
	return words
}

func TestAllowedFastWhileChoked(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		r := newFastRig(t, n)
		s := speak(t, r.them, r.content, r.us, speech{fast: true})
		s.sayID(wire.HaveNone)
		simnet.Sleep(time.Second)
		require.Equal(t, append([]string{"have all"}, several("allowed fast %d", slices.Sorted(slices.Values(r.set))...)...), s.take())

		s.ask(r.set[0], r.others[0], r.set[1])
		simnet.Sleep(time.Second)
		require.ElementsMatch(t, append(several("piece %d/0", r.set[:2]...), several("reject %d/0", r.others[0])...), s.take(),
			"a choke stops only what is not in the set")

		for i := range uint32(fastSetBelow + 1) {
			s.say(wire.AppendHave(nil, i))
		}
		s.ask(r.set[2])
		simnet.Sleep(time.Second)
		require.Equal(t, several("reject %d/0", r.set[2]), s.take(), "it has enough to trade with")
	})
}

// All peers of one network share one allowance, so that calling again brings no more.
func TestAllowedFastOfANetwork(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		r := newFastRig(t, n)
		hosts := []*simnet.Host{r.them, n.NewHost("80.4.4.7", 0, 0, 0), r.them}
		for k, h := range hosts {
			s := speak(t, h, r.content, r.us, speech{fast: true})
			s.sayID(wire.HaveNone)
			simnet.Sleep(time.Second)
			require.Equal(t, k < allowedTimes, slices.Contains(s.take(), fmt.Sprintf("allowed fast %d", r.set[0])))
			s.say(wire.AppendRequest(wire.AppendRequest(nil, r.set[0], 0, blockSize), r.set[0], blockSize, blockSize))
			simnet.Sleep(time.Second)
			require.Equal(t, k < allowedTimes, slices.Contains(s.take(), fmt.Sprintf("piece %d/0", r.set[0])))
		}
		s := speak(t, n.NewHost("80.4.5.200", 0, 0, 0), r.content, r.us, speech{fast: true})
		simnet.Sleep(time.Second)
		require.Len(t, s.take(), 1+fastSetSize, "the next network has its own")
	})
}

// A seed suggests something else to each of its peers, and what no peer has yet.
func TestSuggest(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		r := newFastRig(t, n)
		var all []*speaker
		var suggested []string
		for k := range 3 {
			s := speak(t, n.NewHost(fmt.Sprintf("90.0.%d.1", k), 0, 0, 0), r.content, r.us, speech{fast: true})
			s.sayID(wire.HaveNone)
			all = append(all, s)
		}
		simnet.Sleep(time.Second)
		for _, s := range all {
			s.take()
			s.ask(60) // whichever peer asks for it will have it
			s.sayID(wire.Interested)
			simnet.Sleep(time.Second)
			said := s.take()
			require.Equal(t, "unchoke", said[len(said)-1], "the suggestions come before, so that it asks for these")
			for _, w := range said {
				if strings.HasPrefix(w, "suggest") {
					suggested = append(suggested, w)
				}
			}
		}
		require.Equal(t, several("suggest %d", 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11), suggested)

		all[0].ask(12, 13)
		simnet.Sleep(time.Second)
		require.Equal(t, several("piece %d/0", 12, 13), all[0].take())
		all[0].say(wire.AppendHave(nil, 1))
		simnet.Sleep(time.Second)
		require.Equal(t, []string{"suggest 14"}, all[0].take(), "what one peer asked for is not suggested to others")
		all[1].say(wire.AppendHave(nil, 1))
		simnet.Sleep(time.Second)
		require.Empty(t, all[1].take(), "it has got what was not suggested to it")
		all[2].say(wire.AppendHave(nil, 15))
		simnet.Sleep(time.Second)
		all[0].say(wire.AppendHave(nil, 0))
		simnet.Sleep(time.Second)
		require.Equal(t, []string{"suggest 16"}, all[0].take(), "a peer has 15 now")
	})
}

// Each request has one answer: the block, or a reject.
func TestChokeRejects(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		r := newFastRig(t, n)
		r.seed.uploadQueues = []*ratelimit.Queue{ratelimit.NewQueue(drained(1, blockSize))} // what is asked for waits
		s := speak(t, r.them, r.content, r.us, speech{fast: true})
		s.say(wire.AppendSimple(wire.AppendSimple(nil, wire.HaveNone), wire.Interested))
		simnet.Sleep(time.Second)
		require.Contains(t, s.take(), "unchoke")

		s.ask(r.others[0], r.set[0], r.others[1], r.others[2])
		s.say(wire.AppendCancel(nil, r.others[1], 0, blockSize))
		simnet.Sleep(time.Second)
		require.Equal(t, several("reject %d/0", r.others[1]), s.take(), "a cancel is answered")

		s.sayID(wire.NotInterested)
		simnet.Sleep(time.Second)
		require.Equal(t, append([]string{"choke"}, several("reject %d/0", r.others[0], r.others[2])...), s.take(),
			"first the choke, so that it does not ask again; then a reject for each but what is allowed fast")
	})
}

// The messages of BEP 6 may only be sent where both ends speak it.
func TestFastMessagesWithoutFast(t *testing.T) {
	for name, b := range map[string][]byte{
		"have all":     wire.AppendSimple(nil, wire.HaveAll),
		"have none":    wire.AppendSimple(nil, wire.HaveNone),
		"suggest":      wire.AppendSuggest(nil, 1),
		"allowed fast": wire.AppendAllowedFast(nil, 1),
		"reject":       wire.AppendReject(nil, 1, 0, blockSize),
	} {
		t.Run(name, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				r := newFastRig(t, n)
				s := speak(t, r.them, r.content, r.us, speech{})
				s.say(b)
				simnet.Sleep(time.Second)
				require.True(t, s.hungUp())
			})
		})
	}
}

// Without BEP 6 a request that is not granted has no answer.
func TestRequestsWithoutFast(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		r := newFastRig(t, n)
		s := speak(t, r.them, r.content, r.us, speech{})
		s.ask(r.set[0], r.others[0])
		simnet.Sleep(time.Second)
		require.Equal(t, []string{"bitfield"}, s.take())
		s.sayID(wire.Interested)
		simnet.Sleep(time.Second)
		require.Equal(t, []string{"unchoke"}, s.take())
		s.ask(r.others[0])
		simnet.Sleep(time.Second)
		require.Equal(t, several("piece %d/0", r.others[0]), s.take())
	})
}

// The files under a piece are looked at once a piece and a while, and what is remembered of that is bounded.
func TestLookOnceAPieceAndAWhile(t *testing.T) {
	var u uploading
	now := time.Unix(0, 0)
	require.True(t, u.lookDue(7, now))
	for range 1000 {
		require.False(t, u.lookDue(7, now.Add(lookAgain-1)))
	}
	require.True(t, u.lookDue(8, now))
	require.True(t, u.lookDue(7, now.Add(lookAgain)))
	for i := range uint32(100_000) {
		u.lookDue(i, now)
		now = now.Add(10 * time.Millisecond)
	}
	require.LessOrEqual(t, len(u.looked), 1024+100)
}

// A peer that requests a byte of each of many pieces has nothing walked through at each.
func TestLooksAtManyPiecesCostLittle(t *testing.T) {
	const pieces = 50_000
	var u uploading
	now := time.Unix(0, 0)
	walks := 0
	for i := range uint32(pieces) {
		before := u.forgot
		require.True(t, u.lookDue(i, now))
		if u.forgot != before {
			walks++
		}
		now = now.Add(lookAgain / pieces)
	}
	require.LessOrEqual(t, walks, 1)
	now = now.Add(lookAgain)
	require.True(t, u.lookDue(0, now))
	require.Less(t, len(u.looked), pieces)
}

// A countingStore counts the looks at the files of pieces.
type countingStore struct {
	storage.Store
	looks *int
}

func (s countingStore) Changed(int) error {
	*s.looks++
	return nil
}

// seedOfFiles seeds so many files of a length, in pieces of a block, and has a peer come that may request them. It has used up the
// work that it may cause at once.
func seedOfFiles(t *testing.T, files int, length int64) (*Download, *repeating, *peer) {
	all := make([]layout.File, files)
	for i := range all {
		all[i] = layout.File{Path: fmt.Sprint("large/", i), Length: length}
	}
	l := layout.New(blockSize, all...)
	tor := plainTorrent(l.NumPieces())
	tor.layout, tor.length = l, l.Size()
	c := &Client{NoDHT: true, NoUTP: true, NoListen: true}
	t.Cleanup(func() { c.Close() })
	d, err := tor.Start(t.Context(), &Options{Client: c, Seed: true, Storage: func(*Torrent) (Storage, error) {
		return wholeStorage{pieces: l.NumPieces()}, nil
	}})
	require.NoError(t, err)
	<-d.Done()
	leech := messageKind{once: wire.AppendSimple(wire.AppendSimple(nil, wire.HaveNone), wire.Interested), unchoked: true}
	conn, p := leech.ready(t, d, synctest.Wait)
	p.work.Charge(workAtOnce, time.Now())
	return d, conn, p
}

// A seed of very short files is as fast as its line. To read 200 bytes of a file takes little work compared with sending them.
func TestShortFilesAreNotThrottled(t *testing.T) {
	const files = 20_000
	synctest.Test(t, func(t *testing.T) {
		d, conn, _ := seedOfFiles(t, files, 200)
		began := time.Now()
		for i := range uint32(d.t.NumPieces() - 1) {
			conn.say(wire.AppendRequest(nil, i, 0, blockSize), 1)
			synctest.Wait()
		}
		t.Logf("%d bytes in %v", d.Stats().Uploaded, time.Since(began))
		require.EqualValues(t, (d.t.NumPieces()-1)*blockSize, d.Stats().Uploaded)
		require.Less(t, time.Since(began), time.Second)
		conn.leave()
		synctest.Wait()
	})
}

// A piece may have a million files. A peer that requests a byte of it each second has them looked at only now and then, and one that
// requests blocks of many files is charged for that.
func TestFilesOfPiecesAreWork(t *testing.T) {
	const files, seconds = 2 * blockSize, 100
	synctest.Test(t, func(t *testing.T) {
		d, conn, p := seedOfFiles(t, files, 1)
		looks := 0
		d.store = countingStore{d.store, &looks}
		for range seconds {
			conn.say(wire.AppendRequest(wire.AppendRequest(nil, 0, 0, 1), 1, 1, 1), 1)
			simnet.Sleep(time.Second)
		}
		require.EqualValues(t, 2*seconds, d.Stats().Uploaded)
		require.LessOrEqual(t, looks*blockSize, lookRate*(seconds+1)+2*blockSize)
		require.Greater(t, looks, seconds/2)

		p.work = ratelimit.NewAccount(workRate, workAtOnce, time.Now())
		p.work.Charge(workAtOnce, time.Now())
		began := time.Now()
		conn.say(wire.AppendRequest(nil, 0, 0, blockSize), 1)
		synctest.Wait()
		require.Greater(t, time.Since(began), 5*time.Second)
		conn.leave()
		synctest.Wait()
	})
}
