// Package clientflags has the flags that the example programs share: how their client reaches others.
package clientflags

import (
	"errors"
	"flag"
	"net/netip"
	"net/url"
	"strings"

	"github.com/shoal-go/torrent"
)

// Register defines the flags, which set fields of c.
func Register(c *torrent.Client) {
	flag.Func("dht", "`nodes` of the DHT to begin at, host:port with commas between, in place of the well-known ones; or off", func(list string) error {
		if list == "off" {
			c.NoDHT = true
			return nil
		}
		c.DHTNodes = append(c.DHTNodes, strings.Split(list, ",")...)
		return nil
	})
	flag.Func("proxy", "`URL` of a proxy that everything goes through: socks5h://[USER:PASSWORD@]HOST[:PORT], or http://…", func(s string) (err error) {
		c.Proxy, err = url.Parse(s)
		return err
	})
	flag.TextVar(&c.Bind, "bind", netip.Addr{}, "the one `address` of this machine to use")
	flag.BoolVar(&c.MapPorts, "map", false, "ask the router to let peers in")
	flag.Func("transport", "how peers are reached: `tcp, utp or both`", func(ways string) error {
		c.NoTCP, c.NoUTP = ways == "utp", ways == "tcp"
		if ways != "tcp" && ways != "utp" && ways != "both" {
			return errors.New("neither tcp, utp nor both")
		}
		return nil
	})
}
