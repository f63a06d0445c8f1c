module github.com/shoal-go/torrent/examples/boltstore

go 1.26.0

replace github.com/shoal-go/torrent => ../../

require (
	github.com/shoal-go/torrent v0.0.0
	go.etcd.io/bbolt v1.4.3
)

require (
	github.com/zeebo/bencode v1.0.0 // indirect
	golang.org/x/net v0.62.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/time v0.16.0 // indirect
)
