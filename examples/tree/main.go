// Command tree prints what is in a .torrent file: directories and files with their sizes.
//
//	go run ./examples/tree TORRENT
package main

import (
	"log"
	"os"

	"github.com/shoal-go/torrent"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: tree TORRENT")
	}
	t, err := torrent.Read(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	if err := t.PrintTree(os.Stdout); err != nil {
		log.Fatal(err)
	}
}
