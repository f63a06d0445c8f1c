package portmap

import (
	"errors"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/windows"
)

// defaultRoutes reads the gateways of the adapters that are up.
func defaultRoutes() ([]defaultRoute, error) {
	const flags = windows.GAA_FLAG_INCLUDE_GATEWAYS | windows.GAA_FLAG_SKIP_ANYCAST | windows.GAA_FLAG_SKIP_MULTICAST | windows.GAA_FLAG_SKIP_DNS_SERVER
	var b []byte
	for size := uint32(15 << 10); ; { // what its documentation suggests to begin with
		b = make([]byte, size)
		err := windows.GetAdaptersAddresses(windows.AF_UNSPEC, flags, 0, (*windows.IpAdapterAddresses)(unsafe.Pointer(&b[0])), &size)
		if err == nil {
			break
		}
		if errors.Is(err, windows.ERROR_NO_DATA) {
			return nil, nil
		}
		if !errors.Is(err, windows.ERROR_BUFFER_OVERFLOW) || size <= uint32(len(b)) || size > 16<<20 {
			return nil, os.NewSyscallError("GetAdaptersAddresses", err)
		}
	}
	var routes []defaultRoute
	for a := (*windows.IpAdapterAddresses)(unsafe.Pointer(&b[0])); a != nil; a = a.Next {
		if a.OperStatus != windows.IfOperStatusUp {
			continue
		}
		for g := a.FirstGatewayAddress; g != nil; g = g.Next {
			router, _ := netip.AddrFromSlice(g.Address.IP())
			switch router = router.Unmap(); {
			case router.Is4():
				routes = append(routes, defaultRoute{router, int(a.IfIndex), int(a.Ipv4Metric)})
			case router.Is6():
				routes = append(routes, defaultRoute{router, int(a.Ipv6IfIndex), int(a.Ipv6Metric)})
			}
		}
	}
	return routes, nil
}
