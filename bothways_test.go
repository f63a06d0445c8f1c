package torrent

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/stretchr/testify/require"
)

// Two ends that upload to each other as much as the link takes, with hardly any buffer in between: if
// either read only when it has nothing to write, both would wait for ever.
func TestUploadingNeverBlocksReceiving(t *testing.T) {
	for _, policy := range []EncryptionPolicy{DisableEncryption, RequireEncryption} {
		t.Run(fmt.Sprintf("encryption %d", policy), func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				content := newSimContent(1, 64<<10, 16<<20)
				one, two := n.NewHost("80.0.0.1", 1<<20, 0, 5*time.Millisecond), n.NewHost("80.0.0.2", 1<<20, 0, 5*time.Millisecond)
				var all []*Download
				for k, h := range []*simnet.Host{one, two} {
					h.Buffer = 32 << 10
					c := simClient(t, h, nil)
					c.Encryption = policy
					st := newSimStorage(content)
					for i := range st.written.Len() / 2 {
						st.written.Add(k*st.written.Len()/2 + i)
					}
					d, err := content.Start(t.Context(), &Options{
						Client: c, Seed: true, Storage: st.open, Peers: []netip.AddrPort{one.Addr(6881), two.Addr(6881)},
					})
					require.NoError(t, err)
					all = append(all, d)
				}
				began := time.Now()
				for _, d := range all {
					<-d.Done()
				}
				took := time.Since(began)
				t.Log(took)
				// 8 MiB each way at 1 MiB/s; that there is hardly a buffer costs some of that.
				require.Less(t, took, 12*time.Second)
			})
		})
	}
}

// A peer that takes slowly what we send does not slow what it sends to us.
func TestSlowTakerDoesNotSlowReceiving(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, 64<<10, 16<<20)
		us, them := n.NewHost("80.0.0.1", 0, 0, 5*time.Millisecond), n.NewHost("80.0.0.2", 2<<20, 64<<10, 5*time.Millisecond)
		st, other := newSimStorage(content), newSimStorage(content)
		for i := range st.written.Len() / 2 {
			st.written.Add(i)
			other.written.Add(st.written.Len()/2 + i)
		}
		_, err := content.Start(t.Context(), &Options{Client: simClient(t, them, nil), Seed: true, Storage: other.open})
		require.NoError(t, err)
		d, err := content.Start(t.Context(), &Options{Client: simClient(t, us, nil), Seed: true, Storage: st.open, Peers: []netip.AddrPort{them.Addr(6881)}})
		require.NoError(t, err)
		began := time.Now()
		<-d.Done()
		t.Log(time.Since(began))
		require.Less(t, time.Since(began), 8*time.Second, "8 MiB at 2 MiB/s, and what our requests wait for")
	})
}
