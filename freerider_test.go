package torrent

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/wire"
)

// A free rider that calls again is known, though not at another address.
func TestFreeRiderCallsAgain(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, blockSize, 512*blockSize)
		us := n.NewHost("80.0.0.1", 0, 0, 0)
		store := newSimStorage(content)
		for i := range uint32(256) {
			store.written.Add(int(i))
		}
		_, err := content.Start(t.Context(), &Options{Client: simClient(t, us, nil), Storage: store.open})
		require.NoError(t, err)
		simnet.Sleep(time.Second)
		for k, want := range []bool{true, false, false, true} {
			s := speak(t, n.NewHost(fmt.Sprintf("81.0.0.%d", k/3), 0, 0, 0), content, us.Addr(6881), speech{fast: true})
			s.sayID(wire.HaveNone)
			s.say(wire.AppendHave(nil, 300)) // which we lack, and will not get
			s.sayID(wire.Interested)
			simnet.Sleep(20 * time.Second)
			require.Equal(t, want, slices.Contains(s.take(), "unchoke"), "call %d", k)
			for i := range uint32(200) {
				s.ask(i)
			}
			simnet.Sleep(20 * time.Second)
			require.Equal(t, want, slices.Contains(s.take(), "choke"), "call %d", k)
			s.Close()
			simnet.Sleep(time.Second)
		}
	})
}
