package dht

import "github.com/shoal-go/torrent/internal/krpc"

// ID is a point of the space that nodes, info hashes and items share.
type ID = krpc.ID
