package portmap

import (
	"net/netip"
	"net/url"
	"slices"
)

// routerPort is where routers answer PCP and NAT-PMP.
const routerPort = 5351

// maxDevices bounds how many devices that answer a search are remembered.
const maxDevices = 4

// A probe records which protocols a router speaks. It asks for all of them at once, with questions that change
// nothing, and settles for the best one that it heard of. It is plain data.
type probe struct {
	Gateway
	refused [protocols]bool // not asked for

	speaks  [protocols]bool
	not     [protocols]bool // the router says that it does not
	devices []device        // that speak UPnP, gateways first
}

// A device answered a search.
type device struct {
	location *url.URL
	rank     int // lower is better: the router itself, others that say they are gateways, the rest
}

// A packet is one to send.
type packet struct {
	to   netip.AddrPort
	data []byte
}

// questions are what to ask when nothing was settled after a number of waits for an answer.
func (p *probe) questions(waits int) (packets []packet) {
	port := netip.AddrPortFrom(p.Router, routerPort)
	if !p.refused[PCP] && !p.speaks[PCP] && !p.not[PCP] {
		packets = append(packets, packet{port, appendPCPAnnounce(nil, p.Local)})
	}
	if !p.refused[NATPMP] && !p.speaks[NATPMP] && !p.not[NATPMP] {
		packets = append(packets, packet{port, appendNATPMPAddress(nil)})
	}
	if !p.refused[UPnP] && waits%2 == 0 { // an answer may take a second
		for _, target := range ssdpTargets {
			search := ssdpSearch(target)
			packets = append(packets, packet{netip.AddrPortFrom(p.Router, ssdpGroup.Port()), search})
			if target != "upnp:rootdevice" { // what every printer has
				packets = append(packets, packet{ssdpGroup, search})
			}
		}
	}
	return packets
}

// hear takes a packet that came.
func (p *probe) hear(b []byte, from netip.AddrPort) {
	if from == netip.AddrPortFrom(p.Router, routerPort) {
		if r, ok := parsePCP(b); ok && r.opcode == pcpAnnounce {
			p.learn(PCP, r.result == 0)
		} else if r, ok := parseNATPMP(b); ok && r.result == natpmpUnsupportedVersion {
			p.learn(PCP, false)
		} else if ok && r.opcode == natpmpAddress {
			p.learn(NATPMP, r.result == 0 || r.result == natpmpNoNetwork)
		}
		return
	}
	// A router has more than one address, and may answer from another.
	if p.refused[UPnP] || !from.Addr().Is4() || !from.Addr().IsPrivate() && from.Addr() != p.Router {
		return
	}
	location, gateway, ok := parseSSDP(b, from.Addr())
	if !ok {
		return
	}
	d := device{location, 2}
	if gateway {
		d.rank = 1
	}
	if from.Addr() == p.Router {
		d.rank = 0
	}
	if slices.ContainsFunc(p.devices, func(o device) bool { return o.location.String() == location.String() }) {
		return
	}
	at, _ := slices.BinarySearchFunc(p.devices, d.rank+1, func(o device, rank int) int { return o.rank - rank })
	p.devices = slices.Insert(p.devices, at, d)
	p.devices = p.devices[:min(len(p.devices), maxDevices)]
	p.speaks[UPnP] = true
}

func (p *probe) learn(protocol Protocol, speaks bool) {
	p.speaks[protocol] = p.speaks[protocol] || speaks
	p.not[protocol] = !p.speaks[protocol]
}

// best returns the protocol to use after a number of waits for an answer, if a better one need not be
// waited for: for PCP it is waited once, for NAT-PMP twice, unless the router said that it does not speak it.
func (p *probe) best(waits int) (Protocol, bool) {
	out := func(protocol Protocol) bool { return p.refused[protocol] || p.not[protocol] }
	switch {
	case p.speaks[PCP] && !p.refused[PCP]:
		return PCP, true
	case p.speaks[NATPMP] && !p.refused[NATPMP] && (out(PCP) || waits > 0):
		return NATPMP, true
	case p.speaks[UPnP] && (out(PCP) && out(NATPMP) || waits > 1):
		return UPnP, true
	}
	return 0, false
}
