package peerlist

import (
	"net/netip"
	"time"

	"github.com/shoal-go/torrent/internal/netaddr"
)

const (
	// maxExchanges is how many key exchanges of encrypted handshakes are answered in a second, and
	// maxExchangesOfNetwork how many of those for one network. Each costs us some tenths of a millisecond, and the peer 96 bytes.
	maxExchanges          = 200
	maxExchangesOfNetwork = 10
)

// Exchanges bound the work that encrypted handshakes of strangers cause. The zero value is ready.
type Exchanges struct {
	began time.Time // of the second that is counted
	all   int
	of    map[string]int // by Network
}

// Answer reports whether a key exchange from an address may be answered now, and counts it if so. Otherwise the caller asks again after wait.
// Any number of peers may stand behind a local address.
func (e *Exchanges) Answer(a netip.Addr, now time.Time) (wait time.Duration, ok bool) {
	if age := now.Sub(e.began); age >= time.Second || age < 0 {
		e.began, e.all = now, 0
		clear(e.of)
	}
	network := Network(a)
	if e.all >= maxExchanges || !netaddr.IsLocal(a) && e.of[network] >= maxExchangesOfNetwork {
		return e.began.Add(time.Second).Sub(now), false
	}
	if e.of == nil {
		e.of = make(map[string]int)
	}
	e.all++
	e.of[network]++
	return 0, true
}
