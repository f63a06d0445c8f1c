package main

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
)

// serveFiles serves a directory over HTTP, and returns its URL.
func (a *arena) serveFiles(dir string) (url string, err error) {
	l, err := net.Listen("tcp", host(1)+":0")
	if err != nil {
		return "", err
	}
	s := &http.Server{Handler: http.FileServer(http.Dir(dir))}
	go s.Serve(l)
	a.closers = append(a.closers, func() { s.Close() })
	return "http://" + l.Addr().String() + "/", nil
}

// webSeeded is an arena for what lies at root, which comes from a web server alone.
func (b *bench) webSeeded(root string, pieceLength int64) (*arena, error) {
	dir := filepath.Join(b.dir, "web")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	base := filepath.Join(dir, filepath.Base(root)) // measureLeech finds the content by the torrent's name
	a := &arena{content: filepath.Dir(root), torrent: base + ".torrent", bare: base + ".bare.torrent"}
	announce, err := a.track()
	if err != nil {
		return a, err
	}
	url, err := a.serveFiles(a.content)
	if err != nil {
		return a, err
	}
	return a, makeTorrents(a.torrent, a.bare, root, announce, pieceLength, url)
}

func webFile(b *bench) (*arena, error) {
	root, err := b.singleFile(300_000_000)
	if err != nil {
		return nil, err
	}
	return b.webSeeded(root, mebibyte)
}

func webFiles(b *bench) (*arena, error) {
	root, err := b.manyFiles()
	if err != nil {
		return nil, err
	}
	return b.webSeeded(root, 64<<10)
}
