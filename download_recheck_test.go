package torrent

import (
	"io/fs"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/shoal-go/torrent/internal/wire"
)

// badStorage fails to read one piece so many times. Writing the piece again repairs it, unless it is beyond
// repair.
type badStorage struct {
	*simStorage
	mu     sync.Mutex
	piece  int64
	fails  int // how many more reads fail; -1 is all until it is written
	beyond bool

	hold    chan struct{} // reads wait until it is closed, unless it is nil
	reading atomic.Int32
}

func (s *badStorage) open(*Torrent) (Storage, error) { return s, nil }

func (s *badStorage) ReadAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	bad := off/s.content.layout.PieceLength() == s.piece && s.fails != 0
	if bad && s.fails > 0 {
		s.fails--
	}
	hold := s.hold
	s.mu.Unlock()
	if hold != nil {
		s.reading.Add(1)
		<-hold
		s.reading.Add(-1)
	}
	if bad {
		return 0, &fs.PathError{Op: "read", Path: "disk", Err: syscall.EIO}
	}
	return s.simStorage.ReadAt(p, off)
}

func (s *badStorage) WriteAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	if off/s.content.layout.PieceLength() == s.piece && !s.beyond {
		s.fails = 0
	}
	s.mu.Unlock()
	return s.simStorage.WriteAt(p, off)
}

// fail has the next n reads of the piece fail.
func (s *badStorage) fail(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fails = n
}

// badRig is a client that shares 8 pieces of 2 blocks from a disk whose piece 3 is bad, and two peers: one speaks
// BEP 6 and 54, the other neither.
type badRig struct {
	content  *simContent
	store    *badStorage
	us       *simnet.Host
	seed     *Download
	new, old *speaker
}

func newBadRig(t *testing.T, n *simnet.Network) *badRig {
	content := newSimContent(1, 2*blockSize, 16*blockSize)
	r := &badRig{
		content: content, us: n.NewHost("80.0.0.1", 0, 0, 0),
		store: &badStorage{simStorage: newSimStorage(content).fill(), piece: 3},
	}
	var err error
	r.seed, err = content.Start(t.Context(), &Options{Client: simClient(t, r.us, nil), Seed: true, Storage: r.store.open})
	require.NoError(t, err)
	<-r.seed.Done()
	simnet.Sleep(time.Second)
	r.new = speak(t, n.NewHost("80.0.0.2", 0, 0, 0), content, r.us.Addr(6881), speech{fast: true, extended: true})
	r.new.sayHello(wire.ExtHandshake{M: map[string]int{"lt_donthave": 9}})
	r.old = speak(t, n.NewHost("80.0.0.3", 0, 0, 0), content, r.us.Addr(6881), speech{})
	for _, s := range []*speaker{r.new, r.old} {
		s.sayID(wire.Interested)
	}
	simnet.Sleep(time.Second)
	r.new.take()
	r.old.take()
	return r
}

func TestDiskThatFailsUnderAnUpload(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		r := newBadRig(t, n)
		r.store.fail(1)
		r.new.ask(2, 3, 4)
		simnet.Sleep(time.Second)
		require.ElementsMatch(t, []string{
			"piece 2/0",
			`extended 9 "\x00\x00\x00\x03"`, // the client has it no longer
			"reject 3/0",
			"have 3", // but it was hashed again, and has it
			"piece 4/0",
		}, r.new.take())
		st := r.seed.Stats()
		require.Equal(t, 1, st.StorageErrors)
		require.ErrorIs(t, st.StorageError, syscall.EIO)
		require.Equal(t, 8, st.PiecesVerified)

		r.old.ask(3)
		simnet.Sleep(time.Second)
		require.Equal(t, []string{"have 3", "piece 3/0"}, r.old.take())
	})
}

// A piece that cannot be read even to be hashed again is fetched again from a peer that has it.
func TestDiskWithABadSector(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		r := newBadRig(t, n)
		r.store.fail(-1)
		r.new.ask(3)
		simnet.Sleep(time.Second)
		said := r.new.take()
		require.Len(t, said, 3)
		require.Subset(t, said, []string{`extended 9 "\x00\x00\x00\x03"`, "reject 3/0"}, "and that we are not upload only")
		st := r.seed.Stats()
		require.Equal(t, 7, st.PiecesVerified)
		require.False(t, st.Complete)
		r.old.ask(3, 4)
		simnet.Sleep(time.Second)
		require.Equal(t, []string{"piece 4/0"}, r.old.take(), "without BEP 6 it is not told")

		other := n.NewHost("80.0.0.4", 0, 0, 0)
		simSeed(t, simClient(t, other, nil), r.content, r.us.Addr(6881))
		simnet.Sleep(5 * time.Second)
		require.True(t, r.seed.Stats().Complete)
		require.Contains(t, r.new.take(), "have 3")
		r.new.ask(3)
		simnet.Sleep(time.Second)
		require.Equal(t, []string{"piece 3/0"}, r.new.take())
	})
}

// A piece that cannot be read even after it was written again ends the download, so that it is not fetched for
// ever.
func TestDiskBeyondRepair(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		r := newBadRig(t, n)
		r.store.fail(-1)
		r.store.beyond = true
		simSeed(t, simClient(t, n.NewHost("80.0.0.4", 0, 0, 0), nil), r.content, r.us.Addr(6881))
		r.new.ask(3)
		simnet.Sleep(5 * time.Second)
		require.Contains(t, r.new.take(), "have 3")
		r.new.ask(3)
		simnet.Sleep(5 * time.Second)
		require.True(t, r.new.hungUp())
		require.True(t, r.seed.ended())
	})
}

// Of pieces that come into doubt one after the other, as by a disk that fails while many peers ask, no more are read at a time than
// by the check at the start: each reader has a buffer.
func TestDoubtsAreHashedInTurn(t *testing.T) {
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		r := newBadRig(t, n)
		hold := make(chan struct{})
		r.store.mu.Lock()
		r.store.hold = hold
		r.store.mu.Unlock()
		var hashed []<-chan struct{}
		for i := range 8 {
			hashed = append(hashed, r.seed.doubt(i))
			simnet.Sleep(time.Second)
		}
		at := r.store.reading.Load()
		close(hold)
		require.Equal(t, int32(1), at, "the others wait for the first")
		for _, done := range hashed {
			<-done
		}
		require.Equal(t, 8, r.seed.Stats().PiecesVerified)
	})
}

// Pieces of padding alone are hashed neither at the start nor by Recheck: they are not stored, and may be far longer than the files.
func TestPaddingIsNotHashedAgain(t *testing.T) {
	tor, content := testContent(blockSize, -64*blockSize, blockSize)
	dir := t.TempDir()
	fill(t, tor, dir, content)
	c := &Client{NoDHT: true, NoUTP: true, NoListen: true}
	d, err := tor.Start(t.Context(), &Options{Dir: dir, Seed: true, Client: c})
	require.NoError(t, err)
	t.Cleanup(func() { d.Close(); c.Close() })
	_, err = d.Wait()
	require.NoError(t, err)
	require.EqualValues(t, blockSize, d.Stats().Checked)
	require.NoError(t, d.Recheck(t.Context()))
	require.EqualValues(t, blockSize, d.Stats().Checked)
	require.True(t, d.Verified().Has(0))
}

// Recheck used to crash the program if it found a piece right that peers had spoiled, and for which no blocks were compared.
func TestRecheckFindsWhatPeersSpoiled(t *testing.T) {
	found(t, newSimContent(1, 2*blockSize, 2*blockSize), func(t *testing.T, m *simMeeting) {
		m.options.Peers = []netip.AddrPort{
			m.meet(t, 1e6, simpeer.Script{Fast: true, StallAfter: 1}).Addr(),
			m.meet(t, 1e6, simpeer.Script{Fast: true, StallAfter: 1, Corrupt: 1}).Addr(),
		}
		store := newSimStorage(m.content)
		m.options.Storage = store.open
		m.host = m.net.NewHost("81.0.0.1", 0, 0, 10*time.Millisecond)
		m.client = simStart(t.Context(), t, m.host, m.content, nil, &m.options, nil)
		d := m.client.Download
		for e := range d.Events(t.Context()) {
			if e.Kind == PieceFailed {
				break
			}
		}
		store.fill()
		require.NoError(t, d.Recheck(t.Context()))
		<-d.Done()
		require.True(t, d.Stats().Complete)
	})
}
