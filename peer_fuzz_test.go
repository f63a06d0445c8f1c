package torrent

import (
	"context"
	"encoding/binary"
	"io"
	"testing"
	"time"

	"github.com/shoal-go/torrent/internal/blockpool"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/shoal-go/torrent/internal/wire"
	"github.com/stretchr/testify/require"
)

// FuzzConnection has a stranger send any messages to a download, in any order, beside an honest seed. The download
// completes in the time that the seed takes, the seed is not banned, and what the stranger has us hold and do is bounded.
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
	f.Fuzz(func(t *testing.T, script []byte) {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			content := newSimContent(1, 64<<10, 1<<20)
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
