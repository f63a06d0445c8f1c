package torrent

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/shoal-go/torrent/internal/wire"
	"github.com/stretchr/testify/require"
)

// simRider is a connection on which its end lets nobody ask: what it writes, whole messages at a time,
// passes without its unchokes.
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

// A swarm of one seed and twenty leechers, all of this library, in which every link has 1 MB/s up. Who
// only knows the tracker's list and the choker's rules has to find out whom to serve: the leechers feed each
// other, or it takes the seed twenty times as long. Free riders, who upload nothing, come last.
func TestSharingSwarm(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("4 GB that change hands take half a minute, and several under the race detector")
	}
	const size, up, down = 200e6, 1e6, 8e6
	for _, riders := range []int{0, 5} {
		t.Run(fmt.Sprintf("%d free riders", riders), func(t *testing.T) {
			t.Parallel()
			simulate(t, func(t *testing.T, n *simNet) {
				content := newSimContent(1, 256<<10, size)
				tracker := newSimTracker(1)
				start := func(k int, o *Options, rides bool) *simDownload {
					h := n.host(fmt.Sprintf("80.0.%d.%d", k/100, k%100+1), up, down, 10*time.Millisecond)
					c := &Client{Encryption: DisableEncryption, seed: uint64(k) + 1}
					if rides {
						c.NoListen = true
						c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
							conn, err := h.dial(ctx, network, addr)
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
				var leechers, freeRiders []*simDownload
				for k := range 20 + riders {
					st := newSimStorage(content)
					o := &Options{Seed: true, Storage: st.open}
					if k >= 20 {
						freeRiders = append(freeRiders, start(k+1, o, true))
					} else {
						leechers = append(leechers, start(k+1, o, false))
					}
				}
				simWait(time.Hour, slices.Concat(leechers, freeRiders)...)
				took := func(all []*simDownload) (times []time.Duration) {
					for _, d := range all {
						require.True(t, d.done())
						times = append(times, d.took.Round(time.Second))
					}
					slices.Sort(times)
					return times
				}
				times := took(leechers)
				t.Logf("leechers took %v, %.2f times the seed's own time", times, times[19].Seconds()/(size/up))
				if riders == 0 {
					require.Less(t, times[19].Seconds(), 1.35*size/up)
				} else {
					late := took(freeRiders)
					t.Logf("free riders took %v", late)
					require.Greater(t, late[2], times[10], "half of them later than half of the others")
					require.Greater(t, late[4], times[19], "and the last of them last of all")
				}
			})
		})
	}
}
