package torrent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/shoal-go/torrent/internal/wire"
)

// A dialRecord is what a client dialled, and when.
type dialRecord struct {
	mu sync.Mutex
	to []netip.AddrPort
	at []time.Time
}

// of returns a Client.Dial that records what it dials from a host.
func (r *dialRecord) of(h *simnet.Host) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		r.mu.Lock()
		r.to, r.at = append(r.to, netip.MustParseAddrPort(addr)), append(r.at, time.Now())
		r.mu.Unlock()
		return h.Dial(ctx, network, addr)
	}
}

// count returns how many dials went to addresses for which is returns true.
func (r *dialRecord) count(is func(netip.Addr) bool) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.to {
		if is(a.Addr()) {
			n++
		}
	}
	return n
}

// busiest returns the most dials that began within any second.
func (r *dialRecord) busiest() (most int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, oldest := 0, 0; k < len(r.at); k++ {
		for r.at[k].Sub(r.at[oldest]) >= time.Second {
			oldest++
		}
		most = max(most, k-oldest+1)
	}
	return most
}

// A peer on the open internet names addresses inside our network, and a hundred peers name one victim outside.
func TestAimedAtOthers(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, blockSize, 100*blockSize)
		us := n.NewHost("80.0.0.1", 0, 0, 0)
		var dialled dialRecord
		c := simClient(t, us, nil)
		c.NoUTP = true // whose dials the record does not see
		c.Dial = dialled.of(us)
		simLeech(t, c, content)
		simnet.Sleep(time.Second)
		names := func(from string, named ...netip.AddrPort) {
			s := speak(t, n.NewHost(from, 0, 0, 0), content, us.Addr(6881), speech{fast: true, extended: true})
			x := wire.PEX{Added: named, AddedFlags: make([]byte, len(named))}
			s.say(wire.AppendExtended(nil, extPEX, x.Append(nil)))
		}
		within := func(a netip.Addr) bool { return a.As4()[0] == 10 || a.IsLoopback() }
		victim := netip.MustParseAddr("9.9.9.9")
		n.NewHost(victim.String(), 0, 0, 0)

		var inward []netip.AddrPort
		for k := range uint16(50) {
			inward = append(inward, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 1000+k), netip.AddrPortFrom(netip.MustParseAddr("10.1.1.1"), 1000+k))
		}
		names("81.0.0.1", inward...)
		for k := range 100 {
			names(fmt.Sprintf("82.%d.0.1", k), netip.AddrPortFrom(victim, uint16(1000+k)))
		}
		simnet.Sleep(10 * time.Minute)
		require.Zero(t, dialled.count(within), "what a public peer says of our network is not believed")
		hits := dialled.count(func(a netip.Addr) bool { return a == victim })
		require.LessOrEqual(t, hits, 66)
		require.Greater(t, hits, 30, "but it may well be a peer")

		names("10.2.2.2", inward...)
		simnet.Sleep(10 * time.Second)
		require.Zero(t, dialled.count(netip.Addr.IsLoopback), "nor what our neighbours say of this machine")
		require.Equal(t, 30, dialled.count(within), "that there is a host beside them is")
	})
}

// Peers that hang up on encryption are dialled twice, and both dials count.
func TestDialsOfBothKindsArePaced(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, blockSize, 100*blockSize)
		us := n.NewHost("80.0.0.1", 0, 0, 0)
		var dialled dialRecord
		c := simClient(t, us, nil)
		c.Encryption = PreferEncryption
		c.NoUTP = true
		c.Dial = dialled.of(us)
		var peers []netip.AddrPort
		for k := range 200 {
			p := simpeer.New("plain", n.NewHost(fmt.Sprintf("81.%d.0.1", k), 1000, 0, 10*time.Millisecond), 6881, content.truth, simpeer.Script{})
			require.NoError(t, p.Arrive())
			t.Cleanup(p.Stop)
			peers = append(peers, p.Addr())
		}
		d, err := content.Start(t.Context(), &Options{Client: c, MaxPeers: 200, Peers: peers, Storage: newSimStorage(content).open})
		require.NoError(t, err)
		simnet.Sleep(20 * time.Second)
		require.Len(t, d.Stats().Peers, 200)
		require.Len(t, dialled.to, 400)
		require.Equal(t, 30, dialled.busiest())
	})
}
