module github.com/shoal-go/torrent

go 1.26.0

require (
	github.com/stretchr/testify v1.12.1 // indirect
	github.com/zeebo/bencode v1.0.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/time v0.16.0 // indirect
)
