package peerlist

// A Source says where a peer's address came from. Lower values are trusted more.
type Source uint8

const (
	FromUser     Source = iota // Options.Peers
	FromTracker                // BEP 3, 7, 15, 23
	FromLSD                    // BEP 14
	FromMagnet                 // x.pe
	FromIncoming               // it connected to us, and said where it listens
	FromFinder                 // Options.FindPeers
	FromDHT                    // BEP 5
	FromPEX                    // BEP 11
)

var sourceNames = [...]string{"user", "tracker", "lsd", "magnet", "incoming", "finder", "dht", "pex"}

func (s Source) String() string { return sourceNames[s] }

// allowedInPrivate reports whether peers of a private torrent may come from there: from its trackers,
// as BEP 27 says, and from its user, who may have named some in a magnet link or by a function.
func (s Source) allowedInPrivate() bool {
	return s == FromUser || s == FromTracker || s == FromMagnet || s == FromFinder
}

// isTheUsers reports whether candidates that come from there are never given up: the user named them, or gave the link that does.
func (s Source) isTheUsers() bool { return s == FromUser || s == FromMagnet }
