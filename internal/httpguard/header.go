package httpguard

import (
	"context"
	"math"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"github.com/shoal-go/torrent/internal/account"
)

// MaxHeader is the greatest length of the header of an answer, in bytes, for the transport that makes the requests.
const MaxHeader = 16 << 10

const (
	// headerMemory is how many bytes a header may take before it is whole: short lines take twenty times their length.
	headerMemory = 20 * MaxHeader
	// headerPatience is how long a header may take to come without being counted. Most are whole at once.
	headerPatience = time.Second
)

// CountHeaders has the header of each answer to a request that is made with the context it returns counted in an account, if it
// does not become whole for a while. giveWay ends the request; it must neither block nor call the account. The caller calls whole
// when it has the header, or the request has failed.
func CountHeaders(ctx context.Context, a *account.Account, giveWay func()) (_ context.Context, whole func()) {
	h := a.Join(giveWay)
	var over atomic.Bool // whole was called, so that the account has no place for h any more
	timer := time.AfterFunc(math.MaxInt64, func() {
		if !h.Set(account.Incoming, headerMemory) && !over.Load() {
			giveWay()
		}
	})
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn:              func(string) { timer.Stop() }, // after a redirect, whose header has come
		GotFirstResponseByte: func() { timer.Reset(headerPatience) },
	})
	return ctx, func() {
		over.Store(true)
		timer.Stop()
		h.Leave()
	}
}
