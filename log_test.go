package torrent

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/wire"
)

// askingHandler asks each download of a client for its Stats whenever something is logged.
type askingHandler struct {
	client *Client
	said   chan string
}

func (h *askingHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h *askingHandler) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h *askingHandler) WithGroup(string) slog.Handler            { return h }

func (h *askingHandler) Handle(_ context.Context, r slog.Record) error {
	for d := range h.client.Downloads() {
		d.Stats()
	}
	h.said <- r.Message
	return nil
}

func TestLoggerMayAskForStats(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, blockSize, 10*blockSize)
		us, them, liar := n.NewHost("80.0.0.1", 0, 0, 0), n.NewHost("80.0.0.2", 0, 0, 0), n.NewHost("80.0.0.3", 0, 0, 0)
		client := simClient(t, us, nil)
		asks := &askingHandler{client, make(chan string, 1000)}
		client.Logger = slog.New(asks)
		d := simLeech(t, client, content)
		simnet.Sleep(time.Second)

		s := speak(t, liar, content, us.Addr(6881), speech{})
		s.say(wire.AppendBitfield(nil, []byte{0xFF, 0xC0}))
		s.sayID(wire.Unchoke)
		simnet.Sleep(time.Second)
		s.say(append(wire.AppendPieceHeader(nil, 0, 0, blockSize), make([]byte, blockSize)...))
		simnet.Sleep(time.Second)
		simSeed(t, simClient(t, them, nil), content, us.Addr(6881))
		<-d.Done()
		require.NoError(t, client.Close())
		close(asks.said)
		var said []string
		for message := range asks.said {
			said = append(said, message)
		}
		require.Subset(t, said, []string{"examined", "connected", "banned", "disconnected", "complete"})
	})
}
