package wire

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHandshake(t *testing.T) {
	var h Handshake
	require.False(t, h.Fast())
	require.False(t, h.Extended())
	h.SetFast()
	require.True(t, h.Fast())
	require.False(t, h.Extended())
	h.SetExtended()
	require.True(t, h.Extended())
	require.Equal(t, [8]byte{5: 0x10, 7: 0x04}, h.Reserved)
	copy(h.InfoHash[:], strings.Repeat("i", 20))
	copy(h.PeerID[:], "-XX0000-abcdefghijkl")

	b := h.Append(nil)
	require.Equal(t, "\x13BitTorrent protocol\x00\x00\x00\x00\x00\x10\x00\x04iiiiiiiiiiiiiiiiiiii-XX0000-abcdefghijkl", string(b))
	require.Len(t, b, HandshakeSize)
	got, err := ParseHandshake(b)
	require.NoError(t, err)
	require.Equal(t, h, got)

	got, err = ParseHandshake(b[:HandshakeHead])
	require.NoError(t, err)
	h.PeerID = [20]byte{}
	require.Equal(t, h, got)
}

func TestParseHandshakeRefuses(t *testing.T) {
	whole := new(Handshake).Append(nil)
	tests := map[string]string{
		"nothing":          "",
		"short":            string(whole[:HandshakeSize-1]),
		"shorter":          string(whole[:HandshakeHead-1]),
		"long":             string(whole) + "x",
		"another length":   "\x12" + string(whole[1:]),
		"another protocol": strings.Replace(string(whole), "Bit", "bit", 1),
		"web page":         "HTTP/1.1 400 Bad Request\r\n" + strings.Repeat("x", HandshakeSize-26),
	}
	for name, p := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := ParseHandshake([]byte(p))
			var violated *ProtocolError
			require.ErrorAs(t, err, &violated)
		})
	}
}

func FuzzHandshake(f *testing.F) {
	f.Add(new(Handshake).Append(nil))
	f.Add(new(Handshake).Append(nil)[:HandshakeHead])
	f.Add([]byte("\x13BitTorrent protocol"))
	f.Fuzz(func(t *testing.T, p []byte) {
		h, err := ParseHandshake(p)
		if err == nil {
			require.Equal(t, p, h.Append(nil)[:len(p)])
		}
	})
}
