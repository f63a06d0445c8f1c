package metainfo_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/merkle"
	"github.com/shoal-go/torrent/internal/metainfo"
)

// Layers are added at their place, beside those that are there, and nothing else changes.
func TestWithLayers(t *testing.T) {
	a, b := merkle.Hash([]byte(strings.Repeat("a", 32))), merkle.Hash([]byte(strings.Repeat("b", 32)))
	key := func(h merkle.Hash) string { return "32:" + string(h[:]) }
	layers := map[merkle.Hash][]byte{b: []byte("two"), a: []byte("one")}
	both := "12:piece layersd" + key(a) + "3:one" + key(b) + "3:twoe"
	for _, c := range []struct{ name, raw, want string }{
		{"before other keys", "d4:infod1:xi1ee8:url-list3:urle", "d4:infod1:xi1ee" + both + "8:url-list3:urle"},
		{"at the end", "d4:infod1:xi1eee", "d4:infod1:xi1ee" + both + "e"},
		{"beside another", "d4:infod1:xi1ee12:piece layersd" + key(a) + "3:onee8:url-list3:urle", "d4:infod1:xi1ee" + both + "8:url-list3:urle"},
		{"out of order, with something behind", "d8:url-list3:url4:infod1:xi1eeeXY", "d" + both + "8:url-list3:url4:infod1:xi1eee"},
		{"with what is malformed elsewhere", "d1:ai-0e4:infod1:xi1eee", "d4:infod1:xi1ee" + both + "e"},
	} {
		require.Equal(t, c.want, string(metainfo.WithLayers([]byte(c.raw), layers)), c.name)
	}
	raw := []byte("d4:infod1:xi1eeeXY")
	require.Equal(t, raw, metainfo.WithLayers(raw, nil), "as it was")
	require.Equal(t, raw, metainfo.WithLayers(raw, map[merkle.Hash][]byte{a: make([]byte, metainfo.MaxSize)}))
	require.Equal(t, raw, metainfo.WithLayers(raw, map[merkle.Hash][]byte{a: make([]byte, metainfo.MaxSize-len(raw))}))
	require.Equal(t, []byte("x"), metainfo.WithLayers([]byte("x"), layers))
}
