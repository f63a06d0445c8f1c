// Command stream moves bytes from its memory to another's through one connection, as a measure of that connection.
//
//	stream [-over tcp|utp|utp-nooffload|quic] -like FILE ADDR    sends as many bytes as FILE has to each that connects to ADDR
//	stream [-over …] ADDR                                        connects to ADDR and reads to the end
//
// The first prints "ready" once it accepts connections, and never ends.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"

	"github.com/shoal-go/torrent/internal/udpmux"
	"github.com/shoal-go/torrent/internal/utp"
)

func main() {
	log.SetFlags(0)
	over := flag.String("over", "tcp", "what carries the bytes: tcp, utp, utp-nooffload or quic")
	like := flag.String("like", "", "a `file` as long as what is sent")
	flag.Parse()
	if err := run(*over, *like, flag.Arg(0)); err != nil {
		log.Fatal(err)
	}
}

// bufferSize is what one call of Read or Write is given.
const bufferSize = 64 << 10

// A transport is what carries the bytes.
type transport interface {
	dial(ctx context.Context, addr string) (io.ReadCloser, error)
	// listen calls serve, each time in a goroutine, with what is to be written to.
	listen(addr string, ready func(), serve func(io.WriteCloser)) error
}

var transports = map[string]transport{
	"tcp":           tcpTransport{},
	"utp":           utpTransport{},
	"utp-nooffload": utpTransport{noOffload: true},
	"quic":          quicTransport{},
}

func run(over, like, addr string) error {
	t, ok := transports[over]
	if !ok {
		return fmt.Errorf("no transport %q", over)
	}
	if like == "" {
		r, err := t.dial(context.Background(), addr)
		if err != nil {
			return err
		}
		defer r.Close()
		b := make([]byte, bufferSize)
		for err == nil {
			_, err = r.Read(b)
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return err
	}
	info, err := os.Stat(like)
	if err != nil {
		return err
	}
	return t.listen(addr, func() { fmt.Println("ready") }, func(w io.WriteCloser) {
		b := make([]byte, bufferSize)
		for left := info.Size(); left > 0; {
			n, err := w.Write(b[:min(left, bufferSize)])
			if err != nil {
				log.Print(err)
				return
			}
			left -= int64(n)
		}
		w.Close()
	})
}

type tcpTransport struct{}

func (tcpTransport) dial(ctx context.Context, addr string) (io.ReadCloser, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", addr)
}

func (tcpTransport) listen(addr string, ready func(), serve func(io.WriteCloser)) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return accept(l, ready, serve)
}

func accept(l net.Listener, ready func(), serve func(io.WriteCloser)) error {
	ready()
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go serve(conn)
	}
}

type utpTransport struct{ noOffload bool }

// socket opens a uTP socket on a port of an address, or on one that is free.
func (t utpTransport) socket(bind netip.Addr, port uint16) (*utp.Socket, error) {
	m := udpmux.New(udpmux.Config{Bind: bind, NoOffload: t.noOffload})
	s := utp.NewSocket(utp.Config{Network: m})
	m.HandleRuns(udpmux.UTP, s.Receive, s.Flush)
	return s, m.Open(context.Background(), port)
}

func (t utpTransport) dial(ctx context.Context, addr string) (io.ReadCloser, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	s, err := t.socket(netip.Addr{}, 0)
	if err != nil {
		return nil, err
	}
	return s.Dial(ctx, to)
}

func (t utpTransport) listen(addr string, ready func(), serve func(io.WriteCloser)) error {
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		return err
	}
	s, err := t.socket(at.Addr(), at.Port())
	if err != nil {
		return err
	}
	l, err := s.Listen()
	if err != nil {
		return err
	}
	return accept(l, ready, serve)
}
