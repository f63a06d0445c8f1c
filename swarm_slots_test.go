package torrent

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/shoal-go/torrent/internal/choker"
	"github.com/shoal-go/torrent/internal/netaddr"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/wire"
)

// besideCrowd returns how long a peer takes to download content from a seed that uploads rate bytes a second. A crowd of ten
// networks is connected to the seed since a minute, and interested, and does something each so often.
func besideCrowd(t *testing.T, length int64, rate float64, crowd int, every time.Duration, do func(*speaker)) (took time.Duration) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimRepeating(1, 256<<10, length)
		us := n.NewHost("80.0.0.1", rate, 0, 10*time.Millisecond)
		simSeed(t, simClient(t, us, nil), content)
		simnet.Sleep(time.Second)
		for k := range crowd {
			s := speak(t, n.NewHost(fmt.Sprintf("%d.0.%d.1", 100+k%10, k), 0, 0, 10*time.Millisecond), content, us.Addr(6881), speech{fast: true})
			s.sayID(wire.HaveNone)
			s.sayID(wire.Interested)
			go func() {
				for s.pause(every) {
					do(s)
				}
			}()
		}
		simnet.Sleep(time.Minute)
		began := time.Now()
		d := simLeech(t, simClient(t, n.NewHost("90.0.0.1", rate, 2*rate, 10*time.Millisecond), nil), content, us.Addr(6881))
		_, err := d.Wait()
		require.NoError(t, err)
		took = time.Since(began)
	})
	return took
}

// firstTurn is how long a peer waits for a slot of a seed at most after so many others that take little. In two or three of four rounds one
// slot changes hands; in the others it goes to the peer that was drawn at random before.
func firstTurn(crowd int) time.Duration { return time.Duration(crowd) * choker.RoundEvery * 3 / 2 }

// Peers of many networks are interested in what a seed has, and ask for nothing. The only peer that does, and that passes nothing
// on because none asks it to, is not served last.
func TestSilentPeersLeaveTheirSlots(t *testing.T) {
	skipUnderRace(t, true)
	took := func(crowd int) time.Duration {
		return besideCrowd(t, 64<<20, 200e3, crowd, time.Minute, func(s *speaker) { s.sayID(wire.Interested) })
	}
	alone, crowded := took(0), took(20)
	t.Logf("took %v alone, %v beside a crowd", alone, crowded)
	require.Less(t, crowded, 3*alone)
}

// Peers of many networks ask a seed for a little, again and again. The only peer that takes all that it is sent does not wait for a turn
// after theirs while the seed's upload is idle, whether it passes on anything or not.
func TestPeersThatAskForLittleLeaveTheirSlots(t *testing.T) {
	skipUnderRace(t, true)
	took := func(crowd int, every time.Duration) time.Duration {
		return besideCrowd(t, 128<<20, 1e6, crowd, every, func(s *speaker) { s.ask(0) })
	}
	alone := took(0, 0)
	for _, every := range []time.Duration{2 * time.Second, 8 * time.Second} {
		crowded := took(40, every)
		t.Logf("took %v alone, %v beside a crowd that asks for a block in %v", alone, crowded, every)
		require.Less(t, crowded, alone+firstTurn(40), "it waits for a first turn at most")
	}
}

// Two peers take a part of what a seed can send, and many a little. Although the only one that takes the rest passes nothing on, it does
// not come last.
func TestPeersThatTakeAPartLeaveTheRest(t *testing.T) {
	skipUnderRace(t, true)
	took := func(crowd int) time.Duration {
		var heavy atomic.Int32
		return besideCrowd(t, 32<<20, 240e3, crowd, 0, func(s *speaker) {
			every := 8 * time.Second
			if heavy.Add(1) <= 2 {
				every = 320 * time.Millisecond
			}
			for s.pause(every) {
				s.ask(0)
			}
		})
	}
	alone, crowded := took(0), took(40)
	t.Logf("took %v alone, %v beside a crowd", alone, crowded)
	require.Less(t, crowded, 2*alone+firstTurn(40), "it waits for a first turn at most")
}

// Peers that take all that they take of a seed just before it chooses whom to serve do not seem faster than one that takes more all the
// time. Otherwise they would keep their slots, and that one would wait for a turn after many that ask for little.
func TestPeersThatTakeBurstsLeaveTheirSlots(t *testing.T) {
	skipUnderRace(t, true)
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimRepeating(1, 256<<10, 64<<20)
		us := n.NewHost("80.0.0.1", 1e6, 0, 10*time.Millisecond)
		seed := simSeed(t, simClient(t, us, nil), content)
		simnet.Sleep(time.Second)
		for k := range 40 {
			s := speak(t, n.NewHost(fmt.Sprintf("%d.0.%d.1", 100+k%10, k), 0, 0, 10*time.Millisecond), content, us.Addr(6881), speech{fast: true})
			s.sayID(wire.HaveNone)
			s.sayID(wire.Interested)
			wait, blocks := func() time.Duration { return 8 * time.Second }, 1
			if k < 4 {
				wait, blocks = func() time.Duration { return beforeRound(seed) }, 17
			}
			go func() {
				for s.pause(wait()) {
					for i := range blocks {
						s.ask(uint32(i))
					}
				}
			}()
		}
		simnet.Sleep(5 * time.Minute)
		began := time.Now()
		d := simLeech(t, simClient(t, n.NewHost("90.0.0.1", 0, 200e3, 10*time.Millisecond), nil), content, us.Addr(6881))
		select {
		case <-d.Done():
		case <-time.After(time.Hour):
		}
		s := d.Stats()
		t.Logf("took %v: %d of %d", time.Since(began), s.Verified, s.Length)
		require.Equal(t, s.Length, s.Verified)
		require.Less(t, time.Since(began), 336*time.Second+firstTurn(40), "it waits for a first turn at most")
	})
}

// Eight peers take what a seed with an upload limit gives them, and never announce a piece. To the seed, an honest peer among them seems
// to pass nothing on, because no other peer announces what it got from the seed. It still gets its share of the upload.
func TestPeersThatTellNothingLeaveAShare(t *testing.T) {
	skipUnderRace(t, true)
	const crowd = 8
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimRepeating(1, 256<<10, 32<<20)
		us := n.NewHost("80.0.0.1", 0, 0, 10*time.Millisecond)
		c := simClient(t, us, nil)
		c.UploadLimit = rate.NewLimiter(100e3, 64<<10)
		simSeed(t, c, content)
		simnet.Sleep(time.Second)
		for k := range crowd {
			s := speak(t, n.NewHost(fmt.Sprintf("%d.0.%d.1", 100+k, k), 0, 0, 10*time.Millisecond), content, us.Addr(6881), speech{fast: true})
			s.sayID(wire.HaveNone)
			s.sayID(wire.Interested)
			go func() {
				const most = 128 << 10
				asked, served := 0, 0
				for i := uint32(0); s.pause(100 * time.Millisecond); {
					for _, w := range s.take() {
						switch {
						case strings.HasPrefix(w, "piece"):
							served++
						case strings.HasPrefix(w, "unchoke"):
							asked, served = 0, 0
						}
					}
					for ; asked < served+2; i++ {
						asked++
						s.say(wire.AppendRequest(nil, i%32, 0, most))
					}
				}
			}()
		}
		simnet.Sleep(time.Minute)
		began := time.Now()
		d := simLeech(t, simClient(t, n.NewHost("90.0.0.1", 0, 0, 10*time.Millisecond), nil), content, us.Addr(6881))
		select {
		case <-d.Done():
		case <-time.After(3 * time.Hour):
		}
		s := d.Stats()
		t.Logf("took %v: %d of %d", time.Since(began), s.Verified, s.Length)
		require.Equal(t, s.Length, s.Verified)
		require.Less(t, time.Since(began).Seconds(), 1.3*(crowd+1)*32*(1<<20)/100e3)
	})
}

// beforeRound returns how long it is until almost a second before the next round of a choker.
func beforeRound(d *Download) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	wait := time.Until(d.uploading.choker.Next()) - 900*time.Millisecond
	if wait <= 0 {
		wait += choker.RoundEvery
	}
	return wait
}

// A seed whose places are full of peers that ask for little, at addresses of the highest priority, gives another its turn although more
// of them come while it waits. They do not have it make room before those that have had their turn.
func TestPeersThatWaitForASlotKeepTheirPlaces(t *testing.T) {
	skipUnderRace(t, true)
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		const places = 40
		content := newSimRepeating(1, 256<<10, 64<<20)
		us := n.NewHost("80.0.0.1", 1e6, 0, 10*time.Millisecond)
		seed, err := content.Start(t.Context(), &Options{Client: simClient(t, us, nil), Seed: true, MaxPeers: places, Storage: newSimStorage(content).fill().open})
		require.NoError(t, err)
		<-seed.Done()
		simnet.Sleep(time.Second)
		var addrs []netip.Addr
		for k := range 60 * 40 {
			addrs = append(addrs, netip.AddrFrom4([4]byte{byte(101 + k%60), byte(k / 60), 7, 1}))
		}
		priority := func(a netip.Addr) uint32 { return netaddr.Priority(us.Addr(6881), netip.AddrPortFrom(a, 1)) }
		slices.SortFunc(addrs, func(a, b netip.Addr) int { return cmp.Compare(priority(b), priority(a)) })
		come := func(a netip.Addr) {
			s := speak(t, n.NewHost(a.String(), 0, 0, 10*time.Millisecond), content, us.Addr(6881), speech{fast: true, extended: true})
			s.sayHello(wire.ExtHandshake{YourIP: us.IP().AsSlice()})
			s.sayID(wire.HaveNone)
			s.sayID(wire.Interested)
			go func() {
				for s.pause(2*time.Second) && !s.hungUp() {
					s.ask(0)
				}
			}()
		}
		for _, a := range addrs[:places] {
			come(a)
		}
		simnet.Sleep(10 * time.Minute)
		began := time.Now()
		d := simLeech(t, simClient(t, n.NewHost("90.0.0.1", 0, 0, 10*time.Millisecond), nil), content, us.Addr(6881))
		for _, a := range addrs[places:] {
			simnet.Sleep(20 * time.Second)
			if s := d.Stats(); s.Verified == s.Length {
				break
			}
			come(a)
		}
		t.Logf("took %v", time.Since(began))
		require.Less(t, time.Since(began), 64*time.Second+firstTurn(places), "it waits for a first turn at most")
	})
}
