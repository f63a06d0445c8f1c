package torrent

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/layout"
)

func TestParseHash(t *testing.T) {
	want := Hash([]byte("\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67"))
	for _, s := range []string{
		"0123456789abcdef0123456789abcdef01234567", "0123456789ABCDEF0123456789ABCDEF01234567",
		"AERUKZ4JVPG66AJDIVTYTK6N54ASGRLH", "aerukz4jvpg66ajdivtytk6n54asgrlh",
	} {
		h, err := ParseHash(s)
		require.NoError(t, err, s)
		require.Equal(t, want, h, s)
	}
	for s, reason := range map[string]string{
		"":                      "0 characters",
		strings.Repeat("g", 40): "neither hex nor base32",
		strings.Repeat("1", 32): "neither hex nor base32",
		strings.Repeat("a", 64): "64 characters",
	} {
		_, err := ParseHash(s)
		require.ErrorContains(t, err, reason, s)
	}
}

// A hash is hex in JSON, as a value and as a key, and wherever text is made of it.
func TestHashAsText(t *testing.T) {
	h := Hash{1, 2, 19: 255}
	const text = "01020000000000000000000000000000000000ff"
	b, err := json.Marshal(map[Hash]Hash{h: h})
	require.NoError(t, err)
	require.JSONEq(t, fmt.Sprintf(`{%q: %q}`, text, text), string(b))
	var back map[Hash]Hash
	require.NoError(t, json.Unmarshal(b, &back))
	require.Equal(t, map[Hash]Hash{h: h}, back)
	require.Error(t, json.Unmarshal([]byte(`{"01": "02"}`), &back))
}

func TestShortForms(t *testing.T) {
	tor, _ := testContent(blockSize, 5)
	require.Equal(t, fmt.Sprintf("%s (%s)", tor.Name(), tor.InfoHash()), tor.String())
	require.Equal(t, "skip normal high 7", fmt.Sprint(Skip, Normal, High, Priority(7)))
	require.Equal(t, "prefer require disable 9", fmt.Sprint(PreferEncryption, RequireEncryption, DisableEncryption, EncryptionPolicy(9)))
	tor.raw = []byte("d4:infodee")
	b := tor.Bytes()
	require.Equal(t, tor.raw, b)
	clear(b)
	require.NotEqual(t, b, tor.Bytes(), "the caller's own")
}

func TestPrintTreeLeavesPaddingOut(t *testing.T) {
	tor := &Torrent{name: "n", multi: true, length: 3, layout: layout.New(1<<20,
		layout.File{Path: "n/a", Length: 1},
		layout.File{Path: "n/.pad/7", Length: 7, Pad: true},
		layout.File{Path: "n/b", Pad: true, Link: "n/a"},
		layout.File{Path: "n/c", Length: 2},
	)}
	var b strings.Builder
	require.NoError(t, tor.PrintTree(&b))
	require.Equal(t, `   3 B    n/
   1 B    ├── a
   0 B    ├── b → n/a
   2 B    └── c

2 files, 1 link, 3 B
`, b.String())
}
