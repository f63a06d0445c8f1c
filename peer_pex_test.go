package torrent

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/wire"
)

func connectedTo(d *Download, a netip.AddrPort) bool {
	for _, p := range d.Stats().Peers {
		if p.Addr == a || p.Incoming && p.Addr.Addr() == a.Addr() {
			return true
		}
	}
	return false
}

func TestPEXBringsLeechersTogether(t *testing.T) {
	for _, private := range []bool{false, true} {
		t.Run(fmt.Sprintf("private %t", private), func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				content := newSimContent(1, 64<<10, 4<<20)
				content.private = private
				third := n.NewHost("80.0.0.1", 50e3, 0, 10*time.Millisecond)
				first, second := n.NewHost("80.0.1.2", 0, 0, 10*time.Millisecond), n.NewHost("80.0.2.3", 0, 0, 10*time.Millisecond)
				simSeed(t, simClient(t, third, nil), content)
				a := simLeech(t, simClient(t, first, nil), content, third.Addr(6881))
				b := simLeech(t, simClient(t, second, nil), content, third.Addr(6881))
				simnet.Sleep(10 * time.Second)
				require.Equal(t, !private, connectedTo(a, second.Addr(6881)))
				require.Equal(t, !private, connectedTo(b, first.Addr(6881)))
			})
		})
	}
}

// pexSpeaker is a connection to a client. It speaks ut_pex, by the number 7, and says where it listens.
type pexSpeaker struct {
	net.Conn
	heard chan wire.PEX
}

func newPEXSpeaker(t *testing.T, h *simnet.Host, content *simContent, to netip.AddrPort) *pexSpeaker {
	conn, err := h.Dial(t.Context(), "tcp", to.String())
	require.NoError(t, err)
	s := &pexSpeaker{conn, make(chan wire.PEX, 100)}
	hello := wire.Handshake{InfoHash: content.infoHash, PeerID: [20]byte(fmt.Appendf(nil, "%20v", h))}
	hello.SetExtended()
	ours := wire.ExtHandshake{M: map[string]int{"ut_pex": 7}, P: 1234}
	_, err = conn.Write(wire.AppendExtended(hello.Append(nil), 0, ours.Append(nil)))
	require.NoError(t, err)
	go func() {
		defer close(s.heard)
		io.ReadFull(conn, make([]byte, wire.HandshakeSize))
		for r := wire.NewReader(conn, 1<<20); ; {
			m, err := r.Next()
			if err != nil {
				return
			}
			if m.ID == wire.Extended && m.ExtID == 7 {
				s.heard <- wire.ParsePEX(m.Payload)
			}
		}
	}()
	return s
}

func (s *pexSpeaker) say(t *testing.T, added ...netip.AddrPort) {
	x := wire.PEX{Added: added}
	_, err := s.Write(wire.AppendExtended(nil, extPEX, x.Append(nil)))
	require.NoError(t, err)
}

// take returns what was heard since it was last called, as the numbers of peers that were added and dropped.
func (s *pexSpeaker) take() (said []string) {
	for len(s.heard) > 0 {
		x := <-s.heard
		said = append(said, fmt.Sprintf("+%d -%d", len(x.Added), len(x.Dropped)))
	}
	return said
}

func TestPEXTellsWhoCameAndWhoLeft(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, 64<<10, 1<<20)
		us := n.NewHost("80.0.0.1", 0, 0, 0)
		simSeed(t, simClient(t, us, nil), content)
		listener := newPEXSpeaker(t, n.NewHost("80.0.0.2", 0, 0, 0), content, us.Addr(6881))
		simnet.Sleep(time.Second)
		require.Empty(t, listener.take(), "there is no peer to name")

		var crowd []*pexSpeaker
		for k := range 60 {
			crowd = append(crowd, newPEXSpeaker(t, n.NewHost(fmt.Sprintf("80.0.1.%d", k+1), 0, 0, 0), content, us.Addr(6881)))
		}
		simnet.Sleep(2 * time.Second)
		require.Equal(t, []string{"+50 -0"}, listener.take())
		simnet.Sleep(50 * time.Second)
		require.Empty(t, listener.take(), "once a minute")
		simnet.Sleep(10 * time.Second)
		require.Equal(t, []string{"+10 -0"}, listener.take())

		for _, s := range crowd {
			s.Close()
		}
		listener.Write(wire.AppendKeepAlive(nil))
		simnet.Sleep(2*time.Minute + 2*time.Second)
		require.Equal(t, []string{"+0 -50", "+0 -10"}, listener.take())
		listener.Write(wire.AppendKeepAlive(nil))
		simnet.Sleep(2 * time.Minute)
		require.Empty(t, listener.take(), "no news")
	})
}

func TestPEXReceived(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, 64<<10, 1<<20)
		us := n.NewHost("80.0.0.1", 0, 0, 0)
		d := simLeech(t, simClient(t, us, nil), content)
		simnet.Sleep(time.Second)
		s := newPEXSpeaker(t, n.NewHost("80.0.0.2", 0, 0, 0), content, us.Addr(6881))
		simnet.Sleep(time.Second)
		require.Equal(t, 1, d.Stats().Known)
		several := func(n byte, port uint16) (addrs []netip.AddrPort) {
			for k := range n {
				addrs = append(addrs, netip.AddrPortFrom(netip.AddrFrom4([4]byte{81, byte(port), 0, k + 1}), port))
			}
			return addrs
		}
		s.say(t, several(150, 1)...)
		simnet.Sleep(time.Second)
		require.Equal(t, 101, d.Stats().Known, "what is over a hundred is cut")
		s.say(t, several(10, 2)...)
		simnet.Sleep(10 * time.Second)
		require.Equal(t, 101, d.Stats().Known, "too soon")
		s.say(t, netip.MustParseAddrPort("82.0.0.1:0"), netip.MustParseAddrPort("224.0.0.1:1"), netip.MustParseAddrPort("82.0.0.1:1"),
			netip.MustParseAddrPort("82.0.0.1:2"), netip.MustParseAddrPort("82.0.0.2:2"))
		simnet.Sleep(time.Second)
		require.Equal(t, 103, d.Stats().Known, "a public address counts once")
		require.Len(t, d.Stats().Peers, 1)
		for range 11 {
			s.say(t)
		}
		simnet.Sleep(time.Second)
		require.Empty(t, d.Stats().Peers, "a flood ends the connection")
	})
}
