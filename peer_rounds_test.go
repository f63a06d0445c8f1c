package torrent

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/wire"
)

// One peer of each of many downloads changes its mind all the time. Each change has all peers of its download judged again, in the
// next round. The more peers the client has, the fewer rounds there are, so that all downloads together judge no more peers.
func TestRoundsOfManyDownloads(t *testing.T) {
	const downloads, peers, seconds = 24, 95, 10
	synctest.Test(t, func(t *testing.T) {
		c := &Client{NoDHT: true, NoUTP: true, NoListen: true, MaxPeers: 2 * downloads * peers}
		defer c.Close()
		var all []*Download
		var fickle, conns []*repeating
		for n := range downloads {
			to := plainTorrent(100)
			to.infoHash = Hash{byte(n), 1}
			d, err := to.Start(t.Context(), &Options{Client: c, MaxPeers: 100, Storage: func(*Torrent) (Storage, error) { return emptyStorage{}, nil }})
			require.NoError(t, err)
			defer d.Close()
			simnet.Sleep(time.Second) // it is checked
			for k := range peers {
				conn := join(t, d, k, wire.AppendSimple(nil, wire.Interested))
				conns = append(conns, conn)
				if k == 0 {
					fickle = append(fickle, conn)
				}
			}
			all = append(all, d)
		}
		judged := func() (sum int64) {
			synctest.Wait()
			for _, d := range all {
				d.mu.Lock()
				sum += d.uploading.judged
				d.mu.Unlock()
			}
			return sum
		}
		simnet.Sleep(5 * time.Second)
		before := judged()
		for range seconds * int(time.Second/roundEvery) / 2 {
			for _, is := range []wire.ID{wire.NotInterested, wire.Interested} {
				for _, conn := range fickle {
					conn.say(wire.AppendSimple(nil, is), 1)
				}
				simnet.Sleep(roundEvery)
			}
		}
		n := judged() - before
		t.Logf("%d peers judged a second", n/seconds)
		require.Less(t, n, int64(seconds*(time.Second/roundEach))*11/10+2*downloads*peers) // and two rounds that are due in any case
		require.Greater(t, n, int64(seconds*(time.Second/roundEach))/2)
		for _, conn := range conns {
			conn.leave()
		}
	})
}
