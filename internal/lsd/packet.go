package lsd

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
)

// appendPacket appends an announce to b.
func appendPacket(b []byte, group netip.AddrPort, port uint16, hashes [][20]byte, cookie string) []byte {
	b = fmt.Appendf(b, "BT-SEARCH * HTTP/1.1\r\nHost: %s\r\nPort: %d\r\n", group, port)
	for _, h := range hashes {
		b = fmt.Appendf(b, "Infohash: %x\r\n", h)
	}
	return fmt.Appendf(b, "cookie: %s\r\n\r\n\r\n", cookie)
}

// parsePacket reads an announce. Headers that are unknown, and info hashes that are malformed, are left out.
func parsePacket(p []byte) (port uint16, hashes [][20]byte, cookie string, ok bool) {
	start, rest, _ := bytes.Cut(p, []byte("\n"))
	if !bytes.HasPrefix(start, []byte("BT-SEARCH * HTTP/1.")) {
		return 0, nil, "", false
	}
	for line := range bytes.Lines(rest) {
		key, value, isHeader := bytes.Cut(line, []byte(":"))
		if !isHeader {
			break
		}
		value = bytes.TrimSpace(value)
		switch string(bytes.ToLower(bytes.TrimSpace(key))) {
		case "port":
			n, err := strconv.ParseUint(string(value), 10, 16)
			if err != nil {
				return 0, nil, "", false
			}
			port = uint16(n)
		case "infohash":
			var h [20]byte
			if hex.DecodedLen(len(value)) != len(h) {
				continue
			}
			if _, err := hex.Decode(h[:], value); err == nil && !slices.Contains(hashes, h) {
				hashes = append(hashes, h)
			}
		case "cookie":
			cookie = string(value)
		}
	}
	return port, hashes, cookie, port != 0 && len(hashes) > 0
}
