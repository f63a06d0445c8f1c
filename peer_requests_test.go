package torrent

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/wire"
)

// snubTimeout is how long a peer that was asked for blocks may be silent while it is not known how long they take.
const snubTimeout = 20 * time.Second

// What a client says to the only peer that it knows of, message by message, in answer to what the peer does.
func TestAsking(t *testing.T) {
	bitfield := func(pieces ...int) []byte {
		has := set(3, pieces...)
		return wire.AppendBitfield(nil, has.AppendTo(nil))
	}
	reject := func(piece, block uint32) []byte {
		return wire.AppendReject(nil, piece, block*blockSize, blockSize)
	}
	unchoke, choke := wire.AppendSimple(nil, wire.Unchoke), wire.AppendSimple(nil, wire.Choke)
	content := newSimContent(1, 2*blockSize, 6*blockSize)
	piece := func(index, block uint32, b []byte) []byte {
		return append(wire.AppendPieceHeader(nil, index, block*blockSize, uint32(len(b))), b...)
	}
	truth := func(index, block uint32) []byte {
		return piece(index, block, content.truth.Block(index, block*blockSize, blockSize))
	}
	lie := func(index, block uint32) []byte { return piece(index, block, make([]byte, blockSize)) }
	of := func(index uint32, words ...string) []string {
		for _, block := range []string{"/0", "/1"} {
			words = append(words, several("request %d"+block, index)...)
		}
		return words
	}
	type turn struct {
		say  []byte
		wait time.Duration // and a millisecond
		hear []string
		over bool
	}
	for name, c := range map[string]struct {
		fast  bool
		turns []turn
	}{
		"a late bitfield adds to what is known": {turns: []turn{
			{say: unchoke},
			{say: bitfield(), hear: nil},
			{say: bitfield(1), hear: of(1, "interested")},
			{say: bitfield(2), hear: of(2)},
			{say: wire.AppendHave(nil, 0), hear: of(0)},
		}},
		"a choke takes everything back": {turns: []turn{
			{say: bitfield(1), hear: []string{"interested"}},
			{say: unchoke, hear: of(1)},
			{say: truth(1, 0)},
			{say: choke},
			{say: unchoke, hear: []string{"request 1/1"}},
			{say: truth(1, 1), hear: []string{"cancel 1/1", "have 1", "not interested"}},
		}},
		"with BEP 6 only a reject does": {fast: true, turns: []turn{
			{say: bitfield(1), hear: []string{"have none", "interested"}},
			{say: unchoke, hear: of(1)},
			{say: choke},
			{say: unchoke},
			{say: reject(1, 1), hear: []string{"request 1/1"}},
		}},
		"who rejects a piece twice does not have it": {fast: true, turns: []turn{
			{say: append(bitfield(1), unchoke...), hear: of(1, "have none", "interested")},
			{say: reject(1, 0), hear: []string{"request 1/0"}},
			{say: reject(1, 0), hear: []string{"not interested"}},
		}},
		"a silent peer is asked for one block, until it sends that": {turns: []turn{
			{say: append(bitfield(0), unchoke...), hear: of(0, "interested")},
			{wait: snubTimeout - tick},
			{wait: 2 * tick, hear: []string{"cancel 0/0", "cancel 0/1", "request 0/0"}},
			{say: truth(0, 0), hear: []string{"cancel 0/0", "request 0/1"}},
		}},
		"a reject of what was never asked": {fast: true, turns: []turn{
			{say: append(bitfield(1), unchoke...), hear: of(1, "have none", "interested")},
			{say: reject(0, 0), over: true},
		}},
		"a block that was never asked": {fast: true, turns: []turn{
			{say: append(bitfield(1), unchoke...), hear: of(1, "have none", "interested")},
			{say: truth(0, 0), over: true},
		}},
		"without BEP 6 a few are forgiven, and wasted": {turns: []turn{
			{say: truth(0, 0)},
			{say: append(bitfield(0), unchoke...), hear: of(0, "interested")},
			{say: append(truth(0, 0), truth(0, 1)...), hear: []string{"have 0", "not interested"}},
		}},
		"without BEP 6 many are not": {turns: func() (turns []turn) {
			for range maxUnrequested {
				turns = append(turns, turn{say: truth(0, 0)})
			}
			return append(turns, turn{say: truth(0, 0), over: true})
		}()},
		"a whole piece that is false ends it": {turns: []turn{
			{say: append(bitfield(0), unchoke...), hear: of(0, "interested")},
			{say: append(truth(0, 0), lie(0, 1)...), over: true},
		}},
		"a have of no piece ends it": {turns: []turn{
			{say: wire.AppendHave(nil, 2), hear: []string{"interested"}},
			{say: wire.AppendHave(nil, 3), over: true},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				us := n.NewHost("80.0.0.1", 0, 0, 0)
				d := simStart(t.Context(), t, us, content, nil, nil, nil)
				defer d.end(t)
				simnet.Sleep(time.Second)
				s := speak(t, n.NewHost("80.0.0.2", 0, 0, 0), content, us.Addr(6881), speech{fast: c.fast})
				defer s.Close()
				for k, turn := range c.turns {
					s.say(turn.say)
					simnet.Sleep(turn.wait + time.Millisecond)
					require.Equal(t, turn.hear, s.take(), "turn %d", k)
					require.Equal(t, turn.over, s.hungUp(), "turn %d", k)
				}
			})
		})
	}
}

// What one peer does not send is asked of another at once.
func TestAskingAnother(t *testing.T) {
	content := newSimContent(1, blockSize, 2*blockSize)
	lie := append(wire.AppendPieceHeader(nil, 0, 0, blockSize), make([]byte, blockSize)...)
	for name, say := range map[string][]byte{
		"choke":         wire.AppendSimple(nil, wire.Choke),
		"a false block": lie,
		"no message":    {0, 0, 0, 2, byte(wire.Choke), 0},
	} {
		t.Run(name, func(t *testing.T) {
			simnet.Run(t, func(t *testing.T, n *simnet.Network) {
				us := n.NewHost("80.0.0.1", 0, 0, 0)
				d := simStart(t.Context(), t, us, content, nil, nil, nil)
				defer d.end(t)
				simnet.Sleep(time.Second)
				var both [2]*speaker
				for k := range both {
					both[k] = speak(t, n.NewHost(fmt.Sprintf("80.0.0.%d", k+2), 0, 0, 0), content, us.Addr(6881), speech{})
					defer both[k].Close()
					has := set(2, k)
					if k == 1 {
						has.Add(0)
					}
					both[k].say(wire.AppendBitfield(nil, has.AppendTo(nil)))
					both[k].sayID(wire.Unchoke)
					simnet.Sleep(time.Millisecond)
				}
				require.Equal(t, []string{"interested", "request 0/0"}, both[0].take())
				require.Equal(t, []string{"interested", "request 1/0"}, both[1].take())
				both[0].say(say)
				simnet.Sleep(time.Millisecond)
				require.Equal(t, []string{"request 0/0"}, both[1].take())
			})
		})
	}
}

// A banned peer is refused when it calls again, from any port.
func TestBannedCallsAgain(t *testing.T) {
	content := newSimContent(1, blockSize, 2*blockSize)
	simnet.Run(t, func(t *testing.T, n *simnet.Network) {
		us, them := n.NewHost("80.0.0.1", 0, 0, 0), n.NewHost("80.0.0.2", 0, 0, 0)
		d := simStart(t.Context(), t, us, content, nil, nil, nil)
		defer d.end(t)
		simnet.Sleep(time.Second)
		for call := range 3 {
			s := speak(t, them, content, us.Addr(6881), speech{})
			defer s.Close()
			simnet.Sleep(time.Second)
			require.Equal(t, call > 0, s.hungUp())
			s.say(wire.AppendBitfield(nil, []byte{0xc0}))
			s.say(append(wire.AppendPieceHeader(wire.AppendSimple(nil, wire.Unchoke), 0, 0, blockSize), make([]byte, blockSize)...))
			simnet.Sleep(time.Second)
			require.True(t, s.hungUp())
		}
	})
}
