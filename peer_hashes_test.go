package torrent

import (
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/merkle"
	"github.com/shoal-go/torrent/internal/wire"
)

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
	require.True(t, d.discovery.cand.Banned(liar))
}
