package torrent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bencode"
	"github.com/shoal-go/torrent/internal/memtest"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simtracker"
	"github.com/shoal-go/torrent/internal/wire"
)

// newSimResolvable makes content with an info dictionary of so many pieces, 20 bytes each.
func newSimResolvable(t *testing.T, pieces int, private bool) *simContent {
	c := newSimRepeating(1, 16<<10, int64(pieces)*16<<10)
	info := map[string]any{"length": c.length, "name": "content", "piece length": c.layout.PieceLength(), "pieces": string(c.pieces)}
	if private {
		info["private"] = 1
	}
	b, err := bencode.Marshal(info)
	require.NoError(t, err)
	c.Torrent, err = newTorrent(b, outer{})
	require.NoError(t, err)
	c.truth.InfoHash = c.infoHash
	return c
}

// metadataScript is how a metadataSpeaker behaves. The zero value is honest.
type metadataScript struct {
	none      bool                             // speaks no ut_metadata
	plain     bool                             // speaks no extensions
	first     string                           // an extension handshake that it sends before the honest one
	size      func(int64) int64                // the size that it claims, given the true one
	sizeAfter time.Duration                    // when it claims it
	answer    func(piece int, b []byte) []byte // what it sends in place of b
	rejects   int                              // how many requests it rejects
	silent    func(piece int) bool             // reports whether it leaves a request without an answer
	delay     time.Duration                    // before each answer
	stays     bool                             // it sends keep-alives
	flood     []byte                           // sent again and again once it is connected, 3,000 times
}

// metadataSpeaker is a peer at port 6881 that has metadata, and counts what it is asked for.
type metadataSpeaker struct {
	metadataScript
	content *simContent
	host    *simnet.Host

	mu               sync.Mutex
	connected, asked int
	flooded          int
}

func speakMetadata(t *testing.T, h *simnet.Host, content *simContent, script metadataScript) *metadataSpeaker {
	s := &metadataSpeaker{metadataScript: script, content: content, host: h}
	l, err := h.Listen("tcp", ":6881")
	require.NoError(t, err)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go s.speak(conn)
		}
	}()
	return s
}

func (s *metadataSpeaker) addr() netip.AddrPort { return s.host.Addr(6881) }

func (s *metadataSpeaker) speak(conn net.Conn) {
	defer conn.Close()
	s.mu.Lock()
	s.connected++
	s.mu.Unlock()
	hello := wire.Handshake{InfoHash: s.content.infoHash, PeerID: [20]byte(fmt.Appendf(nil, "%20v", s.host))}
	if !s.plain {
		hello.SetExtended()
	}
	conn.Write(hello.Append(nil))
	if _, err := io.ReadFull(conn, make([]byte, wire.HandshakeSize)); err != nil {
		return
	}
	var b []byte
	if s.first != "" {
		b = wire.AppendExtended(b, 0, []byte(s.first))
	}
	size := int64(len(s.content.info))
	if s.size != nil {
		size = s.size(size)
	}
	ours := wire.ExtHandshake{M: map[string]int{"ut_metadata": 9, "ut_pex": 7}}
	if s.none {
		delete(ours.M, "ut_metadata")
	}
	if s.sizeAfter > 0 {
		b = wire.AppendExtended(b, 0, ours.Append(nil))
		ours.MetadataSize = size
		time.AfterFunc(s.sizeAfter, func() { conn.Write(wire.AppendExtended(nil, 0, ours.Append(nil))) })
	} else if !s.plain {
		ours.MetadataSize = size
		b = wire.AppendExtended(b, 0, ours.Append(nil))
	}
	conn.Write(b)
	if s.stays {
		go func() {
			for _, err := conn.Write(wire.AppendKeepAlive(nil)); err == nil; _, err = conn.Write(wire.AppendKeepAlive(nil)) {
				time.Sleep(time.Minute)
			}
		}()
	}
	if s.flood != nil {
		go s.floodOver(conn)
	}
	for r := wire.NewReader(conn, 1<<20); ; {
		m, err := r.Next()
		if err != nil {
			return
		}
		if m.ID != wire.Extended || m.ExtID != 9 {
			continue
		}
		x := wire.ParseMetadataMessage(m.Payload)
		if x.Type != wire.MetadataRequest {
			continue
		}
		s.mu.Lock()
		s.asked++
		reject := s.rejects > 0
		if reject {
			s.rejects--
		}
		s.mu.Unlock()
		time.Sleep(s.delay)
		answer := wire.MetadataMessage{Type: wire.MetadataData, Piece: x.Piece, TotalSize: size}
		begin := min(int64(x.Piece)*wire.MetadataBlock, int64(len(s.content.info)))
		answer.Data = s.content.info[begin:min(begin+wire.MetadataBlock, int64(len(s.content.info)))]
		if s.answer != nil {
			answer.Data = s.answer(x.Piece, slices.Clone(answer.Data))
		}
		if reject {
			answer = wire.MetadataMessage{Type: wire.MetadataReject, Piece: x.Piece}
		}
		if s.silent != nil && s.silent(x.Piece) {
			continue
		}
		conn.Write(wire.AppendExtended(nil, extMetadata, answer.Append(nil)))
	}
}

func flipped(_ int, b []byte) []byte {
	b[len(b)/2]++
	return b
}

// flippedOnce lies about the first piece that is asked for. (A peer that lies about certain pieces may be asked for
// none of them.)
func flippedOnce() func(int, []byte) []byte {
	lied := false
	return func(piece int, b []byte) []byte {
		if !lied {
			lied = true
			return flipped(piece, b)
		}
		return b
	}
}

// Liars fill drafts of several links, which share the client's account of what strangers have it hold. The honest peer of each
// is heard all the same.
func TestDraftsOfManyLinks(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		c := simClient(t, n.NewHost("80.0.0.1", 0, 0, 0), nil)
		require.NoError(t, c.Open())
		before := memtest.Heap()
		var resolved atomic.Int32
		for link := range 3 {
			content := newSimResolvable(t, 100+link, false)
			var peers []netip.AddrPort
			for k := range 4 {
				script := metadataScript{sizeAfter: 30 * time.Second}
				if k > 0 {
					length := int64(640+k) * wire.MetadataBlock
					block := make([]byte, wire.MetadataBlock)
					script = metadataScript{
						size:   func(int64) int64 { return length },
						answer: func(int, []byte) []byte { return block },
						silent: func(i int) bool { return i > 600 },
					}
				}
				peers = append(peers, speakMetadata(t, n.NewHost(fmt.Sprintf("81.%d.%d.1", link, k), 0, 0, time.Millisecond), content, script).addr())
			}
			go func() {
				m := content.Magnet()
				_, err := m.Resolve(t.Context(), &Options{Client: c, Peers: peers})
				assert.NoError(t, err)
				resolved.Add(1)
			}()
		}
		simnet.Sleep(20 * time.Second)
		require.Less(t, memtest.Heap()-before, int64(56<<20), "of 90 MiB that were sent")
		held, limit := c.account.Held()
		require.LessOrEqual(t, held, limit)
		require.Greater(t, held, limit/2)
		simnet.Sleep(time.Minute)
		require.EqualValues(t, 3, resolved.Load())
		held, _ = c.account.Held()
		require.Zero(t, held)
	})
}

func TestResolve(t *testing.T) {
	longer := func(n int64) int64 { return n + 1 }
	for _, c := range []struct {
		name    string
		scripts []metadataScript
		within  time.Duration
		once    []int // liars, which are dialled only once
		unasked []int
	}{
		{name: "one peer", scripts: make([]metadataScript, 1), within: 3 * time.Second},
		{name: "five peers", scripts: make([]metadataScript, 5), within: time.Second},
		{name: "a liar about the content", scripts: []metadataScript{{}, {answer: flipped}}, within: 3 * time.Second, once: []int{1}},
		{name: "a liar about one piece among many", scripts: []metadataScript{{}, {}, {}, {}, {}, {answer: flippedOnce()}}, within: 4 * time.Second, once: []int{5}},
		{name: "liars in the majority", scripts: []metadataScript{{answer: flipped}, {answer: flipped}, {delay: 20 * time.Millisecond}, {answer: flipped}},
			within: 10 * time.Second, once: []int{0, 1, 3}},
		{name: "liars about the size", scripts: []metadataScript{{size: longer}, {}, {size: func(int64) int64 { return 32 << 20 }}, {size: func(int64) int64 { return 1 }}},
			within: 10 * time.Second, once: []int{0, 2, 3}},
		{name: "sizes that cannot be", scripts: []metadataScript{{size: func(int64) int64 { return 32<<20 + 1 }}, {size: func(int64) int64 { return 1 << 62 }}, {}},
			within: 3 * time.Second, once: []int{0, 1}, unasked: []int{0, 1}},
		{name: "pieces of the wrong length", scripts: []metadataScript{{answer: func(_ int, b []byte) []byte { return b[1:] }}, {}}, within: 3 * time.Second, once: []int{0}},
		{name: "one rejects for a while", scripts: []metadataScript{{rejects: 6}}, within: 15 * time.Second},
		{name: "one rejects for ever", scripts: []metadataScript{{rejects: 1e9}, {}}, within: 3 * time.Second},
		{name: "one is silent", scripts: []metadataScript{{silent: func(int) bool { return true }}, {}}, within: 10 * time.Second},
		{name: "most are silent", scripts: []metadataScript{{silent: func(int) bool { return true }}, {silent: func(int) bool { return true }}, {silent: func(int) bool { return true }}, {}}, within: 20 * time.Second},
		{name: "one keeps a piece back", scripts: []metadataScript{{silent: func(i int) bool { return i == 3 }}, {delay: 20 * time.Millisecond}}, within: 10 * time.Second},
		{name: "one has no metadata to give, one no extensions", scripts: []metadataScript{{none: true}, {plain: true}, {}}, within: 3 * time.Second, unasked: []int{0, 1}},
		{name: "what it says of itself cannot be read at first", scripts: []metadataScript{{first: "d1:mx"}}, within: 3 * time.Second},
		{name: "it slips in what it says", scripts: []metadataScript{{first: "d1:md11:ut_metadatai9ee13:metadata_sizei099e1:v1:x1:v1:xe"}}, within: 3 * time.Second},
		{name: "it gets the metadata later", scripts: []metadataScript{{sizeAfter: 30 * time.Second}}, within: 33 * time.Second},
		{name: "one gets it too late", scripts: []metadataScript{{sizeAfter: 2 * time.Minute}, {sizeAfter: 50 * time.Second}}, within: 60 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				content := newSimResolvable(t, 40_000, false)
				var speakers []*metadataSpeaker
				m := &Magnet{InfoHash: content.infoHash}
				for k, script := range c.scripts {
					s := speakMetadata(t, n.NewHost(fmt.Sprintf("80.0.%d.1", k), 0, 0, 20*time.Millisecond), content, script)
					speakers = append(speakers, s)
					m.Peers = append(m.Peers, s.addr().String())
				}
				client := simClient(t, n.NewHost("81.0.0.1", 0, 0, 10*time.Millisecond), nil)
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
				defer cancel()
				got, err := m.Resolve(ctx, &Options{Client: client})
				require.NoError(t, err)
				require.Less(t, n.Now(), c.within)
				require.Equal(t, content.info, got.info)
				for _, k := range c.once {
					require.Equal(t, 1, speakers[k].connected, "peer %d", k)
					require.NotContains(t, got.peers, speakers[k].addr())
				}
				for _, k := range c.unasked {
					require.Zero(t, speakers[k].asked, "peer %d", k)
				}
			})
		})
	}
}

func TestResolveThenDownload(t *testing.T) {
	for _, private := range []bool{false, true} {
		t.Run(fmt.Sprintf("private %t", private), func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				content := newSimResolvable(t, 1000, private)
				seed, us := n.NewHost("80.0.0.1", 0, 0, 20*time.Millisecond), n.NewHost("81.0.0.1", 0, 0, 10*time.Millisecond)
				simSeed(t, simClient(t, seed, nil), content)
				m := &Magnet{InfoHash: content.infoHash, Peers: []string{"seed.example:6881"}, WebSeeds: []string{"http://10.0.0.9/"}}
				client := simClient(t, us, simtracker.New(1)) // which is no web seed
				client.hooks.lookup = func(_ context.Context, host string) ([]netip.Addr, error) {
					require.Equal(t, "seed.example", host)
					return []netip.Addr{seed.IP()}, nil
				}
				o := &Options{Client: client, Storage: newSimStorage(content).open}
				got, err := m.Resolve(t.Context(), o)
				require.NoError(t, err)
				require.Equal(t, private, got.Private())
				require.Equal(t, m.WebSeeds, got.WebSeeds())
				conns, _ := us.Open()
				require.Zero(t, conns)
				_, err = got.DownloadAll(t.Context(), o)
				require.NoError(t, err)
				require.Less(t, n.Now(), 10*time.Second)
			})
		})
	}
}

func TestResolveByTrackerAlone(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimResolvable(t, 1000, false)
		tracker := simtracker.New(1)
		seed := simClient(t, n.NewHost("80.0.0.1", 0, 0, 20*time.Millisecond), tracker)
		content.trackers = [][]string{{"http://10.0.9.9/announce"}}
		simSeed(t, seed, content)
		simnet.Sleep(time.Second)
		m := &Magnet{InfoHash: content.infoHash, Trackers: []string{"http://10.0.9.8/announce", "http://10.0.9.9/announce"}}
		got, err := m.Resolve(t.Context(), &Options{Client: simClient(t, n.NewHost("81.0.0.1", 0, 0, 0), tracker)})
		require.NoError(t, err)
		require.Equal(t, [][]string{{"http://10.0.9.8/announce"}, {"http://10.0.9.9/announce"}}, got.Trackers())
		require.Equal(t, []netip.AddrPort{netip.MustParseAddrPort("80.0.0.1:6881")}, got.peers)
		require.Less(t, n.Now(), 3*time.Second)
		last := tracker.Announces()[len(tracker.Announces())-1]
		require.Equal(t, "stopped", last.Event)
		require.NotZero(t, last.Left, "a magnet link knows no length, so it is no seed")
	})
}

// A link that is being resolved is seen in the client's Stats, and in none later.
func TestResolveIsSeen(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimResolvable(t, 4000, false) // 80,000 bytes, which are five pieces
		s := speakMetadata(t, n.NewHost("80.0.0.1", 0, 0, 20*time.Millisecond), content, metadataScript{delay: time.Second})
		tracker := simtracker.New(1)
		tracker.Answer = func(req *http.Request) (*http.Response, error) { return nil, errors.New("busy") }
		n.NewHost("80.0.0.2", 0, 0, 0) // refuses
		client := simClient(t, n.NewHost("81.0.0.1", 0, 0, 0), tracker)
		require.Empty(t, client.Stats().Resolving)
		m := &Magnet{InfoHash: content.infoHash, Name: "a link", Peers: []string{s.addr().String(), "80.0.0.2:6881"}, Trackers: []string{"http://10.0.9.9/announce"}}
		other := &Magnet{InfoHash: Hash{1}, Peers: []string{"80.0.0.3:6881"}}
		began, resolved := time.Now(), make(chan error, 2)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			_, err := m.Resolve(ctx, &Options{Client: client})
			resolved <- err
		}()
		simnet.Sleep(2500 * time.Millisecond)
		go func() {
			_, err := other.Resolve(ctx, &Options{Client: client})
			resolved <- err
		}()
		simnet.Sleep(100 * time.Millisecond)

		seen := client.Stats().Resolving
		require.Len(t, seen, 2)
		require.Equal(t, Hash{1}, seen[1].InfoHash)
		require.Zero(t, seen[1].Length)
		got := seen[0]
		require.Equal(t, content.infoHash, got.InfoHash)
		require.Equal(t, "a link", got.Name)
		require.Equal(t, began, got.Since)
		require.Equal(t, 1, got.Peers)
		require.Equal(t, 2, got.Known)
		require.GreaterOrEqual(t, got.Tried, 2)
		require.EqualValues(t, len(content.info), got.Length)
		require.EqualValues(t, 2*wire.MetadataBlock, got.Metadata, "a second each")
		require.ErrorContains(t, got.PeerErr, "80.0.0.2:6881")
		require.Len(t, got.Trackers, 1)
		require.ErrorContains(t, got.Trackers[0].Err, "busy")
		b, err := json.Marshal(client.Stats())
		require.NoError(t, err)
		require.Contains(t, string(b), content.infoHash.String())

		require.NoError(t, <-resolved)
		require.Len(t, client.Stats().Resolving, 1)
		cancel()
		require.ErrorIs(t, <-resolved, context.Canceled)
		require.Empty(t, client.Stats().Resolving)
	})
}

// Log records for a link of version 2 only show its info hash as other log records and Stats do: the first 20 bytes.
func TestResolveLogsTheInfoHash(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		var log bytes.Buffer
		client := simClient(t, n.NewHost("81.0.0.1", 0, 0, 0), nil)
		client.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		m := &Magnet{InfoHashV2: HashV2{1, 2, 3, 31: 4}, Peers: []string{"[::1"}}
		_, err := m.Resolve(ctx, &Options{Client: client})
		require.Error(t, err)
		require.Contains(t, log.String(), "infohash=010203"+strings.Repeat("0", 34)+" ")
	})
}

// The only peer that a tracker names begins to listen a little later: it may just be starting.
func TestResolveTriesTheOnlyPeerAgainSoon(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		content := newSimResolvable(t, 1000, false)
		h := n.NewHost("80.0.0.1", 0, 0, 20*time.Millisecond)
		tracker := simtracker.New(1)
		tracker.Add(h.Addr(6881))
		time.AfterFunc(10*time.Second, func() { speakMetadata(t, h, content, metadataScript{}) })
		m := &Magnet{InfoHash: content.infoHash, Trackers: []string{"http://10.0.9.9/announce"}}
		_, err := m.Resolve(t.Context(), &Options{Client: simClient(t, n.NewHost("81.0.0.1", 0, 0, 0), tracker)})
		require.NoError(t, err)
		require.Less(t, n.Now(), 30*time.Second)
	})
}

// A peer that only another peer names.
func TestResolveByPEX(t *testing.T) {
	for _, private := range []bool{false, true} {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			content := newSimResolvable(t, 1000, private)
			known, s := n.NewHost("80.0.0.1", 0, 0, 0), speakMetadata(t, n.NewHost("80.0.1.1", 0, 0, 0), content, metadataScript{})
			l, err := known.Listen("tcp", ":6881")
			require.NoError(t, err)
			go func() {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				hello := wire.Handshake{InfoHash: content.infoHash}
				hello.SetExtended()
				ours, x := wire.ExtHandshake{M: map[string]int{"ut_metadata": 1}}, wire.PEX{Added: []netip.AddrPort{s.addr()}}
				b := wire.AppendExtended(hello.Append(nil), 0, ours.Append(nil))
				conn.Write(wire.AppendExtended(b, extPEX, x.Append(nil)))
				io.Copy(io.Discard, conn)
			}()
			m := &Magnet{InfoHash: content.infoHash, Peers: []string{known.Addr(6881).String()}}
			got, err := m.Resolve(t.Context(), &Options{Client: simClient(t, n.NewHost("81.0.0.1", 0, 0, 0), nil)})
			require.NoError(t, err)
			require.Contains(t, got.peers, known.Addr(6881))
			require.Equal(t, !private, slices.Contains(got.peers, s.addr()), "BEP 27")
		})
	}
}

func TestResolveInVain(t *testing.T) {
	why := errors.New("enough")
	for _, c := range []struct {
		name  string
		m     *Magnet
		o     Options
		end   func(client *Client, cancel context.CancelCauseFunc)
		is    []error
		words []string
	}{
		{name: "cancelled", m: &Magnet{Peers: []string{"80.0.0.1:6881", "no.example:1", "[::1"}, Trackers: []string{"http://10.0.9.9/announce"}},
			end: func(_ *Client, cancel context.CancelCauseFunc) { cancel(why) },
			is:  []error{context.Canceled, why}, words: []string{"enough", "tracker http://10.0.9.9/announce: no answer", "5 peers tried", "80.0.0.1:6881"}},
		{name: "closed", m: &Magnet{Peers: []string{"80.0.0.1:6881"}},
			end: func(client *Client, _ context.CancelCauseFunc) { client.Close() }, is: []error{ErrClosed}},
		{name: "stalled", m: &Magnet{Peers: []string{"80.0.0.1:6881"}}, o: Options{StallTimeout: 2 * time.Minute}, is: []error{ErrStalled}},
		{name: "no peer to ask", m: &Magnet{}, is: []error{ErrUnsupported}},
	} {
		t.Run(c.name, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				us := n.NewHost("81.0.0.1", 0, 0, 0)
				tracker := simtracker.New(1)
				tracker.Answer = func(req *http.Request) (*http.Response, error) {
					<-req.Context().Done()
					return nil, req.Context().Err()
				}
				c.o.Client = simClient(t, us, tracker)
				c.o.Client.hooks.lookup = func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("no such host") }
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				if c.end != nil {
					time.AfterFunc(time.Minute, func() { c.end(c.o.Client, cancel) })
				}
				_, err := c.m.Resolve(ctx, &c.o)
				for _, is := range c.is {
					require.ErrorIs(t, err, is)
				}
				for _, word := range c.words {
					require.ErrorContains(t, err, word)
				}
				conns, _ := us.Open()
				require.Zero(t, conns)
				require.Less(t, n.Now(), 3*time.Minute)
			})
		})
	}
}
