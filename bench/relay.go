package main

import (
	"io"
	"net"
	"time"
)

// relay is a long link: it passes connections on to another address, holds what it passes for a time in
// each direction, and sends what comes back at no more than a rate.
type relay struct {
	to    string
	delay time.Duration // one way
	rate  float64       // bytes a second
}

const (
	relayRead  = 256 << 10 // bytes of one read
	relayQueue = 16        // reads that wait in one direction
)

// parcel is what one read gave, to be written when it is due.
type parcel struct {
	data []byte
	due  time.Time
}

// listen starts to accept at addr, until the listener is closed.
func (r relay) listen(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			go r.join(near)
		}
	}()
	return l, nil
}

func (r relay) join(near net.Conn) {
	far, err := net.Dial("tcp", r.to)
	if err != nil {
		near.Close()
		return
	}
	go r.pump(far, near, 0)
	r.pump(near, far, r.rate)
}

// pump passes on what it reads from src until either side ends, then ends both.
func (r relay) pump(dst io.WriteCloser, src io.ReadCloser, rate float64) {
	defer src.Close()
	defer dst.Close()
	queue, free, end := make(chan parcel, relayQueue), make(chan []byte, relayQueue+2), make(chan struct{})
	defer close(end)
	go func() {
		defer close(queue)
		var sent time.Time // when the last byte read leaves at this rate
		for {
			var buf []byte
			select {
			case buf = <-free:
			default:
				buf = make([]byte, relayRead)
			}
			n, err := src.Read(buf[:relayRead])
			if n > 0 {
				now := time.Now()
				if sent.Before(now) {
					sent = now
				}
				if rate > 0 {
					sent = sent.Add(time.Duration(float64(n) / rate * float64(time.Second)))
				}
				select {
				case queue <- parcel{buf[:n], sent.Add(r.delay)}:
				case <-end:
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range queue {
		time.Sleep(time.Until(p.due))
		if _, err := dst.Write(p.data); err != nil {
			return
		}
		select {
		case free <- p.data:
		default:
		}
	}
}
