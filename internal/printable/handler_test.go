package printable_test

import (
	"bytes"
	"errors"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/printable"
)

func TestName(t *testing.T) {
	for s, want := range map[string]string{
		"plain, and ünïcode 日本 a\u0301": "plain, and ünïcode 日本 a\u0301",
		"a\u00a0b":                      "a\u00a0b",
		"soft\u00adhyphen":              "soft\ufffdhyphen",
		"a\u034fb\ufe0f\U000e0041":      "a\ufffdb\ufffd\ufffd",
		"\u3164\u115f\u2800\uffa0":      "\ufffd\ufffd\ufffd\ufffd",
		"\u200b\u200c\u200d\ufeff":      "\ufffd\ufffd\ufffd\ufffd",
		"txt.\u202eexe":                 "txt.\ufffdexe",
		"line\nend\x1b":                 "line\ufffdend\ufffd",
		"bad \xff":                      "bad \ufffd",
	} {
		require.Equal(t, want, printable.Name(s), "%q", s)
	}
}

func TestHandler(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(printable.Handler(slog.NewTextHandler(&b, nil)))
	log = log.With("torrent", "a\u034fb").WithGroup("g").With("n", 1)
	log.Info("said", "name", "soft\u00adhyphen", "err", errors.New("of \ufe0f"), "other", errors.New("plain"))
	require.Contains(t, b.String(), "torrent=\"a\ufffdb\" g.n=1 g.name=\"soft\ufffdhyphen\" g.err=\"of \ufffd\" g.other=plain")
}
