package wire

import (
	"net"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func BenchmarkReader(b *testing.B) {
	r := NewReader(newPieces(), testPayload)
	block := make([]byte, 16<<10)
	b.ReportAllocs()
	b.SetBytes(16 << 10)
	for b.Loop() {
		if m, err := r.Next(); err != nil || m.ID != Piece {
			b.Fatal(m, err)
		}
		if err := r.ReadBlock(block); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReaderLoopback(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	defer l.Close()
	go func() {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			l.Close() // makes Accept fail
			return
		}
		defer c.Close()
		messages := slices.Repeat(newPieces().message, 16)
		for err == nil {
			_, err = c.Write(messages)
		}
	}()
	c, err := l.Accept()
	require.NoError(b, err)
	defer c.Close()

	src := &counting{Reader: c}
	r := NewReader(src, testPayload)
	block := make([]byte, 16<<10)
	b.ReportAllocs()
	b.SetBytes(16 << 10)
	for b.Loop() {
		if _, err := r.Next(); err != nil {
			b.Fatal(err)
		}
		if err := r.ReadBlock(block); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(src.reads)/float64(b.N), "reads/op")
}

func BenchmarkReaderHaves(b *testing.B) {
	r := NewReader(&pieces{message: AppendHave(nil, 12345)}, testPayload)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Next(); err != nil {
			b.Fatal(err)
		}
	}
}
