package torrent

import (
	"bytes"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/bits"
	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/merkle"
	"github.com/shoal-go/torrent/internal/piecehash"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
)

// simContent is a torrent with the content that it describes.
type simContent struct {
	*Torrent
	truth *simpeer.Content
	bare  bool // of version 2, it lacks the piece layers, as what a magnet link leads to
}

// newSimContent makes content that is drawn from a seed number, cut into files of the given lengths.
func newSimContent(seed uint64, pieceLength int64, files ...int64) *simContent {
	name := fmt.Sprintf("content-%d", seed)
	list := make([]layout.File, len(files))
	total := int64(0)
	for i, n := range files {
		path := name
		if len(files) > 1 {
			path = fmt.Sprintf("%s/dir-%d/file-%d", name, i%3, i)
		}
		list[i] = layout.File{Path: path, Length: n}
		total += n
	}
	return describe(name, simpeer.NewContent(seed, pieceLength, total), list...)
}

// newSimVersion is newSimContent for a version. It lacks the piece layers of version 2 if it is to be bare.
func newSimVersion(v Version, bare bool, seed uint64, pieceLength int64, files ...int64) *simContent {
	c := newSimContent(seed, pieceLength, files...)
	if v == V1 {
		return c
	}
	var list []layout.File
	end := int64(0)
	for _, f := range c.layout.Files() {
		if fill := (pieceLength - end%pieceLength) % pieceLength; fill > 0 && f.Length > 0 {
			list = append(list, layout.File{Path: fmt.Sprintf("%s/.pad/%d", c.name, fill), Length: fill, Pad: true})
			end += fill
		}
		list = append(list, layout.File{Path: f.Path, Length: f.Length})
		end += f.Length
	}
	c.truth = simpeer.NewVersion2(seed, layout.NewAligned(pieceLength, list...), v == Hybrid)
	c.layout, c.version, c.infoHash, c.bare = c.truth.Layout, v, c.truth.InfoHash, bare
	copy(c.infoHashV2[:], c.truth.InfoHashV2[:])
	c.pieces = nil
	for i := range c.NumPieces() {
		if v == Hybrid {
			sum := sha1.Sum(c.truth.Run(c.layout.PieceOffset(i), c.layout.PieceSize(i)+c.layout.PieceFill(i)))
			c.pieces = append(c.pieces, sum[:]...)
		}
	}
	c.Torrent = c.own()
	return c
}

// own is the torrent as one client reads it: what its downloads learn, others do not know.
func (c *simContent) own() *Torrent {
	if c.version == V1 {
		return c.Torrent
	}
	t := *c.Torrent
	roots, layers := make([]merkle.Hash, t.layout.NumFiles()), make([][]byte, t.layout.NumFiles())
	for i := range roots {
		roots[i] = c.truth.Root(i)
		if !c.bare {
			layers[i] = c.truth.PieceLayer(i)
		}
	}
	t.hashes = piecehash.New(t.layout, roots, layers)
	return &t
}

// newSimRepeating makes one file of any length whose pieces are all alike.
func newSimRepeating(seed uint64, pieceLength, length int64) *simContent {
	name := fmt.Sprintf("content-%d", seed)
	return describe(name, simpeer.NewRepeating(seed, pieceLength, length), layout.File{Path: name, Length: length})
}

// describe makes the torrent of some content.
func describe(name string, truth *simpeer.Content, files ...layout.File) *simContent {
	t := &Torrent{
		name: name, multi: len(files) > 1, length: truth.Size(),
		layout: layout.New(truth.PieceLength(), files...), infoHash: truth.InfoHash,
	}
	sums := map[*byte][sha1.Size]byte{} // by the first byte of a piece in memory, which pieces that are alike share
	for i := range t.NumPieces() {
		p := truth.Piece(i)
		sum, known := sums[&p[0]]
		if !known || int64(len(p)) < truth.PieceLength() {
			sum = sha1.Sum(p)
			sums[&p[0]] = sum
		}
		t.pieces = append(t.pieces, sum[:]...)
	}
	return &simContent{Torrent: t, truth: truth}
}

// simStorage is a Storage for a simContent that holds no bytes. What is written must be the content, so it is
// enough to record which blocks came.
type simStorage struct {
	content *simContent
	mu      sync.Mutex
	written bits.Set // by block, counted through the whole content
	wrong   []int64  // offsets at which anything but the content was written
}

func newSimStorage(c *simContent) *simStorage {
	return &simStorage{content: c, written: bits.New(c.NumPieces() * c.blocksAPiece())}
}

func (c *simContent) blocksAPiece() int {
	return int((c.layout.PieceLength() + blockSize - 1) / blockSize)
}

// fill makes the storage hold everything.
func (s *simStorage) fill() *simStorage {
	s.written = bits.Full(s.written.Len())
	return s
}

// open has the signature of Options.Storage.
func (s *simStorage) open(*Torrent) (Storage, error) { return s, nil }

func (s *simStorage) WriteAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.each(p, off, func(b []byte, at int64, block int, whole bool) error {
		if !bytes.Equal(b, s.content.truth.Run(at, int64(len(b)))) {
			s.wrong = append(s.wrong, at)
		} else if whole {
			s.written.Add(block)
		}
		return nil
	})
}

func (s *simStorage) ReadAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.each(p, off, func(b []byte, at int64, block int, _ bool) error {
		if block != padding && !s.written.Has(block) {
			return fs.ErrNotExist
		}
		copy(b, s.content.truth.Run(at, int64(len(b))))
		return nil
	})
}

// padding takes the place of a block's number where a call reads or writes what lies between two files.
const padding = -1

// each calls do for the part of p in each block, with whether that is the whole block, and for what is padding.
func (s *simStorage) each(p []byte, off int64, do func(b []byte, at int64, block int, whole bool) error) (int, error) {
	c, n := s.content.truth, 0
	for n < len(p) {
		at := off + int64(n)
		if at >= c.Size() {
			return n, io.EOF
		}
		piece := int(at / c.PieceLength())
		begin := at % c.PieceLength()
		block, left := piece*s.content.blocksAPiece()+int(begin/blockSize), min(blockSize-begin%blockSize, c.PieceSize(piece)-begin)
		if left <= 0 {
			block, left = padding, c.PieceLength()-begin
		}
		b := p[n:min(len(p), n+int(left))]
		whole := block != padding && begin%blockSize == 0 && len(b) == int(left)
		if err := do(b, at, block, whole); err != nil {
			return n, err
		}
		n += len(b)
	}
	return n, nil
}

// Padding can be read and written by the calls that span files, which Storage allows, and is zeros that need not be stored.
func TestSimStoragePadding(t *testing.T) {
	for _, version := range []Version{V2, Hybrid} {
		for _, tail := range []int64{1, blockSize, blockSize + 100} { // of the first file, in its last piece
			content := newSimVersion(version, false, 1, 4*blockSize, 4*blockSize+tail, 3)
			s := newSimStorage(content)
			all, got := content.truth.Run(0, content.layout.Size()), make([]byte, content.layout.Size())
			second := content.layout.PieceOffset(2)
			_, err := s.ReadAt(got[second-10:], second-10)
			require.ErrorIs(t, err, fs.ErrNotExist)
			n, err := s.WriteAt(all, 0)
			require.NoError(t, err)
			require.Len(t, all, n)
			require.Empty(t, s.wrong)
			n, err = s.ReadAt(got, 0)
			require.NoError(t, err)
			require.Len(t, all, n)
			require.Equal(t, all, got)
			_, err = s.WriteAt([]byte{1}, second-1)
			require.NoError(t, err)
			require.Equal(t, []int64{second - 1}, s.wrong)
		}
	}
}

func (s *simStorage) Sync() error { return nil }

func (s *simStorage) Close() error { return nil }

func randomBytes(seed uint64, n int) []byte {
	var key [32]byte
	key[0], key[1], key[2], key[3] = byte(seed), byte(seed>>8), byte(seed>>16), byte(seed>>24)
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return b
}

// Each test here is a fault that a random history found, reduced to what it takes to see it.

// simMeeting is one client under test among scripted peers that its Options name.
type simMeeting struct {
	net     *simnet.Network
	content *simContent
	peers   []*simpeer.Peer
	host    *simnet.Host // of the client; by default one without limits
	options Options      // to which run adds the peers
	client  *simDownload
}

// meet adds a peer; the k-th has the address 80.0.0.k, up to 249, and a latency of 20 ms to the client.
func (m *simMeeting) meet(t *testing.T, rate float64, script simpeer.Script) *simpeer.Peer {
	k := len(m.peers) + 1
	p := simpeer.New(fmt.Sprintf("peer %d", k), m.net.NewHost(fmt.Sprintf("80.0.%d.%d", k/250, k%250), rate, 0, 10*time.Millisecond), 6881, m.content.truth, script)
	require.NoError(t, p.Arrive())
	m.peers = append(m.peers, p)
	return p
}

// later has a peer leave, and dial the client after a while.
func later(p *simpeer.Peer, after time.Duration) {
	p.Depart()
	p.Go(func() {
		if p.Wait(after) {
			p.Dial(netip.MustParseAddrPort("81.0.0.1:6881"))
		}
	})
}

// run has the client download from the peers, for so long at most, and checks what it did.
func (m *simMeeting) run(t *testing.T, atMost time.Duration) {
	for _, p := range m.peers {
		m.options.Peers = append(m.options.Peers, p.Addr())
	}
	if m.host == nil {
		m.host = m.net.NewHost("81.0.0.1", 0, 0, 10*time.Millisecond)
	}
	m.client = simStart(t.Context(), t, m.host, m.content, nil, &m.options, nil)
	simWait(atMost, m.client)
	require.True(t, m.client.done(), "%s", m.client.describe())
	require.NoError(t, m.client.compare(nil))
	require.Empty(t, m.client.account(m.peers...))
}

func (m *simMeeting) end(t *testing.T) {
	if m.client != nil {
		m.client.end(t)
	}
	for _, p := range m.peers {
		p.Stop()
	}
}

// found runs a test with a meeting in a simulated network.
func found(t *testing.T, content *simContent, f func(t *testing.T, m *simMeeting)) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		m := &simMeeting{net: n, content: content}
		defer m.end(t)
		f(t, m)
	})
}

// A snubbed peer is sent cancels for what it was asked for. It used to hear nothing, while the blocks were
// asked of other peers and stolen from these: a third copy was under way, and when the snubbed peer was tried
// again, it was asked twice for the same block.
func TestFoundSnubbedIsNotCancelled(t *testing.T) {
	found(t, newSimContent(1, 256<<10, 1<<20), func(t *testing.T, m *simMeeting) {
		for range 3 {
			m.meet(t, 1e6, simpeer.Script{Never: simpeer.Answers})
		}
		m.meet(t, 30e3, simpeer.Script{})
		m.run(t, 5*time.Minute)
	})
}

// A piece on parole stays with its sole sender until another peer would have the whole of it in half the
// time. Two idle peers of unknown rate used to take it from each other without end, in a stream of requests
// and cancels, since each was expected sooner with its first block than the other with its last.
func TestFoundParoleIsFoughtOver(t *testing.T) {
	found(t, newSimContent(1, 128<<10, 128<<10), func(t *testing.T, m *simMeeting) {
		m.meet(t, 1e6, simpeer.Script{Corrupt: 1, Eager: true})
		for range 4 {
			m.meet(t, 100e3, simpeer.Script{Fast: true})
		}
		m.run(t, time.Minute)
		require.Less(t, m.client.ledger.Account().Asked, int64(4*8))
	})
}

// A fast peer that chokes all the time used to take a piece on parole from a slow one whenever it
// unchoked, and to lose it with its next choke, so the piece was begun again for ever.
func TestFoundParoleIsTakenByFlapper(t *testing.T) {
	found(t, newSimContent(1, 1<<20, 1<<20), func(t *testing.T, m *simMeeting) {
		m.meet(t, 5e6, simpeer.Script{Corrupt: 1, Eager: true})
		m.meet(t, 20e3, simpeer.Script{})
		for range 3 {
			m.meet(t, 1e6, simpeer.Script{Flap: 700 * time.Millisecond})
		}
		m.run(t, 100*time.Second) // the slow one alone takes 53 s
	})
}

// When two slow peers were asked for the same blocks, a fast peer takes the place of the slower one. It used
// to have nothing to do, since no third copy may be under way.
func TestFoundTwoSlowOnesHoldBlocks(t *testing.T) {
	found(t, newSimContent(1, 64<<10, 384<<10), func(t *testing.T, m *simMeeting) {
		m.meet(t, 2500, simpeer.Script{})
		m.meet(t, 2000, simpeer.Script{})
		later(m.meet(t, 1e6, simpeer.Script{}), 10*time.Second)
		m.run(t, 15*time.Second)
	})
}

// A sole sender of a piece on parole that rejects a block is taken not to have the piece any more. Then
// another peer begins it again. It used to wait for the connection to end.
func TestFoundParoleWithOneWhoRejects(t *testing.T) {
	found(t, newSimContent(1, 512<<10, 512<<10), func(t *testing.T, m *simMeeting) {
		m.meet(t, 10e6, simpeer.Script{Corrupt: 1, Eager: true})
		m.meet(t, 1e6, simpeer.Script{Fast: true, Rejects: 10})
		later(m.meet(t, 1e6, simpeer.Script{}), 5*time.Second)
		m.run(t, 10*time.Second)
	})
}

// Peers that have sent nothing yet take no blocks from each other. Each used to be expected sooner than the
// others, which had been silent for a moment. None kept a block for as long as it takes to send one, while the
// one fast seed was given none of them.
func TestFoundCrowdTakesBlocksInTurns(t *testing.T) {
	found(t, newSimContent(1, 256<<10, 2<<20), func(t *testing.T, m *simMeeting) {
		m.meet(t, 200e3, simpeer.Script{})
		for range 40 {
			m.meet(t, 300, simpeer.Script{})
		}
		m.run(t, 30*time.Second)
	})
}

// Peers that have sent nothing yet do not pass a piece on parole around among themselves, while one that is
// known to be fast has nothing to do. A peer that took the piece used to make it harder for all others to
// take it, and one that let it wait until it was snubbed left it to any other of the crowd.
func TestFoundCrowdPassesSpoiledPieceAround(t *testing.T) {
	found(t, newSimContent(1, 64<<10, 4<<20), func(t *testing.T, m *simMeeting) {
		m.meet(t, 200e3, simpeer.Script{Corrupt: 20, Eager: true})
		m.meet(t, 70e3, simpeer.Script{Eager: true})
		for range 40 {
			m.meet(t, 300, simpeer.Script{Eager: true})
		}
		m.run(t, 90*time.Second)
	})
}

// A peer that has been idle for long may be faster than it was. For that a piece on parole is begun again a
// few times only. It used to be begun again each time that another peer had become idle.
func TestFoundIdleOnesTakePieceInTurns(t *testing.T) {
	found(t, newSimContent(1, 4<<20, 4<<20), func(t *testing.T, m *simMeeting) {
		m.meet(t, 5e6, simpeer.Script{Corrupt: 100, Eager: true})
		for range 3 {
			m.meet(t, 30e3, simpeer.Script{Eager: true})
		}
		m.run(t, 20*time.Minute) // one alone takes 140 s
	})
}

// A peer that was never asked takes blocks from a crowd that has sent nothing either. It used to wait until
// the crowd was snubbed.
func TestFoundCrowdKeepsBlocksFromNewcomer(t *testing.T) {
	found(t, newSimContent(1, 256<<10, 512<<10), func(t *testing.T, m *simMeeting) {
		for range 40 {
			m.meet(t, 300, simpeer.Script{Eager: true})
		}
		later(m.meet(t, 1e6, simpeer.Script{Eager: true}), 2*time.Second)
		m.run(t, 10*time.Second)
	})
}

// A block that a snubbed peer sends in answer to the first request is not requested a second time. The second
// request used to go out late, once there was room for it: a block that was being uploaded had held it up.
func TestFoundRequestHeldUp(t *testing.T) {
	found(t, newSimContent(1, blockSize, 3*blockSize), func(t *testing.T, m *simMeeting) {
		m.meet(t, 1e6, simpeer.Script{}).Have = set(3, 0)
		m.meet(t, 200, simpeer.Script{}).Have = set(3, 2) // so that the download lasts
		slow := m.meet(t, 400, simpeer.Script{Takes: true})
		slow.Have = set(3, 1)
		later(slow, 5*time.Second) // and asks for piece 0 at once
		m.host = m.net.NewHost("81.0.0.1", 300, 0, 10*time.Millisecond)
		m.host.Buffer = 1000
		m.run(t, 5*time.Minute)
	})
}

// A peer that sends a block in ten seconds is not taken for one that sends a block in one. It used to look
// as fast as that with every block, so that a piece on parole stayed with it for minutes, though other peers
// would have had the whole of it sooner.
func TestFoundSlowOneLooksFast(t *testing.T) {
	found(t, newSimContent(1, 40*blockSize, 80*blockSize), func(t *testing.T, m *simMeeting) {
		m.meet(t, 5e6, simpeer.Script{Corrupt: 1, Eager: true}).Have = set(2, 1)
		slow := m.meet(t, 1600, simpeer.Script{}) // takes 410 s for a piece
		slow.Have = set(2, 1)
		later(slow, 3*time.Second)
		other := m.meet(t, 25e3, simpeer.Script{}) // takes 26 s
		other.Have = set(2, 0)
		other.Go(func() {
			if other.Wait(40 * time.Second) {
				other.Gain(1)
			}
		})
		m.run(t, 70*time.Second)
	})
}

// The many connections that one private address may have leave places to other peers, whether those call or
// the client has still to call them. They used to take all places, and to keep out a seed that is faster than
// all of them.
func TestFoundManyOfOneAddress(t *testing.T) {
	for name, calls := range map[string]bool{"the seed calls": true, "the seed is called": false} {
		t.Run(name, func(t *testing.T) {
			found(t, newSimContent(1, 128<<10, 2<<20), func(t *testing.T, m *simMeeting) {
				many := simpeer.New("many", m.net.NewHost("10.0.0.1", 2000, 0, 10*time.Millisecond), 6881, m.content.truth, simpeer.Script{})
				require.NoError(t, many.Arrive())
				defer many.Stop()
				many.Call(10, netip.MustParseAddrPort("81.0.0.1:6881"), time.Second)
				if seed := m.meet(t, 1e6, simpeer.Script{}); calls {
					later(seed, 20*time.Second)
				} else {
					seed.Depart()
					seed.Come(20*time.Second, 0, 0)
				}
				m.options.MaxPeers = 5
				m.run(t, 90*time.Second)
			})
		})
	}
}

// staleStorage is a simStorage that holds zeros where nothing was written.
type staleStorage struct{ *simStorage }

func (s staleStorage) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.simStorage.ReadAt(p, off)
	if errors.Is(err, fs.ErrNotExist) {
		clear(p)
		return len(p), nil
	}
	return n, err
}

// A hybrid that lacks its layers finds wrong pieces at the start, fetches them, and then learns a layer. The wrong pieces were taken
// for the ones that it had verified, so that the download ended with the error that the torrent is inconsistent.
func TestFoundHybridOverOtherContent(t *testing.T) {
	found(t, newSimVersion(Hybrid, true, 1, 64<<10, 512<<10), func(t *testing.T, m *simMeeting) {
		m.options.Storage = func(*Torrent) (Storage, error) { return staleStorage{newSimStorage(m.content)}, nil }
		m.meet(t, 100e3, simpeer.Script{OnlyV1: true})
		later(m.meet(t, 100e3, simpeer.Script{Fast: true}), 2*time.Second)
		m.run(t, time.Minute)
	})
}
