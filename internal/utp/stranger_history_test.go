package utp_test

import (
	"bytes"
	"encoding/binary"
	"flag"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/account"
	"github.com/shoal-go/torrent/internal/utp"
)

var (
	strangers = flag.Uint64("strangers", 40, "how many histories of strangers to draw")
	stranger  = flag.Uint64("stranger", 0, "the one of them to draw again")
)

// flow is a connection as a liar has it.
type flow struct {
	id       uint16 // in packets to the socket under test
	seq, ack uint16
	answered bool
}

// A liar is a host that hears the packets to its address, and makes packets by hand, which often begin as they should and never
// go on so for long.
type liar struct {
	r    *rand.Rand
	s    *utp.Socket
	addr netip.AddrPort

	mu            sync.Mutex
	flows         []*flow
	said, heard   int  // packets
	bytes, bought int  // in them
	confirmed     bool // it may have confirmed a connection
}

func (l *liar) hear(p []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bought += len(p)
	l.heard++
	id, seq := binary.BigEndian.Uint16(p[2:]), binary.BigEndian.Uint16(p[16:])
	for _, f := range l.flows {
		if f.id-1 != id {
			continue
		}
		switch kind := p[0] >> 4; {
		case kind == 2 && !f.answered:
			f.answered, f.ack = true, seq-1
		case kind < 2 && seq == f.ack+1:
			f.ack = seq
		}
	}
}

// say sends a packet, perhaps along with others of the same length.
func (l *liar) say() {
	l.mu.Lock()
	r := l.r
	if len(l.flows) == 0 || r.IntN(12) == 0 {
		l.flows = append(l.flows, &flow{id: uint16(r.Uint32()), seq: uint16(r.Uint32())})
	}
	f := l.flows[len(l.flows)-1-r.IntN(min(2, len(l.flows)))]
	kind := "00000000000000000000222222222222222111134444"[r.IntN(44)] - '0'
	if !f.answered {
		kind = 4
	}
	var all []byte
	size, mask := 20, 0
	if kind < 2 {
		size += []int{0, 1, 10, 500, 1400}[r.IntN(5)]
	}
	if kind > 0 && kind < 4 && r.IntN(3) == 0 {
		mask = 4 * (1 + r.IntN(8))
		size += 2 + mask
	}
	count := 1
	if r.IntN(4) == 0 {
		count = 1 + r.IntN(30)
	}
	for range count {
		p := make([]byte, size)
		p[0] = kind<<4 | 1
		if mask > 0 {
			p[1], p[21] = 1, byte(mask)
			for i := range mask {
				p[22+i] = byte(r.Uint32())
			}
		}
		id, seq, ack := f.id, f.seq, f.ack
		window := []uint32{0, 1, 100, 5000, 1 << 20, 1<<32 - 1}[r.IntN(6)]
		switch kind {
		case 4:
			id, seq = f.id-1, f.seq
		case 0, 1:
			f.seq++
			seq = f.seq
		}
		if r.IntN(6) == 0 {
			seq += uint16(r.IntN(40) - 20)
		}
		if r.IntN(6) == 0 {
			ack += uint16(r.IntN(20) - 12)
		}
		if r.IntN(40) == 0 {
			seq, ack = uint16(r.Uint32()), uint16(r.Uint32())
		}
		if f.answered && kind < 4 {
			l.confirmed = true
		}
		binary.BigEndian.PutUint16(p[2:], id)
		binary.BigEndian.PutUint32(p[4:], r.Uint32()>>r.IntN(32))
		binary.BigEndian.PutUint32(p[8:], r.Uint32()>>r.IntN(32))
		binary.BigEndian.PutUint32(p[12:], window)
		binary.BigEndian.PutUint16(p[16:], seq)
		binary.BigEndian.PutUint16(p[18:], ack)
		all = append(all, p...)
	}
	l.bytes += len(all)
	l.said += count
	l.mu.Unlock()
	l.s.Receive(all, size, l.addr)
	if r.IntN(3) > 0 {
		l.s.Flush()
	}
}

// speak says so many packets, some of them soon after each other.
func (l *liar) speak(packets int) {
	for range packets {
		l.say()
		if l.r.IntN(3) == 0 {
			time.Sleep(time.Duration(l.r.Int64N(int64(500 * time.Millisecond))))
		}
		if l.r.IntN(60) == 0 {
			time.Sleep(time.Duration(l.r.Int64N(int64(40 * time.Second))))
		}
	}
}

// use does with a connection what a caller may do with it, and closes it.
// It returns how much it wrote.
func use(c net.Conn, seed uint64) (wrote int) {
	r := rand.New(rand.NewPCG(seed, 5))
	var both sync.WaitGroup
	defer both.Wait()
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Duration(1+r.IntN(90)) * time.Second))
	if r.IntN(3) > 0 {
		slow, size := time.Duration(r.IntN(3)*r.IntN(1000))*time.Millisecond, 1+r.IntN(1<<(1+r.IntN(16)))
		both.Go(func() {
			b := make([]byte, size)
			for {
				if _, err := c.Read(b); err != nil {
					return
				}
				time.Sleep(slow)
			}
		})
	}
	for range r.IntN(10) {
		n, err := c.Write(make([]byte, 1+r.IntN(1<<(1+r.IntN(18)))))
		wrote += n
		if err != nil {
			break
		}
		time.Sleep(time.Duration(r.IntN(2000)) * time.Millisecond)
	}
	time.Sleep(time.Duration(r.IntN(30)) * time.Second)
	return wrote
}

// talk has two ends exchange data.
func talk(t *testing.T, c1, c2 net.Conn, data []byte) {
	var ways sync.WaitGroup
	for _, way := range [][2]net.Conn{{c1, c2}, {c2, c1}} {
		ways.Go(func() {
			way[0].Write(data)
			way[0].(interface{ CloseWrite() error }).CloseWrite()
		})
		ways.Go(func() {
			got, err := io.ReadAll(way[1])
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("got %d of %d: %v", len(got), len(data), err)
			}
		})
	}
	ways.Wait()
	c1.Close()
	c2.Close()
}

// strangerHistory has liars send packets to a socket that others use.
func strangerHistory(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 9))
	n := newNetwork()
	n.rand = rand.New(rand.NewPCG(seed, 10))
	n.held = account.New(1 << (19 + r.IntN(5)))
	n.loss = []float64{0, 0, 0.01, 0.05}[r.IntN(4)]
	s, dialler := n.socket(t, there, 1+r.IntN(40)), n.socket(t, here, 0)
	utp.LimitUnacknowledged(s, 64<<10<<r.IntN(7))
	listener, err := s.Listen()
	require.NoError(t, err)
	var liars []*liar
	at := func(addr netip.AddrPort) int {
		return slices.IndexFunc(liars, func(l *liar) bool { return l.addr == addr })
	}
	for k := range 1 + r.IntN(4) {
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{80, byte(k), 0, 1}), 1)
		liars = append(liars, &liar{r: rand.New(rand.NewPCG(seed, uint64(20+k))), s: s, addr: addr})
	}
	n.tap = func(p []byte, _, to netip.AddrPort) {
		if k := at(to); k >= 0 {
			liars[k].hear(p)
		}
	}
	var users, speakers sync.WaitGroup
	honest := make(chan net.Conn, 1)
	var mu sync.Mutex
	wrote := make(map[netip.AddrPort]int)
	users.Go(func() {
		for k := uint64(0); ; k++ {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			from := netip.AddrPort(c.RemoteAddr().(utp.Addr))
			if at(from) < 0 {
				honest <- c
				continue
			}
			users.Go(func() {
				n := use(c, seed*1000+k)
				mu.Lock()
				defer mu.Unlock()
				wrote[from] += n
			})
		}
	})
	for _, l := range liars {
		speakers.Go(func() { l.speak(20 + l.r.IntN(200)) })
	}
	began := time.Now()
	for met := 0; met < 3; { // it may have to make room before it is confirmed
		require.Less(t, time.Since(began), 2*time.Minute)
		c1, err := dialler.Dial(t.Context(), thereAddr)
		if err != nil {
			continue
		}
		select {
		case c2 := <-honest:
			talk(t, c1, c2, content(seed, 1+r.IntN(100_000)))
			met++
		case <-time.After(5 * time.Second):
			c1.Close()
		}
	}
	require.Less(t, time.Since(began), 2*time.Minute)
	speakers.Wait()
	s.Flush()
	time.Sleep(3 * time.Minute) // their users have left by then
	listener.Close()
	users.Wait()
	time.Sleep(11 * time.Minute) // what was closed lingers for ten
	held, _ := n.held.Held()
	require.Zero(t, held, "bytes are not read")
	require.Zero(t, utp.Unacknowledged(s))
	require.Zero(t, utp.Connections(s))
	for _, l := range liars {
		if !l.confirmed {
			require.LessOrEqual(t, l.bought, 2*l.bytes, "what unconfirmed packets are answered with")
		}
		require.LessOrEqual(t, l.heard, 2*l.said+wrote[l.addr]/50+100, "packets")
	}
}

// Whatever a stranger sends, others are served, nothing is left of it, and it gets little more than it sends.
func TestStrangerHistories(t *testing.T) {
	first, end := uint64(1), *strangers
	if *stranger != 0 {
		first, end = *stranger, *stranger
	}
	if utp.RaceEnabled {
		end = min(end, first+9)
	}
	for seed := first; seed <= end && !t.Failed(); seed++ {
		synctest.Test(t, func(t *testing.T) {
			defer func() {
				if t.Failed() {
					t.Logf("-stranger=%d", seed)
				}
			}()
			strangerHistory(t, seed)
		})
	}
}
