package bencode

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestUnmarshal(t *testing.T) {
	type answer struct {
		Interval int    `bencode:"interval"`
		Peers    Raw    `bencode:"peers"`
		Reason   string `bencode:"failure reason,omitempty"`
	}
	var a answer
	require.NoError(t, Unmarshal([]byte("d8:intervali1800e5:peersl1:aee"), &a, roomy))
	require.Equal(t, answer{Interval: 1800, Peers: Raw("l1:ae")}, a)

	p, err := Marshal(a)
	require.NoError(t, err)
	require.Equal(t, "d8:intervali1800e5:peersl1:aee", string(p))

	var syntax *SyntaxError
	require.ErrorAs(t, Unmarshal([]byte("d8:intervali1800eetail"), &a, roomy), &syntax)
	require.Equal(t, 18, syntax.Offset)
	require.ErrorAs(t, Unmarshal([]byte("500000000:ab"), &a, roomy), &syntax)

	err = Unmarshal([]byte("d8:interval3:abce"), &a, roomy)
	require.ErrorContains(t, err, "bencode: ")
	require.NotErrorAs(t, err, &syntax)
}

func TestUnmarshalPrefix(t *testing.T) {
	var m struct {
		Type  int `bencode:"msg_type"`
		Piece int `bencode:"piece"`
	}
	p := []byte("d8:msg_typei1e5:piecei3eeDATA")
	n, err := UnmarshalPrefix(p, &m, roomy)
	require.NoError(t, err)
	require.Equal(t, "DATA", string(p[n:]))
	require.Equal(t, 1, m.Type)
	require.Equal(t, 3, m.Piece)

	_, err = UnmarshalPrefix(p, &m, Limits{Bytes: 10, Depth: 2, Values: 9})
	require.ErrorContains(t, err, "longer than 10 bytes")
}
