package simpeer

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/wire"
)

// meet has an honest scripted leech download from a seed with a script, for an hour at most.
func meet(t *testing.T, n *simnet.Network, c *Content, up float64, script Script) (seed, leech *Peer, ledger *Ledger, took time.Duration) {
	seed = New("seed", n.NewHost("80.0.0.1", up, 0, 10*time.Millisecond), 6881, c, script)
	leech = New("leech", n.NewHost("80.0.0.2", 0, 0, 10*time.Millisecond), 6882, c, Script{Takes: true, Fast: true})
	leech.Have = bits.New(c.NumPieces())
	ledger = Watch(leech.Host, c)
	require.NoError(t, seed.Arrive())
	start := time.Now()
	leech.Call(1, seed.Addr(), time.Second)
	for leech.Wait(100 * time.Millisecond) {
		leech.mu.Lock()
		whole := leech.Have.Full()
		leech.mu.Unlock()
		if whole || time.Since(start) > time.Hour {
			break
		}
	}
	took = time.Since(start)
	leech.Stop()
	seed.Stop()
	synctest.Wait()
	for _, h := range []*simnet.Host{seed.Host, leech.Host} {
		conns, listeners := h.Open()
		require.Zero(t, conns+listeners)
	}
	return seed, leech, ledger, took
}

func TestPeers(t *testing.T) {
	const size = 1_000_000
	for name, c := range map[string]struct {
		script Script
		fails  bool
		faults bool // of the seed, as the leech sees them
	}{
		"honest":             {},
		"honest with BEP 6":  {script: Script{Fast: true}},
		"eager":              {script: Script{Eager: true}},
		"flaps":              {script: Script{Flap: 300 * time.Millisecond}},
		"flaps with BEP 6":   {script: Script{Flap: 300 * time.Millisecond, Fast: true}},
		"resets":             {script: Script{ResetAfter: 20}},
		"leaves":             {script: Script{LeaveAfter: 3 * time.Second}},
		"rejects":            {script: Script{Rejects: 5, Fast: true}},
		"lies":               {script: Script{Corrupt: 10}, fails: true, faults: true},
		"twice":              {script: Script{Twice: true}, faults: true},
		"floods":             {script: Script{Floods: true}, faults: true},
		"mute":               {script: Script{Never: Answers}, fails: true},
		"does not unchoke":   {script: Script{Never: Unchokes}, fails: true},
		"no handshake":       {script: Script{Never: ShakesHands}, fails: true},
		"reads nothing":      {script: Script{Never: Reads}, fails: true},
		"drips":              {script: Script{Drip: time.Second}, fails: true},
		"stops in mid-block": {script: Script{StallAfter: 3}, fails: true},
		"wrong handshake": {script: Script{Handshake: func(b []byte) []byte { b[28]++; return b }},
			fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				content := NewContent(1, 64<<10, size)
				seed, leech, ledger, took := meet(t, n, content, 100e3, c.script)
				require.Equal(t, !c.fails, leech.Have.Full())
				require.Equal(t, c.faults, len(leech.faults) > 0, "%v", leech.faults)
				require.Empty(t, seed.faults)
				// The scripted leech may ask in the instant in which a choke arrives, and drops a piece that
				// is not whole with its connection.
				if c.script.Flap == 0 && c.script.LeaveAfter == 0 && c.script.ResetAfter == 0 {
					require.Empty(t, ledger.account.Faults)
				}
				require.Empty(t, ledger.under)
				require.Equal(t, len(seed.lies) > 0, len(ledger.account.Lies) > 0)
				if c.script.Corrupt > 0 {
					require.NotEmpty(t, seed.lies)
					require.True(t, ledger.account.Proven[seed.Addr()]) // it sent whole pieces alone
				}
				if !c.fails && c.script.Flap == 0 && !c.script.Twice {
					require.Less(t, took, 20*time.Second)
					require.GreaterOrEqual(t, leech.taken, int64(size))
					require.GreaterOrEqual(t, ledger.account.First, int64(size))
					for _, p := range ledger.pieces {
						require.True(t, p.whole || p.unsure)
					}
				}
			})
		})
	}
}

// A noise that is not fatal is a message like others to the codec.
func TestNoises(t *testing.T) {
	for _, noise := range Noises() {
		t.Run(noise.name, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				content := NewContent(1, 64<<10, 1_000_000)
				seed := New("noisy", n.NewHost("80.0.0.1", 0, 0, 0), 6881, content,
					Script{Noise: []Noise{noise}, NoiseEvery: time.Second})
				require.NoError(t, seed.Arrive())
				conn, err := n.NewHost("80.0.0.2", 0, 0, 0).Dial(t.Context(), "tcp", seed.Addr().String())
				require.NoError(t, err)
				conn.Write((&wire.Handshake{InfoHash: content.InfoHash}).Append(nil))
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
				seed.Stop()
			})
		})
	}
}

// Peers of version 2 ask each other for hashes in either swarm of a hybrid, and notice false ones.
func TestHashes(t *testing.T) {
	const pieceLength = 64 << 10
	l := layout.NewAligned(pieceLength, layout.File{Path: "a", Length: 10*pieceLength - 1}, layout.File{Length: 1, Pad: true},
		layout.File{Path: "b", Length: 2 * layout.BlockSize})
	for name, c := range map[string]struct {
		hybrid bool
		script Script
		faults bool
		none   bool // of its answers are hashes
	}{
		"version 2": {},
		"hybrid":    {hybrid: true},
		"version 1": {hybrid: true, script: Script{OnlyV1: true}, none: true},
		"lies":      {script: Script{CorruptHashes: 1}, faults: true},
		"refuses":   {script: Script{RefusesHashes: true}, none: true},
		"silent":    {script: Script{Never: AnswersHashes}, none: true},
	} {
		t.Run(name, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				content := NewVersion2(1, l, c.hybrid)
				seed := New("seed", n.NewHost("80.0.0.1", 0, 0, 0), 6881, content, c.script)
				asks := New("asks", n.NewHost("80.0.0.2", 0, 0, 0), 6881, content, Script{AsksHashes: true})
				require.NoError(t, seed.Arrive())
				for range 4 { // in one swarm or the other
					asks.Go(func() { _ = asks.Dial(seed.Addr()) })
				}
				require.True(t, asks.Wait(time.Minute))
				seed.Stop()
				asks.Stop()
				require.Equal(t, c.faults, len(asks.Faults()) > 0, "%v", asks.Faults())
				require.Empty(t, seed.Faults())
				require.Equal(t, c.none, seed.hashes == 0)
				require.Equal(t, c.faults, seed.Lies())
			})
		})
	}
}

// In the swarm of version 1 a peer may reject a hash request that was noise, and no other peer may speak of hashes.
func TestHashesInVersion1(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := NewContent(1, 64<<10, 1_000_000)
		h := n.NewHost("80.0.0.1", 0, 0, 0)
		for _, noise := range [][]Noise{nil, Noises()} {
			for _, id := range []wire.ID{wire.AskHashes, wire.Hashes, wire.HashReject} {
				p := New("peer", h, 6881, content, Script{Noise: noise})
				s := &session{peer: p}
				p.mu.Lock()
				s.hear(wire.Message{ID: id, Payload: make([]byte, 48)}, nil)
				p.mu.Unlock()
				require.Equal(t, noise == nil || id != wire.HashReject, len(p.Faults()) > 0, "%v, noise: %t", id, noise != nil)
			}
		}
	})
}
