package bencode

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMarshal(t *testing.T) {
	p, err := Marshal(struct {
		Peers    Raw    `bencode:"peers"`
		Interval int    `bencode:"interval"`
		Reason   string `bencode:"failure reason,omitempty"`
	}{Interval: 1800, Peers: Raw("l1:ae")})
	require.NoError(t, err)
	require.Equal(t, "d8:intervali1800e5:peersl1:aee", string(p))
}
