package torrent

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/netaddr"
	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/shoal-go/torrent/internal/wire"
)

var populations = flag.Int("populations", 8, "how many populations TestPlacesOfPopulations draws, from -first on")

// A population is drawn from a seed number: the downloads of one client, an honest seed or more for each, and crowds that want all
// places. The crowds of a download have fewer networks than it has places.
type population struct {
	rng      *rand.Rand
	share    int  // places of each download
	ofClient bool // that its client bounds
	torrents int
	seeds    []populationSeed
	crowds   []populationCrowd
}

// A populationSeed sends all of its torrent, with the other seeds, in populationTime.
type populationSeed struct {
	torrent int
	ip      string
	rate    float64
	comes   time.Duration
	calls   time.Duration // again so long after a connection; 0 is never
	named   bool          // by a source
	from    peerlist.Source
}

const populationTime = 100 * time.Second

// A populationCrowd is an attacker with many addresses.
type populationCrowd struct {
	torrent  int
	networks int // of the widest prefixes by which places are counted: /16, or /32 of IPv6
	subnets  int // of each: /24s, or /48s
	six      bool
	hosts    int
	fresh    bool // each connection is from another address
	rate     float64
	begins   time.Duration
	calls    time.Duration
	named    bool
	from     peerlist.Source
	names    int // how many addresses without a peer each names
	port     int // at which it says that it listens
	wants    bool
	script   simpeer.Script
}

func (p *population) chance(n int) bool { return p.rng.IntN(n) == 0 }

// between draws a number. Every order of magnitude is equally likely.
func (p *population) between(low, high float64) float64 {
	return low * math.Pow(high/low, p.rng.Float64())
}

func (p *population) seconds(low, high float64) time.Duration {
	return time.Duration(p.between(low, high) * float64(time.Second)).Round(time.Millisecond)
}

func (p *population) source() peerlist.Source {
	return []peerlist.Source{peerlist.FromTracker, peerlist.FromDHT, peerlist.FromPEX, peerlist.FromFinder}[p.rng.IntN(4)]
}

func drawPopulation(seed uint64) *population {
	p := &population{rng: rand.New(rand.NewPCG(seed, 11)), torrents: 1}
	p.share = []int{2, 3, 4, 5, 6, 8, 12}[p.rng.IntN(7)]
	if p.chance(2) {
		p.torrents += p.rng.IntN(3)
	}
	p.ofClient = p.chance(2)
	for k := range p.torrents {
		for range 1 + p.rng.IntN(min(3, p.share/2)) {
			p.drawSeed(k)
		}
		if left := p.share - 1 - p.drawCrowd(k, p.share-1); left > 0 && p.chance(2) {
			p.drawCrowd(k, left)
		}
	}
	return p
}

func (p *population) drawSeed(torrent int) {
	s := populationSeed{
		torrent: torrent, ip: fmt.Sprintf("%d.7.0.1", 20+len(p.seeds)), rate: p.between(20e3, 100e3),
		comes: p.seconds(1, 120), named: p.chance(2), from: p.source(),
	}
	if p.chance(3) {
		s.ip = fmt.Sprintf("2001:%x::1", 0xd00+len(p.seeds))
	}
	if !s.named || p.chance(2) {
		s.calls = p.seconds(2, 30)
	}
	p.seeds = append(p.seeds, s)
}

// drawCrowd draws a crowd of at most so many networks, and returns of how many it is.
func (p *population) drawCrowd(torrent, most int) (networks int) {
	c := populationCrowd{
		torrent: torrent, networks: 1 + p.rng.IntN(most), subnets: 1 + p.rng.IntN(2)*p.rng.IntN(6), six: p.chance(3), fresh: p.chance(4),
		begins: p.seconds(1, 100), calls: p.seconds(.5, 10), named: p.chance(3), from: p.source(),
		port: p.rng.IntN(2) * 6881, wants: p.chance(2),
	}
	c.hosts = max(c.networks, 1+p.rng.IntN(2*p.share))
	if p.chance(3) {
		c.names = p.rng.IntN(50)
	}
	c.script = simpeer.Script{Fast: p.chance(2), Never: []simpeer.Absence{0, 0, 0, simpeer.Unchokes, simpeer.Answers, simpeer.Reads, simpeer.ShakesHands}[p.rng.IntN(7)]}
	if c.fresh {
		c.script.Never &^= simpeer.Reads // such a peer stays when its crowd is stopped
	}
	if c.rate = 800; p.chance(3) {
		c.rate = p.between(250, 3000)
	}
	if p.chance(3) {
		c.script.LeaveAfter = p.seconds(1, 100)
	}
	if p.chance(5) {
		c.script.Corrupt = 1 + p.rng.IntN(3)
	}
	p.crowds = append(p.crowds, c)
	return c.networks
}

// addr returns an address of a crowd. Its networks take turns.
func (c *populationCrowd) addr(crowd, k int) string {
	network, k := k%c.networks, k/c.networks
	if c.six {
		return fmt.Sprintf("2a0%x:%x:%x::%x", crowd, network+1, k%c.subnets, k/c.subnets+1)
	}
	return fmt.Sprintf("%d.%d.%d.%d", 100+network, crowd, k%c.subnets, k/c.subnets%256)
}

// opening returns what one of a crowd says first: that it has everything, and what else is drawn.
func (c *populationCrowd) opening(rng *rand.Rand) func(*simpeer.Content) []byte {
	return func(content *simpeer.Content) []byte {
		has := make([]byte, (content.NumPieces()+7)/8)
		for k := range content.NumPieces() {
			has[k/8] |= 0x80 >> (k % 8)
		}
		b := wire.AppendBitfield(nil, has)
		if c.wants {
			b = wire.AppendSimple(b, wire.Interested)
		}
		hello := wire.ExtHandshake{P: c.port}
		b = wire.AppendExtended(b, 0, hello.Append(nil))
		x := wire.PEX{AddedFlags: make([]byte, c.names)}
		for range c.names {
			dead := netip.AddrFrom4([4]byte{60, byte(rng.IntN(256)), byte(rng.IntN(256)), 1})
			x.Added = append(x.Added, netip.AddrPortFrom(dead, 6881))
		}
		return wire.AppendExtended(b, extPEX, x.Append(nil))
	}
}

// come has the peers of a crowd come. They call to, and found is told of them, or not.
func (c *populationCrowd) come(n *simnet.Network, crowd int, seed uint64, content *simContent, to netip.AddrPort, found func(netip.AddrPort)) (peers []*simpeer.Peer) {
	for host := range c.hosts {
		script := c.script
		script.Opening = c.opening(rand.New(rand.NewPCG(seed, uint64(host))))
		script.Handshake = func(hello []byte) []byte {
			hello[25] |= 0x10 // BEP 10
			return hello
		}
		at := func(k int) *simpeer.Peer {
			return simpeer.New("crowd", n.NewHost(c.addr(crowd, k), c.rate, 0, 3*time.Millisecond), 6881, content.truth, script)
		}
		p := at(host)
		peers = append(peers, p)
		p.Go(func() {
			if p.Wait(c.begins) && c.named && p.Arrive() == nil {
				found(p.Addr())
			}
			for k := host; p.Wait(c.calls); k += c.hosts {
				if !c.fresh {
					p.Dial(to)
					continue
				}
				other := at(k)
				other.Dial(to)
				other.Stop()
			}
		})
	}
	return peers
}

// run returns how long each download took, from the time at which the last of its seeds came. It waits for so long at most.
func (p *population) run(t *testing.T, seed uint64, atMost time.Duration) (took []time.Duration, dialled *dialRecord) {
	dialled = new(dialRecord)
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		us := n.NewHost("81.0.0.1", 0, 0, 5*time.Millisecond)
		c := simClient(t, us, nil)
		c.Dial = dialled.of(us)
		rates, last := make([]float64, p.torrents), make([]time.Duration, p.torrents)
		for _, s := range p.seeds {
			rates[s.torrent] += s.rate
			last[s.torrent] = max(last[s.torrent], s.comes)
		}
		most := p.share
		if p.ofClient {
			c.MaxPeers, most = p.share*p.torrents, 0
		}
		var all []*Download
		var contents []*simContent
		for k, rate := range rates {
			pieces := int64(rate * populationTime.Seconds() / (4 * blockSize))
			content := newSimRepeating(uint64(k+1), 4*blockSize, pieces*4*blockSize)
			d, err := content.Start(t.Context(), &Options{Client: c, MaxPeers: most, Seed: true, Storage: newSimStorage(content).open})
			require.NoError(t, err)
			all, contents = append(all, d), append(contents, content)
		}
		simnet.Sleep(100 * time.Millisecond)
		began, to := time.Now(), netaddr.Of(c.Addr())
		var peers []*simpeer.Peer
		for k, s := range p.seeds {
			q := simpeer.New("seed", n.NewHost(s.ip, s.rate, 0, time.Duration(50+k)*time.Millisecond), 6881, contents[s.torrent].truth, simpeer.Script{Fast: k%2 == 0})
			peers = append(peers, q)
			q.Go(func() {
				if q.Wait(s.comes) && q.Arrive() == nil && s.named {
					all[s.torrent].discovery.found(s.from, "", q.Addr())
				}
				for s.calls > 0 && q.Wait(s.calls) {
					q.Dial(to)
				}
			})
		}
		for k, crowd := range p.crowds {
			d := all[crowd.torrent]
			peers = append(peers, crowd.come(n, k, seed, contents[crowd.torrent], to, func(a netip.AddrPort) { d.discovery.found(crowd.from, "", a) })...)
		}
		took = make([]time.Duration, p.torrents)
		var waiting sync.WaitGroup
		for k, d := range all {
			waiting.Go(func() {
				select {
				case <-d.Done():
				case <-time.After(atMost):
				}
				took[k] = time.Since(began) - last[k]
			})
		}
		waiting.Wait()
		for _, q := range peers {
			q.Stop()
		}
	})
	return took, dialled
}

// Crowds of fewer networks than a download has places do not keep its seeds out, whatever they do: it is complete not much later
// than without them, if it has to wait for a turnover or two. Nor are too many peers dialled.
func TestPlacesOfPopulations(t *testing.T) {
	for seed := range uint64(*populations) {
		seed += uint64(*swarmFirst)
		const most = 2*peerlist.TurnoverEvery + 4*populationTime
		took, dialled := drawPopulation(seed).run(t, seed, most+4*time.Minute)
		t.Logf("population %d took %v", seed, took)
		for k := range took {
			require.Less(t, took[k], most, "download %d of population %d: %+v", k, seed, drawPopulation(seed))
		}
		require.LessOrEqual(t, dialled.busiest(), 30, "population %d", seed)
	}
}
