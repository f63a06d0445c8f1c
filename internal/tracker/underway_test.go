package tracker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Many torrents without a peer, each of which lists twenty UDP trackers that are silent and one that answers, have few announces under
// way at a time, and still reach the one that answers soon, whether they share trackers or not.
func TestAnnouncesToSilentTrackers(t *testing.T) {
	if testing.Short() {
		t.Skip("very many announces")
	}
	const torrents, silent = 250, 20
	for _, tc := range []struct {
		name   string
		shared bool // the silent trackers
		answer bool // one tracker answers all torrents; otherwise each has its own
		most   time.Duration
	}{
		{"all shared", true, true, 10 * time.Second},
		{"silent ones of their own", false, true, 10 * time.Second},
		{"all of their own", false, false, time.Minute},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newTrackerRig(t)
				var mu sync.Mutex
				asked := make(map[netip.AddrPort]bool)
				r.config.UDP = NewUDP(func(p []byte, to netip.AddrPort) error {
					mu.Lock()
					defer mu.Unlock()
					asked[to] = true
					if to.Port() == 80 {
						go honestUDP(&said{}, []byte("\x50\x09\x09\x09\x1a\xe1"))(p, func(p []byte) { r.config.UDP.Receive(p, to) })
					}
					return nil
				}, r.lookupFor)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				began := time.Now()
				var found []time.Duration
				rng := rand.New(rand.NewPCG(1, 2))
				silentOnes := make(map[netip.AddrPort]bool)
				for k := range torrents {
					c := r.config
					c.Rand = rand.New(rand.NewPCG(1, uint64(k)))
					own, good := k+1, k+1
					if tc.shared {
						own = 0
					}
					if tc.answer {
						good = 0
					}
					for i := range silent {
						a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{11, byte(own >> 8), byte(own), byte(i)}), 81)
						silentOnes[a] = true
						c.Tiers = append(c.Tiers, []string{fmt.Sprintf("udp://%v/announce", a)})
					}
					a := netip.AddrFrom4([4]byte{12, byte(good >> 8), byte(good), 1})
					c.Tiers = slices.Insert(c.Tiers, rng.IntN(silent+1), []string{fmt.Sprintf("udp://%v:80/announce", a)})
					fed := false
					c.Hungry = func() bool { return true }
					c.Found = func(string, []netip.AddrPort) {
						mu.Lock()
						defer mu.Unlock()
						if !fed {
							found = append(found, time.Since(began))
						}
						fed = true
					}
					go New(c).Run(ctx)
				}
				most := 0
				for range 120 {
					time.Sleep(time.Second)
					r.config.Pace.underWay.mu.Lock()
					most = max(most, r.config.Pace.underWay.all.Len())
					r.config.Pace.underWay.mu.Unlock()
				}
				require.LessOrEqual(t, most, maxUnderWay)
				mu.Lock()
				defer mu.Unlock()
				require.Len(t, found, torrents)
				t.Logf("%d under way at most; the tracker that answers is reached after %v, %v at most", most, found[torrents/2], found[torrents-1])
				require.LessOrEqual(t, found[torrents-1], tc.most)
				for a := range silentOnes {
					require.True(t, asked[a], "%v was never asked", a)
				}
			})
		})
	}
}
