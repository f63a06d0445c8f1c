package webseed_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/webseed"
)

// A seed that could not be reached is asked again when there is a network, one that said to wait is not.
func TestRevive(t *testing.T) {
	now := time.Unix(1e9, 0)
	for _, tc := range []struct {
		err  error
		want time.Duration
	}{
		{errors.New("no route"), 0},
		{&webseed.Error{Fate: webseed.Busy}, 30 * time.Second},
		{&webseed.Error{Fate: webseed.Busy, After: time.Hour}, time.Hour},
	} {
		var h webseed.Health
		h.Failed(0, tc.err, now)
		require.True(t, h.Rests().After(now))
		h.Revive(now)
		require.Equal(t, tc.want, h.Rests().Sub(now), tc.err)
	}
}
