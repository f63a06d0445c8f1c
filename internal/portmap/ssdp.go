package portmap

import (
	"bufio"
	"bytes"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// ssdpGroup is where routers that speak UPnP listen for searches.
var ssdpGroup = netip.MustParseAddrPort("239.255.255.250:1900")

// ssdpTargets are what is searched for. A device of a version answers searches for those before it, but
// not every one does; and some answer a search of their own address for nothing but their root.
var ssdpTargets = [...]string{
	"urn:schemas-upnp-org:device:InternetGatewayDevice:1",
	"urn:schemas-upnp-org:device:InternetGatewayDevice:2",
	"upnp:rootdevice",
}

const (
	maxSSDP     = 4 << 10 // bytes of an answer
	maxLocation = 1 << 10 // bytes of a URL
)

// ssdpSearch is a search (UPnP Device Architecture 1.1, 1.3.2). The answers come back within a second.
func ssdpSearch(target string) []byte {
	return []byte("M-SEARCH * HTTP/1.1\r\n" +
		"HOST: " + ssdpGroup.String() + "\r\n" +
		"MAN: \"ssdp:discover\"\r\n" +
		"MX: 1\r\n" +
		"ST: " + target + "\r\n" +
		"\r\n")
}

// parseSSDP reads the answer of a device at an address to a search, and returns where its description
// is. Only what lies at that same address is believed. gateway is whether the device says that it is one.
func parseSSDP(b []byte, from netip.Addr) (location *url.URL, gateway, ok bool) {
	if len(b) > maxSSDP {
		return nil, false, false
	}
	r, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), nil)
	if err != nil || r.StatusCode != http.StatusOK {
		return nil, false, false
	}
	location, err = url.Parse(r.Header.Get("Location"))
	if err != nil || !isAt(location, from) {
		return nil, false, false
	}
	return location, strings.Contains(r.Header.Get("St"), ":InternetGatewayDevice:"), true
}

// isAt reports whether a URL is one of plain HTTP at an address, whatever the port, without a name to
// look up.
func isAt(u *url.URL, addr netip.Addr) bool {
	if u.Scheme != "http" || u.User != nil || u.Opaque != "" || len(u.String()) > maxLocation {
		return false
	}
	host, err := netip.ParseAddr(u.Hostname())
	if err != nil || host.Unmap() != addr {
		return false
	}
	_, err = hostPort(u)
	return err == nil
}

// hostPort is the address and port of a URL whose host is an IP address.
func hostPort(u *url.URL) (netip.AddrPort, error) {
	port := u.Port()
	if port == "" {
		port = "80"
	}
	return netip.ParseAddrPort(u.Hostname() + ":" + port) // of IPv4, as all that UPnP is asked for here
}
