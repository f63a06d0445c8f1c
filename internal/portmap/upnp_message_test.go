package portmap

import (
	"encoding/xml"
	"errors"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseSSDP(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for name, tt := range map[string]struct {
		answer  string
		want    string // "" is refused
		gateway bool
	}{
		"a gateway":           {ok + "ST: urn:schemas-upnp-org:device:InternetGatewayDevice:2\r\nLOCATION: http://192.168.1.1:5000/rootDesc.xml\r\n\r\n", "http://192.168.1.1:5000/rootDesc.xml", true},
		"a root":              {ok + "location:http://192.168.1.1/x?y=z\r\nST:upnp:rootdevice\r\nEXT:\r\n\r\n", "http://192.168.1.1/x?y=z", false},
		"without the end":     {ok + "Location: http://192.168.1.1/\r\n", "", false},
		"another host":        {ok + "Location: http://192.168.1.2/\r\n\r\n", "", false},
		"a name":              {ok + "Location: http://router.lan/\r\n\r\n", "", false},
		"another scheme":      {ok + "Location: ftp://192.168.1.1/\r\n\r\n", "", false},
		"a password":          {ok + "Location: http://a:b@192.168.1.1/\r\n\r\n", "", false},
		"a port out of range": {ok + "Location: http://192.168.1.1:65536/\r\n\r\n", "", false},
		"no scheme":           {ok + "Location: //192.168.1.1/\r\n\r\n", "", false},
		"no location":         {ok + "ST: upnp:rootdevice\r\n\r\n", "", false},
		"a long location":     {ok + "Location: http://192.168.1.1/" + strings.Repeat("x", 1024) + "\r\n\r\n", "", false},
		"a long answer":       {ok + "Location: http://192.168.1.1/\r\nX: " + strings.Repeat("x", 4096) + "\r\n\r\n", "", false},
		"an error":            {"HTTP/1.1 404 Not Found\r\nLocation: http://192.168.1.1/\r\n\r\n", "", false},
		"a request":           {"NOTIFY * HTTP/1.1\r\nLocation: http://192.168.1.1/\r\n\r\n", "", false},
		"a search":            {string(ssdpSearch(ssdpTargets[0])), "", false},
		"nothing":             {"", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			location, gateway, ok := parseSSDP([]byte(tt.answer), netip.MustParseAddr("192.168.1.1"))
			require.Equal(t, tt.want != "", ok)
			if ok {
				require.Equal(t, tt.want, location.String())
				require.Equal(t, tt.gateway, gateway)
			}
		})
	}
}

// describe is a description with some services in the usual place.
func describe(base string, services ...string) string {
	var b strings.Builder
	b.WriteString("<?xml version=\"1.0\" encoding=\"iso-8859-1\"?>\n<root xmlns=\"urn:schemas-upnp-org:device-1-0\">")
	if base != "" {
		b.WriteString("<URLBase>" + base + "</URLBase>")
	}
	b.WriteString("<device><friendlyName>caf\xe9 &amp; bar</friendlyName><deviceList><device><serviceList>")
	for i := 0; i < len(services); i += 2 {
		b.WriteString("<service>\n <serviceType> " + services[i] + " </serviceType><controlURL>" + services[i+1] + "</controlURL></service>")
	}
	b.WriteString("</serviceList></device></deviceList></device></root>")
	return b.String()
}

func TestParseDescription(t *testing.T) {
	const ip1, ip2, ppp = "urn:schemas-upnp-org:service:WANIPConnection:1", "urn:schemas-upnp-org:service:WANIPConnection:2", "urn:schemas-upnp-org:service:WANPPPConnection:1"
	many := make([]string, 0, 40)
	for range 20 {
		many = append(many, ppp, "/c")
	}
	for name, tt := range map[string]struct {
		document string
		want     []string // kind and URL of each service
		err      string
	}{
		"one":                        {describe("", ip1, "/ctl"), []string{ip1, "http://192.168.1.1:5000/ctl"}, ""},
		"relative to the document":   {describe("", ip1, "ctl?x"), []string{ip1, "http://192.168.1.1:5000/a/ctl?x"}, ""},
		"relative to a base":         {describe("http://192.168.1.1:80/b/", ip1, "ctl"), []string{ip1, "http://192.168.1.1:80/b/ctl"}, ""},
		"a base elsewhere":           {describe("http://10.0.0.1/", ip1, "/ctl"), []string{ip1, "http://192.168.1.1:5000/ctl"}, ""},
		"absolute":                   {describe("", ip1, "http://192.168.1.1:49000/ctl"), []string{ip1, "http://192.168.1.1:49000/ctl"}, ""},
		"absolute, elsewhere":        {describe("", ip1, "http://10.0.0.1/ctl", ppp, "/p"), []string{ppp, "http://192.168.1.1:5000/p"}, ""},
		"the better first":           {describe("", ppp, "/p", ip1, "/1", ip2, "/2", "urn:schemas-upnp-org:service:Layer3Forwarding:1", "/l"), []string{ip2, "http://192.168.1.1:5000/2", ip1, "http://192.168.1.1:5000/1", ppp, "http://192.168.1.1:5000/p"}, ""},
		"of an older standard":       {describe("", "urn:dslforum-org:service:WANPPPConnection:1", "/p"), []string{"urn:dslforum-org:service:WANPPPConnection:1", "http://192.168.1.1:5000/p"}, ""},
		"none":                       {describe(""), nil, ""},
		"no URL":                     {describe("", ip1, "%"), nil, ""},
		"more than are of use":       {describe("", many...), many[:0], ""},
		"no XML":                     {"hello", nil, ""},
		"cut short":                  {describe("", ip1, "/ctl")[:300], nil, "unexpected EOF"},
		"elements that cross":        {"<a><b></a></b>", nil, `element "a" ends where it is not open`},
		"an end without a beginning": {"</a>", nil, "not open"},
		"deep":                       {strings.Repeat("<a>", 33), nil, "too deeply"},
		"an entity":                  {"<!DOCTYPE a [<!ENTITY b \"bbbb\">]><a>&b;</a>", nil, "entity"},
	} {
		t.Run(name, func(t *testing.T) {
			location, err := url.Parse("http://192.168.1.1:5000/a/desc.xml")
			require.NoError(t, err)
			services, err := parseDescription([]byte(tt.document), location)
			if tt.err != "" {
				require.ErrorContains(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			if name == "more than are of use" {
				require.Len(t, services, maxServices)
				return
			}
			var got []string
			for _, s := range services {
				got = append(got, s.kind, s.control.String())
			}
			require.Equal(t, tt.want, got)
		})
	}
}

func TestSOAPRequest(t *testing.T) {
	b := soapRequest(`urn:x"><evil>`, "AddPortMapping", []argument{{"NewRemoteHost", ""}, {"NewProtocol", "<TCP>"}})
	require.Contains(t, string(b), `<u:AddPortMapping xmlns:u="urn:x&#34;&gt;&lt;evil&gt;"><NewRemoteHost></NewRemoteHost><NewProtocol>&lt;TCP&gt;</NewProtocol></u:AddPortMapping>`)
	require.NoError(t, xml.Unmarshal(b, new(struct{ XMLName xml.Name })))
}

func TestParseSOAP(t *testing.T) {
	envelope := func(body string) string {
		return `<?xml version="1.0"?><SOAP-ENV:Envelope xmlns:SOAP-ENV="http://schemas.xmlsoap.org/soap/envelope/"><SOAP-ENV:Body>` + body + `</SOAP-ENV:Body></SOAP-ENV:Envelope>`
	}
	for name, tt := range map[string]struct {
		answer string
		want   map[string]string
		code   int
		err    string
	}{
		"results":           {envelope("<u:GetXResponse><NewA>1</NewA><NewB> two </NewB><NewC/></u:GetXResponse>"), map[string]string{"NewA": "1", "NewB": "two", "NewC": ""}, 0, ""},
		"none":              {envelope("<m:GetXResponse/>"), map[string]string{}, 0, ""},
		"a fault":           {envelope("<s:Fault><faultcode>s:Client</faultcode><detail><UPnPError><errorCode>718</errorCode><errorDescription>ConflictInMappingEntry</errorDescription></UPnPError></detail></s:Fault>"), nil, 718, ""},
		"a fault, unsaid":   {envelope("<s:Fault/>"), nil, 0, "UPnP error 0"},
		"to something else": {envelope("<u:GetYResponse/>"), nil, 0, "no answer to the action"},
		"outside the body":  {"<Envelope><Header><GetXResponse/></Header></Envelope>", nil, 0, "no answer"},
		"no XML":            {"", nil, 0, "no answer"},
		"cut short":         {envelope("<u:GetXResponse>")[:130], nil, 0, "unexpected EOF"},
		"a long value":      {envelope("<u:GetXResponse><A>" + strings.Repeat("x", 5000) + "</A></u:GetXResponse>"), map[string]string{"A": strings.Repeat("x", maxValue)}, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseSOAP([]byte(tt.answer), "GetX")
			switch {
			case tt.code != 0:
				require.Equal(t, tt.code, codeOf(err))
				require.ErrorContains(t, err, "ConflictInMappingEntry")
			case tt.err != "":
				require.ErrorContains(t, err, tt.err)
			default:
				require.NoError(t, err)
				require.Equal(t, tt.want, got)
			}
		})
	}
	t.Run("many values", func(t *testing.T) {
		var b strings.Builder
		for i := range 100 {
			b.WriteString("<A" + strings.Repeat("a", i) + "/>")
		}
		got, err := parseSOAP([]byte(envelope("<u:GetXResponse>"+b.String()+"</u:GetXResponse>")), "GetX")
		require.NoError(t, err)
		require.Len(t, got, maxValues)
	})
}

// FuzzSSDP finds no location but at the address that answered.
func FuzzSSDP(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:2\r\nLOCATION: http://192.168.1.1:5000/rootDesc.xml\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nLOCATION: http://[::ffff:192.168.1.1]:5000/\r\n\r\n"))
	from := netip.MustParseAddr("192.168.1.1")
	f.Fuzz(func(t *testing.T, b []byte) {
		location, _, ok := parseSSDP(b, from)
		if !ok {
			return
		}
		at, err := hostPort(location)
		if err != nil || at.Addr() != from {
			t.Fatalf("%s: %v, %v", location, at, err)
		}
	})
}

// FuzzDescription finds no service but at the address that was asked.
func FuzzDescription(f *testing.F) {
	f.Add([]byte(describe("", "urn:schemas-upnp-org:service:WANIPConnection:1", "/ctl")))
	f.Add([]byte(describe("http://192.168.1.1:80/b/", "urn:schemas-upnp-org:service:WANPPPConnection:1", "http://10.0.0.1/ctl")))
	location := &url.URL{Scheme: "http", Host: "192.168.1.1:5000", Path: "/desc.xml"}
	f.Fuzz(func(t *testing.T, b []byte) {
		services, err := parseDescription(b, location)
		if err != nil && services != nil || len(services) > maxServices {
			t.Fatalf("%d services, %v", len(services), err)
		}
		for _, s := range services {
			at, err := hostPort(s.control)
			if err != nil || at.Addr().String() != "192.168.1.1" {
				t.Fatalf("%s: %v, %v", s.control, at, err)
			}
		}
	})
}

// FuzzSOAP reads answers without a fault, and not more of them than is bounded.
func FuzzSOAP(f *testing.F) {
	f.Add([]byte("<Envelope><Body><GetXResponse><A>1</A></GetXResponse></Body></Envelope>"))
	f.Add([]byte("<s:Envelope><s:Body><s:Fault><detail><UPnPError><errorCode>725</errorCode></UPnPError></detail></s:Fault></s:Body></s:Envelope>"))
	f.Fuzz(func(t *testing.T, b []byte) {
		results, err := parseSOAP(b, "GetX")
		if len(results) > maxValues || err != nil && results != nil {
			t.Fatalf("%d results, %v", len(results), err)
		}
		for _, v := range results {
			if len(v) > maxValue {
				t.Fatalf("%d bytes", len(v))
			}
		}
		var fault *soapError
		if errors.As(err, &fault) && len(fault.text) > maxValue {
			t.Fatalf("%d bytes", len(fault.text))
		}
	})
}
