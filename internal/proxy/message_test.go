package proxy

import (
	"bytes"
	"io"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRelayOf(t *testing.T) {
	for _, tt := range []struct {
		bound, proxy, want string // want "" is an error
	}{
		{"203.0.113.7:1", "203.0.113.1", "203.0.113.7:1"},
		{"10.0.0.7:1", "10.0.0.1", "10.0.0.7:1"},
		{"127.0.0.1:1", "127.0.0.1", "127.0.0.1:1"},
		{"0.0.0.0:1", "203.0.113.1", "203.0.113.1:1"},
		{"[::]:1", "203.0.113.1", "203.0.113.1:1"},
		{"a:1", "203.0.113.1", "203.0.113.1:1"},
		{"10.0.0.7:1", "203.0.113.1", "203.0.113.1:1"},
		{"127.0.0.1:1", "203.0.113.1", "203.0.113.1:1"},
		{"127.0.0.1:1", "10.0.0.1", "10.0.0.1:1"},
		{"203.0.113.7:1", "10.0.0.1", "10.0.0.1:1"},
		{"239.1.1.1:1", "203.0.113.1", "203.0.113.1:1"},
		{"203.0.113.7:0", "203.0.113.1", ""},
	} {
		bound, _ := parseTarget(tt.bound)
		got, err := relayOf(bound, netip.MustParseAddr(tt.proxy))
		if tt.want == "" {
			require.ErrorContains(t, err, "answer without a relay address")
			continue
		}
		require.NoError(t, err)
		require.Equal(t, tt.want, got.String(), "%s of %s", tt.bound, tt.proxy)
	}
	_, err := relayOf(target{port: 1}, netip.Addr{})
	require.Error(t, err)
}

// FuzzDatagram checks that any packet can be parsed without a panic, and that writing the result yields the same bytes.
func FuzzDatagram(f *testing.F) {
	for _, b := range []string{"\x00\x00\x00\x01\xcb\x00\x71\x07\x1a\xe1hello", "\x00\x00\x00\x03\x01a\x00\x50", "\x00\x00\x00\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07\x00\x01x"} {
		f.Add([]byte(b))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		from, data, ok := parseDatagram(b)
		if !ok || from.ip.Is4() && b[3] == addrIPv6 { // an IPv4-mapped address is written as IPv4
			return
		}
		if again := append(appendTarget([]byte{b[0], b[1], 0}, from), data...); !bytes.Equal(again, b) {
			t.Fatalf("%x reads as %s and %x", b, from, data)
		}
	})
}

// FuzzReply checks that any answer to a SOCKS request can be read without a panic, and that nothing after it is read.
func FuzzReply(f *testing.F) {
	for _, b := range []string{"\x05\x00\x00\x01\x01\x02\x03\x04\x05\x06more", "\x05\x00\x00\x03\x01a\x05\x06more", "\x05\x05\x00\x01"} {
		f.Add([]byte(b))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		bound, err := readReply(r)
		if err != nil || bound.ip.Is4() && b[3] == addrIPv6 {
			return
		}
		if again := appendTarget([]byte{5, 0, b[2]}, bound); len(again) != len(b)-r.Len() || !bytes.HasPrefix(b, again) {
			t.Fatalf("%x reads as %s, and leaves %d bytes", b, bound, r.Len())
		}
	})
}

// FuzzTunnel checks that any answer to CONNECT can be read without a panic, and that no byte after it is lost.
func FuzzTunnel(f *testing.F) {
	for _, b := range []string{"HTTP/1.1 200 OK\r\n\r\nhello", "HTTP/1.0 407 No\r\nX: y\r\n\r\n"} {
		f.Add([]byte(b))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		rest, err := readTunnel(r)
		if err != nil {
			return
		}
		behind, _ := io.ReadAll(r)
		if all := append(bytes.Clone(rest), behind...); !bytes.HasSuffix(b, all) || bytes.Contains(all, []byte("HTTP/1.1 200")) && !bytes.Contains(b[9:], []byte("HTTP/1.1 200")) {
			t.Fatalf("%q leaves %q", b, all)
		}
	})
}
