package simtracker_test

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simtracker"
)

// announce returns what the tracker answers to a host.
func announce(t *testing.T, tr *simtracker.Tracker, h *simnet.Host, query string) string {
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://any.where/announce?"+query, nil)
	require.NoError(t, err)
	resp, err := tr.Client(h).Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(b)
}

func TestPeersHearOfEachOther(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		tr := simtracker.New(1)
		tr.Interval = time.Minute
		one, two := n.NewHost("1.2.3.4", 0, 0, 0), n.NewHost("fd00::1", 0, 0, 0)
		began := time.Now()
		require.Equal(t, "d8:intervali60e5:peers0:6:peers60:e", announce(t, tr, one, "port=258&left=10&event=started"))
		require.Equal(t, tr.Delay, time.Since(began))
		require.Equal(t, "d8:intervali60e5:peers6:\x01\x02\x03\x04\x01\x026:peers60:e", announce(t, tr, two, "port=258&left=0"))
		require.Equal(t, "d8:intervali60e5:peers0:6:peers618:\xfd"+string(make([]byte, 14))+"\x01\x01\x02e",
			announce(t, tr, one, "port=258&uploaded=1&downloaded=2&left=3&event=stopped"))
		require.Equal(t, "d8:intervali60e5:peers0:6:peers60:e", announce(t, tr, two, "port=258&left=0"))

		said := tr.Announces()
		require.Len(t, said, 4)
		require.Equal(t, simtracker.Announce{
			At: began.Add(3 * tr.Delay), From: one.Addr(258), Event: "stopped", Uploaded: 1, Downloaded: 2, Left: 3,
		}, said[2])
		require.EqualValues(t, -1, said[0].Uploaded)
		tr.Forget()
		require.Empty(t, tr.Announces())
	})
}

func TestNoMorePeersThanWanted(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		tr := simtracker.New(1)
		for k := range 100 {
			tr.Add(netip.MustParseAddrPort(fmt.Sprintf("1.2.3.%d:1", k)))
		}
		tr.Remove(netip.MustParseAddrPort("1.2.3.99:1"))
		h := n.NewHost("10.0.0.1", 0, 0, 0)
		require.Contains(t, announce(t, tr, h, "port=1&event=stopped"), "5:peers300:")
		require.Contains(t, announce(t, tr, h, "port=1&event=stopped&numwant=99"), "5:peers594:")
		require.Contains(t, announce(t, tr, h, "port=1&event=stopped&numwant=0"), "5:peers0:")
	})
}

func TestAnotherAnswer(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		tr := simtracker.New(1)
		tr.Answer = func(r *http.Request) (*http.Response, error) {
			return simtracker.Response(r, http.StatusOK, []byte("de")), nil
		}
		require.Equal(t, "de", announce(t, tr, n.NewHost("10.0.0.1", 0, 0, 0), "port=1"))
		require.Empty(t, tr.Announces())
	})
}
