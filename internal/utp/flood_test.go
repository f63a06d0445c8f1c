package utp_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/utp"
)

// nowhere is a network on which all packets are lost.
type nowhere struct{}

func (nowhere) Send(p []byte, _ int, _ netip.AddrPort) (int, error) { return len(p), nil }
func (nowhere) Probe([]byte, netip.AddrPort) error                  { return nil }
func (nowhere) Addrs() []netip.AddrPort                             { return nil }

// synFlood returns a function that has a socket receive SYNs from addresses of all networks. The socket holds as many unconfirmed
// connections as it may.
func synFlood(t testing.TB, unconfirmed int) (flood func(syns int)) {
	s := utp.NewSocket(utp.Config{Network: nowhere{}, Unconfirmed: unconfirmed})
	t.Cleanup(func() { s.Close() })
	_, err := s.Listen()
	require.NoError(t, err)
	next := uint32(0)
	flood = func(syns int) {
		for range syns {
			next += 0x9e3779b9 // in no order, and the same again only after all others
			from := netip.AddrFrom4([4]byte{byte(next >> 24), byte(next >> 16), byte(next >> 8), byte(next)})
			s.Receive(synPacket(1, 1), 20, netip.AddrPortFrom(from, 1))
			s.Flush()
		}
	}
	flood(unconfirmed)
	return flood
}

// A SYN for which another connection makes room costs about as much however many there are.
func TestSynsCostLittle(t *testing.T) {
	least := func(unconfirmed int) time.Duration {
		flood := synFlood(t, unconfirmed)
		least := time.Hour
		for range 10 {
			began := time.Now()
			flood(100)
			least = min(least, time.Since(began))
		}
		return least
	}
	few, many := least(100), least(10_000)
	require.Less(t, many, 20*few)
}

func BenchmarkSyn(b *testing.B) {
	flood := synFlood(b, 1000)
	for b.Loop() {
		flood(1)
	}
}
