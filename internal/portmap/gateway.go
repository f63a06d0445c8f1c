package portmap

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// A Gateway is a router and the address of this machine that it serves.
type Gateway struct {
	Router netip.Addr
	Local  netip.Addr
}

// maxLocal bounds how many IPv6 addresses of an interface are asked for.
const maxLocal = 4

// A defaultRoute is one of the system's default routes.
type defaultRoute struct {
	router netip.Addr
	ifi    int // index of the interface that it leads out of
	metric int // the lowest is taken
}

// Gateways returns the routers of the system's best default routes: one for IPv4, and one for IPv6 with
// each global address of the interface that it is reached by. An empty list is no error.
func Gateways() ([]Gateway, error) { return gatewaysAt(netip.Addr{}) }

// GatewaysAt returns the router of the best default route by the interface that has an address, with that address.
func GatewaysAt(local netip.Addr) ([]Gateway, error) { return gatewaysAt(local) }

// gatewaysAt is for any address if local is not valid.
func gatewaysAt(local netip.Addr) ([]Gateway, error) {
	routes, err := defaultRoutes()
	if err != nil {
		return nil, fmt.Errorf("read the routes of this machine: %w", err)
	}
	slices.SortStableFunc(routes, func(a, b defaultRoute) int { return cmp.Compare(a.metric, b.metric) })
	var found []Gateway
	for _, is4 := range []bool{true, false} {
		for _, r := range routes {
			if r.router.Is4() != is4 {
				continue
			}
			ifi, err := net.InterfaceByIndex(r.ifi)
			if err != nil {
				continue // it has gone since
			}
			addrs, err := ifi.Addrs()
			if err != nil {
				continue
			}
			if local.IsValid() {
				addrs = slices.DeleteFunc(addrs, func(a net.Addr) bool {
					p, err := netip.ParsePrefix(a.String())
					return err != nil || p.Addr().Unmap() != local
				})
			}
			if g := gatewaysOf(r.router, ifi.Name, addrs); g != nil {
				found = append(found, g...)
				break
			}
		}
	}
	return found, nil
}

// gatewaysOf pairs a router with the addresses of its interface that it serves: for IPv4 the one in the
// router's own network, or else the first; for IPv6 the global ones, as the system may use any of them.
func gatewaysOf(router netip.Addr, ifi string, addrs []net.Addr) []Gateway {
	if router.IsLinkLocalUnicast() && router.Is6() {
		router = router.WithZone(ifi)
	}
	var found []Gateway
	for _, a := range addrs {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		local := prefix.Addr().Unmap()
		switch {
		case local.Is4() != router.Is4() || local == router || !local.IsGlobalUnicast():
		case router.Is6():
			if !local.IsPrivate() && len(found) < maxLocal {
				found = append(found, Gateway{router, local})
			}
		case prefix.Contains(router):
			return []Gateway{{router, local}}
		case found == nil:
			found = []Gateway{{router, local}}
		}
	}
	return found
}
