package printable_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/printable"
)

func TestLine(t *testing.T) {
	for s, want := range map[string]string{
		"":                             "",
		"plain, and ünïcode 日本":        "plain, and ünïcode 日本",
		"no\x1b[2J\nok":                "no [2J ok",
		" \t around \r\n":              "around",
		"a\u202eb":                     "a b",
		"bad \xff UTF-8":               "bad \ufffd UTF-8",
		strings.Repeat("x", 1000):      strings.Repeat("x", 300),
		strings.Repeat("x", 299) + "é": strings.Repeat("x", 299) + "\ufffd",
	} {
		got := printable.Line(s)
		require.Equal(t, want, got)
		require.True(t, utf8.ValidString(got))
	}
}
