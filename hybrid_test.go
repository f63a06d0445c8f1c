package torrent

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/ratelimit"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/wire"
)

// shareV2 makes a torrent of two files, and a seed of it.
func shareV2(t *testing.T, o CreateOptions, seed Options) (tor *Torrent, at netip.AddrPort) {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "d"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "d", "a"), longV2, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "d", "b"), shortV2, 0o644))
	o.PieceLength, o.Private = pieceLengthV2, true
	tor, err := Create(filepath.Join(dir, "d"), &o)
	require.NoError(t, err)
	return tor, seedV2(t, tor, dir, seed)
}

func seedV2(t *testing.T, tor *Torrent, dir string, o Options) netip.AddrPort {
	t.Helper()
	o.Client, o.Dir, o.Seed = localClient(t), dir, true
	d, err := tor.Start(t.Context(), &o)
	require.NoError(t, err)
	t.Cleanup(func() { d.Close() })
	_, err = d.Wait()
	require.NoError(t, err)
	return netip.MustParseAddrPort(o.Client.Addr().String())
}

func localClient(t *testing.T) *Client {
	c := &Client{NoDHT: true, NoUTP: true, Listen: "127.0.0.1:0"}
	t.Cleanup(func() { c.Close() })
	return c
}

// A hybrid answers to both info hashes. It answers a peer that supports version 2 with the info hash of version 2.
func TestHybridAnswersInBothSwarms(t *testing.T) {
	tor, addr := shareV2(t, CreateOptions{Version: Hybrid}, Options{})
	v2 := tor.infoHashV2.truncated()
	for _, c := range []struct {
		name      string
		in        Hash
		knowsBoth bool
		want      Hash
	}{
		{"version 1", tor.infoHash, false, tor.infoHash},
		{"version 1, upgraded", tor.infoHash, true, v2},
		{"version 2", v2, true, v2},
		{"version 2, which does not say so", v2, false, v2},
	} {
		conn, err := net.Dial("tcp", addr.String())
		require.NoError(t, err)
		defer conn.Close()
		hello := wire.Handshake{InfoHash: c.in, PeerID: [20]byte{1}}
		if c.knowsBoth {
			hello.SetV2()
		}
		_, err = conn.Write(hello.Append(nil))
		require.NoError(t, err)
		var p [wire.HandshakeSize]byte
		_, err = io.ReadFull(conn, p[:])
		require.NoError(t, err, c.name)
		theirs, err := wire.ParseHandshake(p[:])
		require.NoError(t, err)
		require.Equal(t, c.want, Hash(theirs.InfoHash), c.name)
		require.True(t, theirs.V2(), c.name)
	}
}

// A hybrid finds a peer whichever info hash it is found by, and asks for peers by both.
func TestHybridFindsPeersOfBothSwarms(t *testing.T) {
	tor, addr := shareV2(t, CreateOptions{Version: Hybrid}, Options{})
	for _, in := range tor.infoHashes().all() {
		find := func(_ context.Context, h Hash) iter.Seq[netip.AddrPort] {
			if h == in {
				return slices.Values([]netip.AddrPort{addr})
			}
			return slices.Values([]netip.AddrPort(nil))
		}
		files, err := tor.DownloadAll(t.Context(), &Options{Client: localClient(t), FindPeers: find})
		require.NoError(t, err)
		require.NoError(t, files.Close())
	}
}

func TestHybridAnnouncesBothInfoHashes(t *testing.T) {
	var mu sync.Mutex
	heard := make(map[string]string) // peer ids by info hash
	tracker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		heard[r.URL.Query().Get("info_hash")] = r.URL.Query().Get("peer_id")
		io.WriteString(w, "d8:intervali60e5:peers0:e")
	}))
	defer tracker.Close()
	tor, _ := shareV2(t, CreateOptions{Version: Hybrid, Trackers: [][]string{{tracker.URL + "/announce"}}}, Options{})
	v2 := tor.infoHashV2.truncated()
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return heard[string(tor.infoHash[:])] != "" && heard[string(tor.infoHash[:])] == heard[string(v2[:])]
	}, time.Minute, 10*time.Millisecond, "as the same peer")
}

// A hybrid whose versions are of different content ends with an error that says so, once a piece shows it.
func TestHybridThatIsInconsistent(t *testing.T) {
	other := contentV2(80_000, 'x')
	info := with(infoV2(dict{"d": leafV2(longV2)}), dict{"length": 80_000, "private": 1})
	for name, sums := range map[string]string{"version 1 is of other content": sumsV1(other), "sound": sumsV1(longV2)} {
		t.Run(name, func(t *testing.T) {
			tor, err := parseDict(t, dict{"info": with(info, dict{"pieces": sums}), "piece layers": layersV2(longV2)})
			require.NoError(t, err)
			// The seed looks at version 2 alone.
			seeded := *tor
			seeded.version = V2
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "d"), longV2, 0o644))
			addr := seedV2(t, &seeded, dir, Options{})
			_, err = tor.DownloadAll(t.Context(), &Options{Client: localClient(t), Peers: []netip.AddrPort{addr}})
			if name == "sound" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, errInconsistent)
			require.ErrorContains(t, err, "inconsistent")
		})
	}
}

// withoutLayers is a torrent as a magnet link gives it: its info dictionary alone.
func withoutLayers(t *testing.T, tor *Torrent) *Torrent {
	t.Helper()
	bare, err := newTorrent(tor.info, outer{})
	require.NoError(t, err)
	require.NotEmpty(t, bare.hashes.Missing())
	return bare
}

// Layers that a torrent lacks are asked of peers, checked, and then used and served.
func TestLayersComeFromPeers(t *testing.T) {
	for _, version := range []Version{V2, Hybrid} {
		t.Run(version.String(), func(t *testing.T) {
			tor, addr := shareV2(t, CreateOptions{Version: version}, Options{})
			bare := withoutLayers(t, tor)
			c := localClient(t)
			d, err := bare.Start(t.Context(), &Options{Client: c, Peers: []netip.AddrPort{addr}, Seed: true})
			require.NoError(t, err)
			files, err := d.Wait()
			require.NoError(t, err)
			b, err := fs.ReadFile(files, "d/a")
			require.NoError(t, err)
			require.Equal(t, longV2, b)
			if version == V2 {
				require.Empty(t, bare.hashes.Missing())
			}

			// And so on to the next.
			if version == V2 {
				next, err := withoutLayers(t, tor).DownloadAll(t.Context(), &Options{Client: localClient(t), Peers: []netip.AddrPort{netip.MustParseAddrPort(c.Addr().String())}})
				require.NoError(t, err)
				require.NoError(t, next.Close())
			}
			require.NoError(t, files.Close())
		})
	}
}

// Existing content is used although no layer verifies it yet: whole files at once, and parts once the layer is known.
func TestContentIsRecognisedWithoutLayers(t *testing.T) {
	tor, addr := shareV2(t, CreateOptions{Version: V2}, Options{})
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "d"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "d", "b"), shortV2, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "d", "a"), longV2, 0o644))
	whole := withoutLayers(t, tor)
	at := seedV2(t, whole, dir, Options{})
	require.Empty(t, whole.hashes.Missing())
	require.True(t, at.IsValid())

	dir = t.TempDir()
	part := append(longV2[:pieceLengthV2:pieceLengthV2], make([]byte, len(longV2)-pieceLengthV2)...)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "d"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "d", "a"), part, 0o644))
	d, err := withoutLayers(t, tor).Start(t.Context(), &Options{Client: localClient(t), Dir: dir, Peers: []netip.AddrPort{addr}})
	require.NoError(t, err)
	defer d.Close()
	_, err = d.Wait()
	require.NoError(t, err)
	require.EqualValues(t, len(longV2)+len(shortV2)-pieceLengthV2, d.Stats().Downloaded, "the first piece was there")
}

// Magnet links of every kind find a torrent of version 2 or a hybrid.
func TestMagnetsOfVersion2(t *testing.T) {
	for _, version := range []Version{V2, Hybrid} {
		tor, addr := shareV2(t, CreateOptions{Version: version}, Options{})
		links := []*Magnet{tor.Magnet(), {InfoHashV2: tor.infoHashV2}}
		if version == Hybrid {
			links = append(links, &Magnet{InfoHash: tor.infoHash})
		}
		for _, m := range links {
			m, err := ParseMagnet(m.String())
			require.NoError(t, err)
			o := &Options{Client: localClient(t), Peers: []netip.AddrPort{addr}}
			got, err := m.Resolve(t.Context(), o)
			require.NoError(t, err, m)
			require.Equal(t, version, got.Version())
			require.Equal(t, tor.InfoHash(), got.InfoHash())
			files, err := got.DownloadAll(t.Context(), o)
			require.NoError(t, err, m)
			require.NoError(t, files.Close())
		}
	}
}

// lyingStorage has all content, and gives one block in twenty out wrong.
type lyingStorage struct {
	content []byte
	pieces  int
	seed    int
	lies    *atomic.Int64 // blocks given out wrong
}

func (s *lyingStorage) Verified() (Bitfield, error) {
	all := make([]int, s.pieces)
	for i := range all {
		all[i] = i
	}
	return NewBitfield(s.pieces, all...), nil
}

func (s *lyingStorage) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, s.content[off:])
	if (int(off/blockSize)+s.seed)%20 == 0 {
		s.lies.Add(1)
		p[0] ^= 1
	}
	return n, nil
}

func (s *lyingStorage) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (s *lyingStorage) Sync() error                            { return nil }
func (s *lyingStorage) Close() error                           { return nil }

// With three of four seeds lying about one block in twenty, nothing but the false blocks is fetched twice, and liars are
// banned.
func TestVersion2WastesFalseBlocksAlone(t *testing.T) {
	t.Parallel()
	content := make([]byte, 6<<20)
	rng := rand.NewChaCha8([32]byte{3})
	rng.Read(content)
	for _, version := range []Version{V2, Hybrid} {
		t.Run(version.String(), func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "f"), content, 0o644))
			tor, err := Create(filepath.Join(dir, "f"), &CreateOptions{Version: version, PieceLength: 256 << 10, Private: true})
			require.NoError(t, err)
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				// Each sends 2 MB/s, so that all of them are asked for much.
				host := func(ip string, rate float64) *simnet.Host { return n.NewHost(ip, rate, 0, 10*time.Millisecond) }
				seedOn := func(h *simnet.Host, o Options) netip.AddrPort {
					o.Client, o.Seed = simClient(t, h, nil), true
					_, err := tor.Start(t.Context(), &o)
					require.NoError(t, err)
					return h.Addr(6881)
				}
				seeds := []netip.AddrPort{seedOn(host("81.0.0.1", 2e6), Options{Dir: dir})}
				var lies [3]atomic.Int64
				for k := range lies {
					s := &lyingStorage{content, tor.NumPieces(), 7 * k, &lies[k]}
					seeds = append(seeds, seedOn(host(fmt.Sprintf("8%d.0.0.1", 2+k), 2e6), Options{Storage: func(*Torrent) (Storage, error) { return s, nil }}))
				}
				simnet.Sleep(time.Second)
				var log bytes.Buffer
				c := simClient(t, host("80.0.0.1", 0), nil)
				c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
				d, err := tor.Start(t.Context(), &Options{Client: c, Peers: seeds})
				require.NoError(t, err)
				files, err := d.Wait()
				require.NoError(t, err)
				got, err := files.ReadFile("f")
				require.NoError(t, err)
				require.True(t, bytes.Equal(content, got))
				require.NoError(t, files.Close())
				require.NoError(t, c.Close())
				again, sent := 0, 0 // what came twice because two were asked is not meant
				for _, m := range regexp.MustCompile(`fetched again.* blocks=(\d+)`).FindAllStringSubmatch(log.String(), -1) {
					n, err := strconv.Atoi(m[1])
					require.NoError(t, err)
					again += n
				}
				for k := range lies {
					sent += int(lies[k].Load())
				}
				t.Logf("%d blocks fetched again after %d false ones; %d bytes wasted", again, sent, d.Stats().Wasted)
				require.NotZero(t, again)
				require.LessOrEqual(t, again, sent)
				d.mu.Lock()
				defer d.mu.Unlock()
				require.False(t, d.discovery.candidates.Banned(seeds[0]))
				for _, liar := range seeds[1:] {
					require.True(t, d.discovery.candidates.Banned(liar), liar)
				}
			})
		})
	}
}

// Once a download has the layers that a magnet link does not lead to, the torrent has them: it is a whole .torrent file, and
// shares.
func TestFetchedLayersAreSaved(t *testing.T) {
	for _, version := range []Version{V2, Hybrid} {
		t.Run(version.String(), func(t *testing.T) {
			tor, addr := shareV2(t, CreateOptions{Version: version}, Options{})
			o := &Options{Client: localClient(t), Peers: []netip.AddrPort{addr}}
			got, err := tor.Magnet().Resolve(t.Context(), o)
			require.NoError(t, err)
			bare := got.Bytes()
			require.Less(t, len(bare), len(tor.Bytes()))
			dir := t.TempDir()
			o.Dir = dir
			files, err := got.DownloadAll(t.Context(), o)
			require.NoError(t, err)
			require.NoError(t, files.Close())
			require.Equal(t, bare, got.raw, "what was read stays")

			saved := filepath.Join(t.TempDir(), "saved.torrent")
			f, err := os.Create(saved)
			require.NoError(t, err)
			n, err := got.WriteTo(f)
			require.NoError(t, err)
			require.NoError(t, f.Close())
			require.EqualValues(t, len(got.Bytes()), n)
			again, err := Read(saved)
			require.NoError(t, err)
			require.Empty(t, again.hashes.Missing())
			require.Equal(t, tor.InfoHash(), again.InfoHash())
			require.Equal(t, again.Bytes(), got.Bytes())

			next := withoutLayers(t, tor)
			files, err = next.DownloadAll(t.Context(), &Options{Client: localClient(t), Peers: []netip.AddrPort{seedV2(t, again, dir, Options{})}})
			require.NoError(t, err)
			require.NoError(t, files.Close())
			require.Empty(t, next.hashes.Missing())
		})
	}
}

// A hybrid that comes from peers of version 1 alone has its layers from its own pieces.
func TestLayersOfHybridWithoutPeersOfVersion2(t *testing.T) {
	tor, _ := shareV2(t, CreateOptions{Version: Hybrid}, Options{})
	only1 := *tor
	only1.version = V1
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "d"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "d", "a"), longV2, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "d", "b"), shortV2, 0o644))
	addr := seedV2(t, &only1, dir, Options{})

	// Some content exists already.
	dir = t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "d"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "d", "a"), append(longV2[:pieceLengthV2:pieceLengthV2], make([]byte, len(longV2)-pieceLengthV2)...), 0o644))
	bare := withoutLayers(t, tor)
	files, err := bare.DownloadAll(t.Context(), &Options{Client: localClient(t), Dir: dir, Peers: []netip.AddrPort{addr}})
	require.NoError(t, err)
	require.NoError(t, files.Close())
	require.Empty(t, bare.hashes.Missing())
	again, err := Parse(bytes.NewReader(bare.Bytes()))
	require.NoError(t, err)
	require.Empty(t, again.hashes.Missing())
}

// A hybrid whose versions describe different content is also found out if its layers are not known before its pieces.
func TestHybridThatIsInconsistentWithoutLayers(t *testing.T) {
	info := with(infoV2(dict{"d": leafV2(longV2)}), dict{"length": 80_000, "private": 1, "pieces": sumsV1(contentV2(80_000, 'x'))})
	tor, err := parseDict(t, dict{"info": info})
	require.NoError(t, err)
	only1 := *tor
	only1.version = V1
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "d"), contentV2(80_000, 'x'), 0o644))
	addr := seedV2(t, &only1, dir, Options{})
	_, err = tor.DownloadAll(t.Context(), &Options{Client: localClient(t), Peers: []netip.AddrPort{addr}})
	require.ErrorIs(t, err, errInconsistent)
}

// The sidecar keeps layers that were fetched: the next run, which meets no peer, checks by them what was written since.
func TestFetchedLayersOutliveARun(t *testing.T) {
	tor, addr := shareV2(t, CreateOptions{Version: V2}, Options{})
	dir := t.TempDir()
	d, err := withoutLayers(t, tor).Start(t.Context(), &Options{Client: localClient(t), Dir: dir, Peers: []netip.AddrPort{addr}, KeepResume: true})
	require.NoError(t, err)
	_, err = d.Wait()
	require.NoError(t, err)
	require.NoError(t, d.Close())

	// A piece is damaged: without the layers nothing of its file would be believed.
	path := filepath.Join(dir, "d", "a")
	b := slices.Clone(longV2)
	b[pieceLengthV2+5]++
	require.NoError(t, os.WriteFile(path, b, 0o644))
	require.NoError(t, os.Chtimes(path, time.Time{}, time.Now().Add(time.Hour)))
	next := withoutLayers(t, tor)
	d, err = next.Start(t.Context(), &Options{Client: localClient(t), Dir: dir})
	require.NoError(t, err)
	defer d.Close()
	require.Eventually(t, func() bool { return d.Stats().State == Downloading }, time.Minute, time.Millisecond)
	require.Empty(t, next.hashes.Missing())
	verified := d.Verified()
	require.Equal(t, []bool{true, false, true, true}, []bool{verified.Has(0), verified.Has(1), verified.Has(2), verified.Has(3)})
}

// A file without bytes may be chosen behind one that is not: what fills up the last piece of that is not wanted either.
func TestChooseAnEmptyFileAlone(t *testing.T) {
	info := infoV2(dict{"a": leafV2(longV2), "b": dict{"": dict{"length": 0}}, "c": leafV2(shortV2)})
	tor, err := parseDict(t, dict{"info": with(info, dict{"private": 1}), "piece layers": layersV2(longV2)})
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "d"), 0o755))
	for name, b := range map[string][]byte{"a": longV2, "b": nil, "c": shortV2} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "d", name), b, 0o644))
	}
	addr := seedV2(t, tor, dir, Options{})
	files, err := tor.DownloadAll(t.Context(), &Options{Client: localClient(t), Select: Glob("b", "c"), Peers: []netip.AddrPort{addr}})
	require.NoError(t, err)
	b, err := fs.ReadFile(files, "d/c")
	require.NoError(t, err)
	require.Equal(t, shortV2, b)
	require.NoError(t, files.Close())
}

// Reads for the hashes of blocks are bounded for all peers together, and for peers that reconnect again and again.
func TestBlockHashesAreRationed(t *testing.T) {
	r := ration{account: ratelimit.NewAccount(hashReadRate, hashReadsAtOnce, time.Unix(0, 0))}
	blocks := 0
	const each, seconds = 1000, 100
	for k := range seconds * 100 {
		if r.may(each, time.Unix(0, 0).Add(time.Duration(k)*time.Second/100)) {
			blocks += each
		}
	}
	require.InDelta(t, hashReadsAtOnce+seconds*hashReadRate, blocks, 2*each)

	content := contentV2(4*pieceLengthV2, 'c')
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "f"), content, 0o644))
	tor, err := Create(filepath.Join(dir, "f"), &CreateOptions{Version: V2, PieceLength: pieceLengthV2, Private: true})
	require.NoError(t, err)
	c := localClient(t)
	d, err := tor.Start(t.Context(), &Options{Client: c, Dir: dir, Seed: true})
	require.NoError(t, err)
	_, err = d.Wait()
	require.NoError(t, err)
	ask := func(base, index uint32) bool {
		p := dialV2(t, tor, netip.MustParseAddrPort(c.Addr().String()))
		return p.ask(t, wire.HashRequest{Root: rootV2(content), Base: base, Index: index, Length: 2}) != nil
	}
	require.True(t, ask(0, 2))
	require.True(t, ask(0, 4))
	require.True(t, c.hashReads.may(1_000_000, time.Now()))
	require.False(t, ask(0, 0))
	require.True(t, ask(0, 4), "it was read last")
	require.True(t, ask(1, 0), "this needs no reading")
}
