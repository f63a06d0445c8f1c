package torrent

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/netaddr"
	"github.com/shoal-go/torrent/internal/outbox"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simtracker"
	"github.com/shoal-go/torrent/internal/wire"
)

// lastHello returns the last extension handshake that was heard since it was last called.
func (s *speaker) lastHello() (h wire.ExtHandshake, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok = s.hello, s.helloed
	s.helloed = false
	return h, ok
}

// leechAndSpeaker are a client at 80.0.0.1 that downloads content, and a connection to it from 80.0.0.2 that speaks the
// extension protocol.
func leechAndSpeaker(t *testing.T, n *simnet.Network, content *simContent) (*Download, *speaker) {
	us, them := n.NewHost("80.0.0.1", 0, 0, 0), n.NewHost("80.0.0.2", 0, 0, 0)
	d := simLeech(t, simClient(t, us, nil), content)
	simnet.Sleep(time.Second)
	return d, speak(t, them, content, us.Addr(6881), speech{fast: true, extended: true})
}

// firstFile selects the first file alone.
func firstFile(f File) Priority {
	if f.Index == 0 {
		return Normal
	}
	return Skip
}

func TestExtensionHandshake(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, blockSize, 600*blockSize)
		d, s := leechAndSpeaker(t, n, content)
		s.sayID(wire.HaveAll)
		simnet.Sleep(time.Second)
		h, ok := s.lastHello()
		require.True(t, ok)
		require.Equal(t, clientName, h.V)
		require.Equal(t, outbox.MaxQueued, h.ReqQ)
		require.Equal(t, 6881, h.P)
		require.Equal(t, []byte{80, 0, 0, 2}, h.YourIP)
		require.False(t, *h.UploadOnly)
		require.Equal(t, map[string]int{"ut_pex": extPEX, "ut_metadata": extMetadata, "lt_donthave": extDontHave}, h.M, "without uTP there is no hole punching")

		s.sayHello(wire.ExtHandshake{V: "X \x1b[1m1", ReqQ: 3, P: 77, YourIP: []byte{80, 0, 0, 9}})
		s.sayID(wire.Unchoke)
		simnet.Sleep(time.Second)
		require.Len(t, s.requests(), 3, "as many as it takes")
		p := d.Stats().Peers[0]
		require.Equal(t, "X  [1m1", p.Client, "fit for a terminal")
		require.Equal(t, 1, d.Stats().Known, "where it listens")
		d.mu.Lock()
		require.True(t, d.discovery.candidates.Has(netip.MustParseAddrPort("80.0.0.2:77")))
		require.False(t, d.discovery.candidates.External(netaddr.IPv4).IsValid(), "one peer is not believed")
		d.mu.Unlock()
	})
}

// A seed whose extended messages cannot be read is still a seed.
func TestMalformedExtensionMessages(t *testing.T) {
	for _, payload := range []string{
		"", "d", "le", "garbage", "d1:md11:ut_metadatai3e6:ut_p", "d1:pi077e1:v1:x4:reqqi3ee", "d1:v1:a1:v1:x4:reqqi3ee",
		"d13:metadata_sizei99999999999999999999e4:reqqi3e1:v1:xe",
	} {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			content := newSimContent(1, blockSize, 600*blockSize)
			d, s := leechAndSpeaker(t, n, content)
			s.sayID(wire.HaveAll)
			for ext := range byte(numExtensions) {
				if ext != extDontHave { // whose payload is no dictionary
					s.say(wire.AppendExtended(nil, ext, []byte(payload)))
				}
			}
			s.sayID(wire.Unchoke)
			simnet.Sleep(time.Second)
			require.False(t, s.hungUp(), "%q", payload)
			if strings.Contains(payload, "reqqi3e") {
				require.Len(t, s.requests(), 3, "%q: as many as it takes", payload)
				require.Equal(t, "x", d.Stats().Peers[0].Client, "%q", payload)
			} else {
				require.NotEmpty(t, s.requests(), "%q", payload)
			}
		})
	}
}

// A peer that names one port after another fills only its own place in the list.
func TestListeningPortIsTakenOnce(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, blockSize, 4*blockSize)
		d, s := leechAndSpeaker(t, n, content)
		s.sayID(wire.HaveNone)
		for port := range 5000 {
			s.sayHello(wire.ExtHandshake{P: port + 1})
		}
		simnet.Sleep(10 * time.Second)
		require.Equal(t, 1, d.Stats().Known)
	})
}

// A peer that asks for all of a long info dictionary at once gets what there is room for, and the rest when it asks
// again.
func TestMetadataAskedForAtOnce(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimResolvable(t, 250_000, false)
		us, them := n.NewHost("80.0.0.1", 1e6, 0, 0), n.NewHost("80.0.0.2", 0, 0, 0)
		simLeech(t, simClient(t, us, nil), content) // which has it as well, and no content to check
		simnet.Sleep(time.Second)
		s := speak(t, them, content, us.Addr(6881), speech{fast: true, extended: true})
		s.sayID(wire.HaveNone)
		s.sayHello(wire.ExtHandshake{M: map[string]int{"ut_metadata": 9}})
		var missing []int
		for i := range (len(content.info) + wire.MetadataBlock - 1) / wire.MetadataBlock {
			missing = append(missing, i)
		}
		for rounds := 0; len(missing) > 0; rounds++ {
			require.Less(t, rounds, 20, "%d missing", len(missing))
			for _, i := range missing {
				m := wire.MetadataMessage{Type: wire.MetadataRequest, Piece: i}
				s.say(wire.AppendExtended(nil, extMetadata, m.Append(nil)))
			}
			simnet.Sleep(5 * time.Second)
			require.False(t, s.hungUp())
			for _, w := range s.take() {
				var i int
				if n, _ := fmt.Sscanf(w, `extended 9 "d8:msg_typei1e5:piecei%d`, &i); n == 1 {
					missing = slices.DeleteFunc(missing, func(k int) bool { return k == i })
				}
			}
		}
	})
}

// A peer may say that it lost a piece, and hears of those that we lose (BEP 54).
func TestDontHave(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, blockSize, 2*blockSize)
		d, s := leechAndSpeaker(t, n, content)
		s.say(wire.AppendAllowedFast(wire.AppendSimple(nil, wire.HaveAll), 1))
		simnet.Sleep(time.Second)
		require.Equal(t, []string{"request 1/0"}, s.requests())
		s.say(wire.AppendDontHave(nil, extDontHave, 1))
		simnet.Sleep(time.Second)
		require.Equal(t, 1, d.Stats().Peers[0].Pieces)
		require.Zero(t, d.Stats().Peers[0].Requests, "what was asked of it may be asked of others")
		s.take()
		s.say(wire.AppendDontHave(nil, extDontHave, 0))
		simnet.Sleep(time.Second)
		require.Equal(t, []string{"not interested"}, s.take())
		s.say(wire.AppendHave(nil, 1))
		simnet.Sleep(time.Second)
		require.Equal(t, []string{"interested", "request 1/0"}, s.take(), "it has it again")
		s.say(wire.AppendDontHave(nil, extDontHave, 2))
		simnet.Sleep(time.Second)
		require.True(t, s.hungUp(), "there is no such piece")
	})
}

// A client that has all that it wants, but not everything, is a partial seed (BEP 21).
func TestPartialSeed(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		const half = 8 * blockSize
		content := newSimContent(1, blockSize, half, half)
		content.trackers = [][]string{{"http://tracker.sim/announce"}}
		tracker := simtracker.New(1)
		tracker.Interval = 5 * time.Minute
		us, them, other := n.NewHost("80.0.0.1", 0, 0, 0), n.NewHost("80.0.0.2", 0, 0, 0), n.NewHost("80.0.0.3", blockSize, 0, 0)
		simSeed(t, simClient(t, other, simtracker.New(2)), content)
		tracker.Add(other.Addr(6881))
		d, err := content.Start(t.Context(), &Options{Client: simClient(t, us, tracker), Seed: true, Select: firstFile, Storage: newSimStorage(content).open})
		require.NoError(t, err)
		simnet.Sleep(time.Second)
		s := speak(t, them, content, us.Addr(6881), speech{fast: true, extended: true})
		s.sayID(wire.HaveNone)
		simnet.Sleep(time.Second)
		h, ok := s.lastHello()
		require.True(t, ok && !*h.UploadOnly)
		simnet.Sleep(time.Minute)
		require.True(t, d.Stats().Complete)
		h, ok = s.lastHello()
		require.True(t, ok && *h.UploadOnly, "it is said once it is so")
		late := speak(t, them, content, us.Addr(6881), speech{fast: true, extended: true})
		simnet.Sleep(time.Second)
		h, ok = late.lastHello()
		require.True(t, ok && *h.UploadOnly, "and at once to one that comes later")
		require.Len(t, d.Stats().Peers, 2, "the seed has nothing more for us")
		late.sayHello(wire.ExtHandshake{UploadOnly: new(true)})
		simnet.Sleep(time.Second)
		require.True(t, late.hungUp(), "neither side wants anything")

		tracker.Forget()
		simnet.Sleep(20 * time.Minute)
		for _, a := range tracker.Announces() {
			require.Equal(t, "paused", a.Event)
		}
		require.NotEmpty(t, tracker.Announces())

		tracker.Remove(other.Addr(6881)) // so that the tracker does not name it
		s = speak(t, them, content, us.Addr(6881), speech{fast: true, extended: true})
		simnet.Sleep(time.Second)
		d.Select(nil)
		simnet.Sleep(time.Second)
		h, ok = s.lastHello()
		require.True(t, ok && !*h.UploadOnly, "now we want something")
		simnet.Sleep(15 * time.Second)
		require.True(t, d.Stats().Complete, "of the seed that had nothing more for us")
		require.EqualValues(t, 2*half, d.Stats().Verified)
	})
}

// A partial seed without connections looks for peers as soon as more is chosen. It does not wait for its next announce.
func TestWiderChoiceAsksTrackers(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		const half = 8 * blockSize
		content := newSimContent(1, blockSize, half, half)
		content.trackers = [][]string{{"http://tracker.sim/announce"}}
		tracker := simtracker.New(1)
		us, early, late := n.NewHost("80.0.0.1", 0, 0, 0), n.NewHost("80.0.0.2", 0, 0, 0), n.NewHost("80.0.0.3", 0, 0, 0)
		seed := simClient(t, early, simtracker.New(2))
		simSeed(t, seed, content)
		tracker.Add(early.Addr(6881))
		d, err := content.Start(t.Context(), &Options{Client: simClient(t, us, tracker), Seed: true, Select: firstFile, Storage: newSimStorage(content).open})
		require.NoError(t, err)
		simnet.Sleep(10 * time.Second)
		require.True(t, d.Stats().Complete)

		seed.Close()
		simSeed(t, simClient(t, late, simtracker.New(2)), content)
		tracker.Remove(early.Addr(6881))
		tracker.Add(late.Addr(6881))
		simnet.Sleep(5 * time.Minute)
		d.Select(nil)
		simnet.Sleep(10 * time.Second)
		require.True(t, d.Stats().Complete)
	})
}

// A partial seed drops a peer that wants nothing, until the peer wants something.
func TestUploadOnlyTakenBack(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, blockSize, 4*blockSize)
		us, them, other := n.NewHost("80.0.0.1", 0, 0, 0), n.NewHost("80.0.0.2", 0, 0, 0), n.NewHost("80.0.0.3", 0, 0, 0)
		d := simLeech(t, simClient(t, us, nil), content)
		simnet.Sleep(time.Second)
		var fickle, firm *speaker
		for _, s := range []**speaker{&fickle, &firm} {
			*s = speak(t, them, content, us.Addr(6881), speech{fast: true, extended: true})
			(*s).sayID(wire.HaveNone)
			(*s).sayHello(wire.ExtHandshake{UploadOnly: new(true)})
		}
		simnet.Sleep(time.Second)
		fickle.sayHello(wire.ExtHandshake{UploadOnly: new(false)})
		firm.sayHello(wire.ExtHandshake{V: "X"})
		simnet.Sleep(time.Second)
		simSeed(t, simClient(t, other, nil), content, us.Addr(6881))
		simnet.Sleep(10 * time.Second)
		require.True(t, d.Stats().Complete)
		require.False(t, fickle.hungUp())
		require.True(t, firm.hungUp())
	})
}

// requests returns the requests that were heard since it was last called.
func (s *speaker) requests() (asked []string) {
	for _, w := range s.take() {
		var piece, block int
		if n, _ := fmt.Sscanf(w, "request %d/%d", &piece, &block); n == 2 {
			asked = append(asked, w)
		}
	}
	return asked
}

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

// Peers report the external address of the client, which decides whom it dials first. Five of different networks are believed,
// fewer are not. To sort thousands of candidates again for each address that peers agree on would cost too much.
func TestExternalAddressChangesSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := crowded(t, plainTorrent(10), 0)
		told := func(network, says int) netip.AddrPort {
			hello := wire.ExtHandshake{YourIP: []byte{9, 9, 9, byte(says)}}
			defer join(t, d, network, wire.AppendExtended(wire.AppendSimple(nil, wire.HaveNone), 0, hello.Append(nil))).leave()
			synctest.Wait()
			d.mu.Lock()
			defer d.mu.Unlock()
			return d.discovery.candidates.External(netaddr.IPv4)
		}
		for network := range 4 {
			require.False(t, told(network, 1).IsValid())
		}
		require.False(t, told(3, 1).IsValid(), "it has said so before")
		first := told(4, 1)
		require.Equal(t, "9.9.9.1:0", first.String())
		for network := range 5 {
			require.Equal(t, first, told(network, 2), "too soon")
		}
		time.Sleep(time.Second)
		require.Equal(t, "9.9.9.2:0", told(1, 2).String())
	})
}
