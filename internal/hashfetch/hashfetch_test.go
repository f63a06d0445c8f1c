package hashfetch_test

import (
	"crypto/sha256"
	"encoding/binary"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/hashfetch"
	"github.com/shoal-go/torrent/internal/merkle"
)

const level = 1

// tree is the tree of a file of n pieces of two blocks, and its piece layer.
func tree(n int) (t *merkle.Tree, layer []byte, root merkle.Hash, height int) {
	for i := range n {
		h := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))
		layer = append(layer, h[:]...)
	}
	height = merkle.Height(int64(n)) + level
	return merkle.NewTree(layer, level, height), layer, merkle.Root(layer, level, height), height
}

var (
	start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	whole = hashfetch.Target{File: 3, Piece: -1}
)

// A long layer is fetched in parts, of several peers, and is whole once all of them are here.
func TestLayerInParts(t *testing.T) {
	tr, layer, root, height := tree(3000)
	f := hashfetch.New()
	require.False(t, f.Wanting())
	f.Want(whole, root, height, level, 0, 3000)
	f.Want(whole, root, height, level, 0, 3000) // again: nothing changes
	require.True(t, f.Wants(whole))
	a, b := hashfetch.NewPeer(), hashfetch.NewPeer()
	of := f.Next(a, start)
	require.Len(t, of, 4)
	rest := f.Next(b, start)
	require.Len(t, rest, 2)
	require.Empty(t, f.Next(b, start))
	asked := 0
	for k, r := range append(of, rest...) {
		require.Equal(t, 512, r.Length)
		require.True(t, r.Sound(height))
		asked += r.Length
		peer := a
		if k >= len(of) {
			peer = b
		}
		found, ok, err := f.Received(peer, r, tr.Append(nil, r.Request))
		require.NoError(t, err)
		require.Equal(t, k == 5, ok)
		if ok {
			require.Equal(t, hashfetch.Found{Target: whole, Layer: layer}, found)
		}
	}
	require.Equal(t, 3072, asked)
	require.False(t, f.Wanting())
	require.False(t, f.Wants(whole))
}

// A short layer is one request, and so are the blocks of one piece.
func TestShortLayers(t *testing.T) {
	tr, layer, root, height := tree(3)
	f := hashfetch.New()
	f.Want(whole, root, height, level, 0, 3)
	p := hashfetch.NewPeer()
	r := f.Next(p, start)
	require.Equal(t, []hashfetch.Request{{Root: root, Request: merkle.Request{Base: level, Length: 4, Proofs: 1}}}, r)
	found, ok, err := f.Received(p, r[0], tr.Append(nil, r[0].Request))
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, layer, found.Layer)

	blocks := hashfetch.Target{File: 3, Piece: 7}
	f.Want(blocks, root, height, 0, 4, 2)
	require.Equal(t, []hashfetch.Request{{Root: root, Request: merkle.Request{Index: 4, Length: 2, Proofs: 2}}}, f.Next(p, start))
}

// If a peer does not answer within three seconds, another is asked.
func TestAnotherPeerIsAsked(t *testing.T) {
	tr, _, root, height := tree(3)
	f := hashfetch.New()
	f.Want(whole, root, height, level, 0, 3)
	slow, other := hashfetch.NewPeer(), hashfetch.NewPeer()
	r := f.Next(slow, start)[0]
	require.Empty(t, f.Next(other, start.Add(hashfetch.AskAgain-1)))
	require.Empty(t, f.Next(slow, start.Add(hashfetch.AskAgain)), "not the same")
	require.Equal(t, []hashfetch.Request{r}, f.Next(other, start.Add(hashfetch.AskAgain)))
	_, ok, err := f.Received(other, r, tr.Append(nil, r.Request))
	require.NoError(t, err)
	require.True(t, ok)
	for range 20 { // the slow one's late answer does no harm
		_, ok, err = f.Received(slow, r, tr.Append(nil, r.Request))
		if err != nil {
			break
		}
		require.False(t, ok)
	}
	require.ErrorIs(t, err, hashfetch.ErrUnasked, "but not again and again")

	// The only peer there is is asked again after a while.
	f.Want(whole, root, height, level, 0, 3)
	alone := hashfetch.NewPeer()
	require.Len(t, f.Next(alone, start), 1)
	require.Empty(t, f.Next(alone, start.Add(29*time.Second)))
	require.Len(t, f.Next(alone, start.Add(30*time.Second)), 1)
	f.Leave(alone)
	require.Len(t, f.Next(other, start.Add(30*time.Second)), 1, "at once when a peer leaves")
}

// If many peers do not answer, more are asked each time. One that refuses is replaced by one.
func TestMoreAreAskedEachTime(t *testing.T) {
	_, _, root, height := tree(3)
	f := hashfetch.New()
	f.Want(whole, root, height, level, 0, 3)
	var last *hashfetch.Peer
	var r hashfetch.Request
	asked := func(now time.Time) (n int) {
		for range 20 {
			p := hashfetch.NewPeer()
			if requests := f.Next(p, now); len(requests) > 0 {
				last, r = p, requests[0]
				n++
			}
		}
		return n
	}
	now := start
	for _, want := range []int{1, 2, 4, 8, 8} {
		require.Equal(t, want, asked(now))
		now = now.Add(hashfetch.AskAgain - 1)
		require.Zero(t, asked(now))
		require.NoError(t, f.Rejected(last, r, now))
		require.Equal(t, 1, asked(now))
		now = now.Add(hashfetch.AskAgain)
	}
}

func TestRejects(t *testing.T) {
	tr, _, root, height := tree(3)
	f := hashfetch.New()
	f.Want(whole, root, height, level, 0, 3)
	a, b := hashfetch.NewPeer(), hashfetch.NewPeer()
	r := f.Next(a, start)[0]
	require.NoError(t, f.Rejected(b, r, start), "it was not asked")
	require.NoError(t, f.Rejected(a, r, start))
	require.NoError(t, f.Rejected(a, hashfetch.Request{}, start))
	require.Empty(t, f.Next(a, start.Add(29*time.Second)))
	require.Len(t, f.Next(b, start), 1)
	_, ok, err := f.Received(a, r, tr.Append(nil, r.Request))
	require.NoError(t, err)
	require.True(t, ok, "it thought better of it")
	require.NoError(t, f.Rejected(b, r, start), "late")
}

// Of thousands of files, a peer that refuses the hashes of all is soon asked for no more of them, until some time has passed. To
// look for what to ask a peer for takes no longer with more files.
func TestManyFilesAreRefused(t *testing.T) {
	const files, peers, most = 10_000, 80, 20
	f := hashfetch.New()
	for i := range files {
		f.Want(hashfetch.Target{File: i, Piece: -1}, merkle.Hash{byte(i), byte(i >> 8)}, 2, 1, 0, 2)
	}
	var all []*hashfetch.Peer
	for range peers {
		p := hashfetch.NewPeer()
		f.Next(p, start)
		all = append(all, p)
	}
	refuse := func(now time.Time) (n int) {
		p := hashfetch.NewPeer()
		for again := 0; again < 2; again++ {
			for todo := f.Next(p, now); len(todo) > 0; n++ {
				require.NoError(t, f.Rejected(p, todo[0], now))
				for _, other := range all {
					f.Next(other, now)
				}
				todo = append(todo[1:], f.Next(p, now)...)
			}
			require.LessOrEqual(t, n, most*(again+1))
			now = now.Add(30 * time.Second)
		}
		return n
	}
	require.Greater(t, refuse(start), most)

	// One that has some of them is asked for all.
	f = hashfetch.New()
	trees := make(map[merkle.Hash]*merkle.Tree)
	for i := range 1000 {
		leaf := sha256.Sum256([]byte{byte(i), byte(i >> 8)})
		tr := merkle.NewTree(append(leaf[:], leaf[:]...), 1, 2)
		trees[tr.Node(2, 0)] = tr
		f.Want(hashfetch.Target{File: i, Piece: -1}, tr.Node(2, 0), 2, 1, 0, 2)
	}
	p, answered := hashfetch.NewPeer(), 0
	for todo := f.Next(p, start); len(todo) > 0; todo = append(todo[1:], f.Next(p, start)...) {
		if r := todo[0]; r.Root[0]%2 == 0 {
			require.NoError(t, f.Rejected(p, r, start))
		} else {
			_, whole, err := f.Received(p, r, trees[r.Root].Append(nil, r.Request))
			require.NoError(t, err)
			require.True(t, whole)
			answered++
		}
	}
	require.InDelta(t, 500, answered, 50)
	require.True(t, f.Wanting())

	// Then it rests from many, and whatever has it considered again has to be charged with more.
	before := f.Work()
	f.Next(p, start)
	require.GreaterOrEqual(t, f.Work()-before, int64(1000-answered))
}

// False hashes are of a liar, whatever they are like.
func TestLies(t *testing.T) {
	tr, _, root, height := tree(600)
	f := hashfetch.New()
	f.Want(whole, root, height, level, 0, 600)
	for _, lie := range []func([]byte) []byte{
		func(b []byte) []byte { b[40] ^= 1; return b },
		func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		func(b []byte) []byte { return b[:len(b)-merkle.Size] },
		func(b []byte) []byte { return nil },
	} {
		p := hashfetch.NewPeer()
		now := start.Add(time.Hour)
		r := f.Next(p, now)[0]
		_, ok, err := f.Received(p, r, lie(tr.Append(nil, r.Request)))
		require.ErrorIs(t, err, hashfetch.ErrLied)
		require.False(t, ok)
		f.Leave(p)
		_, _, err = f.Received(hashfetch.NewPeer(), r, nil)
		require.NoError(t, err, "of one that was not asked nothing is even looked at")
		start = now
	}
	require.True(t, f.Wants(whole))
}

func FuzzReceived(f *testing.F) {
	_, _, root, height := tree(3)
	f.Add([]byte("hashes"), 1, 0, 4, 1)
	f.Fuzz(func(t *testing.T, hashes []byte, base, index, length, proofs int) {
		fetch, p := hashfetch.New(), hashfetch.NewPeer()
		fetch.Want(whole, root, height, level, 0, 3)
		fetch.Next(p, start)
		r := hashfetch.Request{Root: root, Request: merkle.Request{Base: base, Index: index, Length: length, Proofs: proofs}}
		if _, ok, _ := fetch.Received(p, r, hashes); ok {
			t.Fatal("made up")
		}
	})
}

// Of two files with the same content the layer is fetched once.
func TestSameContentIsFetchedOnce(t *testing.T) {
	_, _, root, height := tree(3)
	f := hashfetch.New()
	f.Want(whole, root, height, level, 0, 3)
	other := hashfetch.Target{File: 4, Piece: -1}
	f.Want(other, root, height, level, 0, 3)
	require.False(t, f.Wants(other))
	require.Len(t, f.Next(hashfetch.NewPeer(), start), 1)
}

// Two files may have the same root and claim different lengths, or the blocks of a piece may be wanted for the second when some of
// those for the first are here. Then their requests are partly the same, and the layer of the first is fetched alone. It is not found if
// it is the beginning of another, whose hashes prove the root.
func TestRequestsThatAreOnlyPartlyTheSame(t *testing.T) {
	tr, layer, root, height := tree(2000)
	other := hashfetch.Target{File: 4, Piece: -1}
	for name, n := range map[string]int{"another length": 1100, "the same length": 2000} {
		f, p := hashfetch.New(), hashfetch.NewPeer()
		f.Want(whole, root, height, level, 0, n)
		var found []hashfetch.Found
		for answered := 0; f.Wanting(); answered++ {
			requests := f.Next(p, start)
			require.NotEmpty(t, requests, name)
			for k, r := range requests {
				if answered == 0 && k == 1 {
					f.Want(other, root, height, level, 0, 2000)
				}
				got, ok, err := f.Received(p, r, tr.Append(nil, r.Request))
				require.NoError(t, err, name)
				if ok {
					found = append(found, got)
				}
			}
		}
		if n < 2000 {
			require.Empty(t, found, name)
		} else {
			require.Equal(t, []hashfetch.Found{{Target: whole, Layer: layer}}, found, name)
		}
	}
}
