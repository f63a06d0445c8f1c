package torrent

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/wire"
)

func (s *metadataSpeaker) floodOver(conn net.Conn) {
	for range 3000 {
		if _, err := conn.Write(s.flood); err != nil {
			return
		}
		s.mu.Lock()
		s.flooded++
		s.mu.Unlock()
	}
}

// A peer that floods a resolver with messages is read later.
func TestResolverIsFlooded(t *testing.T) {
	for name, flood := range map[string][]byte{
		"handshakes": wire.AppendExtended(nil, 0, fmt.Appendf(nil, "d1:v8000:%8000de", 0)),
		"requests":   wire.AppendExtended(nil, extMetadata, fmt.Appendf(nil, "d8:msg_typei0e5:piecei0e1:v8000:%8000de", 0)),
		"unknown":    wire.AppendExtended(nil, 99, make([]byte, 8000)),
	} {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			content := newSimResolvable(t, 100, false)
			flooder := speakMetadata(t, n.NewHost("81.0.0.1", 0, 0, 0), content, metadataScript{flood: flood, silent: func(int) bool { return true }})
			honest := speakMetadata(t, n.NewHost("81.0.1.1", 0, 0, 0), content, metadataScript{sizeAfter: 12 * time.Second})
			m := content.Magnet()
			c := simClient(t, n.NewHost("80.0.0.1", 0, 0, 0), nil)
			began := time.Now()
			_, err := m.Resolve(t.Context(), &Options{Client: c, Peers: []netip.AddrPort{flooder.addr(), honest.addr()}})
			require.NoError(t, err, name)
			require.Less(t, time.Since(began), 20*time.Second, name)
			flooder.mu.Lock()
			defer flooder.mu.Unlock()
			t.Logf("%s: %d", name, flooder.flooded)
			require.Less(t, flooder.flooded, 2000, "%s: what may be read is 8 MB, and a connection holds 4", name)
		})
	}
}
