package torrent

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/merkle"
	"github.com/shoal-go/torrent/internal/outbox"
	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/piecehash"
	"github.com/shoal-go/torrent/internal/ratelimit"
	"github.com/shoal-go/torrent/internal/wire"
)

// A messageKind is what a stranger may send again and again, after what it sends once.
type messageKind struct {
	once, again []byte

	unchoked bool  // it may request
	deaf     bool  // it reads nothing
	plain    bool  // it does not speak the Fast extension
	paid     bool  // by what it is sent
	most     int   // messages, before the connection ends; 0 if it does not
	work     int64 // that each message is charged at least, beside messageWork
}

// messageKinds are the kinds of messages to a download of crowdTorrent.
func messageKinds(d *Download) map[string]messageKind {
	pieces := d.t.NumPieces()
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
	const held, lacked, piece = 1, 2 * piecesOfCrowd, lengthOfCrowd // a piece that we have, one that we lack, and its length
	able := hello(wire.ExtHandshake{M: map[string]int{"ut_metadata": 2, "ut_holepunch": 4}})
	interested := simple(wire.HaveNone, wire.Interested)
	request := func(index, n uint32) []byte { return wire.AppendRequest(nil, index, 0, n) }
	cancelled := func(index, n uint32) []byte { return wire.AppendCancel(request(index, n), index, 0, n) }
	requests := func(n uint32) (b []byte) {
		for i := range uint32(400) {
			b = wire.AppendRequest(b, held, i, n)
		}
		return b
	}
	root, level, height := d.t.hashes.Root(0), uint32(d.t.hashes.Level()), uint32(d.t.hashes.Height(0))
	hashes := func(base, index, length, proofs uint32) wire.HashRequest {
		return wire.HashRequest{Root: root, Base: base, Index: index, Length: length, Proofs: proofs}
	}
	ask := func(r wire.HashRequest) []byte { return wire.AppendHashRequest(nil, r) }
	metadata := func(m wire.MetadataMessage) []byte { return wire.AppendExtended(nil, extMetadata, m.Append(nil)) }
	nested := append([]byte("d8:msg_typei1e5:piecei0e1:x"), strings.Repeat("le", 2000)...)
	punch := func(typ byte) []byte {
		m := wire.HolePunch{Type: typ, Addr: netip.MustParseAddrPort("80.1.0.1:6881")} // a peer
		return wire.AppendExtended(nil, extHolePunch, m.Append(nil))
	}
	const run = merkle.Run * hashWork
	return map[string]messageKind{
		"keep-alive":                   {once: none, again: wire.AppendKeepAlive(nil)},
		"interested":                   {once: none, again: simple(wire.Interested)},
		"interested and not":           {once: none, again: simple(wire.Interested, wire.NotInterested)},
		"choke":                        {once: single, again: simple(wire.Choke)},
		"unchoke":                      {once: single, again: simple(wire.Unchoke)},
		"choke and unchoke":            {once: single, again: simple(wire.Unchoke, wire.Choke)},
		"choke and unchoke of a seed":  {once: wire.AppendBitfield(nil, bytes.Repeat([]byte{0xff}, pieces/8)), again: simple(wire.Unchoke, wire.Choke), plain: true, work: 150},
		"choke and unchoke of nothing": {once: none, again: simple(wire.Unchoke, wire.Choke)},
		"have":                         {once: none, again: haves()},
		"have of one":                  {once: none, again: wire.AppendHave(nil, one)},
		"have-all":                     {once: none, again: simple(wire.HaveAll)},
		"have-all after a bitfield":    {once: wire.AppendBitfield(nil, bitfield), again: simple(wire.HaveAll)},
		"have and don't have":          {once: none, again: append(dontHave(one), wire.AppendHave(nil, one)...)},
		"don't have of a seed":         {once: simple(wire.HaveAll), again: append(dontHave(one), wire.AppendHave(nil, one)...)},
		"have-all, don't have":         {once: simple(wire.HaveAll), again: append(dontHave(one), simple(wire.HaveAll)...)},
		"suggest":                      {once: none, again: wire.AppendSuggest(nil, one)},
		"suggest of an unchoked one":   {once: append(slices.Clone(single), simple(wire.Unchoke)...), again: wire.AppendSuggest(nil, one)},
		"allowed-fast":                 {once: single, again: wire.AppendAllowedFast(nil, one)},
		"cancel":                       {once: none, again: wire.AppendCancel(nil, one, 0, 16384)},
		"extension handshake":          {once: none, again: hello(wire.ExtHandshake{M: map[string]int{"ut_pex": 1, "lt_donthave": 3}, V: "another 1.0", ReqQ: 250})},
		"extension handshake, reqq":    {once: append(slices.Clone(single), simple(wire.Unchoke)...), again: hello(wire.ExtHandshake{ReqQ: 250})},
		"peer exchange":                {once: none, again: wire.AppendExtended(nil, extPEX, []byte("d5:added0:e")), most: 12},
		"metadata":                     {once: none, again: wire.AppendExtended(nil, extMetadata, []byte("d8:msg_typei1e5:piecei0ee"))},
		"unknown extension":            {once: none, again: wire.AppendExtended(nil, 77, []byte("x"))},
		"unknown":                      {once: none, again: simple(99)},
		"port":                         {once: none, again: wire.AppendPort(nil, 6881)},

		"request of a piece we lack":          {once: interested, again: request(lacked, blockSize), unchoked: true, most: maxDenied, work: requestWork},
		"request while choked":                {once: interested, again: request(held, blockSize), most: maxDenied, work: requestWork},
		"requests":                            {once: interested, again: requests(blockSize), unchoked: true, paid: true},
		"requests of a byte":                  {once: interested, again: requests(1), unchoked: true, work: requestWork - 1},
		"request and cancel":                  {once: interested, again: cancelled(held, piece), unchoked: true, paid: true},
		"request and cancel of a deaf peer":   {once: interested, again: cancelled(held, piece), unchoked: true, deaf: true, work: requestWork / 2},
		"requests of a deaf peer":             {once: interested, again: requests(blockSize), unchoked: true, deaf: true, most: maxDenied + outbox.MaxQueued, work: requestWork},
		"the same request of a deaf peer":     {once: interested, again: request(held, piece), unchoked: true, deaf: true, most: maxDenied + 1, work: requestWork},
		"reject of what was not asked":        {once: none, again: wire.AppendReject(nil, lacked, 0, blockSize), most: 1},
		"piece that was not asked":            {once: none, again: append(wire.AppendPieceHeader(nil, lacked, 0, blockSize), make([]byte, blockSize)...), most: 1},
		"hash request of a run":               {once: none, again: ask(hashes(level, 512, 512, height)), work: 512},
		"hash request of a run, no proof":     {once: none, again: ask(hashes(level, 512, 512, 0)), work: 512},
		"hash request of most":                {once: none, again: ask(hashes(level, 0, wire.MaxHashes, height)), work: wire.MaxHashes},
		"hash request of two":                 {once: none, again: ask(hashes(level, 512, 2, height)), work: run},
		"hash request of blocks":              {once: none, again: ask(hashes(0, held<<level, 2, height)), work: run},
		"hash request of blocks that we lack": {once: none, again: ask(hashes(0, lacked<<level, 2, height)), work: run},
		"hash request that is not sound":      {once: none, again: ask(hashes(level, 1, 512, height)), work: answerWork},
		"hash request of an unknown root":     {once: none, again: ask(wire.HashRequest{Base: level, Length: 512}), work: answerWork},
		"hashes that were not asked":          {once: none, again: wire.AppendHashes(nil, hashes(level, 0, 512, 0), make([]byte, 512*merkle.Size)), most: 17},
		"hash reject of what was not asked":   {once: none, again: wire.AppendHashReject(nil, hashes(level, 0, 512, 0)), most: 17},
		"rendezvous":                          {once: able, again: punch(wire.HolePunchRendezvous)},
		"connect":                             {once: able, again: punch(wire.HolePunchConnect)},
		"hole punch error":                    {once: able, again: punch(wire.HolePunchError)},
		"metadata request":                    {once: able, again: metadata(wire.MetadataMessage{Type: wire.MetadataRequest, Piece: 1}), work: answerWork},
		"metadata request behind the end":     {once: able, again: metadata(wire.MetadataMessage{Type: wire.MetadataRequest, Piece: 1 << 20}), work: answerWork},
		"metadata that was not asked":         {once: able, again: metadata(wire.MetadataMessage{Type: wire.MetadataData, Data: make([]byte, wire.MetadataBlock)}), work: wire.MetadataBlock},
		"metadata of a long dictionary":       {once: able, again: wire.AppendExtended(nil, extMetadata, append(nested, 'e')), work: int64(len(nested))},
	}
}

// repeating is a connection of a peer that says what it is told to, so often, and takes whatever is written to it.
type repeating struct {
	net.Conn
	deaf   bool // it takes nothing
	plain  bool // it does not speak the Fast extension
	next   chan saying
	said   chan struct{} // receives when all of that was read
	closed chan struct{} // by the client
	once   sync.Once
	saying
}

type saying struct {
	words     []byte
	times, at int
}

func (c *repeating) Read(p []byte) (n int, err error) {
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	default:
	}
	for n < len(p) && c.times > 0 {
		k := copy(p[n:], c.words[c.at:])
		n += k
		if c.at += k; c.at == len(c.words) {
			c.at, c.times = 0, c.times-1
		}
	}
	if n > 0 {
		return n, nil
	}
	if c.words != nil {
		c.words = nil
		c.said <- struct{}{}
	}
	var more bool
	select {
	case c.saying, more = <-c.next:
	case <-c.closed:
	}
	if !more {
		return 0, io.EOF
	}
	return c.Read(p)
}

// say says something so often, and returns once that was read or the connection ended.
func (c *repeating) say(words []byte, times int) {
	select {
	case c.next <- saying{words: words, times: times}:
		select {
		case <-c.said:
		case <-c.closed:
		}
	case <-c.closed:
	}
}

// leave ends the connection.
func (c *repeating) leave() { close(c.next) }

func (c *repeating) Write(p []byte) (int, error) {
	if c.deaf {
		<-c.closed
		return 0, net.ErrClosed
	}
	return len(p), nil
}

func (c *repeating) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}
func (c *repeating) SetReadDeadline(time.Time) error  { return nil }
func (c *repeating) SetWriteDeadline(time.Time) error { return nil }

// plainTorrent is a torrent of so many pieces of a block each.
func plainTorrent(pieces int) *Torrent {
	t := &Torrent{name: "large", length: int64(pieces) * blockSize, infoHash: Hash{1}, pieces: make([]byte, sha1.Size*pieces)}
	t.layout = layout.New(blockSize, layout.File{Path: "large", Length: t.length})
	return t
}

// crowdTorrent is a torrent of version 2 of so many pieces of 128 KiB, the first of which are zeros.
func crowdTorrent(pieces int) *Torrent {
	const level = 3
	t := &Torrent{name: "large", length: int64(pieces) * lengthOfCrowd, infoHash: Hash{1}, version: V2, info: make([]byte, 1<<20)}
	file := layout.File{Path: "large", Length: t.length}
	t.layout = layout.NewAligned(lengthOfCrowd, file)
	layer := make([]byte, merkle.Size*pieces)
	mathrand.NewChaCha8([32]byte{}).Read(layer)
	zeros := merkle.HashBlock(make([]byte, blockSize))
	zero := merkle.Root(bytes.Repeat(zeros[:], 1<<level), 0, level)
	copy(layer, bytes.Repeat(zero[:], piecesOfCrowd))
	root := merkle.Root(layer, level, merkle.Height(t.length/blockSize))
	t.hashes = piecehash.New(t.layout, []merkle.Hash{root}, [][]byte{layer})
	return t
}

const (
	lengthOfCrowd = 8 * blockSize // of a piece of a crowdTorrent
	piecesOfCrowd = 16            // how many of them are here
)

// crowded is a download among some peers that are interested, each of which has most pieces and chokes us.
func crowded(tb testing.TB, t *Torrent, peers int) *Download {
	c := &Client{NoDHT: true, NoUTP: true, NoListen: true}
	d, err := t.Start(tb.Context(), &Options{Client: c, MaxPeers: 100, Storage: func(*Torrent) (Storage, error) {
		if t.version == V1 {
			return emptyStorage{}, nil
		}
		return zeroStorage{pieces: t.NumPieces()}, nil
	}})
	require.NoError(tb, err)
	for d.Stats().State == Checking {
		time.Sleep(time.Millisecond)
	}
	d.mu.Lock()
	c.transport.dialUTP = func(context.Context, netip.AddrPort) (net.Conn, error) { return nil, io.EOF } // so that hole punching is offered
	d.mu.Unlock()
	var all []*repeating
	for k := range peers {
		b := make([]byte, (t.NumPieces()+7)/8)
		for i := range b[:len(b)-1] {
			b[i] = 0xff ^ 1<<((i+k)%8)
		}
		all = append(all, join(tb, d, k, wire.AppendSimple(wire.AppendBitfield(nil, b), wire.Interested)))
	}
	tb.Cleanup(func() {
		for _, conn := range all {
			conn.leave()
		}
		d.Close()
		c.Close()
	})
	return d
}

// join has a peer connect that sends something, and returns once that was read.
func join(tb testing.TB, d *Download, k int, once []byte) *repeating {
	conn := newRepeating()
	conn.join(tb, d, k, once)
	return conn
}

func newRepeating() *repeating {
	return &repeating{next: make(chan saying), said: make(chan struct{}), closed: make(chan struct{})}
}

func (c *repeating) join(tb testing.TB, d *Download, k int, once []byte) {
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{80, byte(k), 0, 1}), 6881)
	hello := wire.Handshake{}
	if !c.plain {
		hello.SetFast()
	}
	hello.SetExtended()
	hello.PeerID[0] = byte(k)
	require.True(tb, d.addPeer(&connection{Conn: c, addr: addr, theirs: hello, incoming: true}, peerlist.FromIncoming))
	c.say(once, 1)
}

// ready has a peer come that says what it says once, and forgets what that was charged.
func (m messageKind) ready(tb testing.TB, d *Download, settle func()) (*repeating, *peer) {
	conn := newRepeating()
	conn.deaf, conn.plain = m.deaf, m.plain
	conn.join(tb, d, 200, m.once)
	settle()
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.swarm.peers[len(d.swarm.peers)-1]
	if m.unchoked {
		p.unchoke(time.Now())
	}
	p.work = ratelimit.NewAccount(workRate, workAtOnce, time.Now())
	return conn, p
}

// emptyStorage is a Storage that holds nothing.
type emptyStorage struct{}

func (emptyStorage) ReadAt([]byte, int64) (int, error)      { return 0, io.EOF }
func (emptyStorage) WriteAt(b []byte, _ int64) (int, error) { return len(b), nil }
func (emptyStorage) Sync() error                            { return nil }
func (emptyStorage) Close() error                           { return nil }

// zeroStorage is a Storage that has the first pieces of a crowdTorrent.
type zeroStorage struct {
	emptyStorage
	pieces int
}

func (s zeroStorage) ReadAt(b []byte, off int64) (int, error) {
	if off >= piecesOfCrowd*lengthOfCrowd {
		return 0, io.EOF
	}
	clear(b)
	return len(b), nil
}

func (s zeroStorage) Verified() (Bitfield, error) {
	whole := bits.New(s.pieces)
	for i := range piecesOfCrowd {
		whole.Add(i)
	}
	return Bitfield{whole}, nil
}

// BenchmarkMessages is what one message of a stranger costs, of each kind, with 78 peers.
func BenchmarkMessages(b *testing.B) {
	for _, pieces := range []int{16_000, 1_000_000} {
		d := crowded(b, crowdTorrent(pieces), 78)
		for kind, m := range messageKinds(d) {
			messages := countMessages(m.again)
			if m.most > 0 && m.most < 100 {
				continue
			}
			b.Run(fmt.Sprintf("%s/%d", kind, pieces), func(b *testing.B) {
				b.StopTimer()
				for left := b.N; left > 0; { // one that sends too much is made to wait
					n := min(left, max(1, workAtOnce/int(messageWork+m.work)/2/messages))
					if m.most > 0 {
						n = min(n, max(1, m.most/messages))
					}
					left -= n
					conn, p := m.ready(b, d, func() { time.Sleep(2 * roundEvery) })
					b.StartTimer()
					if !m.paid {
						conn.say(m.again, n)
					}
					for k := 0; m.paid && k < n; k++ { // no faster than it is answered
						conn.say(m.again, 1)
						for p.out.Waiting() > 0 {
							runtime.Gosched()
						}
					}
					b.StopTimer()
					conn.leave()
					for gone := false; !gone; {
						d.mu.Lock()
						gone = len(d.swarm.peers) == 78
						d.mu.Unlock()
						runtime.Gosched()
					}
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

// A message of a stranger costs a few steps whatever it is and however large the torrent; where a message costs more, the next
// ones are read later; and what no honest peer says ends the connection. It used to be as much as there are peers, or pieces: 55
// µs an interested, 7 ms a have-all of a million pieces.
func TestMessagesCostLittle(t *testing.T) {
	t.Parallel()
	pieces := 100_000
	if raceEnabled() {
		pieces = 10_000
	}
	synctest.Test(t, func(t *testing.T) {
		d := crowded(t, crowdTorrent(pieces), 78)
		kinds := messageKinds(d)
		for _, kind := range slices.Sorted(maps.Keys(kinds)) {
			m := kinds[kind]
			conn, p := m.ready(t, d, func() { // it is not choked again before another round is due
				d.mu.Lock()
				next := d.uploading.choker.Next()
				d.mu.Unlock()
				time.Sleep(time.Until(next) + time.Second)
				synctest.Wait()
			})
			p.work.Charge(workAtOnce, time.Now()) // so that whatever it is charged takes time
			work := d.work()
			began := time.Now()
			messages := countMessages(m.again)
			times := max(1, min(20_000, 5*workRate/(messageWork+int(m.work)))/messages)
			conn.say(m.again, times)
			took := time.Since(began)
			work = d.work() - work
			messages *= times
			charged := (took + leastRest).Seconds() * d.client.workRate()
			t.Logf("%s: %.1f steps a message, charged with %.1f", kind, float64(work)/float64(messages), charged/float64(messages))
			const round = 100 * 100 // 78 peers in rounds that are due anyway
			require.LessOrEqual(t, float64(work), charged+round*(1+took.Seconds()/roundEvery.Seconds()), kind)
			d.mu.Lock()
			ended := p.closing != nil
			d.mu.Unlock()
			require.True(t, ended == (m.most > 0) || m.paid, kind)
			if m.most > 0 {
				messages = min(messages, m.most)
			}
			if !m.paid && !ended {
				require.GreaterOrEqual(t, charged, float64(messages)*float64(messageWork+m.work), kind)
			}
			conn.leave()
			synctest.Wait()
		}
	})
}

// Blocks that peers release when they leave are requested from others in the next round, and not at each departure, because many
// peers may want work.
func TestComingAndGoingCostsLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := crowded(t, crowdTorrent(1000), 0)
		only := wire.AppendSimple(wire.AppendHave(wire.AppendSimple(nil, wire.HaveNone), 500), wire.Unchoke)
		var all []*repeating
		for k := range 78 {
			all = append(all, join(t, d, k, only)) // the first two are asked for all of it
		}
		work := d.work()
		const visits = 100
		for range visits {
			join(t, d, 200, only).leave()
			synctest.Wait()
		}
		steps := d.work() - work
		t.Logf("%d steps a visit", steps/visits)
		require.Less(t, steps, int64(visits*78*10))
		for _, c := range all {
			c.leave()
		}
	})
}

// work is the steps that were taken so far, those of choke rounds included.
func (d *Download) work() int64 {
	synctest.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.picker.Work() + d.uploading.judged
}
