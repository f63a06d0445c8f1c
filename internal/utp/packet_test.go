package utp

import (
	"bytes"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHeader(t *testing.T) {
	h := header{kind: typeState, id: 0x1234, stamp: 0x56789abc, diff: 0xdef01234, window: 0x56789abd, seq: 0xef01, ack: 0x2345}
	p := make([]byte, headerSize)
	h.put(p, extensionSelective)
	require.Equal(t, []byte{
		0x21, 0x01, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbd, 0xef, 0x01, 0x23, 0x45,
	}, p)
	var back packet
	require.True(t, back.parse(append(p, 0, 4, 1, 2, 3, 4)))
	require.Equal(t, h, back.header)
}

func TestParse(t *testing.T) {
	data := func(b0, ext byte, rest ...byte) []byte {
		return append([]byte{b0, ext, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, rest...)
	}
	for _, c := range []struct {
		name    string
		p       []byte
		ok      bool
		payload string
	}{
		{"nothing", nil, false, ""},
		{"a byte too short", data(0x01, 0)[:19], false, ""},
		{"no payload", data(0x01, 0), true, ""},
		{"payload", data(0x01, 0, []byte("payload")...), true, "payload"},
		{"version 0", data(0x00, 0), false, ""},
		{"version 2", data(0x02, 0), false, ""},
		{"SYN", data(0x41, 0), true, ""},
		{"no such type", data(0x51, 0), false, ""},
		{"extension without a length", data(0x01, 1, 0), false, ""},
		{"extension cut short", data(0x01, 1, 0, 4, 1, 2, 3), false, ""},
		{"selective acknowledgement", data(0x21, 1, 0, 4, 1, 2, 3, 4), true, ""},
		{"one of no bytes", data(0x21, 1, 0, 0, 'x'), true, "x"},
		{"unknown extensions", data(0x01, 7, 9, 2, 1, 2, 0, 0, 'x'), true, "x"},
		{"the second cut short", data(0x01, 7, 9, 2, 1, 2, 0, 1), false, ""},
	} {
		var p packet
		require.Equal(t, c.ok, p.parse(c.p), c.name)
		if c.ok {
			require.Equal(t, c.payload, string(p.payload), c.name)
		}
	}
}

func TestMasks(t *testing.T) {
	for _, c := range []struct {
		name string
		ext  extensions
		bits []int // that the parts begin with
	}{
		{"none", extensions{}, nil},
		{"one", extensions{1, []byte{0, 4, 1, 2, 3, 4}}, []int{0}},
		{"continued", extensions{1, []byte{extensionMore, 1, 1, extensionMore, 2, 1, 1, 0, 1, 1}}, []int{0, 8, 24}},
		{"the second of two", extensions{1, []byte{1, 1, 1, 0, 1, 1}}, []int{0}},
		{"continued without a beginning", extensions{extensionMore, []byte{0, 1, 1}}, nil},
		{"among others", extensions{2, []byte{1, 1, 1, 3, 1, 1, 0, 1, 1}}, []int{0}},
	} {
		var bits []int
		for bit := range c.ext.masks() {
			bits = append(bits, bit)
		}
		require.Equal(t, c.bits, bits, c.name)
	}
	// However long it is, no more is looked at than could be under way.
	long := bytes.Repeat(append([]byte{extensionMore, 255}, make([]byte, 255)...), 300)
	long[len(long)-257] = 0
	parts := 0
	for range (extensions{extensionSelective, long}).masks() {
		parts++
	}
	require.Equal(t, 9, parts)
}

func TestLargest(t *testing.T) {
	b := make([]byte, 100)
	h := header{kind: typeSyn}
	n, _ := sayLargest(largestLocal, b[1:], b[headerSize:])
	h.put(b, b[1])
	var p packet
	require.True(t, p.parse(b[:headerSize+n]))
	require.EqualValues(t, extensionBits, p.ext.kind, "libutp drops a SYN that begins with another")
	require.EqualValues(t, largestLocal, p.ext.largest())
	require.Empty(t, p.payload)
	for _, ext := range [][]byte{{0, 0}, {0, 1, 9}, {0, 3, 9, 9, 9}} {
		require.Zero(t, extensions{extensionLargest, ext}.largest())
	}
	require.Zero(t, extensions{extensionSelective, []byte{0, 2, 9, 9}}.largest())
	require.EqualValues(t, 0x909, extensions{extensionSelective, []byte{extensionLargest, 0, 0, 2, 9, 9}}.largest())
	n, _ = sayLargest(0, b[1:], b[headerSize:])
	require.Zero(t, n)
}

func TestBefore(t *testing.T) {
	for _, c := range [][2]uint16{{1, 2}, {65535, 0}, {65000, 10}, {0, 32767}} {
		require.True(t, before(c[0], c[1]), c)
		require.False(t, before(c[1], c[0]), c)
	}
	require.False(t, before(5, 5))
}

func FuzzPacket(f *testing.F) {
	for kind := range typeSyn + 1 {
		h := header{kind: kind, id: 7, stamp: 1, diff: 2, window: 3, seq: 4, ack: 5}
		p := make([]byte, headerSize)
		h.put(p, 0)
		f.Add(p)
		h.put(p, extensionSelective)
		f.Add(append(slices.Clone(p), extensionMore, 4, 1, 2, 3, 4, 0, 4, 5, 6, 7, 8, 'd', 'a', 't', 'a'))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var p packet
		if !p.parse(b) {
			return
		}
		bit := 0
		for first, mask := range p.ext.masks() {
			if first != bit {
				t.Fatalf("a part begins with %d, not %d", first, bit)
			}
			bit += 8 * len(mask)
		}
		again := make([]byte, headerSize)
		p.put(again, p.ext.kind)
		if !bytes.Equal(again, b[:headerSize]) {
			t.Fatalf("% x became % x", b[:headerSize], again)
		}
		if !bytes.HasSuffix(b, p.payload) {
			t.Fatal("the payload is not the end")
		}
	})
}
