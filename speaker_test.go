package torrent

import (
	"fmt"
	"io"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/wire"
)

// speaker is a connection to a client whose every word a test says itself, and hears one by one.
type speaker struct {
	*simnet.Conn
	t       *testing.T
	content *simContent

	mu   sync.Mutex
	said []string // by the client, since take
	over bool     // the connection has ended

	hello   wire.ExtHandshake // the last that came
	helloed bool              // since lastHello
}

// speech is what a speaker claims to understand, and whether it reads what it is sent.
type speech struct {
	fast, extended bool
	deaf           bool
}

// speak connects to a client and shakes hands.
func speak(t *testing.T, h *simnet.Host, content *simContent, to netip.AddrPort, can speech) *speaker {
	conn, err := h.Dial(t.Context(), "tcp", to.String())
	require.NoError(t, err)
	s := &speaker{Conn: conn.(*simnet.Conn), t: t, content: content}
	hello := wire.Handshake{InfoHash: content.infoHash, PeerID: [20]byte(fmt.Appendf(nil, "%20v", s.LocalAddr()))}
	if can.fast {
		hello.SetFast()
	}
	if can.extended {
		hello.SetExtended()
	}
	s.say(hello.Append(nil))
	if !can.deaf {
		go s.listen()
	}
	return s
}

// say sends bytes. That the other end has closed is no failure here.
func (s *speaker) say(b []byte) { s.Write(b) }

func (s *speaker) sayID(id wire.ID) { s.say(wire.AppendSimple(nil, id)) }

// ask requests the first block of a piece, as many times as it is named.
func (s *speaker) ask(pieces ...uint32) {
	var b []byte
	for _, i := range pieces {
		b = wire.AppendRequest(b, i, 0, blockSize)
	}
	s.say(b)
}

// sayHello sends an extension handshake.
func (s *speaker) sayHello(h wire.ExtHandshake) { s.say(wire.AppendExtended(nil, 0, h.Append(nil))) }

func (s *speaker) listen() {
	defer s.end()
	if _, err := io.ReadFull(s, make([]byte, wire.HandshakeSize)); err != nil {
		return
	}
	block := make([]byte, wire.MaxBlock)
	for r := wire.NewReader(s, 1<<20); ; {
		m, err := r.Next()
		if err != nil {
			return
		}
		if m.ID == wire.Piece {
			if r.ReadBlock(block[:m.Length]) != nil {
				return
			}
			require.Equal(s.t, s.content.truth.Block(m.Index, m.Begin, m.Length), block[:m.Length])
		}
		s.mu.Lock()
		if m.ID == wire.Extended && m.ExtID == 0 {
			s.hello = wire.ParseExtHandshake(m.Payload)
			s.helloed = true
		}
		s.said = append(s.said, s.words(m))
		s.mu.Unlock()
	}
}

// pause waits, and tells whether the test still goes on.
func (s *speaker) pause(d time.Duration) bool {
	select {
	case <-s.t.Context().Done():
		return false
	case <-time.After(d):
		return true
	}
}

// end notes that the connection is over.
func (s *speaker) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
}

// words is a message as a test writes it.
func (s *speaker) words(m wire.Message) string {
	switch m.ID {
	case wire.Request, wire.Cancel, wire.Reject, wire.Piece:
		return fmt.Sprintf("%v %d/%d", m.ID, m.Index, m.Begin/blockSize)
	case wire.Have, wire.Suggest, wire.AllowedFast:
		return fmt.Sprintf("%v %d", m.ID, m.Index)
	case wire.Extended:
		return fmt.Sprintf("%v %d %.200q", m.ID, m.ExtID, m.Payload)
	}
	return m.ID.String()
}

// take is what was heard since the last time, in order.
func (s *speaker) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	said := s.said
	s.said = nil
	return said
}

// hungUp tells whether the client has closed the connection.
func (s *speaker) hungUp() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over
}
