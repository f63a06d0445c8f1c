package torrent

import (
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet/simpeer"
)

// A showing is how a reader that plays a file at a constant rate fared.
type showing struct {
	first   time.Duration // until the first byte
	stalled time.Duration // in all, after that
	longest time.Duration // of the stalls
}

// play reads size bytes from off, and plays them at rate. It reads up to two seconds ahead.
func play(t *testing.T, r io.ReadSeeker, off, size int64, rate float64) (s showing) {
	_, err := r.Seek(off, io.SeekStart)
	require.NoError(t, err)
	began, b := time.Now(), make([]byte, 64<<10)
	var start time.Time // when the first byte would have been played if no later one had been late
	at := func(n int64) time.Time { return start.Add(time.Duration(float64(n) / rate * float64(time.Second))) }
	for n := int64(0); n < size; {
		k, err := r.Read(b)
		require.NoError(t, err)
		if n == 0 {
			start = time.Now()
			s.first = start.Sub(began)
		} else if late := time.Since(at(n)); late > 0 {
			start = start.Add(late)
			s.stalled += late
			s.longest = max(s.longest, late)
		}
		n += int64(k)
		time.Sleep(time.Until(at(n)) - 2*time.Second)
	}
	t.Logf("from %d MiB: first byte after %v, stalled for %v, %v at once", off>>20, s.first, s.stalled, s.longest)
	return s
}

// open starts a download of content of which the file is on demand, and opens the file.
func (m *simWebMeeting) open(t *testing.T) io.ReadSeekCloser {
	m.options.Select = func(File) Priority { return OnDemand }
	m.start(t)
	r, err := m.client.Open(t.Context(), m.content.name)
	require.NoError(t, err)
	t.Cleanup(func() { r.Close() })
	return r
}

// A peer rejects one request in five, at random. A second reject for a piece used to mean that it lacks the piece for good, and a reader
// waited until it had come again, three minutes later, or until the only one had been useless for ten minutes. A reject of a request that
// had been withdrawn once, before it was sent, was taken for the answer to that one: the block was not requested again for 20 seconds and
// more.
func TestReaderBesidePeersThatReject(t *testing.T) {
	for name, peers := range map[string]int{"one": 1, "ten": 10} {
		t.Run(name, func(t *testing.T) {
			foundWeb(t, newSimRepeating(1, 1<<20, 40<<20), func(t *testing.T, m *simWebMeeting) {
				for range peers {
					m.meet(t, 1.5e6/float64(peers), simpeer.Script{Fast: true, Rejects: 5})
				}
				r := m.open(t)
				for _, off := range []int64{20 << 20, 0} {
					s := play(t, r, off, 20<<20, 1e6)
					require.Less(t, s.first, 30*time.Second)
					require.Less(t, s.longest, 10*time.Second)
				}
				require.Empty(t, m.client.account(m.peers...))
			})
		})
	}
}

// A reader plays a file with pieces of 16 MiB, each of which takes half as long to fetch as to play. The next piece used to be fetched
// only once the reader was within 2 MiB of it, because what is fetched ahead depends on a rate, which is zero while nothing is wanted.
func TestReaderOfLargePieces(t *testing.T) {
	foundWeb(t, newSimRepeating(1, 16<<20, 64<<20), func(t *testing.T, m *simWebMeeting) {
		for range 5 {
			m.meet(t, 400e3, simpeer.Script{Fast: true})
		}
		s := play(t, m.open(t), 0, 64<<20, 1e6)
		require.Less(t, s.first, 10*time.Second)
		require.Zero(t, s.stalled)
	})
}
