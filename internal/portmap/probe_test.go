package portmap

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestProbe hears answers, and settles for a protocol once no better one need be waited for.
func TestProbe(t *testing.T) {
	const (
		silent = ""
		pcp    = "\x02\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
		pcpOff = "\x02\x80\x00\x02\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
		natpmp = "\x00\x80\x00\x00\x00\x00\x00\x01\xcb\x00\x71\x07"
		down   = "\x00\x80\x00\x03\x00\x00\x00\x01\x00\x00\x00\x00"
		off    = "\x00\x80\x00\x02\x00\x00\x00\x01\x00\x00\x00\x00"
		noPCP  = "\x00\x80\x00\x01\x00\x00\x00\x01"
		igd    = "HTTP/1.1 200 OK\r\nST: upnp:rootdevice\r\nLOCATION: http://192.168.1.1/\r\n\r\n"
	)
	type heard []string
	for _, tt := range []struct {
		name    string
		refused []Protocol
		heard   heard // from where the question went
		waits   int
		best    Protocol
		ok      bool
	}{
		{"nothing", nil, nil, 6, 0, false},
		{"PCP", nil, heard{pcp}, 0, PCP, true},
		{"everything", nil, heard{igd, natpmp, pcp}, 0, PCP, true},
		{"PCP refused", []Protocol{PCP}, heard{pcp, natpmp}, 0, NATPMP, true},
		{"PCP switched off", nil, heard{pcpOff, igd}, 1, 0, false},
		{"PCP switched off, later", nil, heard{pcpOff, igd}, 2, UPnP, true},
		{"NAT-PMP", nil, heard{natpmp}, 0, 0, false},
		{"NAT-PMP, later", nil, heard{natpmp}, 1, NATPMP, true},
		{"NAT-PMP and no PCP", nil, heard{natpmp, noPCP}, 0, NATPMP, true},
		{"NAT-PMP of a router without an address", nil, heard{noPCP, down}, 0, NATPMP, true},
		{"NAT-PMP switched off", nil, heard{noPCP, off, igd}, 0, UPnP, true},
		{"UPnP", nil, heard{igd}, 1, 0, false},
		{"UPnP, later", nil, heard{igd}, 2, UPnP, true},
		{"UPnP and NAT-PMP", nil, heard{igd, natpmp}, 2, NATPMP, true},
		{"UPnP alone left", []Protocol{PCP, NATPMP}, heard{igd, natpmp, pcp}, 0, UPnP, true},
		{"UPnP refused", []Protocol{UPnP}, heard{igd}, 6, 0, false},
		{"all refused", []Protocol{PCP, NATPMP, UPnP}, heard{igd, natpmp, pcp}, 6, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := &probe{Gateway: Gateway{netip.MustParseAddr("192.168.1.1"), netip.MustParseAddr("192.168.1.5")}}
			for _, r := range tt.refused {
				p.refused[r] = true
			}
			for _, b := range tt.heard {
				from := "192.168.1.1:5351"
				if b == igd {
					from = "192.168.1.1:1900"
				}
				p.hear([]byte(b), netip.MustParseAddrPort(from))
			}
			best, ok := p.best(tt.waits)
			require.Equal(t, tt.ok, ok)
			if ok {
				require.Equal(t, tt.best, best)
			}
		})
	}
}

// TestProbeQuestions asks only for what is not known yet.
func TestProbeQuestions(t *testing.T) {
	p := &probe{Gateway: Gateway{netip.MustParseAddr("192.168.1.1"), netip.MustParseAddr("192.168.1.5")}}
	count := func(waits int) map[string]int {
		n := make(map[string]int)
		for _, q := range p.questions(waits) {
			n[q.to.String()]++
		}
		return n
	}
	require.Equal(t, map[string]int{"192.168.1.1:5351": 2, "192.168.1.1:1900": 3, "239.255.255.250:1900": 2}, count(0))
	require.Equal(t, map[string]int{"192.168.1.1:5351": 2}, count(1))
	p.speaks[NATPMP] = true
	require.Equal(t, map[string]int{"192.168.1.1:5351": 1}, count(1))
	p.refused[UPnP] = true
	require.Equal(t, map[string]int{"192.168.1.1:5351": 1}, count(2))
	p.not[PCP] = true
	require.Empty(t, count(2))
}

// TestProbeDevices keeps the most promising of the devices that answer, each once.
func TestProbeDevices(t *testing.T) {
	p := &probe{Gateway: Gateway{netip.MustParseAddr("192.168.1.1"), netip.MustParseAddr("192.168.1.5")}}
	hear := func(from, target string) {
		p.hear([]byte("HTTP/1.1 200 OK\r\nST: "+target+"\r\nLOCATION: http://"+from+"/\r\n\r\n"), netip.AddrPortFrom(netip.MustParseAddr(from), 1900))
	}
	const igd, root = "urn:schemas-upnp-org:device:InternetGatewayDevice:1", "upnp:rootdevice"
	for range 2 {
		hear("192.168.1.2", root)
		hear("192.168.1.3", igd)
		hear("192.168.1.4", root)
		hear("192.168.1.5", igd)
		hear("192.168.1.6", root)
		hear("192.168.1.1", root)
		hear("203.0.113.1", igd) // no address of a network here
	}
	var hosts []string
	for _, d := range p.devices {
		hosts = append(hosts, d.location.Host)
	}
	require.Equal(t, []string{"192.168.1.1", "192.168.1.3", "192.168.1.5", "192.168.1.2"}, hosts)
}
