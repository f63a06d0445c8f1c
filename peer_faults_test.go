package torrent

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/blockpool"
	"github.com/shoal-go/torrent/internal/merkle"
	"github.com/shoal-go/torrent/internal/outbox"
	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/shoal-go/torrent/internal/wire"
)

// faultRig is a client with an uplink of 1 MiB/s that shares 8 MiB. An honest peer downloads them in eight
// seconds.
type faultRig struct {
	t       *testing.T
	net     *simnet.Network
	content *simContent
	us      netip.AddrPort
	seed    *Download
	hosts   int
}

func newFaultRig(t *testing.T, n *simnet.Network, encrypt bool) *faultRig {
	r := &faultRig{t: t, net: n, content: newSimContent(1, 64<<10, 8<<20)}
	us := n.NewHost("80.0.0.1", 1<<20, 0, time.Millisecond)
	r.us = us.Addr(6881)
	c := simClient(t, us, nil)
	if encrypt {
		c.Encryption = PreferEncryption
	}
	r.seed = simSeed(t, c, r.content)
	simnet.Sleep(time.Second)
	return r
}

// host is another machine, with an address of its own.
func (r *faultRig) host() *simnet.Host {
	r.hosts++
	return r.net.NewHost(fmt.Sprintf("81.%d.%d.1", r.hosts/250, r.hosts%250), 0, 0, 0)
}

// speak makes a connection that shakes hands.
func (r *faultRig) speak(h *simnet.Host, can speech) *speaker {
	return speak(r.t, h, r.content, r.us, can)
}

// honest has an honest peer download everything, and returns how long it takes.
func (r *faultRig) honest() time.Duration {
	began := time.Now()
	d := simLeech(r.t, simClient(r.t, r.host(), nil), r.content, r.us)
	select {
	case <-d.Done():
	case <-time.After(time.Hour):
	}
	return time.Since(began)
}

// mute makes a connection that sends the given bytes and nothing else.
func (r *faultRig) mute(h *simnet.Host, b []byte) *speaker {
	conn, err := h.Dial(r.t.Context(), "tcp", r.us.String())
	require.NoError(r.t, err)
	s := &speaker{Conn: conn.(*simnet.Conn), t: r.t, content: r.content}
	s.say(b)
	go func() {
		io.Copy(io.Discard, s)
		s.end()
	}()
	return s
}

// flood asks for blocks without end, 2,000 times a second.
func (s *speaker) flood() {
	go func() {
		for {
			var b []byte
			for i := range uint32(200) {
				b = wire.AppendRequest(b, i%uint32(s.content.NumPieces()), i/uint32(s.content.NumPieces())*blockSize, blockSize)
			}
			if _, err := s.Write(b); err != nil {
				s.end()
				return
			}
			if !s.pause(100 * time.Millisecond) {
				return
			}
		}
	}()
}

// Each case is what peers may do, and how much it may cost an honest peer. A peer that takes the blocks that it
// asked for shares the uplink; any other may cost next to nothing.
func TestAnHonestPeerBesideFaults(t *testing.T) {
	t.Parallel()
	const alone = 8 * time.Second
	for name, tt := range map[string]struct {
		encrypt bool
		attack  func(r *faultRig) []*speaker
		most    time.Duration // for the honest peer
		gone    time.Duration // after which no connection of theirs is left; 0 if they may stay
	}{
		"nothing": {most: alone + time.Second},
		"floods requests": {
			attack: func(r *faultRig) []*speaker {
				s := r.speak(r.host(), speech{fast: true})
				s.sayID(wire.Interested)
				s.flood()
				return []*speaker{s}
			},
			most: alone + 3*time.Second, gone: 5 * time.Second,
		},
		"floods requests without the Fast extension": {
			attack: func(r *faultRig) []*speaker {
				s := r.speak(r.host(), speech{})
				s.sayID(wire.Interested)
				s.flood()
				return []*speaker{s}
			},
			most: 2*alone + 2*time.Second,
		},
		"floods requests while choked": {
			attack: func(r *faultRig) []*speaker {
				s := r.speak(r.host(), speech{fast: true})
				s.flood()
				return []*speaker{s}
			},
			most: alone + 2*time.Second, gone: 5 * time.Second,
		},
		"floods requests while choked, without the Fast extension": {
			attack: func(r *faultRig) []*speaker {
				s := r.speak(r.host(), speech{})
				s.flood()
				return []*speaker{s}
			},
			most: alone + 2*time.Second, gone: 5 * time.Second,
		},
		"never reads": {
			attack: func(r *faultRig) []*speaker {
				s := r.speak(r.host(), speech{fast: true, deaf: true})
				s.sayID(wire.Interested)
				s.flood()
				return []*speaker{s}
			},
			most: alone + 2*time.Second, gone: writeTimeout + time.Minute,
		},
		"is interested and never asks": {
			attack: func(r *faultRig) (all []*speaker) {
				for range 20 {
					s := r.speak(r.host(), speech{fast: true})
					s.sayID(wire.Interested)
					all = append(all, s)
				}
				return all
			},
			most: alone + time.Minute, // until the honest peer is unchoked
			gone: silenceTimeout + time.Second,
		},
		"a hundred connections": {
			attack: func(r *faultRig) (all []*speaker) {
				h := r.host()
				for range 100 {
					s := r.speak(h, speech{fast: true})
					s.sayID(wire.Interested)
					all = append(all, s)
					simnet.Sleep(50 * time.Millisecond)
				}
				simnet.Sleep(time.Second)
				require.Equal(r.t, peerlist.MaxPerAddress, stillOpen(all))
				return all
			},
			most: alone + 2*time.Second, gone: silenceTimeout + time.Second,
		},
		"no handshakes": {
			attack: func(r *faultRig) (all []*speaker) {
				for range 3 * maxHandshakes {
					all = append(all, r.mute(r.host(), nil))
				}
				return all
			},
			most: alone + 2*time.Second, gone: handshakeTimeout + time.Second,
		},
		"handshakes that drip": {
			attack: func(r *faultRig) (all []*speaker) {
				hello := wire.Handshake{InfoHash: r.content.infoHash}
				for range 3 * maxHandshakes {
					s := r.mute(r.host(), nil)
					all = append(all, s)
					go func() {
						for _, b := range hello.Append(nil) {
							if _, err := s.Write([]byte{b}); err != nil || !s.pause(time.Second) {
								return
							}
						}
					}()
				}
				return all
			},
			most: alone + 2*time.Second, gone: handshakeTimeout + time.Second,
		},
		"garbage for a handshake": {
			attack: func(r *faultRig) (all []*speaker) {
				for k := range 3 * maxHandshakes {
					all = append(all, r.mute(r.host(), randomBytes(uint64(k), 2000)))
				}
				return all
			},
			most: alone + 2*time.Second, gone: time.Second,
		},
		"garbage for a key exchange": {
			encrypt: true,
			attack: func(r *faultRig) (all []*speaker) {
				for k := range 3 * maxHandshakes {
					all = append(all, r.mute(r.host(), randomBytes(uint64(k), 2000)))
				}
				return all
			},
			most: alone + 2*time.Second, gone: handshakeTimeout + time.Second,
		},
		"half a key exchange": {
			encrypt: true,
			attack: func(r *faultRig) (all []*speaker) {
				for k := range 3 * maxHandshakes {
					all = append(all, r.mute(r.host(), randomBytes(uint64(k), 96)))
				}
				return all
			},
			most: alone + 2*time.Second, gone: handshakeTimeout + time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				r := newFaultRig(t, n, tt.encrypt)
				var all []*speaker
				if tt.attack != nil {
					all = tt.attack(r)
				}
				began := time.Now()
				took := r.honest()
				t.Logf("%v", took)
				require.LessOrEqual(t, took, tt.most)
				if tt.gone > 0 {
					simnet.Sleep(time.Until(began.Add(tt.gone)))
					for _, s := range all {
						require.True(t, s.hungUp())
					}
				}
				for _, p := range r.seed.Stats().Peers {
					require.LessOrEqual(t, p.Queued, outbox.MaxQueued)
				}
			})
		})
	}
}

// A peer that asks for pieces that we lack gets rejects for as many as an honest mistake may ask for, and is then
// dropped.
func TestAskingForWhatWeLack(t *testing.T) {
	for _, fast := range []bool{true, false} {
		t.Run(fmt.Sprintf("fast=%t", fast), func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				content := newSimContent(1, blockSize, 8*blockSize)
				us := n.NewHost("80.0.0.1", 0, 0, 0)
				store := newSimStorage(content)
				store.written.Add(0)
				d, err := content.Start(t.Context(), &Options{Client: simClient(t, us, nil), Storage: store.open})
				require.NoError(t, err)
				simnet.Sleep(time.Second)
				s := speak(t, n.NewHost("80.0.1.1", 0, 0, 0), content, us.Addr(6881), speech{fast: fast})
				s.sayID(wire.Interested)
				simnet.Sleep(time.Second)
				s.take()
				for k := range maxDenied {
					s.ask(1 + uint32(k%7))
					if k%100 == 0 {
						simnet.Sleep(time.Second)
						s.ask(0)
						simnet.Sleep(time.Second)
						require.Contains(t, s.take(), "piece 0/0", "what we have it gets")
					}
				}
				simnet.Sleep(time.Second)
				require.False(t, s.hungUp())
				for range 50 {
					s.ask(1)
				}
				simnet.Sleep(time.Second)
				require.True(t, s.hungUp())
				require.Empty(t, d.Stats().Peers)
			})
		})
	}
}

func stillOpen(all []*speaker) (open int) {
	for _, s := range all {
		if !s.hungUp() {
			open++
		}
	}
	return open
}

// How many connections one address may have depends on whether many machines may be behind it.
func TestConnectionsFromOneAddress(t *testing.T) {
	for ip, want := range map[string]struct{ greeting, peers int }{
		"81.0.0.1":    {maxHandshakesPerAddress, peerlist.MaxPerAddress},
		"2001:db8::1": {maxHandshakesPerAddress, peerlist.MaxPerAddress},
		"127.0.0.2":   {maxHandshakes, defaultMaxPeers},
		"10.0.0.2":    {maxHandshakes, defaultMaxPeers},
		"fd00::2":     {maxHandshakes, defaultMaxPeers},
	} {
		t.Run(ip, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				r := newFaultRig(t, n, false)
				h := n.NewHost(ip, 0, 0, 0)
				var mute, all []*speaker
				for range maxHandshakes + 10 {
					mute = append(mute, r.mute(h, nil))
				}
				simnet.Sleep(time.Second)
				require.Equal(t, want.greeting, stillOpen(mute))
				simnet.Sleep(handshakeTimeout)
				require.Zero(t, stillOpen(mute))
				for range defaultMaxPeers + 10 {
					all = append(all, r.speak(h, speech{fast: true}))
					simnet.Sleep(10 * time.Millisecond)
				}
				simnet.Sleep(time.Second)
				require.Equal(t, want.peers, stillOpen(all))
				require.Len(t, r.seed.Stats().Peers, want.peers)
			})
		})
	}
}

// FuzzConnection has a stranger send any messages to a download, in any order, beside an honest seed. The download
// completes in the time that the seed takes, the seed is not banned, and what the stranger makes us hold and do is bounded.
//
// The input is messages: an id, the length of a payload, and the payload. An id of 255 sends what follows as it is.
func FuzzConnection(f *testing.F) {
	block := func(index, begin uint32, n int) []byte {
		return append(wire.AppendPieceHeader(nil, index, begin, uint32(n))[4:], make([]byte, n)...)
	}
	script := func(messages ...[]byte) (b []byte) { // each without its length
		for _, m := range messages {
			b = binary.BigEndian.AppendUint16(append(b, m[0]), uint16(len(m)-1))
			b = append(b, m[1:]...)
		}
		return b
	}
	simple := func(id wire.ID) []byte { return []byte{byte(id)} }
	f.Add([]byte{})
	f.Add(script(simple(wire.HaveAll), simple(wire.Unchoke), block(0, 0, 1<<14), block(1, 0, 1<<14), block(2, 1<<14, 1<<14)))
	f.Add(script(simple(wire.HaveNone), wire.AppendHave(nil, 1)[4:], simple(wire.Unchoke), simple(wire.Choke), simple(wire.Unchoke), simple(wire.Interested)))
	f.Add(script(wire.AppendRequest(nil, 0, 0, 1<<14)[4:], wire.AppendCancel(nil, 0, 0, 1<<14)[4:], wire.AppendReject(nil, 0, 0, 1<<14)[4:]))
	f.Add(script(simple(wire.HaveAll), wire.AppendAllowedFast(nil, 1)[4:], wire.AppendSuggest(nil, 1)[4:], wire.AppendDontHave(nil, extDontHave, 1)[4:], simple(wire.HaveAll)))
	f.Add(script(wire.AppendExtended(nil, 0, []byte("d1:md6:ut_pexi1e11:ut_metadatai2ee1:pi6881e4:reqqi1ee"))[4:], wire.AppendExtended(nil, extPEX, []byte("d5:added6:aaaabbe"))[4:], wire.AppendExtended(nil, extMetadata, []byte("d8:msg_typei0e5:piecei0ee"))[4:]))
	f.Add(append([]byte{255}, 0, 16, 0, 0, 20))
	f.Add(script(wire.AppendHave(nil, 1)[4:], simple(wire.HaveNone)))
	f.Add(script(wire.AppendHave(nil, 1)[4:], wire.AppendBitfield(nil, []byte{0, 0})[4:]))
	f.Add(script(wire.AppendHave(nil, 1)[4:], wire.AppendDontHave(nil, extDontHave, 1)[4:]))
	for k := range 3 { // one for each version
		r := wire.HashRequest{Root: newSimVersion(V2, true, 1, 64<<10, 1<<20).truth.Root(0), Base: 2, Length: 16, Proofs: 3}
		blocks := wire.HashRequest{Root: r.Root, Length: 4, Proofs: 5}
		f.Add(script(simple(wire.HaveAll), wire.AppendHashes(nil, r, make([]byte, 16*merkle.Size))[4:], wire.AppendHashRequest(nil, r)[4:], wire.AppendHashReject(nil, r)[4:],
			simple(wire.Unchoke), block(0, 0, 1<<14), block(0, 1<<14, 1<<14), block(0, 2<<14, 1<<14), block(0, 3<<14, 1<<14),
			wire.AppendHashes(nil, blocks, make([]byte, 9*merkle.Size))[4:], wire.AppendHashRequest(nil, blocks)[4:], make([]byte, 1+k)))
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			content := newSimVersion([]Version{V1, V2, Hybrid}[len(script)%3], true, 1, 64<<10, 1<<20)
			m := &simMeeting{net: n, content: content}
			defer m.end(t)
			seed := m.meet(t, 1e6, simpeer.Script{})
			stranger := n.NewHost("90.0.0.1", 1e6, 0, time.Millisecond)
			seed.Go(func() { speakFuzz(seed, stranger, content, script) })
			m.run(t, 10*time.Minute)
			require.False(t, m.client.banned(seed.Addr()))
			require.LessOrEqual(t, m.client.kept, int64(blockpool.Limit))
			m.client.mu.Lock()
			defer m.client.mu.Unlock()
			require.Less(t, m.client.picker.Work(), int64(workAtOnce)+workRate*int64(m.client.took.Seconds()+1))
		})
	})
}

// speakFuzz connects to the client under test and sends it the messages of a script, again each time that the connection
// ends, until the download can be expected to be complete.
func speakFuzz(seed *simpeer.Peer, from *simnet.Host, content *simContent, script []byte) {
	for range 3 {
		if !seed.Wait(100 * time.Millisecond) {
			return
		}
		conn, err := from.Dial(context.Background(), "tcp", "81.0.0.1:6881")
		if err != nil {
			return
		}
		hello := wire.Handshake{InfoHash: content.infoHash, PeerID: [20]byte{7}}
		if content.version != V1 {
			hello.SetV2()
		}
		hello.SetFast()
		hello.SetExtended()
		out := hello.Append(nil)
		for rest := script; len(rest) >= 3; {
			id, size := rest[0], int(binary.BigEndian.Uint16(rest[1:]))
			if id == 255 {
				out = append(out, rest[1:]...)
				break
			}
			size = min(size, len(rest)-3)
			out = binary.BigEndian.AppendUint32(out, uint32(size+1))
			out = append(append(out, id), rest[3:3+size]...)
			rest = rest[3+size:]
		}
		seed.Go(func() {
			seed.Wait(3 * time.Second)
			conn.Close()
		})
		conn.Write(out)
		io.Copy(io.Discard, conn)
		conn.Close()
	}
}
