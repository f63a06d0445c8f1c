package portmap_test

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A router is a fake one: it knows of no code of the package, and keeps a table of mappings.
type router struct {
	lan  *lan
	addr string // on the lan

	mu       sync.Mutex
	only     netip.Addr // the one that it answers; invalid is all
	booted   time.Time
	external netip.Addr
	table    map[outside]inside
	asked    map[string]int // how often for what
	most     time.Duration  // of a lease

	// How it misbehaves.
	refuse    map[string]int                                // PCP or NAT-PMP results, by what is asked
	fault     map[string]int                                // UPnP errors, by action
	assign    func(transport byte, suggested uint16) uint16 // instead of what is suggested
	control   string                                        // URL instead of its own
	permanent bool                                          // UPnP leases end never or not at all
	nonces    map[[12]byte]bool                             // every nonce that mappings were asked for with
}

const (
	tcp = 6
	udp = 17
)

type outside struct {
	transport byte
	port      uint16
}

type inside struct {
	host  netip.AddrPort
	until time.Time // zero is never
	nonce [12]byte
}

func newRouter(l *lan, addr, external string) *router {
	r := &router{
		lan: l, addr: addr, external: netip.MustParseAddr(external),
		table: make(map[outside]inside), asked: make(map[string]int),
		refuse: make(map[string]int), fault: make(map[string]int), nonces: make(map[[12]byte]bool),
		assign: func(_ byte, suggested uint16) uint16 { return suggested },
		most:   24 * time.Hour, booted: time.Now(),
	}
	return r
}

// restart forgets everything.
func (r *router) restart() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.booted = time.Now()
	clear(r.table)
}

// change has another address outside.
func (r *router) change(external string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.external = netip.MustParseAddr(external)
}

// leads is where a packet to an external port gets to.
func (r *router) leads(transport byte, port uint16) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	in, ok := r.table[outside{transport, port}]
	if !ok || !in.until.IsZero() && !time.Now().Before(in.until) {
		return ""
	}
	return in.host.String()
}

func (r *router) mappings() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, in := range r.table {
		if in.until.IsZero() || time.Now().Before(in.until) {
			n++
		}
	}
	return n
}

func (r *router) times(what string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked[what]
}

// set changes the router's ways.
func (r *router) set(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

// speak has it answer PCP, NAT-PMP or both on their port.
func (r *router) speak(pcp, natpmp bool) {
	r.lan.answer(netip.AddrPortFrom(netip.MustParseAddr(r.addr), 5351).String(), func(b []byte, from netip.AddrPort) {
		r.mu.Lock()
		defer r.mu.Unlock()
		var answer []byte
		switch {
		case r.only.IsValid() && from.Addr() != r.only:
		case b[0] == 2 && pcp:
			answer = r.pcp(b, from.Addr())
		case b[0] == 0 && natpmp:
			answer = r.natpmp(b, from.Addr())
		case natpmp: // unsupported version
			answer = binary.BigEndian.AppendUint32([]byte{0, 128, 0, 1}, r.seconds())
		}
		if answer != nil {
			r.lan.send(answer, netip.AddrPortFrom(netip.MustParseAddr(r.addr), 5351).String(), from)
		}
	})
}

func (r *router) seconds() uint32 {
	return uint32(time.Since(r.booted) / time.Second)
}

// pcp answers a request (RFC 6887, 7 and 11).
func (r *router) pcp(b []byte, from netip.Addr) []byte {
	if len(b)%4 != 0 || len(b) < 24 || netip.AddrFrom16([16]byte(b[8:24])).Unmap() != from {
		panic(fmt.Sprintf("malformed PCP: %x", b))
	}
	life := binary.BigEndian.Uint32(b[4:])
	answer := func(result int, life uint32) []byte {
		a := binary.BigEndian.AppendUint32([]byte{2, b[1] | 0x80, 0, byte(result)}, life)
		a = binary.BigEndian.AppendUint32(a, r.seconds())
		return append(append(a, make([]byte, 12)...), b[24:]...)
	}
	switch b[1] {
	case 0:
		r.asked["announce"]++
		return answer(r.refuse["announce"], 0)
	case 1:
		if len(b) != 60 {
			panic(fmt.Sprintf("malformed MAP: %x", b))
		}
		r.asked["map"]++
		if result := r.refuse["map"]; result != 0 {
			return answer(result, 1800)
		}
		nonce := [12]byte(b[24:36])
		r.nonces[nonce] = true
		internal := netip.AddrPortFrom(from, binary.BigEndian.Uint16(b[40:]))
		granted, ok := r.put(b[36], internal, binary.BigEndian.Uint16(b[42:]), time.Duration(life)*time.Second, nonce)
		if !ok {
			return answer(2, 1800) // another's nonce
		}
		a := answer(0, uint32(granted.life/time.Second))
		binary.BigEndian.PutUint16(a[42:], granted.port)
		external := r.external.As16()
		copy(a[44:], external[:])
		return a
	}
	return answer(4, 1800)
}

// natpmp answers a request (RFC 6886, 3).
func (r *router) natpmp(b []byte, from netip.Addr) []byte {
	op := b[1]
	what := []string{"address", "map udp", "map tcp"}[op]
	r.asked[what]++
	a := binary.BigEndian.AppendUint32([]byte{0, op | 128, 0, byte(r.refuse[what])}, r.seconds())
	if op == 0 {
		external := r.external.As4()
		return append(a, external[:]...)
	}
	if r.refuse[what] != 0 {
		return append(a, make([]byte, 8)...)
	}
	internal := netip.AddrPortFrom(from, binary.BigEndian.Uint16(b[4:]))
	life := time.Duration(binary.BigEndian.Uint32(b[8:])) * time.Second
	granted, _ := r.put([]byte{0, udp, tcp}[op], internal, binary.BigEndian.Uint16(b[6:]), life, [12]byte{})
	a = append(a, b[4:6]...)
	a = binary.BigEndian.AppendUint16(a, granted.port)
	return binary.BigEndian.AppendUint32(a, uint32(granted.life/time.Second))
}

type granted struct {
	port uint16
	life time.Duration
}

// put makes, renews or deletes the mapping of an internal port.
func (r *router) put(transport byte, internal netip.AddrPort, suggested uint16, life time.Duration, nonce [12]byte) (granted, bool) {
	life = min(life, r.most)
	port := uint16(0)
	for out, in := range r.table {
		if out.transport == transport && in.host == internal {
			if in.nonce != nonce {
				return granted{}, false
			}
			port = out.port
		}
	}
	if life == 0 {
		delete(r.table, outside{transport, port})
		return granted{}, true
	}
	if port == 0 {
		port = r.assign(transport, suggested)
	}
	r.table[outside{transport, port}] = inside{internal, time.Now().Add(life), nonce}
	return granted{port, life}, true
}

// speakUPnP has it answer searches, and describe and control itself, as a device of a version.
func (r *router) speakUPnP(version int) {
	location := "http://" + r.addr + ":5000/desc.xml"
	search := func(b []byte, from netip.AddrPort) {
		target := string(regexp.MustCompile(`(?m)^ST: (.*)\r$`).FindSubmatch(b)[1])
		if last := target[len(target)-1] - '0'; int(last) > version && !strings.HasPrefix(target, "upnp") {
			return
		}
		r.lan.send([]byte("HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: "+target+"\r\nEXT:\r\nLocation: "+location+"\r\n\r\n"), r.addr+":1900", from)
	}
	r.lan.answer(r.addr+":1900", search)
	r.lan.answer("239.255.255.250:1900", search)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /desc.xml", func(w http.ResponseWriter, _ *http.Request) {
		r.mu.Lock()
		control := cmp.Or(r.control, "/ctl/IPConn")
		r.mu.Unlock()
		fmt.Fprintf(w, `<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><device><deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:%d</deviceType>
<friendlyName>A router</friendlyName><deviceList><device><deviceList><device><serviceList>
<service><serviceType>urn:schemas-upnp-org:service:WANCommonInterfaceConfig:1</serviceType><controlURL>/ctl/CmnIfCfg</controlURL></service>
<service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:%[1]d</serviceType><controlURL>%[2]s</controlURL></service>
</serviceList></device></deviceList></device></deviceList></device></root>`, version, control)
	})
	mux.HandleFunc("POST /ctl/IPConn", func(w http.ResponseWriter, q *http.Request) {
		action := strings.Trim(q.Header.Get("Soapaction"), `"`)
		kind, action, _ := strings.Cut(action, "#")
		body := make([]byte, 4096)
		n, _ := q.Body.Read(body)
		argument := func(name string) string {
			m := regexp.MustCompile("<" + name + ">(.*)</" + name + ">").FindStringSubmatch(string(body[:n]))
			if m == nil {
				return "?"
			}
			return m[1]
		}
		r.mu.Lock()
		results, code := r.upnp(action, argument)
		r.mu.Unlock()
		if code != 0 {
			w.WriteHeader(500)
			fmt.Fprintf(w, `<?xml version="1.0"?><s:Envelope xmlns:s="x"><s:Body><s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail><UPnPError xmlns="y"><errorCode>%d</errorCode><errorDescription>no</errorDescription></UPnPError></detail></s:Fault></s:Body></s:Envelope>`, code)
			return
		}
		fmt.Fprintf(w, `<?xml version="1.0"?><s:Envelope xmlns:s="x"><s:Body><u:%sResponse xmlns:u="%s">%s</u:%[1]sResponse></s:Body></s:Envelope>`, action, kind, results)
	})
	r.lan.serve(r.addr+":5000", mux)
}

// upnp does an action, and returns its results or an error code.
func (r *router) upnp(action string, argument func(string) string) (string, int) {
	r.asked[action]++
	if code := r.fault[action]; code != 0 {
		return "", code
	}
	port, _ := strconv.Atoi(argument("NewExternalPort"))
	out := outside{tcp, uint16(port)}
	if argument("NewProtocol") == "UDP" {
		out.transport = udp
	}
	in, known := r.table[out]
	known = known && (in.until.IsZero() || time.Now().Before(in.until))
	switch action {
	case "GetExternalIPAddress":
		return "<NewExternalIPAddress>" + r.external.String() + "</NewExternalIPAddress>", 0
	case "GetSpecificPortMappingEntry":
		if !known {
			return "", 714
		}
		return fmt.Sprintf("<NewInternalPort>%d</NewInternalPort><NewInternalClient>%s</NewInternalClient><NewEnabled>1</NewEnabled>", in.host.Port(), in.host.Addr()), 0
	case "AddPortMapping":
		internal, _ := strconv.Atoi(argument("NewInternalPort"))
		host := netip.AddrPortFrom(netip.MustParseAddr(argument("NewInternalClient")), uint16(internal))
		life, _ := strconv.Atoi(argument("NewLeaseDuration"))
		if known && in.host != host {
			return "", 718
		}
		in = inside{host: host}
		if r.permanent && life != 0 {
			return "", 725
		}
		if life != 0 {
			in.until = time.Now().Add(time.Duration(life) * time.Second)
		}
		r.table[out] = in
		return "", 0
	case "DeletePortMapping":
		if !known {
			return "", 714
		}
		delete(r.table, out)
		return "", 0
	}
	return "", 401
}
