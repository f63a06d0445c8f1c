package torrent

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/portmap"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simtracker"
)

// natpmpRouter answers NAT-PMP (RFC 6886) on a host, grants one external port, and returns how many mappings it holds.
func natpmpRouter(t *testing.T, h *simnet.Host, external netip.Addr, port uint16) (held func() int) {
	conn, err := h.ListenPacket("udp4", ":5351")
	require.NoError(t, err)
	booted := time.Now()
	var mu sync.Mutex
	granted := make(map[byte]bool)
	go func() {
		p := make([]byte, 100)
		for {
			n, from, err := conn.ReadFrom(p)
			if err != nil {
				return
			}
			be := binary.BigEndian
			seconds := uint32(time.Since(booted) / time.Second)
			if n < 2 || p[0] != 0 { // it does not know PCP
				conn.WriteTo(be.AppendUint32([]byte{0, 128, 0, 1}, seconds), from)
				continue
			}
			answer := be.AppendUint32([]byte{0, p[1] | 128, 0, 0}, seconds)
			if p[1] == 0 {
				answer = append(answer, external.AsSlice()...)
			} else {
				life := be.Uint32(p[8:])
				mu.Lock()
				if granted[p[1]] = life > 0; life == 0 {
					delete(granted, p[1])
				}
				mu.Unlock()
				answer = append(answer, p[4:6]...)
				answer = be.AppendUint32(be.AppendUint16(answer, port), life)
			}
			conn.WriteTo(answer, from)
		}
	}()
	t.Cleanup(func() { conn.Close() })
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(granted)
	}
}

// The port that a router opens is the one that trackers, the DHT and peers are told of.
func TestMapPorts(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		us, gateway := n.NewHost("90.0.0.2", 0, 0, 0), n.NewHost("90.0.0.1", 0, 0, 0)
		held := natpmpRouter(t, gateway, netip.MustParseAddr("80.0.0.1"), 7000)
		router := dhtNetwork(t, n, 5)
		content := newSimContent(1, 16<<10, 64<<10)
		content.trackers = [][]string{{"http://tracker.sim/announce"}}
		tracker := simtracker.New(1)
		c := dhtClient(t, us, router)
		c.HTTPClient = tracker.Client(us)
		c.MapPorts, c.NoUTP = true, false
		c.hooks.gateways = func() ([]portmap.Gateway, error) {
			return []portmap.Gateway{{Router: gateway.IP(), Local: us.IP()}}, nil
		}
		simSeed(t, c, content)
		simnet.Sleep(6 * time.Minute) // a tracker is not asked again before that
		st := c.Stats()
		require.NoError(t, st.PortMapErr)
		require.Equal(t, []PortMapping{{
			Protocol: "NAT-PMP", Router: gateway.IP(), External: netip.MustParseAddr("80.0.0.1"), TCP: 7000, UDP: 7000,
		}}, st.PortMappings)
		require.Equal(t, 2, held())
		said := tracker.Announces()
		require.EqualValues(t, 7000, said[len(said)-1].From.Port())
		require.EqualValues(t, 6881, c.port())

		var found []netip.AddrPort
		asker := dhtClient(t, n.NewHost("80.0.9.9", 0, 0, 0), router)
		asker.DHT()
		simnet.Sleep(time.Minute)
		for a, err := range asker.DHT().Peers(t.Context(), content.infoHash) {
			require.NoError(t, err)
			found = append(found, a)
		}
		require.Contains(t, found, netip.AddrPortFrom(us.IP(), 7000))
		require.NoError(t, c.Close())
		require.Zero(t, held(), "nothing stays open")
	})
}

// A client whose connections all go through a function of the user's asks no router beside it, and says so.
func TestMapPortsBesideDial(t *testing.T) {
	c := &Client{NoDHT: true, Listen: "127.0.0.1:0", MapPorts: true, Dial: new(net.Dialer).DialContext}
	defer c.Close()
	c.hooks.gateways = func() ([]portmap.Gateway, error) {
		t.Error("looked for a router")
		return nil, errors.New("no")
	}
	require.NoError(t, c.Open())
	require.ErrorIs(t, c.Stats().PortMapErr, ErrUnsupported)
}
