package torrent

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/wire"
	"github.com/stretchr/testify/require"
)

// simMeet has an honest scripted leech download from a seed with the given script, for at most an hour.
func simMeet(t *testing.T, n *simnet.Network, c *simTruth, up float64, script simScript) (seed, leech *simPeer, ledger *simLedger, took time.Duration) {
	seed = newSimPeer("seed", n.NewHost("80.0.0.1", up, 0, 10*time.Millisecond), 6881, c, script)
	leech = newSimPeer("leech", n.NewHost("80.0.0.2", 0, 0, 10*time.Millisecond), 6882, c, simScript{takes: true, fast: true})
	leech.have = bits.New(c.NumPieces())
	ledger = watch(leech.host, c)
	require.NoError(t, seed.arrive())
	start := time.Now()
	leech.calls(1, seed.addr(), time.Second)
	for leech.wait(100 * time.Millisecond) {
		leech.mu.Lock()
		whole := leech.have.Full()
		leech.mu.Unlock()
		if whole || time.Since(start) > time.Hour {
			break
		}
	}
	took = time.Since(start)
	leech.stop()
	seed.stop()
	synctest.Wait()
	for _, h := range []*simnet.Host{seed.host, leech.host} {
		conns, listeners := h.Open()
		require.Zero(t, conns+listeners)
	}
	return seed, leech, ledger, took
}

func TestSimPeers(t *testing.T) {
	const size = 1_000_000
	for name, c := range map[string]struct {
		script simScript
		fails  bool
		faults bool // of the seed, as the leech sees them
	}{
		"honest":             {},
		"honest with BEP 6":  {script: simScript{fast: true}},
		"eager":              {script: simScript{eager: true}},
		"flaps":              {script: simScript{flap: 300 * time.Millisecond}},
		"flaps with BEP 6":   {script: simScript{flap: 300 * time.Millisecond, fast: true}},
		"resets":             {script: simScript{resetAfter: 20}},
		"leaves":             {script: simScript{leaveAfter: 3 * time.Second}},
		"rejects":            {script: simScript{rejects: 5, fast: true}},
		"lies":               {script: simScript{corrupt: 10}, fails: true, faults: true},
		"twice":              {script: simScript{twice: true}, faults: true},
		"floods":             {script: simScript{floods: true}, faults: true},
		"mute":               {script: simScript{never: answers}, fails: true},
		"does not unchoke":   {script: simScript{never: unchokes}, fails: true},
		"no handshake":       {script: simScript{never: shakesHands}, fails: true},
		"reads nothing":      {script: simScript{never: readsNothing}, fails: true},
		"drips":              {script: simScript{drip: time.Second}, fails: true},
		"stops in the midst": {script: simScript{stallAfter: 3}, fails: true},
		"wrong handshake": {script: simScript{handshake: func(b []byte) []byte { b[28]++; return b }},
			fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				content := newSimTruth(1, 64<<10, size)
				seed, leech, ledger, took := simMeet(t, n, content, 100e3, c.script)
				require.Equal(t, !c.fails, leech.have.Full())
				require.Equal(t, c.faults, len(leech.faults) > 0, "%v", leech.faults)
				require.Empty(t, seed.faults)
				// The scripted leech may ask in the instant in which it hears of a choke, and forgets
				// what it has of a piece with its connection.
				if c.script.flap == 0 && c.script.leaveAfter == 0 && c.script.resetAfter == 0 {
					require.Empty(t, ledger.account.faults)
				}
				require.Empty(t, ledger.under)
				require.Equal(t, len(seed.lies) > 0, len(ledger.account.lies) > 0)
				if c.script.corrupt > 0 {
					require.NotEmpty(t, seed.lies)
					require.True(t, ledger.account.proven[seed.addr()]) // it sent whole pieces alone
				}
				if !c.fails && c.script.flap == 0 && !c.script.twice {
					require.Less(t, took, 20*time.Second)
					require.GreaterOrEqual(t, leech.taken, int64(size))
					require.GreaterOrEqual(t, ledger.account.first, int64(size))
					for _, p := range ledger.pieces {
						require.True(t, p.whole || p.unsure)
					}
				}
			})
		})
	}
}

// TestSimNoises asks that each noise is what it says: what is fatal is an error of the codec or of the
// numbers in it, and what is not is a message like others.
func TestSimNoises(t *testing.T) {
	for _, noise := range simNoises {
		t.Run(noise.name, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				content := newSimTruth(1, 64<<10, 1_000_000)
				seed := newSimPeer("noisy", n.NewHost("80.0.0.1", 0, 0, 0), 6881, content,
					simScript{noise: []simNoise{noise}, noiseEvery: time.Second})
				require.NoError(t, seed.arrive())
				conn, err := n.NewHost("80.0.0.2", 0, 0, 0).Dial(t.Context(), "tcp", seed.addr().String())
				require.NoError(t, err)
				conn.Write((&wire.Handshake{InfoHash: content.infoHash}).Append(nil))
				_, err = io.ReadFull(conn, make([]byte, wire.HandshakeSize))
				require.NoError(t, err)
				r := wire.NewReader(conn, 1<<20)
				for range 100 {
					if _, err = r.Next(); err != nil {
						break
					}
				}
				if !noise.fatal {
					require.NoError(t, err)
				}
				seed.stop()
			})
		})
	}
}
