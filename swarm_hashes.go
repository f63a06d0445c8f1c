package torrent

import "github.com/shoal-go/torrent/internal/wire"

// infoHashes are those under which the peers of one torrent meet. A hybrid has two, and so two swarms (BEP 52).
type infoHashes struct {
	first  Hash // by which the client knows the torrent: of version 1, unless it is of version 2 alone
	second Hash // of version 2 beside that; zero if there is none
	v2     bool // one of them is of version 2
}

func (t *Torrent) infoHashes() infoHashes {
	h := infoHashes{first: t.infoHash, v2: t.version != V1}
	if t.version == Hybrid {
		h.second = t.infoHashV2.truncated()
	}
	return h
}

// all are the info hashes that there are.
func (h infoHashes) all() []Hash {
	if h.second == (Hash{}) {
		return []Hash{h.first}
	}
	return []Hash{h.first, h.second}
}

// ofV2 is the one of version 2, or zero.
func (h infoHashes) ofV2() Hash {
	if h.v2 && h.second == (Hash{}) {
		return h.first
	}
	return h.second
}

// accepts reports whether theirs may answer our handshake with ours: the same, or that of version 2 instead (BEP 52).
func (h infoHashes) accepts(ours, theirs Hash) bool {
	return theirs == ours || h.second != (Hash{}) && theirs == h.second
}

// answer is the info hash that answers a handshake. A peer of a hybrid that speaks version 2, too, is answered with that.
func (h infoHashes) answer(theirs *wire.Handshake) Hash {
	if h.second != (Hash{}) && theirs.V2() {
		return h.second
	}
	return theirs.InfoHash
}

// handshake is ours in the swarm of one of the info hashes. In both we are the same peer.
func (c *Client) handshake(h infoHashes, in Hash) wire.Handshake {
	ours := wire.Handshake{InfoHash: in, PeerID: c.identity(h.first).id}
	ours.SetFast()
	ours.SetExtended()
	if h.v2 {
		ours.SetV2()
	}
	if c.dhtMember.member() != nil {
		ours.SetDHT()
	}
	return ours
}
