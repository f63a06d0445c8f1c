//go:build linux

package interop

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/shoal-go/torrent"
)

// conditions are those of a line, in each direction.
type conditions struct {
	rate     int           // bytes a second
	delay    time.Duration // of each packet
	queue    int           // bytes that may wait for the wire; what does not fit is dropped
	loss     float64       // share of the packets that are lost
	overtake float64       // share of the packets that are overtaken by those of the next few milliseconds
	trouble  trouble
}

// trouble is a time at which the line is worse.
type trouble struct {
	after int64 // bytes that have passed; 0 for never
	lasts time.Duration
	delay time.Duration // 0 if nothing passes
}

// overtaken is how much later a packet arrives that others overtake.
const overtaken = 5 * time.Millisecond

// line carries the IP packets between two hosts. It stands in for netem, which not every kernel has, and does so in the kernel's
// place: each host sends into a TUN device.
type line struct {
	conditions
	sites map[byte]*site

	passed  atomic.Int64 // bytes of IP packets, both ways
	udp     atomic.Int64 // of these
	dropped atomic.Int64 // packets that did not fit in a queue
	lost    atomic.Int64 // packets
	redials atomic.Int64 // by uTP, once much has passed

	mu          sync.Mutex
	first, last time.Time // of packets with much in them
	worse       time.Time // since when there is trouble
	asked       int64     // what had passed when it was last asked whether it carries
}

// site is where on a line a peer is.
type site struct {
	*host
	addr   netip.Addr
	line   *line
	device *os.File // that carries its packets
}

// The sites of a line, which are also the last bytes of their addresses.
const (
	near = 1 + iota
	far
	middle
)

// newLine makes two hosts that are joined by a line, and a third one that each of them reaches as if it were near.
func newLine(t *testing.T, c conditions) *line {
	t.Helper()
	l := &line{conditions: c, sites: map[byte]*site{}}
	for _, i := range []byte{near, far, middle} {
		s := &site{host: newHost(t, fmt.Sprint("site ", i)), addr: netip.AddrFrom4([4]byte{11, 22, 33, i}), line: l}
		s.device = s.openTUN(t)
		// No packet is lost here because this process is late.
		s.ip(t, "link set line mtu 1500 txqueuelen 20000 up", "addr add "+s.addr.String()+"/24 dev line", "route add default dev line")
		l.sites[i] = s
	}
	var ways sync.WaitGroup
	for i, s := range l.sites {
		arriving := make(chan packet, 1<<16)
		ways.Go(func() {
			defer close(arriving)
			l.enter(s, arriving, rand.New(rand.NewPCG(1, uint64(i))))
		})
		ways.Go(func() {
			for p := range arriving {
				time.Sleep(time.Until(p.at))
				p.to.device.Write(p.b)
			}
		})
	}
	t.Cleanup(func() {
		for _, s := range l.sites {
			s.device.Close()
		}
		ways.Wait()
	})
	return l
}

// openTUN makes the device of the host by which it reaches the line.
func (s *site) openTUN(t *testing.T) *os.File {
	t.Helper()
	path := "/dev/net/tun"
	if _, err := os.Stat(path); err != nil {
		path = filepath.Join(t.TempDir(), "tun")
		require.NoError(t, unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(10, 200))))
	}
	var f *os.File
	require.NoError(t, s.do(func() error {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		request, err := unix.NewIfreq("line")
		if err == nil {
			request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
		}
		if err != nil {
			unix.Close(fd)
			return err
		}
		f = os.NewFile(uintptr(fd), path)
		return nil
	}))
	return f
}

// house has all sockets of a client on the host.
func (s *site) house(t *testing.T, c *torrent.Client) {
	t.Helper()
	dial, listenPacket := c.Dial, c.ListenPacket
	c.Dial = func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		err = s.do(func() error {
			conn, err = dial(ctx, network, addr)
			return err
		})
		return conn, err
	}
	c.ListenPacket = func(ctx context.Context, network, addr string) (conn net.PacketConn, err error) {
		err = s.do(func() error {
			conn, err = listenPacket(ctx, network, addr)
			return err
		})
		return conn, err
	}
	c.HTTPClient = &http.Client{Transport: &http.Transport{DialContext: c.Dial}}
	if !c.NoTCP {
		c.NoListen = true
		require.NoError(t, c.Serve(s.listen(t, c.Listen)))
	}
}

// packet is one that is on its way.
type packet struct {
	b  []byte
	to *site
	at time.Time // when it arrives
}

// enter takes what a host sends, until its device is closed.
func (l *line) enter(from *site, arriving chan<- packet, random *rand.Rand) {
	const version, protocol, destination = 0, 9, 19 // bytes of the header
	var free, last time.Time                        // when the wire is free again, when the last packet arrives
	b := make([]byte, 1<<16)
	for {
		n, err := from.device.Read(b)
		if err != nil {
			return
		}
		if n < 20 || b[version]>>4 != 4 {
			continue // what the kernel says by IPv6
		}
		to := l.sites[b[destination]]
		if to == nil {
			continue
		}
		if from == l.sites[middle] || to == l.sites[middle] {
			to.device.Write(b[:n])
			continue
		}
		now := time.Now()
		delay, down := l.now(now, n)
		if down || random.Float64() < l.loss {
			l.lost.Add(1)
			continue
		}
		if free.Before(now) {
			free = now
		}
		if waiting := free.Sub(now).Seconds() * float64(l.rate); int(waiting)+n > l.queue {
			l.dropped.Add(1)
			continue
		}
		free = free.Add(time.Duration(n) * time.Second / time.Duration(l.rate))
		p := packet{append([]byte(nil), b[:n]...), to, free.Add(delay)}
		l.passed.Add(int64(n))
		if b[protocol] == unix.IPPROTO_UDP {
			l.udp.Add(int64(n))
			const header, syn = 20 + 8, 0x41
			if n > header && b[header] == syn && l.passed.Load() > 1e6 {
				l.redials.Add(1)
			}
		}
		if random.Float64() < l.overtake {
			time.AfterFunc(p.at.Sub(now)+overtaken, func() { to.device.Write(p.b) })
			continue
		}
		if p.at.Before(last) {
			p.at = last // none overtakes another because the delay got shorter
		}
		last = p.at
		arriving <- p
	}
}

// now is how the line is when a packet of n bytes enters it.
func (l *line) now(now time.Time, n int) (delay time.Duration, down bool) {
	const much = 1000 // more than there is in a handshake
	l.mu.Lock()
	defer l.mu.Unlock()
	if n >= much {
		if l.first.IsZero() {
			l.first = now
		}
		l.last = now
	}
	if l.trouble.after > 0 && l.worse.IsZero() && l.passed.Load() >= l.trouble.after {
		l.worse = now
	}
	if l.worse.IsZero() || now.Sub(l.worse) >= l.trouble.lasts {
		return l.delay, false
	}
	return l.trouble.delay, l.trouble.delay == 0
}

// carries reports whether anything worth mention has passed since it was last asked. What two ends that stand still send to try whether
// the other one has got on is not.
func (l *line) carries() bool {
	const worthMention = 256 << 10
	l.mu.Lock()
	defer l.mu.Unlock()
	passed := l.passed.Load()
	carries := passed-l.asked >= worthMention
	l.asked = passed
	return carries
}

// took is the time from the first packet with much in it to the last.
func (l *line) took() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last.Sub(l.first)
}

func (l *line) String() string {
	return fmt.Sprintf("%d bytes passed within %.1f s, %d of them by UDP; %d packets did not fit in a queue, %d were lost",
		l.passed.Load(), l.took().Seconds(), l.udp.Load(), l.dropped.Load(), l.lost.Load())
}

// String describes the conditions.
func (c conditions) String() string {
	said := []string{fmt.Sprintf("%v each way", c.delay), fmt.Sprintf("%.1f MB/s", float64(c.rate)/1e6), fmt.Sprintf("queue %d KB", c.queue/1000)}
	if c.loss > 0 {
		said = append(said, fmt.Sprintf("%g %% lost", 100*c.loss))
	}
	if c.overtake > 0 {
		said = append(said, fmt.Sprintf("%g %% overtaken", 100*c.overtake))
	}
	switch {
	case c.trouble.after == 0:
	case c.trouble.delay == 0:
		said = append(said, fmt.Sprintf("down for %v", c.trouble.lasts))
	default:
		said = append(said, fmt.Sprintf("%v for %v", c.trouble.delay, c.trouble.lasts))
	}
	return strings.Join(said, ", ")
}
