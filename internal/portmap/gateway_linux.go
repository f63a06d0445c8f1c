package portmap

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
)

// maxRoutes bounds how much of a route table is read. Default routes come first in that of IPv4; a
// router with more routes than fit, which is no place for a port mapping, goes without.
const maxRoutes = 1 << 20

// defaultRoutes reads the main tables of the kernel.
func defaultRoutes() ([]defaultRoute, error) {
	table, err := readTable("/proc/net/route")
	if err != nil {
		return nil, err
	}
	table6, err := readTable("/proc/net/ipv6_route")
	if err != nil && !os.IsNotExist(err) { // a kernel without IPv6
		return nil, err
	}
	var routes []defaultRoute
	for _, r := range append(parseRoutes(table), parseRoutes6(table6)...) {
		ifi, err := net.InterfaceByName(r.ifi)
		if err == nil { // else it has gone since
			routes = append(routes, defaultRoute{r.router, ifi.Index, r.metric})
		}
	}
	return routes, nil
}

func readTable(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxRoutes))
}

// A namedRoute is a default route as the kernel prints it.
type namedRoute struct {
	router netip.Addr
	ifi    string
	metric int
}

// upGateway are the flags RTF_UP and RTF_GATEWAY.
const upGateway = 0x3

// parseRoutes finds the default routes in the text of /proc/net/route: interface, destination, gateway,
// flags, two counters, metric and mask; addresses are hexadecimal words of this machine's byte order.
func parseRoutes(table []byte) (routes []namedRoute) {
	for line := range bytes.Lines(table) {
		f := bytes.Fields(line)
		if len(f) < 8 || string(f[1]) != "00000000" || string(f[7]) != "00000000" {
			continue
		}
		word, err := strconv.ParseUint(string(f[2]), 16, 32)
		flags, err2 := strconv.ParseUint(string(f[3]), 16, 32)
		metric, err3 := strconv.Atoi(string(f[6]))
		if err != nil || err2 != nil || err3 != nil || flags&upGateway != upGateway {
			continue
		}
		var router [4]byte
		binary.NativeEndian.PutUint32(router[:], uint32(word))
		routes = append(routes, namedRoute{netip.AddrFrom4(router), string(f[0]), metric})
	}
	return routes
}

// parseRoutes6 finds the default routes in the text of /proc/net/ipv6_route: destination and its length,
// source and its length, gateway, metric, two counters, flags and interface.
func parseRoutes6(table []byte) (routes []namedRoute) {
	for line := range bytes.Lines(table) {
		f := bytes.Fields(line)
		if len(f) < 10 || string(f[1]) != "00" || string(f[3]) != "00" || len(f[4]) != 32 {
			continue
		}
		var router [16]byte
		_, err := hex.Decode(router[:], f[4])
		metric, err2 := strconv.ParseUint(string(f[5]), 16, 31)
		flags, err3 := strconv.ParseUint(string(f[8]), 16, 32)
		if err != nil || err2 != nil || err3 != nil || flags&upGateway != upGateway {
			continue
		}
		routes = append(routes, namedRoute{netip.AddrFrom16(router), string(f[9]), int(metric)})
	}
	return routes
}
