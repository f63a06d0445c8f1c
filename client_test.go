package torrent

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/shoal-go/torrent/internal/storage"
	"github.com/shoal-go/torrent/internal/wire"
	"github.com/stretchr/testify/require"
)

// A client that has all the peers it may have looks for another once a second. If it looked all the time, the
// virtual clock would stand still here.
func TestClientMaxPeers(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, 64<<10, 1<<20)
		var peers []*simpeer.Peer
		var addrs []netip.AddrPort
		for k := range 5 {
			p := simpeer.New("silent", n.NewHost(fmt.Sprintf("80.0.%d.1", k), 0, 0, 0), 6881, content.truth, simpeer.Script{Never: simpeer.Unchokes})
			require.NoError(t, p.Arrive())
			defer p.Stop()
			peers, addrs = append(peers, p), append(addrs, p.Addr())
		}
		client := simClient(t, n.NewHost("81.0.0.1", 0, 0, 0), nil)
		client.MaxPeers = 2
		d := simLeech(t, client, content, addrs...)
		simnet.Sleep(10 * time.Second)
		require.Len(t, d.Stats().Peers, 2)
		for _, p := range peers {
			if connectedTo(d, p.Addr()) {
				p.Depart()
			}
		}
		simnet.Sleep(3 * time.Second)
		require.Len(t, d.Stats().Peers, 2, "others take their place")
	})
}

// A client may be closed, and asked for its downloads, while another goroutine is about to start one.
func TestClientClosedDuringStart(t *testing.T) {
	tor, _ := testContent(blockSize, 3*blockSize)
	c := &Client{NoDHT: true, NoUTP: true, NoListen: true}
	closed := make(chan error)
	_, err := tor.Start(t.Context(), &Options{Client: c, Storage: func(t *Torrent) (Storage, error) {
		for d := range c.Downloads() {
			d.Stats()
		}
		go func() { closed <- c.Close() }()
		<-closed
		return storage.NewMemory(t.content(), 1<<20), nil
	}})
	require.ErrorIs(t, err, ErrClosed)
	require.Empty(t, c.registry.downloads)
}

// A client that is told its own address dials it once, and never again.
func TestOwnAddressIsCalledOnce(t *testing.T) {
	for _, policy := range []EncryptionPolicy{PreferEncryption, RequireEncryption, DisableEncryption} {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			content := newSimContent(1, 16<<10, 256<<10)
			us := n.NewHost("80.0.0.1", 0, 0, 0)
			c := simClient(t, us, nil)
			c.Encryption = policy
			calls := 0
			c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				calls++
				return us.Dial(ctx, network, addr)
			}
			simLeech(t, c, content, netip.MustParseAddrPort("80.0.0.1:6881"))
			simnet.Sleep(10 * time.Minute)
			require.Equal(t, 1, calls, policy)
		})
	}
}

// What a client shows in one swarm does not identify it in another, and it does not answer for torrents that it
// does not have.
func TestIdentityIsOfOneTorrent(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		us, other := n.NewHost("80.0.0.1", 0, 0, 0), n.NewHost("80.0.0.2", 0, 0, 0)
		one, two, none := newSimContent(1, 16<<10, 64<<10), newSimContent(2, 16<<10, 64<<10), newSimContent(3, 16<<10, 64<<10)
		c := simClient(t, us, nil)
		first := simSeed(t, c, one)
		simSeed(t, c, two)

		// answer returns what the client sends back to a handshake for an info hash.
		answer := func(h Hash, id [20]byte) []byte {
			conn, err := other.Dial(t.Context(), "tcp", "80.0.0.1:6881")
			require.NoError(t, err)
			defer conn.Close()
			conn.Write((&wire.Handshake{InfoHash: h, PeerID: id}).Append(nil))
			conn.SetReadDeadline(time.Now().Add(2 * handshakeTimeout))
			b := make([]byte, wire.HandshakeSize)
			k, _ := io.ReadFull(conn, b)
			return b[:k]
		}
		id := func(h Hash) [20]byte {
			theirs, err := wire.ParseHandshake(answer(h, [20]byte{1}))
			require.NoError(t, err)
			return theirs.PeerID
		}
		seen := id(one.infoHash)
		require.Equal(t, peerIDPrefix, string(seen[:len(peerIDPrefix)]))
		require.NotEqual(t, seen, id(two.infoHash))
		require.Equal(t, c.identity(one.infoHash).id, seen, "as trackers are told")
		require.NotEqual(t, c.identity(one.infoHash).key, c.identity(two.infoHash).key)
		require.Empty(t, answer(none.infoHash, [20]byte{1}))
		require.Empty(t, answer(none.infoHash, seen), "not even to a peer with our own id")

		require.NoError(t, first.Close())
		simSeed(t, c, one)
		require.Equal(t, seen, id(one.infoHash), "in one run a torrent keeps its own")
		next := &Client{NoDHT: true, NoUTP: true, NoListen: true}
		require.NoError(t, next.Open())
		defer next.Close()
		require.NotEqual(t, seen, next.identity(one.infoHash).id, "and another run has another")
	})
}

// UDP uses the number of the TCP port. Its sockets are opened when something is sent.
func TestPacketsShareThePort(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		us, them := n.NewHost("80.0.0.1", 0, 0, 0), n.NewHost("80.0.0.2", 0, 0, 0)
		c := simClient(t, us, nil)
		require.NoError(t, c.Open())
		require.Empty(t, c.mux.Addrs())
		require.NoError(t, c.sendPacket([]byte("packet"), them.Addr(1)))
		require.Equal(t, c.port(), c.mux.Addrs()[0].Port())
	})
}

// Another program may have the number of the TCP port for UDP.
func TestPacketsWherePortIsTaken(t *testing.T) {
	taken, err := net.ListenPacket("udp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	c := &Client{NoDHT: true, NoUTP: true, Listen: taken.LocalAddr().String()}
	defer c.Close()
	require.NoError(t, c.Open())
	require.NoError(t, c.sendPacket([]byte("packet"), netip.MustParseAddrPort(taken.LocalAddr().String())))
	require.NotZero(t, c.mux.Addrs()[0].Port())
}

// A client whose connections all go through the user's Dial sends no packet beside it.
func TestNoPacketsBesideDial(t *testing.T) {
	c := &Client{NoDHT: true, NoUTP: true, NoListen: true, Dial: new(net.Dialer).DialContext}
	defer c.Close()
	require.NoError(t, c.Open())
	require.ErrorIs(t, c.sendPacket([]byte("packet"), netip.MustParseAddrPort("127.0.0.1:1")), ErrUnsupported)
	require.Empty(t, c.mux.Addrs())
}

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
