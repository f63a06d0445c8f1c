//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package portmap

import (
	"net/netip"
	"runtime"
	"syscall"

	"golang.org/x/net/route"
)

// ifScope is the flag of macOS (RTF_IFSCOPE) on routes for those alone who bind to their interface.
const ifScope = 0x1000000

// defaultRoutes reads the routing table of the kernel. There are no metrics in it; on macOS the routes of
// interfaces that are not the first choice are marked as scoped.
func defaultRoutes() ([]defaultRoute, error) {
	rib, err := route.FetchRIB(syscall.AF_UNSPEC, route.RIBTypeRoute, 0)
	if err != nil {
		return nil, err
	}
	messages, err := route.ParseRIB(route.RIBTypeRoute, rib)
	if err != nil {
		return nil, err
	}
	var routes []defaultRoute
	for _, m := range messages {
		m, ok := m.(*route.RouteMessage)
		const upGateway = syscall.RTF_UP | syscall.RTF_GATEWAY
		if !ok || m.Flags&upGateway != upGateway || len(m.Addrs) <= syscall.RTAX_NETMASK || !isDefault(m.Addrs) {
			continue
		}
		metric := 0
		if runtime.GOOS == "darwin" && m.Flags&ifScope != 0 {
			metric = 1
		}
		switch g := m.Addrs[syscall.RTAX_GATEWAY].(type) {
		case *route.Inet4Addr:
			routes = append(routes, defaultRoute{netip.AddrFrom4(g.IP), m.Index, metric})
		case *route.Inet6Addr:
			routes = append(routes, defaultRoute{netip.AddrFrom16(g.IP), m.Index, metric})
		}
	}
	return routes, nil
}

// isDefault reports whether a route leads everywhere: to the unspecified address with an empty mask,
// which some systems leave out.
func isDefault(addrs []route.Addr) bool {
	return isZero(addrs[syscall.RTAX_DST], false) && isZero(addrs[syscall.RTAX_NETMASK], true)
}

func isZero(a route.Addr, ifNone bool) bool {
	switch a := a.(type) {
	case nil:
		return ifNone
	case *route.Inet4Addr:
		return a.IP == [4]byte{}
	case *route.Inet6Addr:
		return a.IP == [16]byte{}
	}
	return false
}
