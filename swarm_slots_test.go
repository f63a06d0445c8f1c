package torrent

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/wire"
)

// Peers of many networks are interested in what a seed has, and ask for nothing. The only peer that does, and that passes nothing
// on because none asks it to, is not served last.
func TestSilentPeersLeaveTheirSlots(t *testing.T) {
	took := func(crowd int) (took time.Duration) {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			content := newSimRepeating(1, 256<<10, 64<<20)
			us := n.NewHost("80.0.0.1", 200e3, 0, 10*time.Millisecond)
			simSeed(t, simClient(t, us, nil), content)
			simnet.Sleep(time.Second)
			for k := range crowd {
				s := speak(t, n.NewHost(fmt.Sprintf("%d.0.0.1", 100+k), 0, 0, 10*time.Millisecond), content, us.Addr(6881), speech{fast: true})
				s.sayID(wire.HaveNone)
				s.sayID(wire.Interested)
				go func() {
					for s.pause(time.Minute) {
						s.sayID(wire.Interested)
					}
				}()
			}
			simnet.Sleep(time.Minute)
			began := time.Now()
			d := simLeech(t, simClient(t, n.NewHost("90.0.0.1", 200e3, 400e3, 10*time.Millisecond), nil), content, us.Addr(6881))
			_, err := d.Wait()
			require.NoError(t, err)
			took = time.Since(began)
		})
		return took
	}
	alone, crowded := took(0), took(20)
	t.Logf("took %v alone, %v beside a crowd", alone, crowded)
	require.Less(t, crowded, 3*alone)
}
