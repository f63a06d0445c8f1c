package torrent

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/merkle"
	"github.com/shoal-go/torrent/internal/piecehash"
	"github.com/shoal-go/torrent/internal/wire"
)

// A tree of version 2 for the tests: files of content that is all one byte.
const pieceLengthV2 = 32 << 10

// contentV2 is the content of a file for the tests.
func contentV2(length int, c byte) []byte { return []byte(strings.Repeat(string(c), length)) }

// leafV2 is the entry of a file in a file tree.
func leafV2(content []byte) dict {
	root := rootV2(content)
	return dict{"": dict{"length": len(content), "pieces root": string(root[:])}}
}

func rootV2(content []byte) merkle.Hash {
	h := merkle.NewHasher()
	_, _ = h.Write(content)
	return h.Sum(merkle.Height(merkle.Blocks(int64(len(content)))))
}

func layerV2(content []byte) (layer []byte) {
	h := merkle.NewHasher()
	for piece := range slices.Chunk(content, pieceLengthV2) {
		_, _ = h.Write(piece)
		sum := h.Sum(1)
		layer = append(layer, sum[:]...)
	}
	return layer
}

func layersV2(contents ...[]byte) dict {
	layers := dict{}
	for _, c := range contents {
		root := rootV2(c)
		layers[string(root[:])] = string(layerV2(c))
	}
	return layers
}

func infoV2(tree dict) dict {
	return dict{"name": "d", "meta version": 2, "piece length": pieceLengthV2, "file tree": tree}
}

// listV1 makes a hybrid: the list of version 1 for files of a tree, with their padding, and the SHA-1 sums.
func listV1(info dict, tail bool, files ...[]byte) dict {
	var list []any
	var all []byte
	for i, c := range files {
		list = append(list, dict{"length": len(c), "path": []string{string('a' + rune(i))}})
		all = append(all, c...)
		if fill := (pieceLengthV2 - len(all)%pieceLengthV2) % pieceLengthV2; fill > 0 && (tail || i < len(files)-1) {
			list = append(list, dict{"length": fill, "attr": "p", "path": []string{".pad", fmt.Sprint(fill)}})
			all = append(all, make([]byte, fill)...)
		}
	}
	return with(info, dict{"files": list, "pieces": sumsV1(all)})
}

func sumsV1(all []byte) string {
	var sums []byte
	for piece := range slices.Chunk(all, pieceLengthV2) {
		sum := sha1.Sum(piece)
		sums = append(sums, sum[:]...)
	}
	return string(sums)
}

var (
	longV2  = contentV2(80_000, 'a') // three pieces
	shortV2 = contentV2(20_000, 'b') // one piece of two blocks
)

func TestParseVersion2(t *testing.T) {
	info := infoV2(dict{"a": leafV2(longV2), "b": dict{"": dict{"length": 0}}, "c": dict{"d": leafV2(shortV2)}, "empty": dict{}})
	tor, err := parseDict(t, dict{"info": info, "piece layers": layersV2(longV2)})
	require.NoError(t, err)
	require.Equal(t, V2, tor.Version())
	hash, ok := tor.InfoHashV2()
	require.True(t, ok)
	require.Equal(t, HashV2(sha256.Sum256(encode(t, info))), hash)
	require.Equal(t, Hash(hash[:20]), tor.InfoHash(), "cut to what the protocol has room for")
	require.EqualValues(t, 100_000, tor.Length())
	require.EqualValues(t, 3*pieceLengthV2+20_000, tor.Size())
	require.Equal(t, 4, tor.NumPieces())
	require.Equal(t, []File{
		{Path: "d/a", Length: 80_000},
		{Path: "d/b", Index: 1, Offset: 80_000},
		{Path: "d/c/d", Length: 20_000, Index: 3, Offset: 3 * pieceLengthV2},
	}, slices.Collect(tor.Files()))
	require.Empty(t, tor.hashes.Missing())

	// Without its layer the torrent is read, and lacks it.
	tor, err = parseDict(t, dict{"info": info})
	require.NoError(t, err)
	require.Equal(t, []int{0}, tor.hashes.Missing())
}

// A tree of one file is that file, under the name that it has there.
func TestParseVersion2OfOneFile(t *testing.T) {
	tor, err := parseDict(t, dict{"info": infoV2(dict{"film.mkv": leafV2(shortV2)}), "piece layers": dict{}})
	require.NoError(t, err)
	require.Equal(t, "film.mkv", tor.Name())
	require.False(t, tor.multi)
	require.Equal(t, []File{{Path: "film.mkv", Length: 20_000}}, slices.Collect(tor.Files()))

	tor, err = parseDict(t, dict{"info": infoV2(dict{"sub": dict{"film.mkv": leafV2(shortV2)}})})
	require.NoError(t, err)
	require.Equal(t, []File{{Path: "d/sub/film.mkv", Length: 20_000}}, slices.Collect(tor.Files()))
}

func TestParseHybrid(t *testing.T) {
	tree := infoV2(dict{"a": leafV2(longV2), "b": leafV2(shortV2)})
	for _, tail := range []bool{false, true} {
		info := listV1(tree, tail, longV2, shortV2)
		tor, err := parseDict(t, dict{"info": info, "piece layers": layersV2(longV2)})
		require.NoError(t, err)
		require.Equal(t, Hybrid, tor.Version())
		require.Equal(t, Hash(sha1.Sum(encode(t, info))), tor.InfoHash())
		hash, ok := tor.InfoHashV2()
		require.True(t, ok)
		require.Equal(t, HashV2(sha256.Sum256(encode(t, info))), hash)
		require.Equal(t, 4, tor.NumPieces())
		require.EqualValues(t, 20_000, tor.layout.PieceSize(3))
		require.Equal(t, []File{{Path: "d/a", Length: 80_000}, {Path: "d/b", Length: 20_000, Index: 2, Offset: 3 * pieceLengthV2}}, slices.Collect(tor.Files()))
	}
	one := with(infoV2(dict{"d": leafV2(longV2)}), dict{"length": 80_000, "pieces": sumsV1(longV2)})
	tor, err := parseDict(t, dict{"info": one, "piece layers": layersV2(longV2)})
	require.NoError(t, err)
	require.Equal(t, Hybrid, tor.Version())
	require.Equal(t, []File{{Path: "d", Length: 80_000}}, slices.Collect(tor.Files()))
}

func TestLinksInVersion2(t *testing.T) {
	link := dict{"": dict{"attr": "l", "symlink path": []string{"sub", "a"}}}
	tor, err := parseDict(t, dict{"info": infoV2(dict{"link": link, "sub": dict{"a": leafV2(shortV2)}})})
	require.NoError(t, err)
	require.Equal(t, []File{{Path: "d/link", LinkTarget: "d/sub/a"}, {Path: "d/sub/a", Length: 20_000, Index: 1}}, slices.Collect(tor.Files()))
	var b strings.Builder
	require.NoError(t, tor.PrintTree(&b))
	require.Contains(t, b.String(), "link → d/sub/a")

	dir, to := t.TempDir(), t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "d", "sub"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "d", "sub", "a"), shortV2, 0o644))
	addr := seedV2(t, tor, dir, Options{})
	files, err := tor.DownloadAll(t.Context(), &Options{Client: localClient(t), Dir: to, Peers: []netip.AddrPort{addr}})
	require.NoError(t, err)
	require.NoError(t, files.Close())
	for _, dir := range []string{dir, to} {
		target, err := os.Readlink(filepath.Join(dir, "d", "link"))
		require.NoError(t, err)
		require.Equal(t, filepath.Join("sub", "a"), target)
	}
}

func TestParseMalformedVersion2(t *testing.T) {
	root, layers := rootV2(longV2), layersV2(longV2)
	whole := infoV2(dict{"a": leafV2(longV2)})
	props := func(changed dict) dict { return infoV2(dict{"a": dict{"": with(leafV2(longV2)[""].(dict), changed)}}) }
	layer := func(key string, value any) dict { return dict{key: value} }
	tree2 := infoV2(dict{"a": leafV2(longV2), "b": leafV2(shortV2)})
	hybrid := listV1(tree2, false, longV2, shortV2)
	list := func(change func(list []any) []any) dict {
		files := slices.Clone(hybrid["files"].([]any))
		return with(hybrid, dict{"files": change(files)})
	}
	for _, c := range []struct {
		field, reason string
		info, layers  dict
	}{
		{"info.meta version", "version 3", with(whole, dict{"meta version": 3}), layers},
		{"info.meta version", "version 1", with(whole, dict{"meta version": 1}), layers},
		{"info.meta version", "not an integer", with(whole, dict{"meta version": "2"}), layers},
		{"info.meta version", "missing", with(whole, dict{"meta version": nil}), layers},
		{"info.piece length", "no power of two", with(whole, dict{"piece length": 48 << 10}), layers},
		{"info.piece length", "no power of two", with(whole, dict{"piece length": 8 << 10}), layers},
		{"info.file tree", "missing", with(whole, dict{"file tree": nil}), layers},
		{"info.file tree", "not a dictionary", with(whole, dict{"file tree": "a"}), layers},
		{"info", "no content", infoV2(dict{}), dict{}},
		{"info", "no content", infoV2(dict{"a": dict{"": dict{"length": 0}}}), dict{}},
		{`info.file tree[""]`, "without a name", infoV2(dict{"": dict{"length": 5}}), dict{}},
		{`info.file tree["a"]`, "not a dictionary", infoV2(dict{"a": 5}), dict{}},
		{`info.file tree["x/a"]`, "not a dictionary", infoV2(dict{"x": dict{"a": dict{"": 5}}}), dict{}},
		{`info.file tree["a"]`, "both a file and a directory", infoV2(dict{"a": with(leafV2(longV2), dict{"b": leafV2(shortV2)})}), layers},
		{`info.file tree["a"].length`, "missing", props(dict{"length": nil}), layers},
		{`info.file tree["a"].length`, "not an integer", props(dict{"length": "5"}), layers},
		{`info.file tree["a"].length`, "negative", props(dict{"length": -5}), layers},
		{`info.file tree["a"].pieces root`, "missing", props(dict{"pieces root": nil}), layers},
		{`info.file tree["a"].pieces root`, "not a string", props(dict{"pieces root": 7}), layers},
		{`info.file tree["a"].pieces root`, "31 bytes", props(dict{"pieces root": strings.Repeat("r", 31)}), layers},
		{`info.file tree["a"].pieces root`, "zeros", props(dict{"pieces root": strings.Repeat("\x00", 32)}), layers},
		{`info.file tree["a"].attr`, "padding", props(dict{"attr": "p"}), layers},
		{`info.file tree["b"].length`, "over 64 bits", infoV2(dict{"a": leafV2(longV2), "b": dict{"": dict{"length": int64(math.MaxInt64), "pieces root": string(root[:])}}}), layers},
		{"info.file tree", "pieces, more than", props(dict{"length": int64(1) << 60}), layers},
		{"piece layers[61]", "key of 1 bytes", whole, layer("a", "x")},
		{fmt.Sprintf("piece layers[%x]", strings.Repeat("x", 32)), "of no file", whole, layer(strings.Repeat("x", 32), "x")},
		{fmt.Sprintf("piece layers[%x]", root), "not a string", whole, layer(string(root[:]), 5)},
		{fmt.Sprintf("piece layers[%x]", root), "64 bytes", whole, layer(string(root[:]), strings.Repeat("x", 64))},
		{fmt.Sprintf("piece layers[%x]", root), "97 bytes", whole, layer(string(root[:]), strings.Repeat("x", 97))},
		{fmt.Sprintf("piece layers[%x]", root), "does not hash", whole, layer(string(root[:]), strings.Repeat("x", 96))},
		{"info.files", "a directory", with(tree2, dict{"length": 80_000, "pieces": sumsV1(longV2)}), layers},
		{"info.files", "20000 bytes, and", with(infoV2(dict{"d": leafV2(longV2)}), dict{"length": 20_000, "pieces": sumsV1(shortV2)}), layers},
		{"info.files", "begins at 80000", list(func(l []any) []any { return slices.Delete(l, 1, 2) }), layers},
		{"info.files", `is "d/b"`, list(func(l []any) []any { l[0], l[2] = l[2], l[0]; return l }), layers},
		{"info.files", `of the file tree is not in`, list(func(l []any) []any { return l[:1] }), layers},
		{"info.files", "is not in the file tree", list(func(l []any) []any { return append(l, dict{"length": 1, "path": []string{"c"}}) }), layers},
		{"info.files", "bytes, and 118304", list(func(l []any) []any { return append(l, dict{"length": 1 << 20, "attr": "p"}) }), layers},
		{"info.pieces", "not 20", with(hybrid, dict{"pieces": ""}), layers},
	} {
		tor, err := parseDict(t, dict{"info": c.info, "piece layers": c.layers})
		require.Nil(t, tor, "%s: %s", c.field, c.reason)
		wrong, ok := err.(*MetainfoError)
		require.True(t, ok, "%v", err)
		require.Equal(t, c.field, wrong.Field, "%v", err)
		require.Contains(t, wrong.Reason, c.reason)
	}
	_, err := parseDict(t, dict{"info": with(whole, dict{"meta version": 3})})
	require.ErrorIs(t, err, ErrUnsupported)
}

func TestHashV2Text(t *testing.T) {
	h := HashV2{1, 2, 0xff}
	text, err := json.Marshal(map[string]any{"h": h, "v": []Version{V1, Hybrid, V2}})
	require.NoError(t, err)
	require.JSONEq(t, `{"h":"0102ff`+strings.Repeat("0", 58)+`","v":["1","hybrid","2"]}`, string(text))
	var back struct{ H HashV2 }
	require.NoError(t, json.Unmarshal(text, &back))
	require.Equal(t, h, back.H)
	require.NoError(t, back.H.UnmarshalText([]byte("1220"+strings.ToUpper(h.String()))), "as magnet links have it")
	require.Equal(t, h, back.H)
	for _, bad := range []string{"", "12", strings.Repeat("x", 64), "1221" + h.String(), testHash} {
		require.Error(t, back.H.UnmarshalText([]byte(bad)), "%q", bad)
	}
	require.Equal(t, "version 7", Version(7).String())
}

// rawPeer is a connection to a seed in the swarm of version 2, after the handshake.
type rawPeer struct {
	net.Conn
	rd *wire.Reader
}

func dialV2(t *testing.T, tor *Torrent, addr netip.AddrPort) rawPeer {
	t.Helper()
	conn, err := net.Dial("tcp", addr.String())
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	hello := wire.Handshake{InfoHash: tor.infoHashes().ofV2(), PeerID: [20]byte{1}}
	hello.SetV2()
	_, err = conn.Write(hello.Append(nil))
	require.NoError(t, err)
	_, err = io.ReadFull(conn, make([]byte, wire.HandshakeSize))
	require.NoError(t, err)
	return rawPeer{conn, wire.NewReader(conn, 1<<20)}
}

// ask sends a hash request and returns the hashes that answer it, or nil for a reject.
func (p rawPeer) ask(t *testing.T, r wire.HashRequest) []byte {
	t.Helper()
	_, err := p.Write(wire.AppendHashRequest(nil, r))
	require.NoError(t, err)
	for {
		m, err := p.rd.Next()
		require.NoError(t, err)
		if m.ID != wire.Hashes && m.ID != wire.HashReject {
			continue
		}
		got, hashes := wire.ParseHashRequest(m.Payload)
		require.Equal(t, r, got)
		if m.ID == wire.HashReject {
			require.Empty(t, hashes)
			return nil
		}
		return slices.Clone(hashes)
	}
}

// A seed serves the hashes of piece layers and of the blocks of its pieces, with what proves them.
func TestHashesAreServed(t *testing.T) {
	tor, addr := shareV2(t, CreateOptions{Version: V2}, Options{})
	p := dialV2(t, tor, addr)
	long, short := rootV2(longV2), rootV2(shortV2)
	for _, c := range []struct {
		root   merkle.Hash
		height int
		q      merkle.Request
	}{
		{long, 3, merkle.Request{Base: 1, Length: 4, Proofs: 1}},
		{long, 3, merkle.Request{Base: 1, Length: 2, Proofs: 1}},
		{long, 3, merkle.Request{Base: 1, Index: 2, Length: 2, Proofs: 5}},
		{long, 3, merkle.Request{Base: 0, Length: 2, Proofs: 2}},
		{long, 3, merkle.Request{Base: 0, Index: 2, Length: 2, Proofs: 2}},
		{long, 3, merkle.Request{Base: 0, Index: 4, Length: 2, Proofs: 2}},
		{short, 1, merkle.Request{Base: 0, Length: 2}},
	} {
		r := wire.HashRequest{Root: c.root, Base: uint32(c.q.Base), Index: uint32(c.q.Index), Length: uint32(c.q.Length), Proofs: uint32(c.q.Proofs)}
		require.True(t, merkle.Prove(c.root, c.height, c.q, p.ask(t, r)), "%+v", c.q)
	}
	first := merkle.HashBlock(longV2[:blockSize])
	require.Equal(t, first[:], p.ask(t, wire.HashRequest{Root: long, Length: 2})[:merkle.Size], "no proof is needed to be asked for")

	for name, r := range map[string]wire.HashRequest{
		"of no file":                     {Root: [32]byte{7}, Base: 1, Length: 2},
		"of no layer that is served":     {Root: long, Base: 2, Length: 2},
		"of a layer above the root":      {Root: long, Base: 1 << 31, Length: 2},
		"out of range":                   {Root: long, Base: 1, Index: 4, Length: 4},
		"an index off the length":        {Root: long, Base: 1, Index: 1, Length: 2},
		"of blocks of two pieces":        {Root: long, Length: 4},
		"of blocks behind the last one":  {Root: long, Index: 6, Length: 2},
		"no power of two":                {Root: long, Base: 1, Length: 3},
		"far too many":                   {Root: long, Base: 1, Length: 1 << 31},
		"a layer of a file of one piece": {Root: short, Base: 1, Length: 2},
	} {
		require.Nil(t, p.ask(t, r), name)
	}
}

// No peer is served hashes without end.
func TestHashesServedAreBounded(t *testing.T) {
	tor, addr := shareV2(t, CreateOptions{Version: V2}, Options{})
	p := dialV2(t, tor, addr)
	r := wire.HashRequest{Root: rootV2(longV2), Base: 1, Length: 4}
	for served := 0; ; served++ {
		if p.ask(t, r) == nil {
			require.Greater(t, served, 1000)
			break
		}
		require.Less(t, served, 20_000)
	}
}

// A request for the hashes of blocks has a piece read and hashed. That is charged to the peer, which is read later if it asks for
// more than it may; but not for a piece that was read last, of which an honest peer asks for one part after the other.
func TestBlockHashesAreCharged(t *testing.T) {
	t.Parallel()
	const pieceLength = 16 << 20
	content := contentV2(2*pieceLength, 'c')
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "f"), content, 0o644))
	tor, err := Create(filepath.Join(dir, "f"), &CreateOptions{Version: V2, PieceLength: pieceLength, Private: true})
	require.NoError(t, err)
	p := dialV2(t, tor, seedV2(t, tor, dir, Options{}))
	root := rootV2(content)
	ask := func(piece, part int) bool {
		r := wire.HashRequest{Root: root, Index: uint32(piece)<<10 + 64*uint32(part), Length: 64, Proofs: 10}
		return p.ask(t, r) != nil
	}
	for part := range 16 {
		require.True(t, ask(0, part))
	}
	began := time.Now()
	const each = pieceLength / blockSize * blockWork
	for asked := 1; time.Since(began) < 2*time.Second; asked++ {
		require.True(t, ask(asked%2, 0)) // of the other piece each time
		require.LessOrEqual(t, float64(asked*each), workAtOnce+workRate*(time.Since(began).Seconds()+1)+each)
	}
}

// An answer is charged with a run of each tree of which it proves a part, however long the tree is. A run costs less than a request
// of a block.
func TestHashesWork(t *testing.T) {
	const pieces, blocks = 1_000_000, 4096
	l := layout.NewAligned(blocks*blockSize, layout.File{Path: "long", Length: pieces * blocks * blockSize},
		layout.File{Path: "short", Length: 3 * blocks * blockSize}, layout.File{Path: "a piece", Length: 2 * blockSize})
	d := &Download{t: &Torrent{layout: l, hashes: piecehash.New(l, make([]merkle.Hash, 3), make([][]byte, 3))}}
	const level, run = 12, merkle.Run * hashWork
	require.Less(t, run, requestWork)
	for _, c := range []struct {
		file int
		q    merkle.Request
		work int64
	}{
		{0, merkle.Request{Base: level, Length: 2}, 2 + run},
		{0, merkle.Request{Base: level, Length: 16}, 16 + run},
		{0, merkle.Request{Base: level, Length: 32}, 32},
		{0, merkle.Request{Base: level, Length: 512}, 512},
		{0, merkle.Request{Base: level, Length: 8192}, 8192},
		{0, merkle.Request{Length: 16}, 16 + 2*run},
		{0, merkle.Request{Length: 32}, 32 + run},
		{0, merkle.Request{Length: blocks}, blocks + run},
		{1, merkle.Request{Base: level, Length: 2}, 2 + 3*hashWork},
		{1, merkle.Request{Base: level, Length: 4}, 4},
		{2, merkle.Request{Length: 2}, 2},
	} {
		require.Equal(t, c.work, d.hashesWork(c.file, c.q), "%d: %+v", c.file, c.q)
	}
}

// Of a layer that comes, the many files that are not chosen and lack theirs, too, are not looked at again.
func TestLayersOfFilesThatAreNotChosen(t *testing.T) {
	const files = 300_000
	d := &Download{t: &Torrent{version: V2}}
	d.selection.choice.priority = make([]Priority, files) // Normal
	list := make([]layout.File, files)
	for i := range list {
		list[i] = layout.File{Path: "f", Length: 2 * blockSize}
		d.selection.choice.priority[i] = Skip
	}
	l := layout.NewAligned(blockSize, list...)
	d.t.layout, d.t.hashes = l, piecehash.New(l, make([]merkle.Hash, files), make([][]byte, files))
	const chosen = files - 2
	d.selection.choice.priority[chosen] = Normal
	for range 2 {
		d.awaitLayers()
		require.True(t, d.hashing.waiting)
		require.Equal(t, chosen, d.hashing.lacking, "where the next look begins")
	}
	d.selection.choice.priority[chosen] = Skip // which only another choice may do
	d.awaitLayers()
	require.False(t, d.hashing.waiting)
	require.Equal(t, files, d.hashing.lacking)
}

// A peer that sends false hashes is banned, and the layer comes from another.
func TestFalseHashesAreOfALiar(t *testing.T) {
	tor, addr := shareV2(t, CreateOptions{Version: V2}, Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	lied := make(chan struct{})
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		hello := wire.Handshake{InfoHash: tor.infoHash, PeerID: [20]byte{9}}
		hello.SetV2()
		io.ReadFull(conn, make([]byte, wire.HandshakeSize))
		conn.Write(hello.Append(nil))
		rd := wire.NewReader(conn, 1<<20)
		for {
			m, err := rd.Next()
			if err != nil {
				return
			}
			if m.ID == wire.AskHashes {
				r, _ := wire.ParseHashRequest(m.Payload)
				conn.Write(wire.AppendHashes(nil, r, make([]byte, merkle.Size*int(r.Length))))
				close(lied)
			}
		}
	}()
	liar := netip.MustParseAddrPort(l.Addr().String())
	c := localClient(t)
	c.Encryption = DisableEncryption
	d, err := withoutLayers(t, tor).Start(t.Context(), &Options{Client: c, Peers: []netip.AddrPort{liar}})
	require.NoError(t, err)
	defer d.Close()
	<-lied
	d.AddPeers(addr)
	_, err = d.Wait()
	require.NoError(t, err)
	d.mu.Lock()
	defer d.mu.Unlock()
	require.True(t, d.discovery.candidates.Banned(liar))
}

// A hybrid of which the layer is unknown serves no hashes of blocks: nothing would prove them.
func TestHashesAreNotServedWithoutTheirProof(t *testing.T) {
	tor, _ := shareV2(t, CreateOptions{Version: Hybrid}, Options{})
	bare := withoutLayers(t, tor)
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "d"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "d", "a"), append(longV2[:pieceLengthV2:pieceLengthV2], make([]byte, len(longV2)-pieceLengthV2)...), 0o644))
	c := localClient(t)
	d, err := bare.Start(t.Context(), &Options{Client: c, Dir: dir})
	require.NoError(t, err)
	defer d.Close()
	require.Eventually(t, func() bool { _, accepts := c.acceptorFor(bare.infoHash); return accepts }, time.Minute, time.Millisecond)
	require.True(t, d.Verified().Has(0))
	p := dialV2(t, bare, netip.MustParseAddrPort(c.Addr().String()))
	require.Nil(t, p.ask(t, wire.HashRequest{Root: rootV2(longV2), Length: 2, Proofs: 2}))
}
