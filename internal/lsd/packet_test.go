package lsd

import (
	"bytes"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParsePacket(t *testing.T) {
	h1, h2 := strings.Repeat("0a", 20), strings.Repeat("FF", 20)
	for _, c := range []struct {
		name, packet string
		port         uint16
		hashes       int
		cookie       string
	}{
		{"as it should be", "BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\nPort: 6881\r\nInfohash: " + h1 + "\r\ncookie: x y\r\n\r\n\r\n", 6881, 1, "x y"},
		{"several torrents, one twice", "BT-SEARCH * HTTP/1.1\r\nPort: 1\r\nInfohash: " + h1 + "\r\nInfohash: " + h2 + "\r\nInfohash: " + h1 + "\r\n\r\n", 1, 2, ""},
		{"other case, spaces and ends of lines", "BT-SEARCH * HTTP/1.0\nPORT:65535\nX: y\nINFOHASH :" + h2 + " \n", 65535, 1, ""},
		{"a malformed hash beside another", "BT-SEARCH * HTTP/1.1\r\nPort: 1\r\nInfohash: 00\r\nInfohash: " + h1[1:] + "x\r\nInfohash: " + h1 + "\r\n\r\n", 1, 1, ""},
		{"what comes behind the end", "BT-SEARCH * HTTP/1.1\r\nInfohash: " + h1 + "\r\n\r\nPort: 1\r\n", 0, 0, ""},
		{"no port", "BT-SEARCH * HTTP/1.1\r\nInfohash: " + h1 + "\r\n\r\n", 0, 0, ""},
		{"port 0", "BT-SEARCH * HTTP/1.1\r\nPort: 0\r\nInfohash: " + h1 + "\r\n\r\n", 0, 0, ""},
		{"a port too high", "BT-SEARCH * HTTP/1.1\r\nPort: 65536\r\nInfohash: " + h1 + "\r\n\r\n", 0, 0, ""},
		{"no hash", "BT-SEARCH * HTTP/1.1\r\nPort: 1\r\n\r\n", 0, 0, ""},
		{"something else", "M-SEARCH * HTTP/1.1\r\nPort: 1\r\nInfohash: " + h1 + "\r\n\r\n", 0, 0, ""},
		{"nothing", "", 0, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			port, hashes, cookie, ok := parsePacket([]byte(c.packet))
			require.Equal(t, c.hashes > 0, ok)
			if ok {
				require.Equal(t, c.port, port)
				require.Len(t, hashes, c.hashes)
				require.Equal(t, c.cookie, cookie)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(appendPacket(nil, groups()[0].addr, 6881, [][20]byte{{1}, {2}}, "cookie"))
	f.Add(appendPacket(nil, groups()[1].addr, 1, [][20]byte{{1}}, ""))
	f.Add([]byte("BT-SEARCH * HTTP/1.1\nport:1\ninfohash:\n\n"))
	f.Fuzz(func(t *testing.T, p []byte) {
		port, hashes, cookie, ok := parsePacket(p)
		if !ok {
			return
		}
		for _, h := range hashes {
			hex := []byte(hex.EncodeToString(h[:]))
			if !bytes.Contains(bytes.ToLower(p), hex) {
				t.Fatalf("%s is not in %q", h, p)
			}
		}
		again := appendPacket(nil, groups()[0].addr, port, hashes, cookie)
		port2, hashes2, cookie2, ok := parsePacket(again)
		if !ok || port2 != port || cookie2 != cookie || !slices.Equal(hashes2, hashes) {
			t.Fatalf("%q was read as %q", p, again)
		}
	})
}
