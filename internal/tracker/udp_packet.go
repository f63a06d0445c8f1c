package tracker

import (
	"crypto/rand"
	"encoding/binary"
	"math"
	"net/url"
	"time"
)

const udpProtocolID = 0x41727101980 // of a connect request

// udpAction is the type of a datagram (BEP 15).
type udpAction uint32

const (
	udpConnect udpAction = iota
	udpAnnounce
	udpScrape
	udpError
)

// newTransaction returns an unpredictable transaction id.
func newTransaction() uint32 {
	var b [4]byte
	rand.Read(b[:])
	return binary.BigEndian.Uint32(b[:])
}

// udpHeader returns a request: the 16 bytes that every request begins with, followed by body.
func udpHeader(id uint64, action udpAction, transaction uint32, body []byte) []byte {
	p := make([]byte, 0, 16+len(body))
	p = binary.BigEndian.AppendUint64(p, id)
	p = binary.BigEndian.AppendUint32(p, uint32(action))
	p = binary.BigEndian.AppendUint32(p, transaction)
	return append(p, body...)
}

// appendUDPAnnounce appends the body of an announce, followed by the path and query of the tracker's URL (BEP 41). The address
// field stays 0: the tracker sees our address, and we could only guess it.
func appendUDPAnnounce(p []byte, tracker *url.URL, r request) []byte {
	p = append(p, r.infoHash[:]...)
	p = append(p, r.peerID[:]...)
	p = binary.BigEndian.AppendUint64(p, uint64(r.Downloaded))
	p = binary.BigEndian.AppendUint64(p, uint64(r.Left))
	p = binary.BigEndian.AppendUint64(p, uint64(r.Uploaded))
	p = binary.BigEndian.AppendUint32(p, uint32(r.event))
	p = binary.BigEndian.AppendUint32(p, 0)
	p = binary.BigEndian.AppendUint32(p, r.key)
	p = binary.BigEndian.AppendUint32(p, uint32(r.numWant))
	p = binary.BigEndian.AppendUint16(p, r.port)

	const urlData = 2 // option type; each option has up to 255 bytes of data
	data := tracker.EscapedPath()
	if tracker.RawQuery != "" {
		data += "?" + tracker.RawQuery
	}
	// A datagram over 1280 bytes may never arrive.
	for data = data[:min(len(data), 1000)]; len(data) > 0; {
		n := min(len(data), 255)
		p = append(p, urlData, byte(n))
		p = append(p, data[:n]...)
		data = data[n:]
	}
	return p
}

// parseUDPAnswer parses the answer to an announce, of at least 20 bytes. v4 is whether it came over IPv4, which decides the
// size of the addresses in it.
func parseUDPAnswer(p []byte, v4 bool) answer {
	a := answer{
		interval: max(time.Duration(udpCount(p[8:]))*time.Second, 1),
		swarm:    Scrape{Leechers: udpCount(p[12:]), Seeds: udpCount(p[16:])},
	}
	size := 16
	if v4 {
		size = 4
	}
	a.peers = compactPeers(nil, p[20:], size)
	return a
}

// udpCount returns the 32-bit number at the start of p, at most math.MaxInt32.
func udpCount(p []byte) int {
	return int(min(binary.BigEndian.Uint32(p), math.MaxInt32))
}
