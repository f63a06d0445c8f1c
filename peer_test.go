package torrent

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/mse"
	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/wire"
)

// speaker is a connection to a client on which a test says every message itself and hears them one by one.
type speaker struct {
	*simnet.Conn
	t       *testing.T
	content *simContent

	mu   sync.Mutex
	said []string // what the client said since take
	over bool     // the connection has ended

	hello   wire.ExtHandshake // the last extension handshake that came
	helloed bool              // whether one came since lastHello
}

// speech is which extensions a speaker claims, and whether it reads what it is sent.
type speech struct {
	fast, extended bool
	deaf           bool
	id             [20]byte // its peer id; zero is one that its address makes
}

// speak connects to a client and shakes hands.
func speak(t *testing.T, h *simnet.Host, content *simContent, to netip.AddrPort, can speech) *speaker {
	conn, err := h.Dial(t.Context(), "tcp", to.String())
	require.NoError(t, err)
	s := &speaker{Conn: conn.(*simnet.Conn), t: t, content: content}
	hello := wire.Handshake{InfoHash: content.infoHash, PeerID: [20]byte(fmt.Appendf(nil, "%20v", s.LocalAddr()))}
	if can.id != [20]byte{} {
		hello.PeerID = can.id
	}
	if can.fast {
		hello.SetFast()
	}
	if can.extended {
		hello.SetExtended()
	}
	s.say(hello.Append(nil))
	if !can.deaf {
		go s.listen()
	}
	return s
}

// say sends bytes. It ignores that the other end may have closed.
func (s *speaker) say(b []byte) { s.Write(b) }

func (s *speaker) sayID(id wire.ID) { s.say(wire.AppendSimple(nil, id)) }

// ask requests the first block of each piece, as often as the piece is named.
func (s *speaker) ask(pieces ...uint32) {
	var b []byte
	for _, i := range pieces {
		b = wire.AppendRequest(b, i, 0, blockSize)
	}
	s.say(b)
}

// sayHello sends an extension handshake.
func (s *speaker) sayHello(h wire.ExtHandshake) { s.say(wire.AppendExtended(nil, 0, h.Append(nil))) }

func (s *speaker) listen() {
	defer s.end()
	if _, err := io.ReadFull(s, make([]byte, wire.HandshakeSize)); err != nil {
		return
	}
	block := make([]byte, wire.MaxBlock)
	for r := wire.NewReader(s, 1<<20); ; {
		m, err := r.Next()
		if err != nil {
			return
		}
		if m.ID == wire.Piece {
			if r.ReadBlock(block[:m.Length]) != nil {
				return
			}
			require.Equal(s.t, s.content.truth.Block(m.Index, m.Begin, m.Length), block[:m.Length])
		}
		s.mu.Lock()
		if m.ID == wire.Extended && m.ExtID == 0 {
			s.hello = wire.ParseExtHandshake(m.Payload)
			s.helloed = true
		}
		s.said = append(s.said, s.words(m))
		s.mu.Unlock()
	}
}

// pause waits for d. It returns false if the test has ended.
func (s *speaker) pause(d time.Duration) bool {
	select {
	case <-s.t.Context().Done():
		return false
	case <-time.After(d):
		return true
	}
}

// end records that the connection is over.
func (s *speaker) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
}

// words is a message as a test writes it.
func (s *speaker) words(m wire.Message) string {
	switch m.ID {
	case wire.Request, wire.Cancel, wire.Reject, wire.Piece:
		return fmt.Sprintf("%v %d/%d", m.ID, m.Index, m.Begin/blockSize)
	case wire.Have, wire.Suggest, wire.AllowedFast:
		return fmt.Sprintf("%v %d", m.ID, m.Index)
	case wire.Extended:
		return fmt.Sprintf("%v %d %.200q", m.ID, m.ExtID, m.Payload)
	}
	return m.ID.String()
}

// take returns what was heard since it was last called, in order.
func (s *speaker) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	said := s.said
	s.said = nil
	return said
}

// hungUp reports whether the client has closed the connection.
func (s *speaker) hungUp() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over
}

// BEP 3 puts the peer id last, so that a peer may wait with its own until it has read the info hash. Trackers that
// check whether a peer can be reached never send theirs.
func TestHandshakeThatPauses(t *testing.T) {
	for name, encrypted := range map[string]bool{"plain": false, "encrypted": true} {
		t.Run(name, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				content := newSimContent(1, blockSize, 4*blockSize)
				us, them := n.NewHost("80.0.0.1", 0, 0, 10*time.Millisecond), n.NewHost("80.0.0.2", 0, 0, 10*time.Millisecond)
				client := simClient(t, us, nil)
				client.Encryption = PreferEncryption
				d := simSeed(t, client, content)
				hello := wire.Handshake{InfoHash: content.infoHash, PeerID: [20]byte([]byte("-XX0000-abcdefghijkl"))}
				hello.SetExtended()
				ours := hello.Append(nil)
				head, id := ours[:wire.HandshakeHead], ours[wire.HandshakeHead:]

				begin := func() net.Conn {
					conn, err := them.Dial(t.Context(), "tcp", us.Addr(6881).String())
					require.NoError(t, err)
					if encrypted {
						conn, err = mse.Initiate(t.Context(), conn, content.infoHash, mse.Options{}, head)
					} else {
						_, err = conn.Write(head)
					}
					require.NoError(t, err)
					return conn
				}
				conn := begin()
				answer := make([]byte, wire.HandshakeSize)
				began := time.Now()
				_, err := io.ReadFull(conn, answer)
				require.NoError(t, err)
				require.Less(t, time.Since(began), time.Second)
				theirs, err := wire.ParseHandshake(answer)
				require.NoError(t, err)
				require.Equal(t, hello.InfoHash, theirs.InfoHash)
				require.Empty(t, d.Stats().Peers, "it has not said who it is")
				_, err = conn.Write(append(id, wire.AppendSimple(nil, wire.Interested)...))
				require.NoError(t, err)
				simnet.Sleep(time.Second)
				require.Len(t, d.Stats().Peers, 1)

				// A handshake that is never finished times out as any other does.
				conn = begin()
				began = time.Now()
				_, err = io.Copy(io.Discard, conn)
				require.NoError(t, err)
				require.LessOrEqual(t, time.Since(began), handshakeTimeout+time.Second)
				require.Len(t, d.Stats().Peers, 1)
			})
		})
	}
}

// A handshake for a torrent that is not shared gets no answer.
func TestHandshakeForAnotherTorrent(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, blockSize, 4*blockSize)
		us, them := n.NewHost("80.0.0.1", 0, 0, 0), n.NewHost("80.0.0.2", 0, 0, 0)
		simSeed(t, simClient(t, us, nil), content)
		conn, err := them.Dial(t.Context(), "tcp", us.Addr(6881).String())
		require.NoError(t, err)
		hello := wire.Handshake{InfoHash: [20]byte{1}}
		_, err = conn.Write(hello.Append(nil)[:wire.HandshakeHead])
		require.NoError(t, err)
		b, _ := io.ReadAll(conn)
		require.Empty(t, b)
	})
}

// A peer that is connected to us is dialled at most once, whatever source names it. The two connections then
// turn out to be with the same peer.
func TestPeerNamedWhileItIsConnected(t *testing.T) {
	for _, c := range []struct {
		name string
		id   string // ours begins with -SL
		port int    // at which it says it listens
	}{
		{"lower, says nothing", "-AA", 0}, {"higher, says nothing", "-ZZ", 0},
		{"lower, says where", "-AA", 6881}, {"higher, says where", "-ZZ", 6881},
		{"lower, says elsewhere", "-AA", 77}, {"higher, says elsewhere", "-ZZ", 77},
	} {
		t.Run(c.name, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				content := newSimContent(1, blockSize, 4*blockSize)
				us, them := n.NewHost("80.0.0.1", 0, 0, 0), n.NewHost("80.0.0.2", 0, 0, 0)
				d := simLeech(t, simClient(t, us, nil), content)
				simnet.Sleep(time.Second)
				hello := wire.Handshake{InfoHash: content.infoHash, PeerID: [20]byte(fmt.Appendf(nil, "%-20s", c.id))}
				hello.SetExtended()
				ours := wire.ExtHandshake{P: c.port}
				b := wire.AppendExtended(hello.Append(nil), 0, ours.Append(nil))

				var mu sync.Mutex
				var conns []net.Conn // the peer made the first
				talk := func(conn net.Conn) {
					mu.Lock()
					conns = append(conns, conn)
					mu.Unlock()
					conn.Write(b)
					io.Copy(io.Discard, conn)
					conn.Close()
				}
				l, err := them.Listen("tcp", ":6881")
				require.NoError(t, err)
				go func() {
					for first := true; ; first = false {
						conn, err := l.Accept()
						if err != nil {
							return
						}
						time.AfterFunc(time.Second, func() { // meanwhile the connection that the peer makes arrives
							if !first { // the peer, too, finds that it is connected
								time.AfterFunc(time.Second, func() { conn.Close() })
							}
							talk(conn)
						})
					}
				}()
				d.discovery.found(peerlist.FromTracker, "http://tracker.sim/", them.Addr(6881))
				conn, err := them.Dial(t.Context(), "tcp", us.Addr(6881).String())
				require.NoError(t, err)
				go talk(conn)
				for range 9 { // in time for it to be dialled
					simnet.Sleep(time.Minute)
					mu.Lock()
					for _, conn := range conns {
						conn.Write(wire.AppendKeepAlive(nil))
					}
					mu.Unlock()
				}
				require.Len(t, d.Stats().Peers, 1)
				require.LessOrEqual(t, len(conns)-1, 3)
			})
		})
	}
}

// Two clients upload to each other as much as the link carries, with hardly any buffer in between. If either
// read only while it has nothing to write, both would wait for ever.
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
				// 8 MiB each way at 1 MiB/s, and what the small buffer costs.
				require.Less(t, took, 12*time.Second)
			})
		})
	}
}

// A peer that reads slowly what we send does not slow what it sends to us.
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

// slowToClose is a connection whose Close takes a minute.
type slowToClose struct{ net.Conn }

func (c slowToClose) Close() error {
	time.Sleep(time.Minute)
	return c.Conn.Close()
}

// A user's connection that is slow to close does not hold up others.
func TestSlowClose(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimContent(1, 64<<10, 1<<20)
		us := n.NewHost("80.0.0.1", 0, 0, 0)
		c := simClient(t, us, nil)
		c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := us.Dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return slowToClose{conn}, nil
		}
		leaving := simSeed(t, simClient(t, n.NewHost("80.0.0.2", 64<<10, 0, 0), nil), content)
		simSeed(t, simClient(t, n.NewHost("80.0.0.3", 256<<10, 0, 0), nil), content)
		d := simLeech(t, c, content, netip.MustParseAddrPort("80.0.0.2:6881"), netip.MustParseAddrPort("80.0.0.3:6881"))
		began := time.Now()
		simnet.Sleep(time.Second)
		require.NoError(t, leaving.Close())
		<-d.Done()
		require.Less(t, time.Since(began), 10*time.Second)
		require.NoError(t, c.Close()) // before the context ends, beyond which it is not waited for
	})
}
