package torrent

import (
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/outbox"
	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/ratelimit"
	"github.com/shoal-go/torrent/internal/wire"
)

// Little is read ahead for a peer, however long its requests are, and nothing is kept once it requests nothing.
func TestPayloadIsNotKept(t *testing.T) {
	var long, short []outbox.Request
	for range maxUploadRun {
		long, short = append(long, outbox.Request{Length: wire.MaxBlock}), append(short, outbox.Request{Length: blockSize})
	}
	require.Equal(t, long[:1], atOnce(long))
	require.Equal(t, short, atOnce(short))
	require.Len(t, atOnce(append(short[:3:3], long...)), 3)

	synctest.Test(t, func(t *testing.T) {
		d := crowded(t, plainTorrent(1000), 1)
		w := writer{p: d.swarm.peers[0], turn: ratelimit.NewTurn("", nil), payload: make([]byte, maxUploadBytes), lastSent: time.Now(), lastAnswered: time.Now()}
		wait, err := w.send()
		require.NoError(t, err)
		require.NotNil(t, w.payload)
		time.Sleep(wait)
		wait, err = w.send()
		require.NoError(t, err)
		require.Nil(t, w.payload)
		require.Greater(t, wait, time.Minute)

		// The peer's own writer answers.
		synctest.Wait()
		held := w.p.holder.Held()
		require.Equal(t, outbox.Queued, w.p.out.Enqueue(long[0]))
		synctest.Wait()
		require.Greater(t, w.p.holder.Held(), held+wire.MaxBlock)
		for until := time.Now().Add(payloadKept); time.Now().Before(until); time.Sleep(payloadKept / 2) {
			w.p.out.Add(func(b []byte) []byte { return wire.AppendHave(b, 1) })
		}
		synctest.Wait()
		require.LessOrEqual(t, w.p.holder.Held(), held, "messages do not keep it")
	})
}

// Transmission 3.00 does not read what came in one packet of uTP with the handshake until another one comes. So it is sent one soon.
func TestFirstKeepAlive(t *testing.T) {
	for way, want := range map[way][]time.Duration{byTCP: {keepAliveAfter, 2 * keepAliveAfter}, byUTP: {nudgeAfter, nudgeAfter + keepAliveAfter}} {
		synctest.Test(t, func(t *testing.T) {
			d := crowded(t, plainTorrent(1), 0)
			ours, theirs := net.Pipe()
			began := time.Now()
			var came []time.Duration
			var reading sync.WaitGroup
			reading.Go(func() {
				for r := wire.NewReader(theirs, 1); len(came) < len(want); {
					m, err := r.Next()
					if err != nil {
						return
					}
					if m.ID == wire.KeepAlive {
						came = append(came, time.Since(began))
						theirs.Write(wire.AppendKeepAlive(nil))
					}
				}
			})
			addr := netip.MustParseAddrPort("80.1.0.1:6881")
			require.True(t, d.addPeer(&connection{Conn: ours, addr: addr, incoming: true, way: way}, peerlist.FromIncoming))
			reading.Wait()
			require.Equal(t, want, came, way)
			ours.Close()
			synctest.Wait()
		})
	}
}
