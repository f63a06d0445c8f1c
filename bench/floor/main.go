// Command floor does the least that any Go program can do to download a torrent: over one connection a
// seed it keeps so many requests in flight, receives into the buffer of a piece, takes its SHA-1, and writes
// it on another goroutine. It trusts the seed and knows no errors but fatal ones.
//
//	floor [-nowrite | -keep] [-requests N] [-write BYTES] -dir DIR TORRENT SEED...
package main

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/anacrolix/torrent/metainfo"
)

const blockSize = 16 << 10

func main() {
	dir := flag.String("dir", ".", "directory to write to")
	nowrite := flag.Bool("nowrite", false, "write nothing")
	keep := flag.Bool("keep", false, "write nothing, but keep all of it in memory")
	most := flag.Int64("write", 32<<10, "bytes to write with one call at most")
	requests := flag.Int("requests", 256, "how many to keep in flight, a connection")
	flag.Parse()
	c := &content{keep: *keep, inFlight: *requests}
	if !*nowrite && !*keep {
		c.out = &files{dir: *dir, most: *most}
	}
	if err := c.run(flag.Arg(0), flag.Args()[1:]); err != nil {
		log.Fatal(err)
	}
}

// content is what is downloaded, and how far that has got.
type content struct {
	info     metainfo.Info
	infoHash metainfo.Hash
	length   int64
	inFlight int  // requests a connection
	keep     bool // no buffer is used again: all are in kept
	kept     [][]byte
	out      *files       // nil if nothing is written
	next     atomic.Int64 // piece to ask for
	free     chan []byte  // buffers of a piece, to be used again
	whole    chan piece   // received, to be checked and written
}

type piece struct {
	index int
	data  []byte
}

func (c *content) run(torrent string, seeds []string) error {
	m, err := metainfo.LoadFromFile(torrent)
	if err != nil {
		return err
	}
	c.infoHash = m.HashInfoBytes()
	if c.info, err = m.UnmarshalInfo(); err != nil {
		return err
	}
	const waiting = 4 // pieces that a seed may be ahead of the disk
	c.free, c.whole = make(chan []byte, 2*waiting*len(seeds)), make(chan piece, waiting*len(seeds))
	c.length = c.info.TotalLength()
	var receiving, storing sync.WaitGroup
	storing.Go(func() {
		if err := c.store(); err != nil {
			log.Fatal(err)
		}
	})
	for _, seed := range seeds {
		receiving.Go(func() {
			if err := c.receive(seed); err != nil {
				log.Fatal(err)
			}
		})
	}
	receiving.Wait()
	close(c.whole)
	storing.Wait()
	return nil
}

func (c *content) size(index int) int {
	return int(min(c.info.PieceLength, c.length-int64(index)*c.info.PieceLength))
}

// receive fetches pieces over one connection until there are none left to ask for.
func (c *content) receive(seed string) error {
	conn, err := net.Dial("tcp", seed)
	if err != nil {
		return err
	}
	defer conn.Close()
	hello := append([]byte("\x13BitTorrent protocol\x00\x00\x00\x00\x00\x00\x00\x00"), c.infoHash[:]...)
	hello = append(hello, "-FL0000-floorfloorfl"...)
	if _, err := conn.Write(append(hello, 0, 0, 0, 1, 2)); err != nil { // and interested
		return err
	}
	r := bufio.NewReaderSize(conn, 64<<10)
	if _, err := io.ReadFull(r, hello); err != nil {
		return err
	}
	if !bytes.Equal(hello[28:48], c.infoHash[:]) {
		return errors.New("another info hash")
	}

	started := map[int][]byte{} // pieces asked for
	left := map[int]int{}       // bytes of them that have not come
	asking, begin := -1, 0      // the next block to ask for
	outstanding := 0
	var requests []byte
	ask := func() error {
		requests = requests[:0]
		for outstanding < c.inFlight {
			if asking < 0 {
				i := int(c.next.Add(1) - 1)
				if i >= c.info.NumPieces() {
					break
				}
				var buf []byte
				select {
				case buf = <-c.free:
				default:
					buf = make([]byte, c.info.PieceLength)
				}
				asking, begin, started[i], left[i] = i, 0, buf, c.size(i)
			}
			n := min(blockSize, c.size(asking)-begin)
			requests = append(requests, 0, 0, 0, 13, 6)
			for _, v := range []int{asking, begin, n} {
				requests = binary.BigEndian.AppendUint32(requests, uint32(v))
			}
			outstanding++
			if begin += n; begin == c.size(asking) {
				asking = -1
			}
		}
		if len(requests) == 0 {
			return nil
		}
		_, err := conn.Write(requests)
		return err
	}
	choked := true
	for {
		if !choked && outstanding <= c.inFlight*3/4 {
			if err := ask(); err != nil {
				return err
			}
			if outstanding == 0 {
				return nil
			}
		}
		var head [13]byte
		if _, err := io.ReadFull(r, head[:4]); err != nil {
			return err
		}
		length := int(binary.BigEndian.Uint32(head[:4]))
		if length == 0 {
			continue
		}
		id, err := r.ReadByte()
		if err != nil {
			return err
		}
		if id != 7 {
			choked = choked && id != 1
			if _, err := r.Discard(length - 1); err != nil {
				return err
			}
			continue
		}
		if _, err := io.ReadFull(r, head[:8]); err != nil {
			return err
		}
		index, begin, n := int(binary.BigEndian.Uint32(head[:4])), int(binary.BigEndian.Uint32(head[4:])), length-9
		buf := started[index]
		if buf == nil || begin+n > c.size(index) {
			return fmt.Errorf("block %d+%d of piece %d was not asked for", begin, n, index)
		}
		if _, err := io.ReadFull(r, buf[begin:begin+n]); err != nil {
			return err
		}
		outstanding--
		if left[index] -= n; left[index] == 0 {
			delete(started, index)
			c.whole <- piece{index, buf[:c.size(index)]}
		}
	}
}

// store checks pieces, and writes them if it is told to.
func (c *content) store() error {
	if c.out != nil {
		defer c.out.close()
		if err := c.out.make(&c.info); err != nil {
			return err
		}
	}
	for p := range c.whole {
		if sum := sha1.Sum(p.data); !bytes.Equal(sum[:], c.info.Pieces[20*p.index:20*p.index+20]) {
			return fmt.Errorf("piece %d is bad", p.index)
		}
		if c.out != nil {
			if err := c.out.writeAt(p.data, int64(p.index)*c.info.PieceLength); err != nil {
				return err
			}
		}
		if c.keep {
			c.kept = append(c.kept, p.data)
			continue
		}
		select {
		case c.free <- p.data[:c.info.PieceLength]:
		default:
		}
	}
	return nil
}

// files are where the content goes; the one written to last is open.
type files struct {
	dir     string
	most    int64 // bytes of one call
	paths   []string
	offsets []int64 // of each file, and the end of the last
	open    *os.File
	at      int // the index of open
}

// make makes the directories and the empty files.
func (f *files) make(info *metainfo.Info) error {
	end := int64(0)
	made := map[string]bool{}
	for _, file := range info.UpvertedFiles() {
		path := filepath.Join(append([]string{f.dir, info.BestName()}, file.BestPath()...)...)
		f.paths, f.offsets = append(f.paths, path), append(f.offsets, end)
		end += file.Length
		if dir := filepath.Dir(path); !made[dir] {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			made[dir] = true
		}
		if file.Length == 0 {
			if err := os.WriteFile(path, nil, 0o644); err != nil {
				return err
			}
		}
	}
	f.offsets = append(f.offsets, end)
	return nil
}

func (f *files) writeAt(p []byte, off int64) error {
	for i := range f.paths {
		from, to := max(off, f.offsets[i]), min(off+int64(len(p)), f.offsets[i+1])
		if from >= to {
			continue
		}
		if f.open == nil || f.at != i {
			f.close()
			var err error
			if f.open, err = os.OpenFile(f.paths[i], os.O_CREATE|os.O_WRONLY, 0o644); err != nil {
				return err
			}
			f.at = i
		}
		for ; from < to; from += f.most {
			if _, err := f.open.WriteAt(p[from-off:min(to, from+f.most)-off], from-f.offsets[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *files) close() {
	if f.open != nil {
		f.open.Close()
	}
}
