package torrent

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/stretchr/testify/require"
)

// Each test here is a fault that a random history found, told again as simply as it can be.

// simMeeting is one client under test among scripted peers that its Options name.
type simMeeting struct {
	net     *simnet.Network
	content *simContent
	peers   []*simpeer.Peer
	host    *simnet.Host // of the client; by default one without limits
	options Options      // its Peers are added
	client  *simDownload
}

// meet adds a peer; the k-th has the address 80.0.0.k, up to 249, and a latency of 20 ms to the client.
func (m *simMeeting) meet(t *testing.T, rate float64, script simpeer.Script) *simpeer.Peer {
	k := len(m.peers) + 1
	p := simpeer.New(fmt.Sprintf("peer %d", k), m.net.NewHost(fmt.Sprintf("80.0.%d.%d", k/250, k%250), rate, 0, 10*time.Millisecond), 6881, m.content.truth, script)
	require.NoError(t, p.Arrive())
	m.peers = append(m.peers, p)
	return p
}

// later has a peer leave, and dial the client after a while.
func later(p *simpeer.Peer, after time.Duration) {
	p.Depart()
	p.Go(func() {
		if p.Wait(after) {
			p.Dial(netip.MustParseAddrPort("81.0.0.1:6881"))
		}
	})
}

// start has the client download from the peers, for so long at most.
func (m *simMeeting) run(t *testing.T, atMost time.Duration) {
	for _, p := range m.peers {
		m.options.Peers = append(m.options.Peers, p.Addr())
	}
	if m.host == nil {
		m.host = m.net.NewHost("81.0.0.1", 0, 0, 10*time.Millisecond)
	}
	m.client = simStart(t.Context(), t, m.host, m.content, nil, &m.options, nil)
	simWait(atMost, m.client)
	require.True(t, m.client.done(), "%s", m.client.describe())
	require.NoError(t, m.client.compare(nil))
	require.Empty(t, m.client.account(m.peers...))
}

func (m *simMeeting) end(t *testing.T) {
	if m.client != nil {
		m.client.end(t)
	}
	for _, p := range m.peers {
		p.Stop()
	}
}

// found tells one story.
func found(t *testing.T, content *simContent, f func(t *testing.T, m *simMeeting)) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		m := &simMeeting{net: n, content: content}
		defer m.end(t)
		f(t, m)
	})
}

// A snubbed peer is told that what it was asked for is not wanted any more. It used to be left in
// the belief that it was, while the blocks were handed to others and stolen from these: a third copy was
// under way, and when the snubbed peer was tried again it was asked twice for the same.
func TestFoundSnubbedIsNotCancelled(t *testing.T) {
	found(t, newSimContent(1, 256<<10, 1<<20), func(t *testing.T, m *simMeeting) {
		for range 3 {
			m.meet(t, 1e6, simpeer.Script{Never: simpeer.Answers})
		}
		m.meet(t, 30e3, simpeer.Script{})
		m.run(t, 5*time.Minute)
	})
}

// A piece on parole stays with its sole sender until somebody else would have the whole of it in half the
// time. Two idle peers of unknown rate used to take it from each other without end, each
// sooner with its first block than the other with its last, in an endless stream of requests and cancels.
func TestFoundParoleIsFoughtOver(t *testing.T) {
	found(t, newSimContent(1, 128<<10, 128<<10), func(t *testing.T, m *simMeeting) {
		m.meet(t, 1e6, simpeer.Script{Corrupt: 1, Eager: true})
		for range 4 {
			m.meet(t, 100e3, simpeer.Script{Fast: true})
		}
		m.run(t, time.Minute)
		require.Less(t, m.client.ledger.Account().Asked, int64(4*8))
	})
}

// One that is fast but chokes all the time used to take a piece on parole from a slow one whenever it
// unchoked, and lose it with the next choke: the piece was begun anew for ever.
func TestFoundParoleIsTakenByFlapper(t *testing.T) {
	found(t, newSimContent(1, 1<<20, 1<<20), func(t *testing.T, m *simMeeting) {
		m.meet(t, 5e6, simpeer.Script{Corrupt: 1, Eager: true})
		m.meet(t, 20e3, simpeer.Script{})
		for range 3 {
			m.meet(t, 1e6, simpeer.Script{Flap: 700 * time.Millisecond})
		}
		m.run(t, 100*time.Second) // the slow one alone takes 53 s
	})
}

// Where two slow peers were asked for the same blocks, a fast one takes the place of the slower. It
// used to have nothing to do, since no third copy may be under way.
func TestFoundTwoSlowOnesHoldBlocks(t *testing.T) {
	found(t, newSimContent(1, 64<<10, 384<<10), func(t *testing.T, m *simMeeting) {
		m.meet(t, 2500, simpeer.Script{})
		m.meet(t, 2000, simpeer.Script{})
		later(m.meet(t, 1e6, simpeer.Script{}), 10*time.Second)
		m.run(t, 15*time.Second)
	})
}

// A sole sender of a piece on parole that rejects a block is taken not to have the piece any more. Then
// somebody else has to begin it anew: it used to wait for the connection to end.
func TestFoundParoleWithOneWhoRejects(t *testing.T) {
	found(t, newSimContent(1, 512<<10, 512<<10), func(t *testing.T, m *simMeeting) {
		m.meet(t, 10e6, simpeer.Script{Corrupt: 1, Eager: true})
		m.meet(t, 1e6, simpeer.Script{Fast: true, Rejects: 10})
		later(m.meet(t, 1e6, simpeer.Script{}), 5*time.Second)
		m.run(t, 10*time.Second)
	})
}

// A crowd that has sent nothing yet takes no blocks from each other: each was believed to be sooner
// than the others, who had been silent for a moment, and none was left a block for as long as it
// takes to send one, while the one fast seed found them all in what seemed to be good hands.
func TestFoundCrowdTakesBlocksInTurns(t *testing.T) {
	found(t, newSimContent(1, 256<<10, 2<<20), func(t *testing.T, m *simMeeting) {
		m.meet(t, 200e3, simpeer.Script{})
		for range 40 {
			m.meet(t, 300, simpeer.Script{})
		}
		m.run(t, 30*time.Second)
	})
}

// A crowd that has sent nothing yet does not pass a piece on parole around among itself, while one that
// has shown to be fast has nothing to do. Whoever took the piece used to make it harder for all others to
// take it, and whoever let it wait until it was snubbed left it to any other of the crowd.
func TestFoundCrowdPassesSpoiledPieceAround(t *testing.T) {
	found(t, newSimContent(1, 64<<10, 4<<20), func(t *testing.T, m *simMeeting) {
		m.meet(t, 200e3, simpeer.Script{Corrupt: 20, Eager: true})
		m.meet(t, 70e3, simpeer.Script{Eager: true})
		for range 40 {
			m.meet(t, 300, simpeer.Script{Eager: true})
		}
		m.run(t, 90*time.Second)
	})
}

// What has been idle for long is not believed to be as slow as it was, but a piece on parole is begun anew
// for that a few times only, not for ever, each time that another has become idle in turn.
func TestFoundIdleOnesTakePieceInTurns(t *testing.T) {
	found(t, newSimContent(1, 4<<20, 4<<20), func(t *testing.T, m *simMeeting) {
		m.meet(t, 5e6, simpeer.Script{Corrupt: 100, Eager: true})
		for range 3 {
			m.meet(t, 30e3, simpeer.Script{Eager: true})
		}
		m.run(t, 20*time.Minute) // one alone takes 140 s
	})
}

// One that has never been asked takes blocks from a crowd that has sent nothing either. It used to wait until
// the crowd was snubbed.
func TestFoundCrowdKeepsBlocksFromNewcomer(t *testing.T) {
	found(t, newSimContent(1, 256<<10, 512<<10), func(t *testing.T, m *simMeeting) {
		for range 40 {
			m.meet(t, 300, simpeer.Script{Eager: true})
		}
		later(m.meet(t, 1e6, simpeer.Script{Eager: true}), 2*time.Second)
		m.run(t, 10*time.Second)
	})
}

// What a peer is asked for a second time, having been snubbed, and sends meanwhile in answer to the first
// request, it is not asked for any more. The second request used to go out once there was room for
// it: a block that is being uploaded had held it up.
func TestFoundRequestHeldUp(t *testing.T) {
	found(t, newSimContent(1, blockSize, 3*blockSize), func(t *testing.T, m *simMeeting) {
		m.meet(t, 1e6, simpeer.Script{}).Have = set(3, 0)
		m.meet(t, 200, simpeer.Script{}).Have = set(3, 2) // that the download lasts
		slow := m.meet(t, 400, simpeer.Script{Takes: true})
		slow.Have = set(3, 1)
		later(slow, 5*time.Second) // and asks for piece 0 at once
		m.host = m.net.NewHost("81.0.0.1", 300, 0, 10*time.Millisecond)
		m.host.Buffer = 1000
		m.run(t, 5*time.Minute)
	})
}

// One that sends a block in ten seconds is not taken for one that sends a block in one. It used to look
// as fast as that with every block, so that a piece on parole stayed with it for minutes, though
// others would have had the whole of it sooner.
func TestFoundSlowOneLooksFast(t *testing.T) {
	found(t, newSimContent(1, 40*blockSize, 80*blockSize), func(t *testing.T, m *simMeeting) {
		m.meet(t, 5e6, simpeer.Script{Corrupt: 1, Eager: true}).Have = set(2, 1)
		slow := m.meet(t, 1600, simpeer.Script{}) // takes 410 s for a piece
		slow.Have = set(2, 1)
		later(slow, 3*time.Second)
		other := m.meet(t, 25e3, simpeer.Script{}) // takes 26 s
		other.Have = set(2, 0)
		other.Go(func() {
			if other.Wait(40 * time.Second) {
				other.Gain(1)
			}
		})
		m.run(t, 70*time.Second)
	})
}

// The many connections that one private address may have leave places to others, who call, or whom the
// client has still to call. They used to keep all, and out a seed that is faster than all of them.
func TestFoundManyOfOneAddress(t *testing.T) {
	for name, calls := range map[string]bool{"the seed calls": true, "the seed is called": false} {
		t.Run(name, func(t *testing.T) {
			found(t, newSimContent(1, 128<<10, 2<<20), func(t *testing.T, m *simMeeting) {
				many := simpeer.New("many", m.net.NewHost("10.0.0.1", 2000, 0, 10*time.Millisecond), 6881, m.content.truth, simpeer.Script{})
				require.NoError(t, many.Arrive())
				defer many.Stop()
				many.Call(10, netip.MustParseAddrPort("81.0.0.1:6881"), time.Second)
				if seed := m.meet(t, 1e6, simpeer.Script{}); calls {
					later(seed, 20*time.Second)
				} else {
					seed.Depart()
					seed.Come(20*time.Second, 0, 0)
				}
				m.options.MaxPeers = 5
				m.run(t, 90*time.Second)
			})
		})
	}
}
