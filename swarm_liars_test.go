package torrent

import (
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/shoal-go/torrent/internal/simnet/simweb"
)

// call has a peer come that dials the client from an address.
func (m *simMeeting) call(address string, rate float64, script simpeer.Script) {
	p := simpeer.New("peer "+address, m.net.NewHost(address, rate, 0, 10*time.Millisecond), 6881, m.content.truth, script)
	p.Go(func() { p.Dial(netip.MustParseAddrPort("81.0.0.1:6881")) })
	m.peers = append(m.peers, p)
}

// besiege has liars come one after another, each from an address of its own, and requires that the download is complete in time.
func (m *simMeeting) besiege(t *testing.T, address string, rate float64, stallAfter int, within time.Duration) {
	for k := 1; !m.client.done() && time.Since(m.client.began) < within; k++ {
		m.call(fmt.Sprintf(address, k), rate, simpeer.Script{Fast: true, Eager: true, Corrupt: 2, StallAfter: stallAfter})
		simnet.Sleep(500 * time.Millisecond)
	}
	require.True(t, m.client.done(), "%s", m.client.describe())
	require.Less(t, m.client.took, within)
	require.NoError(t, m.client.compare(nil))
}

// Liars come all the time, each from another address. They send some blocks, half of them false, and then nothing,
// so that the pieces that they spoiled wait for them. The download used to stand still, beside honest seeds that were idle: 20 of
// 32 pieces in ten minutes, where all of them take 40 seconds without the liars.
func TestLiarsThatStall(t *testing.T) {
	for name, address := range map[string]string{
		"one /64 of IPv6":     "2001:db8:9:9::%x",
		"many /64 of one /48": "2001:db8:9:%x::1",
	} {
		t.Run(name, func(t *testing.T) {
			found(t, newSimContent(1, 1<<20, 8<<20), func(t *testing.T, m *simMeeting) {
				for range 3 {
					m.options.Peers = append(m.options.Peers, m.meet(t, 100e3, simpeer.Script{Fast: true}).Addr())
				}
				m.host = m.net.NewHost("81.0.0.1", 0, 0, 10*time.Millisecond)
				m.client = simStart(t.Context(), t, m.host, m.content, nil, &m.options, nil)
				m.besiege(t, address, 2e6, 20, 90*time.Second)
			})
		})
	}
}

// A web seed is the only honest source beside liars that come all the time, each from another address, send a few blocks and then nothing. Each
// of them had a turn at every piece that others had spoiled, and the web seed, idle at last, hardly any: 60 of 64 pieces in half an hour,
// where all of them take 67 seconds without the liars.
//
// Worse, a server that sends whole files only could send nothing of the pieces that a liar had its turn at, however often it sent all:
// 34 of 64 pieces in twenty minutes. As many came from a server that takes five seconds to answer, which seemed slow and was asked for a
// few blocks at a time.
func TestLiarsBesideAWebSeed(t *testing.T) {
	for name, c := range map[string]struct {
		script simweb.Script
		within time.Duration
	}{
		"with ranges":    {simweb.Script{}, 100 * time.Second},
		"without ranges": {simweb.Script{Rangeless: true}, 5 * time.Minute},
		"slow to answer": {simweb.Script{Pause: 5 * time.Second}, 8 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			skipUnderRace(t, !c.script.Rangeless)
			t.Parallel()
			foundWeb(t, newSimRepeating(1, 1<<20, 64<<20), func(t *testing.T, m *simWebMeeting) {
				m.serve(t, 1e6, c.script)
				m.start(t)
				m.besiege(t, "2001:db8:9:%x::1", 20e3, 4, c.within)
			})
		})
	}
}

// Liars that come all the time send the first block of each piece, a false one, and reject the others. Each of them took the last blocks from
// a server that takes five seconds to answer, which did not end in 40 minutes: 22 of 24 pieces, where all take 282 seconds without the liars.
func TestLiarsThatRejectBesideAWebSeed(t *testing.T) {
	skipUnderRace(t, true)
	foundWeb(t, newSimRepeating(1, 1<<20, 8<<20), func(t *testing.T, m *simWebMeeting) {
		m.serve(t, 100e3, simweb.Script{Pause: 5 * time.Second})
		m.start(t)
		for k := 1; !m.client.done() && time.Since(m.client.began) < 6*time.Minute; k++ {
			m.call(fmt.Sprintf("2001:db8:9:%x::1", k), 20e3, simpeer.Script{Fast: true, Eager: true, Corrupt: 1, Scatters: true})
			simnet.Sleep(3 * time.Second)
		}
		t.Logf("took %.0f s, %d MiB sent", m.client.took.Seconds(), m.client.Stats().WebSeeds[0].Downloaded>>20)
		require.True(t, m.client.done(), "%s", m.client.describe())
		require.NoError(t, m.client.compare(nil))
	})
}

// The only honest peer chokes for half of the time, and liars come forty at once, each from a network of its own. When it had been choking a
// few times while it had a piece that they had spoiled, they alone had turns at it: the download took over ten minutes, where it takes
// 100 seconds without the liars. Later it took 4 to 13 minutes, as each choke cost it what it had sent of several such pieces. A peer that sends
// no piece within the time in which it does not choke never sent one of these.
func TestLiarsBesideAPeerThatChokes(t *testing.T) {
	for name, c := range map[string]struct {
		piece, size int64
		rate        float64
		alone       time.Duration // before the liars come
		within      time.Duration
	}{
		"after a few pieces": {512 << 10, 24 << 20, 500e3, 0, 3 * time.Minute},
		"within each piece":  {1 << 20, 8 << 20, 200e3, 20 * time.Second, 100 * time.Second}, // 80 seconds without the liars
	} {
		t.Run(name, func(t *testing.T) {
			skipUnderRace(t, true)
			t.Parallel()
			foundWeb(t, newSimRepeating(1, c.piece, c.size), func(t *testing.T, m *simWebMeeting) {
				m.meet(t, c.rate, simpeer.Script{Fast: true, Flap: 5 * time.Second})
				m.start(t)
				simnet.Sleep(c.alone)
				for k := 1; !m.client.done() && time.Since(m.client.began) < c.within; k++ {
					m.call(fmt.Sprintf("2001:%x:1::1", k), 5e3, simpeer.Script{Fast: true, Eager: true, Corrupt: 2})
					if k%40 == 0 {
						simnet.Sleep(20 * time.Second)
					}
				}
				t.Logf("took %.0f s, %d MiB sent", m.client.took.Seconds(), m.peers[0].Host.Sent()>>20)
				require.True(t, m.client.done(), "%s", m.client.describe())
				require.NoError(t, m.client.compare(nil))
			})
		})
	}
}

// Each connection of the only honest peer carries less than a piece, and it dials in from another port each time. Beside liars what it had
// sent of a piece was dropped when it left, and it was a stranger when it came again: no piece was complete after 15 minutes, where all take
// a minute without the liars.
func TestLiarsBesideAPeerThatLeaves(t *testing.T) {
	foundWeb(t, newSimRepeating(1, 1<<20, 4<<20), func(t *testing.T, m *simWebMeeting) {
		m.meet(t, 100e3, simpeer.Script{Fast: true, Eager: true, ResetAfter: 20})
		m.start(t)
		honest := m.peers[0]
		honest.Go(func() {
			for honest.Wait(5*time.Second) && !m.client.done() {
				honest.Dial(netip.MustParseAddrPort("81.0.0.1:6881"))
			}
		})
		const within = 3 * time.Minute
		for k := 1; !m.client.done() && time.Since(m.client.began) < within; k++ {
			m.call(fmt.Sprintf("2001:%x:1::1", k), 5e3, simpeer.Script{Fast: true, Eager: true, Corrupt: 2})
			simnet.Sleep(5 * time.Second)
		}
		t.Logf("took %.0f s", m.client.took.Seconds())
		require.True(t, m.client.done(), "%s", m.client.describe())
		require.NoError(t, m.client.compare(nil))
	})
}

// Peers that are silent about hashes are there before an honest seed, and others come all the time. Each of them used to be asked
// alone for three seconds, and those that had just come before all others.
func TestManyPeersSilentAboutHashes(t *testing.T) {
	found(t, newSimVersion(V2, true, 1, 64<<10, 1<<20), func(t *testing.T, m *simMeeting) {
		m.host = m.net.NewHost("81.0.0.1", 0, 0, 10*time.Millisecond)
		m.client = simStart(t.Context(), t, m.host, m.content, nil, &m.options, nil)
		come := func(every time.Duration) {
			m.call(fmt.Sprintf("2001:db8:9:%x::1", len(m.peers)+1), 2e6, simpeer.Script{Fast: true, Never: simpeer.AnswersHashes})
			simnet.Sleep(every)
		}
		for range 30 {
			come(0)
		}
		m.client.AddPeers(m.meet(t, 1e6, simpeer.Script{Fast: true}).Addr())
		for !m.client.done() && time.Since(m.client.began) < 2*time.Minute {
			come(time.Second)
		}
		require.True(t, m.client.done(), "%s", m.client.describe())
		require.Less(t, m.client.took, 30*time.Second)
	})
}

// If no peer sends the hashes of blocks of version 2, the blocks of a known liar are the first to be fetched again, as in version 1.
func TestLiarBesidePeersWithoutHashes(t *testing.T) {
	found(t, newSimVersion(V2, false, 1, 1<<20, 32<<20), func(t *testing.T, m *simMeeting) {
		for range 3 {
			m.meet(t, 500e3, simpeer.Script{Fast: true, RefusesHashes: true})
		}
		liar := m.meet(t, 1.5e6, simpeer.Script{Fast: true, Corrupt: 20, RefusesHashes: true})
		m.run(t, time.Hour)
		wasted, sent := m.client.Stats().Wasted, liar.Host.Sent()
		t.Logf("%d bytes wasted, the liar sent %d", wasted, sent)
		require.True(t, m.client.banned(liar.Addr()))
		require.Less(t, wasted, sent*3/2)
	})
}

// Thousands of pieces may be started, and all are looked through for the blocks of liars: once a round, however many of them there are.
func TestLiarsAreDisownedInRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Client{NoDHT: true, NoUTP: true, NoListen: true}
		defer c.Close()
		d, err := plainTorrent(2).Start(t.Context(), &Options{Client: c, Storage: func(*Torrent) (Storage, error) { return emptyStorage{}, nil }})
		require.NoError(t, err)
		simnet.Sleep(time.Second)
		liar := 0
		ban := func() (left bool) {
			now := time.Now()
			d.mu.Lock()
			liar++
			d.ban(0, []any{netip.AddrPortFrom(netip.AddrFrom4([4]byte{80, 0, 0, byte(liar)}), 6881)})
			d.followUp(now)
			left = d.pending.disown
			d.unlock(now)
			return left
		}
		require.False(t, ban(), "at once")
		for range 10 {
			require.True(t, ban(), "in the next round")
		}
		simnet.Sleep(roundEvery)
		d.mu.Lock()
		defer d.mu.Unlock()
		require.False(t, d.pending.disown)
	})
}
