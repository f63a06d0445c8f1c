package torrent

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/hashfetch"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/merkle"
	"github.com/shoal-go/torrent/internal/outbox"
	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/ratelimit"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/wire"
)

// wholeStorage is a Storage that reports so many pieces as whole, whatever their bytes.
type wholeStorage struct {
	emptyStorage
	pieces int
}

func (wholeStorage) ReadAt(b []byte, _ int64) (int, error) { return len(b), nil }
func (s wholeStorage) Verified() (Bitfield, error)         { return Bitfield{bits.Full(s.pieces)}, nil }

// A peer that downloads pieces of 1 KiB is not throttled for the work that its requests cause, which once limited it to 735
// requests a second. A peer that requests the same blocks again and again, or other short parts of pieces, is throttled.
func TestShortBlocksAreNotThrottled(t *testing.T) {
	const pieces, length, round = 4000, 1 << 10, 400
	synctest.Test(t, func(t *testing.T) {
		tor := plainTorrent(pieces)
		tor.length = pieces * length
		tor.layout = layout.New(length, layout.File{Path: "short", Length: tor.length})
		c := &Client{NoDHT: true, NoUTP: true, NoListen: true}
		defer c.Close()
		d, err := tor.Start(t.Context(), &Options{Client: c, Seed: true, Storage: func(*Torrent) (Storage, error) {
			return wholeStorage{pieces: pieces}, nil
		}})
		require.NoError(t, err)
		<-d.Done()
		leech := messageKind{once: wire.AppendSimple(wire.AppendSimple(nil, wire.HaveNone), wire.Interested), unchoked: true}
		conn, p := leech.ready(t, d, synctest.Wait)
		p.work.Charge(workAtOnce, time.Now()) // so that whatever it is charged takes time
		download := func(n uint32) time.Duration {
			began := time.Now()
			for i := uint32(0); i < pieces; i += round {
				var all []byte
				for k := range uint32(round) {
					all = wire.AppendRequest(all, i+k, 0, n)
				}
				conn.say(all, 1)
				synctest.Wait()
			}
			return time.Since(began)
		}
		first := download(length)
		t.Logf("%d requests in %v, %.0f a second", pieces, first, pieces/max(first.Seconds(), 1e-9))
		require.EqualValues(t, pieces*length, d.Stats().Uploaded)
		require.Less(t, first, time.Second)
		require.Greater(t, download(length), 4*time.Second, "again")
		require.Greater(t, download(1), 4*time.Second, "a byte of each")
		conn.leave()
		synctest.Wait()
	})
}

// The more peers a client has, the less work each of them may cause, so that all together cannot take a processor.
func TestWorkOfAllPeersIsBounded(t *testing.T) {
	const messages = 20_000
	for _, peers := range []int{10, 80} {
		synctest.Test(t, func(t *testing.T) {
			d := crowded(t, plainTorrent(1000), 0)
			drained := make([]*repeating, peers)
			for k := range drained {
				drained[k] = join(t, d, k, wire.AppendSimple(nil, wire.HaveNone))
				d.swarm.peers[k].work.Charge(workAtOnce, time.Now())
			}
			began := time.Now()
			var all sync.WaitGroup
			for _, conn := range drained {
				all.Go(func() { conn.say(wire.AppendSimple(nil, wire.NotInterested), messages) })
			}
			all.Wait()
			rate := float64(peers*messages*messageWork) / time.Since(began).Seconds()
			require.InEpsilon(t, min(workOfAll, peers*workRate), rate, 0.1, "%d peers", peers)
			for _, conn := range drained {
				conn.leave()
			}
			synctest.Wait()
		})
	}
}

// The work that the answer to a request earns. A request costs 404 steps.
func TestWorkEarnedByBlocks(t *testing.T) {
	short := layout.New(1<<10, layout.File{Path: "a", Length: 10<<10 + 1})
	long := layout.New(40<<10, layout.File{Path: "a", Length: 80 << 10})
	files := layout.NewAligned(32<<10, layout.File{Path: "a", Length: 1 << 10}, layout.File{Length: 31 << 10, Pad: true}, layout.File{Path: "b", Length: 17 << 10})
	for name, tt := range map[string]struct {
		layout               layout.Layout
		piece, begin, length uint32
		want                 int64
	}{
		"block":                           {long, 0, 0, blockSize, 1024},
		"two blocks":                      {long, 0, 0, 2 * blockSize, 2048},
		"half a block":                    {long, 0, 0, blockSize / 2, 512},
		"end of a long piece":             {long, 0, 2 * blockSize, 8 << 10, 512},
		"short piece":                     {short, 0, 0, 1 << 10, 404},
		"short last piece":                {short, 10, 0, 1, 404},
		"start of a short piece":          {short, 0, 0, 512, 32},
		"end of a short piece":            {short, 0, 512, 512, 32},
		"last byte of a short piece":      {short, 0, 1023, 1, 0},
		"short file":                      {files, 0, 0, 1 << 10, 404},
		"short file, padded":              {files, 0, 0, blockSize, 1024},
		"byte of a short file":            {files, 0, 0, 1, 0},
		"byte of the padding":             {files, 0, 1 << 10, 1, 0},
		"short end of a file":             {files, 1, blockSize, 1 << 10, 404},
		"a byte more than the end of one": {files, 1, blockSize - 1, 1<<10 + 1, 64},
		"a byte less than the end of one": {files, 1, blockSize, 1<<10 - 1, 63},
	} {
		p := &peer{d: &Download{t: &Torrent{layout: tt.layout}}}
		require.Equal(t, tt.want, p.earns(outbox.Request{Piece: tt.piece, Begin: tt.begin, Length: tt.length}), name)
	}
	p := &peer{d: &Download{t: &Torrent{layout: short}}}
	for range short.NumPieces() {
		require.EqualValues(t, 404, p.earns(outbox.Request{Length: 1 << 10}))
	}
	require.EqualValues(t, 64, p.earns(outbox.Request{Length: 1 << 10}), "again and again")
}

// takesEncrypted returns a client that shares something and accepts encrypted peers, and a function by which the k-th host of another
// network connects to it.
func takesEncrypted(t *testing.T, n *simnet.Network) (c *Client, dial func(k int) net.Conn) {
	us := n.NewHost("80.0.0.1", 0, 0, time.Millisecond)
	c = simClient(t, us, nil)
	c.Encryption = PreferEncryption
	simSeed(t, c, newSimContent(1, blockSize, 4*blockSize))
	simnet.Sleep(time.Second)
	return c, func(k int) net.Conn {
		h := n.NewHost(fmt.Sprintf("2001:db8::%x", k+1), 0, 0, time.Millisecond)
		conn, err := h.Dial(t.Context(), "tcp", us.Addr(6881).String())
		require.NoError(t, err)
		return conn
	}
}

// Peers that send a part of their key and fall silent do not use up the key exchanges that others of their network may have
// answered.
func TestUnfinishedKeysCostNoExchange(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		c, dial := takesEncrypted(t, n)
		for k := range 20 {
			conn := dial(k)
			defer conn.Close()
			conn.Write(bytes.Repeat([]byte{7}, 95))
		}
		simnet.Sleep(100 * time.Millisecond)
		c.mu.Lock()
		defer c.mu.Unlock()
		_, ok := c.exchanges.Answer(netip.MustParseAddr("2001:db8::1"), time.Now())
		require.True(t, ok)
	})
}

// A peer that sends a part of its key makes room for a newcomer like one that sends nothing, before others of its network
// that began a handshake.
func TestUnfinishedKeysAreShed(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		_, dial := takesEncrypted(t, n)
		var all []net.Conn
		for k := range maxHandshakes + 1 {
			conn := dial(k)
			defer conn.Close()
			all = append(all, conn)
			if k == 50 {
				conn.Write(bytes.Repeat([]byte{7}, 95))
			} else {
				conn.Write([]byte("\x13BitTorrent protocol"))
			}
			simnet.Sleep(10 * time.Millisecond)
		}
		for k, conn := range all {
			conn.SetReadDeadline(time.Now().Add(time.Millisecond))
			_, err := conn.Read(make([]byte, 1))
			require.Equal(t, k != 50, errors.Is(err, os.ErrDeadlineExceeded), "%d: %v", k, err)
		}
	})
}

// A seed that loses a piece costs no pass over all pieces, neither then nor when it leaves. Each of many hosts may cause some work at
// once, and it took 25 bytes and 37 ms of a processor in a torrent of a million pieces.
func TestSeedsThatLoseAPieceCostLittle(t *testing.T) {
	const pieces, visits = 100_000, 10
	synctest.Test(t, func(t *testing.T) {
		d := crowded(t, crowdTorrent(pieces), 0)
		work := d.work()
		for k := range visits {
			join(t, d, k, wire.AppendDontHave(wire.AppendSimple(nil, wire.HaveAll), extDontHave, uint32(k))).leave()
			synctest.Wait()
		}
		steps := (d.work() - work) / visits
		t.Logf("%d steps a visit", steps)
		require.Less(t, steps, int64(pieces/10))
	})
}

// joinSeed has a peer come that has everything and answers each request with what answer returns. It leaves when leave is called.
func joinSeed(t *testing.T, d *Download, answer func(wire.Message) []byte) (leave func()) {
	ours, theirs := net.Pipe()
	var peer sync.WaitGroup
	peer.Go(func() {
		defer theirs.Close()
		theirs.Write(wire.AppendSimple(wire.AppendSimple(nil, wire.HaveAll), wire.Unchoke))
		for r := wire.NewReader(theirs, (d.t.NumPieces()+7)/8); ; {
			m, err := r.Next()
			if err != nil {
				return
			}
			if m.ID != wire.Request {
				continue
			}
			if _, err := theirs.Write(answer(m)); err != nil {
				return
			}
		}
	})
	hello := wire.Handshake{}
	hello.SetFast()
	hello.SetExtended()
	addr := netip.MustParseAddrPort("80.1.0.1:6881")
	require.True(t, d.addPeer(&connection{Conn: ours, addr: addr, theirs: hello, incoming: true}, peerlist.FromIncoming))
	return func() {
		ours.Close()
		peer.Wait()
		synctest.Wait()
	}
}

// A peer says of each piece that it is asked for that it no longer has it (BEP 54). To find it others takes no more work than its
// messages may cause, and goes on for as long as it does. It once took a third of a processor for 1.2 KB/s, in a torrent of a million
// pieces.
func TestPeerThatLosesWhatItIsAskedFor(t *testing.T) {
	skipUnderRace(t, true)
	const pieces, seconds = 1_000_000, 60
	synctest.Test(t, func(t *testing.T) {
		d := crowded(t, plainTorrent(pieces), 0)
		lost := 0
		work := d.work()
		leave := joinSeed(t, d, func(m wire.Message) []byte {
			lost++
			return wire.AppendDontHave(nil, extDontHave, m.Index)
		})
		simnet.Sleep(seconds * time.Second)
		steps := d.work() - work
		t.Logf("%d pieces lost, %d steps", lost, steps)
		require.Greater(t, lost, 2000)
		require.Less(t, steps, int64(workAtOnce+workRate*(seconds+1)))
		leave()
	})
}

// A peer sends the last blocks of pieces, which are a byte long, and says of each piece that it no longer has it (BEP 54), so that it is
// asked for others. What is kept for a piece is far more than that, and not kept for long. To choose the next piece takes thousands of
// steps, which the peer did not earn by the byte. At 1 Mbit/s, it once took all of a processor and 12 MB more each second.
func TestShortBlocksOfPiecesThatAreLost(t *testing.T) {
	const pieces, seconds = 200_000, 10
	to := plainTorrent(pieces)
	to.length = pieces * (blockSize + 1)
	to.layout = layout.New(blockSize+1, layout.File{Path: "large", Length: to.length})
	synctest.Test(t, func(t *testing.T) {
		d := crowded(t, to, 0)
		sent := 0
		work := d.work()
		leave := joinSeed(t, d, func(m wire.Message) []byte {
			if m.Begin == 0 {
				return nil
			}
			sent++
			time.Sleep(200 * time.Microsecond)
			b := append(wire.AppendPieceHeader(nil, m.Index, m.Begin, m.Length), 0)
			return wire.AppendDontHave(b, extDontHave, m.Index)
		})
		simnet.Sleep(seconds * time.Second)
		steps, started := d.work()-work, d.Stats().PiecesStarted
		leave()
		t.Logf("%d blocks, %d steps, %d pieces started", sent, steps, started)
		require.Greater(t, sent, 100)
		require.Less(t, steps, int64(workAtOnce+workRate*(seconds+1)+blockWork*sent))
		require.Less(t, started, 100, "those that it is asked for")
	})
}

// What a refusal of hashes has looked through for all peers is charged to the one that refuses.
func TestHashRejectsAreWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := crowded(t, crowdTorrent(1000), 1)
		d.mu.Lock()
		defer d.mu.Unlock()
		p, f, now := d.swarm.peers[0], d.hashing.fetch, time.Now()
		p.conn.v2 = true
		for i := range 100 {
			f.Want(hashfetch.Target{File: i, Piece: -1}, merkle.Hash{byte(i)}, 2, 1, 0, 2)
		}
		asked := f.Next(p.hashesAsked, now)
		require.NotEmpty(t, asked)
		for _, r := range asked {
			p.work = ratelimit.NewAccount(workRate, workAtOnce, now)
			before := f.Work()
			payload := wire.AppendHashReject(nil, onWireHashes(r))[5:]
			require.NoError(t, p.receiveHashes(wire.Message{ID: wire.HashReject, Payload: payload}, now))
			steps := f.Work() - before
			require.Positive(t, steps)
			p.work.Charge(workAtOnce, now)
			require.Equal(t, hashesSteps*steps, p.work.Owed(now))
		}
	})
}
