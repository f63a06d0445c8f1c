package sockets

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"
)

// Only a few of the addresses of a name are dialled, however many it has. If one of these answers, the dial succeeds.
func TestNameWithManyAddresses(t *testing.T) {
	before := net.DefaultResolver
	t.Cleanup(func() { net.DefaultResolver = before })
	many := make([][4]byte, 1000)
	for i := range many {
		many[i] = [4]byte{127, 1, byte(i >> 8), byte(i)}
	}
	few := [][4]byte{many[0], many[1], {127, 0, 0, 1}}
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go answerNames(theirs, map[string][][4]byte{"many.example.": many, "few.example.": few})
		return ours, nil
	}}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	s, err := New(Config{})
	require.NoError(t, err)
	defer s.Close()
	var tried atomic.Int64
	check := func(string) error {
		tried.Add(1)
		return nil
	}
	_, err = s.DialHost(t.Context(), "tcp4", "many.example.:"+port, check)
	require.Error(t, err)
	require.LessOrEqual(t, tried.Load(), int64(maxTried))
	conn, err := s.DialHost(t.Context(), "tcp4", "few.example.:"+port, check)
	require.NoError(t, err)
	conn.Close()
}

// answerNames serves DNS over conn. It answers queries for A records from known.
func answerNames(conn net.Conn, known map[string][][4]byte) {
	defer conn.Close()
	for {
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		p := make([]byte, binary.BigEndian.Uint16(size[:]))
		var m dnsmessage.Message
		if _, err := io.ReadFull(conn, p); err != nil || m.Unpack(p) != nil {
			return
		}
		m.Response, m.Additionals = true, nil
		if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
			for _, a := range known[q.Name.String()] {
				m.Answers = append(m.Answers, dnsmessage.Resource{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60},
					Body:   &dnsmessage.AResource{A: a},
				})
			}
		}
		answer, err := m.AppendPack(make([]byte, 2))
		if err != nil {
			return
		}
		binary.BigEndian.PutUint16(answer, uint16(len(answer)-2))
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
}
