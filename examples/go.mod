module github.com/shoal-go/torrent/examples

go 1.26.0

replace github.com/shoal-go/torrent => ../

require (
	github.com/schollz/progressbar/v3 v3.19.1
	github.com/shoal-go/torrent v0.0.0
	golang.org/x/term v0.47.0
	golang.org/x/time v0.16.0
)

require (
	github.com/mitchellh/colorstring v0.0.0-20190213212951-d06e56a500db // indirect
	github.com/rivo/uniseg v0.4.7 // indirect
	github.com/zeebo/bencode v1.0.0 // indirect
	golang.org/x/net v0.62.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)
