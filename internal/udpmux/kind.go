package udpmux

// Kind is a protocol that packets belong to.
type Kind uint8

const (
	KRPC    Kind = iota // of the DHT (BEP 5)
	UTP                 // BEP 29
	Tracker             // answers of UDP trackers (BEP 15), which hold to be expected by their transaction id
	kinds
)

// kindOf tells a packet's protocol by its first bytes, which never meet: a bencoded dictionary begins with
// 'd', a uTP packet with its type, 0 to 4, and version, 1, in half a byte each, and a tracker's answer with
// an action of four bytes, 0 to 3.
func kindOf(p []byte) (k Kind, ok bool) {
	switch {
	case len(p) < 8: // less than the shortest packet of any
		return 0, false
	case p[0] == 'd':
		return KRPC, true
	case p[0]&0x0f == 1 && p[0]>>4 <= 4:
		return UTP, true
	case p[0] == 0 && p[1] == 0 && p[2] == 0 && p[3] <= 3:
		return Tracker, true
	}
	return 0, false
}

// sameKind is the kind of the first of some packets, and how many bytes of them are of that kind.
func sameKind(p []byte, segment int) (k Kind, ok bool, n int) {
	n = min(segment, len(p))
	k, ok = kindOf(p[:n])
	for n < len(p) {
		end := min(n+segment, len(p))
		if next, good := kindOf(p[n:end]); next != k || good != ok {
			break
		}
		n = end
	}
	return k, ok, n
}
