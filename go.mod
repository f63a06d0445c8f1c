module github.com/shoal-go/torrent

go 1.26.0

require (
	github.com/stretchr/testify v1.12.1
	github.com/zeebo/bencode v1.0.0
	golang.org/x/net v0.62.0
	golang.org/x/sys v0.49.0
	golang.org/x/time v0.16.0
)

require go.yaml.in/yaml/v3 v3.0.5 // indirect
