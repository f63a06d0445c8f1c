package clientflags

import (
	"flag"
	"net/netip"
	"strings"

	"github.com/shoal-go/torrent"
)

// Peers defines the flag that adds to o.Peers.
func Peers(o *torrent.Options) {
	flag.Func("peers", "`addresses` to try beside those that trackers name, with commas between", func(list string) error {
		for address := range strings.SplitSeq(list, ",") {
			peer, err := netip.ParseAddrPort(address)
			if err != nil {
				return err
			}
			o.Peers = append(o.Peers, peer)
		}
		return nil
	})
}
