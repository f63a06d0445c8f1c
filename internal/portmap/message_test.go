package portmap

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func unhex(t testing.TB, s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	require.NoError(t, err)
	return b
}

var here = netip.MustParseAddr("192.168.1.5")

// TestPCPRequests compares requests with what RFC 6887 draws.
func TestPCPRequests(t *testing.T) {
	require.Equal(t, unhex(t, "02 00 0000 00000000 00000000000000000000ffffc0a80105"), appendPCPAnnounce(nil, here))
	m := pcpMapping{nonce([]byte("abcdefghijkl")), udp, 6881, 6882, netip.MustParseAddr("203.0.113.7")}
	require.Equal(t, unhex(t, "02 01 0000 00000e10 00000000000000000000ffffc0a80105"+
		"6162636465666768696a6b6c 11 000000 1ae1 1ae2 00000000000000000000ffffcb007107"), appendPCPMap(nil, here, time.Hour, m))
	require.Equal(t, unhex(t, "02 00 0000 00000000 20010db8000000000000000000000005"), appendPCPAnnounce(nil, netip.MustParseAddr("2001:db8::5")))
}

func TestParsePCP(t *testing.T) {
	const header, body = "0000000000000000 00000000", "6162636465666768696a6b6c 06 000000 1ae1 1ae2 00000000000000000000ffffcb007107"
	mapping := pcpMapping{nonce([]byte("abcdefghijkl")), tcp, 6881, 6882, netip.MustParseAddr("203.0.113.7")}
	for name, tt := range map[string]struct {
		b    string
		want pcpResponse
		ok   bool
	}{
		"announce":               {"02 80 00 00 00000000 00000007" + header, pcpResponse{opcode: pcpAnnounce, epoch: 7}, true},
		"announce with an error": {"02 80 00 02 00000708 00000007" + header, pcpResponse{opcode: pcpAnnounce, result: 2, life: 30 * time.Minute, epoch: 7}, true},
		"map":                    {"02 81 00 00 00000e10 00000007" + header + body, pcpResponse{opcode: pcpMap, life: time.Hour, epoch: 7, mapping: mapping, mapped: true}, true},
		"map with options":       {"02 81 00 00 00000e10 00000007" + header + body + "02000000", pcpResponse{opcode: pcpMap, life: time.Hour, epoch: 7, mapping: mapping, mapped: true}, true},
		"map with an error":      {"02 81 00 08 0000001e 00000007" + header + body, pcpResponse{opcode: pcpMap, result: 8, life: 30 * time.Second, epoch: 7, mapping: mapping, mapped: true}, true},
		"an error alone":         {"02 81 00 04 0000001e 00000007" + header, pcpResponse{opcode: pcpMap, result: 4, life: 30 * time.Second, epoch: 7}, true},
		"map without a body":     {"02 81 00 00 00000e10 00000007" + header, pcpResponse{}, false},
		"map cut short":          {"02 81 00 00 00000e10 00000007" + header + body[:len(body)-8], pcpResponse{}, false},
		"a request":              {"02 01 00 00 00000e10 00000007" + header + body, pcpResponse{}, false},
		"another version":        {"01 80 00 00 00000000 00000007" + header, pcpResponse{}, false},
		"a length of no words":   {"02 80 00 00 00000000 00000007" + header + "00", pcpResponse{}, false},
		"too long":               {"02 80 00 00 00000000 00000007" + header + strings.Repeat("00", 1080), pcpResponse{}, false},
		"too short":              {"02 80 00 00", pcpResponse{}, false},
		"nothing":                {"", pcpResponse{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			r, ok := parsePCP(unhex(t, tt.b))
			require.Equal(t, tt.ok, ok)
			if ok {
				require.Equal(t, tt.want, r)
			}
		})
	}
}

func TestNATPMPRequests(t *testing.T) {
	require.Equal(t, unhex(t, "0000"), appendNATPMPAddress(nil))
	require.Equal(t, unhex(t, "00 01 0000 1ae1 1ae2 00000e10"), appendNATPMPMap(nil, udp, 6881, 6882, time.Hour))
	require.Equal(t, unhex(t, "00 02 0000 1ae1 0000 00000000"), appendNATPMPMap(nil, tcp, 6881, 0, 0))
}

func TestParseNATPMP(t *testing.T) {
	for name, tt := range map[string]struct {
		b    string
		want natpmpResponse
		ok   bool
	}{
		"address":             {"00 80 0000 00000007 cb007107", natpmpResponse{opcode: natpmpAddress, epoch: 7, address: netip.MustParseAddr("203.0.113.7")}, true},
		"no address":          {"00 80 0003 00000007 cb007107", natpmpResponse{opcode: natpmpAddress, result: 3, epoch: 7}, true},
		"map":                 {"00 82 0000 00000007 1ae1 1ae2 00000e10", natpmpResponse{opcode: natpmpMapTCP, epoch: 7, internal: 6881, external: 6882, life: time.Hour}, true},
		"refused":             {"00 81 0002 00000007 1ae1 0000 00000000", natpmpResponse{opcode: natpmpMapUDP, result: 2, epoch: 7, internal: 6881}, true},
		"an error alone":      {"00 81 0005 00000007", natpmpResponse{opcode: natpmpMapUDP, result: 5, epoch: 7}, true},
		"the version alone":   {"00 80 0001", natpmpResponse{opcode: natpmpAddress, result: 1}, true},
		"another error alone": {"00 80 0002", natpmpResponse{}, false},
		"address missing":     {"00 80 0000 00000007", natpmpResponse{}, false},
		"map cut short":       {"00 81 0000 00000007 1ae1 1ae2", natpmpResponse{}, false},
		"an unknown opcode":   {"00 87 0000 00000007 00000000", natpmpResponse{}, false},
		"a request":           {"00 01 0000 1ae1 1ae2 00000e10", natpmpResponse{}, false},
		"another version":     {"02 80 0000 00000007 cb007107", natpmpResponse{}, false},
		"nothing":             {"", natpmpResponse{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			r, ok := parseNATPMP(unhex(t, tt.b))
			require.Equal(t, tt.ok, ok)
			if ok {
				require.Equal(t, tt.want, r)
			}
		})
	}
}

func TestReasonOf(t *testing.T) {
	require.Equal(t, "no resources", reasonOf(pcpResults[:], 8))
	require.Equal(t, "result 0", reasonOf(pcpResults[:], 0))
	require.Equal(t, "result 255", reasonOf(pcpResults[:], 255))
	require.Equal(t, "result 65535", reasonOf(natpmpResults[:], 65535))
}

// FuzzPCP reads answers without a fault, and every mapping as it was written.
func FuzzPCP(f *testing.F) {
	m := pcpMapping{nonce([]byte("abcdefghijkl")), tcp, 6881, 6882, netip.MustParseAddr("203.0.113.7")}
	answer := appendPCPMap(nil, here, time.Hour, m)
	answer[1] |= pcpAnswer
	f.Add(answer)
	f.Add(append(appendPCPAnnounce(nil, here), 0, 0, 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, ok := parsePCP(b)
		if !ok {
			return
		}
		if r.life < 0 || len(b) < pcpHeader {
			t.Fatalf("%+v", r)
		}
		if r.mapped {
			again := appendPCPMap(nil, here, r.life, r.mapping)
			if !bytes.Equal(again[4:8], b[4:8]) || !bytes.Equal(again[24:37], b[24:37]) || !bytes.Equal(again[40:60], b[40:60]) {
				t.Fatalf("%x reads as %+v", b, r)
			}
		}
	})
}

// FuzzNATPMP reads answers without a fault, and every mapping as it was written.
func FuzzNATPMP(f *testing.F) {
	f.Add(append([]byte{0, 128, 0, 0, 0, 0, 0, 7}, 203, 0, 113, 7))
	f.Add(append([]byte{0, 130, 0, 0, 0, 0, 0, 7}, 1, 2, 3, 4, 0, 0, 1, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, ok := parseNATPMP(b)
		if !ok {
			return
		}
		if r.life > 0 {
			again := appendNATPMPMap(nil, map[byte]transport{natpmpMapTCP: tcp, natpmpMapUDP: udp}[r.opcode], r.internal, r.external, r.life)
			if !bytes.Equal(again[4:12], b[8:16]) {
				t.Fatalf("%x reads as %+v", b, r)
			}
		}
	})
}
