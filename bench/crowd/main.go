// Command crowd is many seeds that all connect to one client at once, and again once they have lost it.
// They send as fast as the machine can. Each ignores cancels, as it has sent what it was asked for before any comes.
//
//	crowd [-peers N] FILE TORRENT ADDR
package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"sync"
	"time"

	"github.com/anacrolix/torrent/metainfo"
)

// retry is how long after a connection failed or ended the next one is tried.
const retry = 20 * time.Millisecond

func main() {
	peers := flag.Int("peers", 80, "how many seeds")
	flag.Parse()
	if err := run(*peers, flag.Arg(0), flag.Arg(1), flag.Arg(2)); err != nil {
		log.Fatal(err)
	}
}

func run(peers int, file, torrent, addr string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	m, err := metainfo.LoadFromFile(torrent)
	if err != nil {
		return err
	}
	info, err := m.UnmarshalInfo()
	if err != nil {
		return err
	}
	s := seed{content: f, infoHash: m.HashInfoBytes(), pieceLength: info.PieceLength}
	fmt.Println("ready")
	var all sync.WaitGroup
	for k := range peers {
		all.Go(func() {
			for {
				s.connect(k, addr)
				time.Sleep(retry)
			}
		})
	}
	all.Wait()
	return nil
}

// A seed is what the seeds share.
type seed struct {
	content     io.ReaderAt
	infoHash    metainfo.Hash
	pieceLength int64
}

// connect serves one connection of the k-th seed until that ends.
func (s *seed) connect(k int, addr string) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	hello := append([]byte("\x13BitTorrent protocol\x00\x00\x00\x00\x00\x00\x00\x04"), s.infoHash[:]...)
	hello = fmt.Appendf(hello, "-CR0000-%012d", k)
	if _, err := conn.Write(hello); err != nil {
		return err
	}
	r := bufio.NewReaderSize(conn, 4<<10)
	if _, err := io.ReadFull(r, hello); err != nil {
		return err
	}
	if _, err := conn.Write([]byte{0, 0, 0, 1, 14, 0, 0, 0, 1, 1}); err != nil { // have all, unchoke
		return err
	}
	var out []byte
	for {
		var head [4]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return err
		}
		length := int(binary.BigEndian.Uint32(head[:]))
		const request, requestLength = 6, 13
		if length != requestLength {
			if _, err := r.Discard(length); err != nil {
				return err
			}
			continue
		}
		var m [requestLength]byte
		if _, err := io.ReadFull(r, m[:]); err != nil {
			return err
		}
		if m[0] != request {
			continue
		}
		index, begin, n := binary.BigEndian.Uint32(m[1:]), binary.BigEndian.Uint32(m[5:]), binary.BigEndian.Uint32(m[9:])
		if n > 16<<10 {
			return errors.New("asked for too much")
		}
		out = binary.BigEndian.AppendUint32(out[:0], 9+n)
		out = append(append(out, 7), m[1:9]...)
		out = append(out, make([]byte, n)...)
		if _, err := s.content.ReadAt(out[13:], int64(index)*s.pieceLength+int64(begin)); err != nil {
			return err
		}
		if _, err := conn.Write(out); err != nil {
			return err
		}
	}
}
