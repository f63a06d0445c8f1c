package torrent

import (
	"context"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/blockpool"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/merkle"
	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/shoal-go/torrent/internal/wire"
)

// messageKinds are what a stranger may send again and again. Each is sent in turn, after what is sent once.
func messageKinds(pieces int) map[string]struct{ once, again []byte } {
	simple := func(ids ...wire.ID) (b []byte) {
		for _, id := range ids {
			b = wire.AppendSimple(b, id)
		}
		return b
	}
	one := uint32(pieces / 2) // the only piece of a peer that has one
	none := simple(wire.HaveNone)
	single := wire.AppendHave(none, one)
	bitfield := make([]byte, (pieces+7)/8)
	bitfield[len(bitfield)/2] = 0x10
	haves := func() (b []byte) {
		for i := range uint32(1000) {
			b = wire.AppendHave(b, i*uint32(pieces/1000))
		}
		return b
	}
	hello := func(h wire.ExtHandshake) []byte { return wire.AppendExtended(nil, 0, h.Append(nil)) }
	dontHave := func(i uint32) []byte { return wire.AppendDontHave(nil, extDontHave, i) }
	return map[string]struct{ once, again []byte }{
		"keep-alive":                   {none, wire.AppendKeepAlive(nil)},
		"interested":                   {none, simple(wire.Interested)},
		"interested and not":           {none, simple(wire.Interested, wire.NotInterested)},
		"choke":                        {single, simple(wire.Choke)},
		"unchoke":                      {single, simple(wire.Unchoke)},
		"choke and unchoke":            {single, simple(wire.Unchoke, wire.Choke)},
		"choke and unchoke of nothing": {none, simple(wire.Unchoke, wire.Choke)},
		"have":                         {none, haves()},
		"have of one":                  {none, wire.AppendHave(nil, one)},
		"have-all":                     {none, simple(wire.HaveAll)},
		"have-all after a bitfield":    {wire.AppendBitfield(nil, bitfield), simple(wire.HaveAll)},
		"have and don't have":          {none, append(dontHave(one), wire.AppendHave(nil, one)...)},
		"don't have of a seed":         {simple(wire.HaveAll), append(dontHave(one), wire.AppendHave(nil, one)...)},
		"have-all, don't have":         {simple(wire.HaveAll), append(dontHave(one), simple(wire.HaveAll)...)},
		"suggest":                      {none, wire.AppendSuggest(nil, one)},
		"suggest of an unchoked one":   {append(slices.Clone(single), simple(wire.Unchoke)...), wire.AppendSuggest(nil, one)},
		"allowed-fast":                 {single, wire.AppendAllowedFast(nil, one)},
		"cancel":                       {none, wire.AppendCancel(nil, one, 0, 16384)},
		"extension handshake":          {none, hello(wire.ExtHandshake{M: map[string]int{"ut_pex": 1, "lt_donthave": 3}, V: "another 1.0", ReqQ: 250})},
		"extension handshake, reqq":    {append(slices.Clone(single), simple(wire.Unchoke)...), hello(wire.ExtHandshake{ReqQ: 250})},
		"peer exchange":                {none, wire.AppendExtended(nil, extPEX, []byte("d5:added0:e"))},
		"metadata":                     {none, wire.AppendExtended(nil, extMetadata, []byte("d8:msg_typei1e5:piecei0ee"))},
		"unknown extension":            {none, wire.AppendExtended(nil, 77, []byte("x"))},
		"unknown":                      {none, simple(99)},
		"port":                         {none, wire.AppendPort(nil, 6881)},
	}
}

// repeating is a connection on which some bytes come once, and others so often. It takes whatever is written to it.
type repeating struct {
	net.Conn
	once, again []byte
	times, at   int
	ended       sync.Once
	end         chan struct{} // closed when everything was read, or the client closed it
	open        chan struct{} // closed to end the connection
}

func (c *repeating) Read(p []byte) (n int, err error) {
	n = copy(p, c.once)
	c.once = c.once[n:]
	for n < len(p) && c.times > 0 {
		k := copy(p[n:], c.again[c.at:])
		n += k
		if c.at += k; c.at == len(c.again) {
			c.at, c.times = 0, c.times-1
		}
	}
	if n == 0 {
		c.ended.Do(func() { close(c.end) })
		<-c.open
		return 0, io.EOF
	}
	return n, nil
}

func (c *repeating) Write(p []byte) (int, error) { return len(p), nil }
func (c *repeating) Close() error {
	c.ended.Do(func() { close(c.end) })
	return nil
}
func (c *repeating) SetReadDeadline(time.Time) error  { return nil }
func (c *repeating) SetWriteDeadline(time.Time) error { return nil }

// crowded is a download of so many pieces among some peers that are interested, each of which has most of them and
// chokes us.
func crowded(tb testing.TB, pieces, peers int) *Download {
	t := &Torrent{name: "large", length: int64(pieces) * blockSize, infoHash: Hash{1}, pieces: make([]byte, sha1.Size*pieces)}
	t.layout = layout.New(blockSize, layout.File{Path: "large", Length: t.length})
	c := &Client{NoDHT: true, NoUTP: true, NoListen: true}
	d, err := t.Start(tb.Context(), &Options{Client: c, MaxPeers: 100, Storage: func(*Torrent) (Storage, error) { return emptyStorage{}, nil }})
	require.NoError(tb, err)
	for d.Stats().State == Checking {
		time.Sleep(time.Millisecond)
	}
	var all []chan struct{}
	for k := range peers {
		b := make([]byte, (pieces+7)/8)
		for i := range b[:len(b)-1] {
			b[i] = 0xff ^ 1<<((i+k)%8)
		}
		all = append(all, join(tb, d, k, wire.AppendSimple(wire.AppendBitfield(nil, b), wire.Interested), nil, 0).open)
	}
	tb.Cleanup(func() {
		for _, open := range all {
			close(open)
		}
		d.Close()
		c.Close()
	})
	return d
}

// join has a peer connect that sends something once and something else so often, and returns once that was read.
func join(tb testing.TB, d *Download, k int, once, again []byte, times int) *repeating {
	conn := &repeating{once: once, again: again, times: times, end: make(chan struct{}), open: make(chan struct{})}
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{80, byte(k), 0, 1}), 6881)
	hello := wire.Handshake{}
	hello.SetFast()
	hello.SetExtended()
	hello.PeerID[0] = byte(k)
	require.True(tb, d.addPeer(&connection{Conn: conn, addr: addr, theirs: hello, incoming: true}, peerlist.FromIncoming))
	<-conn.end
	return conn
}

// emptyStorage is a Storage that holds nothing.
type emptyStorage struct{}

func (emptyStorage) ReadAt([]byte, int64) (int, error)      { return 0, io.EOF }
func (emptyStorage) WriteAt(b []byte, _ int64) (int, error) { return len(b), nil }
func (emptyStorage) Sync() error                            { return nil }
func (emptyStorage) Close() error                           { return nil }

// BenchmarkMessages is what one message of a stranger costs, of each kind, with 78 peers.
func BenchmarkMessages(b *testing.B) {
	for _, pieces := range []int{16_000, 1_000_000} {
		d := crowded(b, pieces, 78)
		for kind, m := range messageKinds(pieces) {
			b.Run(fmt.Sprintf("%s/%d", kind, pieces), func(b *testing.B) {
				messages := countMessages(m.again)
				for left := b.N; left > 0; { // one that sends too much is made to wait
					n := min(left, max(1, workAtOnce/messageWork/2/messages))
					left -= n
					conn := join(b, d, 200, m.once, m.again, n)
					b.StopTimer()
					close(conn.open)
					for gone := false; !gone; {
						d.mu.Lock()
						gone = len(d.swarm.peers) == 78
						d.mu.Unlock()
						runtime.Gosched()
					}
					b.StartTimer()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*messages), "ns/message")
			})
		}
	}
}

func countMessages(b []byte) (n int) {
	for ; len(b) > 0; n++ {
		b = b[4+binary.BigEndian.Uint32(b):]
	}
	return n
}

// What a stranger says costs a few steps a message whatever it is and however large the torrent; and where a message costs
// more, the next ones are read later. It used to be as much as there are peers, or pieces: 55 µs an interested, 7 ms a
// have-all of a million pieces.
func TestMessagesCostLittle(t *testing.T) {
	const times = 2000
	pieces := 100_000
	if raceEnabled() {
		pieces = 10_000
	}
	for kind, m := range messageKinds(pieces) {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := crowded(t, pieces, 78)
				synctest.Wait()
				time.Sleep(time.Second) // the rounds of those that came
				join(t, d, 201, m.once, nil, 0).leave()
				work := d.work()
				conn := join(t, d, 202, m.once, nil, 0)
				once := d.work() - work
				conn.leave()

				work = d.work()
				began := time.Now()
				conn = join(t, d, 203, m.once, m.again, times)
				work = d.work() - work - once
				took := time.Since(began)
				conn.leave()
				messages := times * countMessages(m.again)
				t.Logf("%.1f steps a message, in %v", float64(work)/float64(messages), took)
				const round = 100 * 100 // 78 peers in rounds that are due anyway
				require.Less(t, float64(work), workAtOnce+workRate*took.Seconds()+round*(1+took.Seconds()/roundEvery.Seconds()))
				if took == 0 {
					require.Less(t, float64(work), float64(300*messages+round))
				}
			})
		})
	}
}

// work is the steps that were taken so far, those of choke rounds included.
func (d *Download) work() int64 {
	synctest.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.picker.Work() + d.uploading.judged
}

// leave ends a connection.
func (c *repeating) leave() {
	synctest.Wait()
	close(c.open)
	synctest.Wait()
}

// FuzzConnection has a stranger send any messages to a download, in any order, beside an honest seed. The download
// completes in the time that the seed takes, the seed is not banned, and what the stranger has us hold and do is bounded.
//
// The input is messages: an id, the length of a payload, and the payload. An id of 255 sends what follows as it is.
func FuzzConnection(f *testing.F) {
	block := func(index, begin uint32, n int) []byte {
		return append(wire.AppendPieceHeader(nil, index, begin, uint32(n))[4:], make([]byte, n)...)
	}
	script := func(messages ...[]byte) (b []byte) { // each without its length
		for _, m := range messages {
			b = binary.BigEndian.AppendUint16(append(b, m[0]), uint16(len(m)-1))
			b = append(b, m[1:]...)
		}
		return b
	}
	simple := func(id wire.ID) []byte { return []byte{byte(id)} }
	f.Add([]byte{})
	f.Add(script(simple(wire.HaveAll), simple(wire.Unchoke), block(0, 0, 1<<14), block(1, 0, 1<<14), block(2, 1<<14, 1<<14)))
	f.Add(script(simple(wire.HaveNone), wire.AppendHave(nil, 1)[4:], simple(wire.Unchoke), simple(wire.Choke), simple(wire.Unchoke), simple(wire.Interested)))
	f.Add(script(wire.AppendRequest(nil, 0, 0, 1<<14)[4:], wire.AppendCancel(nil, 0, 0, 1<<14)[4:], wire.AppendReject(nil, 0, 0, 1<<14)[4:]))
	f.Add(script(simple(wire.HaveAll), wire.AppendAllowedFast(nil, 1)[4:], wire.AppendSuggest(nil, 1)[4:], wire.AppendDontHave(nil, extDontHave, 1)[4:], simple(wire.HaveAll)))
	f.Add(script(wire.AppendExtended(nil, 0, []byte("d1:md6:ut_pexi1e11:ut_metadatai2ee1:pi6881e4:reqqi1ee"))[4:], wire.AppendExtended(nil, extPEX, []byte("d5:added6:aaaabbe"))[4:], wire.AppendExtended(nil, extMetadata, []byte("d8:msg_typei0e5:piecei0ee"))[4:]))
	f.Add(append([]byte{255}, 0, 16, 0, 0, 20))
	for k := range 3 { // one for each version
		r := wire.HashRequest{Root: newSimVersion(V2, true, 1, 64<<10, 1<<20).truth.Root(0), Base: 2, Length: 16, Proofs: 3}
		blocks := wire.HashRequest{Root: r.Root, Length: 4, Proofs: 5}
		f.Add(script(simple(wire.HaveAll), wire.AppendHashes(nil, r, make([]byte, 16*merkle.Size))[4:], wire.AppendHashRequest(nil, r)[4:], wire.AppendHashReject(nil, r)[4:],
			simple(wire.Unchoke), block(0, 0, 1<<14), block(0, 1<<14, 1<<14), block(0, 2<<14, 1<<14), block(0, 3<<14, 1<<14),
			wire.AppendHashes(nil, blocks, make([]byte, 9*merkle.Size))[4:], wire.AppendHashRequest(nil, blocks)[4:], make([]byte, 1+k)))
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			content := newSimVersion([]Version{V1, V2, Hybrid}[len(script)%3], true, 1, 64<<10, 1<<20)
			m := &simMeeting{net: n, content: content}
			defer m.end(t)
			seed := m.meet(t, 1e6, simpeer.Script{})
			stranger := n.NewHost("90.0.0.1", 1e6, 0, time.Millisecond)
			seed.Go(func() { speakFuzz(seed, stranger, content, script) })
			m.run(t, 10*time.Minute)
			require.False(t, m.client.banned(seed.Addr()))
			require.LessOrEqual(t, m.client.kept, int64(blockpool.Limit))
			m.client.mu.Lock()
			defer m.client.mu.Unlock()
			require.Less(t, m.client.picker.Work(), int64(workAtOnce)+workRate*int64(m.client.took.Seconds()+1))
		})
	})
}

// speakFuzz connects to the client under test and sends it the messages of a script, again each time that the connection
// ends, until the download can be expected to be complete.
func speakFuzz(seed *simpeer.Peer, from *simnet.Host, content *simContent, script []byte) {
	for range 3 {
		if !seed.Wait(100 * time.Millisecond) {
			return
		}
		conn, err := from.Dial(context.Background(), "tcp", "81.0.0.1:6881")
		if err != nil {
			return
		}
		hello := wire.Handshake{InfoHash: content.infoHash, PeerID: [20]byte{7}}
		if content.version != V1 {
			hello.SetV2()
		}
		hello.SetFast()
		hello.SetExtended()
		out := hello.Append(nil)
		for rest := script; len(rest) >= 3; {
			id, size := rest[0], int(binary.BigEndian.Uint16(rest[1:]))
			if id == 255 {
				out = append(out, rest[1:]...)
				break
			}
			size = min(size, len(rest)-3)
			out = binary.BigEndian.AppendUint32(out, uint32(size+1))
			out = append(append(out, id), rest[3:3+size]...)
			rest = rest[3+size:]
		}
		seed.Go(func() {
			seed.Wait(3 * time.Second)
			conn.Close()
		})
		conn.Write(out)
		io.Copy(io.Discard, conn)
		conn.Close()
	}
}
