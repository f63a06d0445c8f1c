package torrent

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simtracker"
	"github.com/shoal-go/torrent/internal/wire"
	"github.com/stretchr/testify/require"
)

var sharingSwarms = flag.Int("sharing", 1, "how many random swarms share, with and without free riders")

// simRider is a connection of a free rider: the unchokes are taken out of what its end writes, whole messages
// at a time.
type simRider struct {
	net.Conn
	wrote int
}

func (c *simRider) Write(b []byte) (int, error) {
	n := len(b)
	var kept []byte
	if c.wrote < wire.HandshakeSize {
		k := min(len(b), wire.HandshakeSize-c.wrote)
		kept, b = append(kept, b[:k]...), b[k:]
	}
	c.wrote += n
	for len(b) > 0 {
		k := 4 + int(binary.BigEndian.Uint32(b))
		if k < 5 || wire.ID(b[4]) != wire.Unchoke {
			kept = append(kept, b[:k]...)
		}
		b = b[k:]
	}
	if len(kept) > 0 {
		if _, err := c.Conn.Write(kept); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// A swarm of one seed and twenty leechers, all of this library, in which every link has 1 MB/s up. The
// leechers feed each other, or the seed would take twenty times as long. Free riders, which upload nothing, cost
// them little and come last. Leechers stay when they are done, so from then on the riders have twenty seeds.
func TestSharingSwarm(t *testing.T) {
	if testing.Short() || raceEnabled() {
		t.Skip("4 GB that change hands take half a minute, and several under the race detector")
	}
	const size, up = 200e6, 1e6
	for _, riders := range []int{0, 5} {
		for seed := range uint64(*sharingSwarms) {
			t.Run(fmt.Sprintf("%d free riders, seed %d", riders, seed+1), func(t *testing.T) {
				t.Parallel()
				simnet.Run(t, func(t *testing.T, n *simnet.Network) {
					times, late := shareSwarm(t, n, seed+1, size, up, 20, riders)
					t.Logf("leechers took %v, %.2f times the seed's own time", times, times[19].Seconds()/(size/up))
					require.Less(t, times[19].Seconds(), 1.35*size/up)
					if riders > 0 {
						t.Logf("free riders took %v, the first of them %.2f times as long as the last leecher", late, late[0].Seconds()/times[19].Seconds())
						require.Greater(t, late[0].Seconds(), 1.05*times[19].Seconds(), "every one of them later than every leecher, by more than chance")
					}
				})
			})
		}
	}
}

// shareSwarm has leechers and free riders download from one seed and from each other, over links with up bytes a
// second up and eight times as many down. It returns how long each took, in order.
func shareSwarm(t *testing.T, n *simnet.Network, random uint64, size int64, up float64, leechers, riders int) (times, late []time.Duration) {
	content := newSimContent(random, 256<<10, size)
	tracker := simtracker.New(random)
	start := func(k int, o *Options, rides bool) *simDownload {
		h := n.NewHost(fmt.Sprintf("80.0.0.%d", k+1), up, 8*up, 10*time.Millisecond)
		c := &Client{NoDHT: true, NoUTP: true, Encryption: DisableEncryption, hooks: hooks{seed: random<<32 + uint64(k) + 1}}
		if rides {
			c.NoListen = true
			c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := h.Dial(ctx, network, addr)
				if err != nil {
					return nil, err
				}
				return &simRider{Conn: conn}, nil
			}
		}
		d := simStart(t.Context(), t, h, content, tracker, o, c)
		t.Cleanup(func() { d.end(t) })
		return d
	}
	seed := start(0, &Options{Seed: true, Storage: newSimStorage(content).fill().open}, false)
	<-seed.Done()
	simnet.Sleep(time.Second) // so that the tracker knows the seed before the first of the others asks
	var all []*simDownload
	for k := range leechers + riders {
		all = append(all, start(k+1, &Options{Seed: true, Storage: newSimStorage(content).open}, k >= leechers))
	}
	simWait(time.Hour, all...)
	for k, d := range all {
		require.True(t, d.done())
		if took := d.took.Round(time.Second); k < leechers {
			times = append(times, took)
		} else {
			late = append(late, took)
		}
	}
	slices.Sort(times)
	slices.Sort(late)
	return times, late
}

// A free rider that calls again is known, though not at another address.
func TestFreeRiderCallsAgain(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, blockSize, 512*blockSize)
		us := n.NewHost("80.0.0.1", 0, 0, 0)
		store := newSimStorage(content)
		for i := range uint32(256) {
			store.written.Add(int(i))
		}
		_, err := content.Start(t.Context(), &Options{Client: simClient(t, us, nil), Storage: store.open})
		require.NoError(t, err)
		simnet.Sleep(time.Second)
		for k, want := range []bool{true, false, false, true} {
			s := speak(t, n.NewHost(fmt.Sprintf("81.0.0.%d", k/3), 0, 0, 0), content, us.Addr(6881), speech{fast: true})
			s.sayID(wire.HaveNone)
			s.say(wire.AppendHave(nil, 300)) // which we lack, and will not get
			s.sayID(wire.Interested)
			simnet.Sleep(20 * time.Second)
			require.Equal(t, want, slices.Contains(s.take(), "unchoke"), "call %d", k)
			for i := range uint32(200) {
				s.ask(i)
			}
			simnet.Sleep(20 * time.Second)
			require.Equal(t, want, slices.Contains(s.take(), "choke"), "call %d", k)
			s.Close()
			simnet.Sleep(time.Second)
		}
	})
}
