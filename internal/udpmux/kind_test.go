package udpmux

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestKind(t *testing.T) {
	for _, c := range []struct {
		packet string
		kind   Kind
		ok     bool
	}{
		{"d1:y1:q1:q4:ping", KRPC, true},
		{"\x01\x00\x12\x34\x00\x00\x00\x00", UTP, true}, // data
		{"\x11\x00\x12\x34\x00\x00\x00\x00", UTP, true}, // FIN
		{"\x21\x00\x12\x34\x00\x00\x00\x00", UTP, true}, // state
		{"\x31\x00\x12\x34\x00\x00\x00\x00", UTP, true}, // reset
		{"\x41\x00\x12\x34\x00\x00\x00\x00", UTP, true}, // SYN
		{"\x51\x00\x12\x34\x00\x00\x00\x00", 0, false},  // no such type
		{"\x42\x00\x12\x34\x00\x00\x00\x00", 0, false},  // no such version
		{"\x00\x00\x00\x00\x12\x34\x56\x78", Tracker, true},
		{"\x00\x00\x00\x01\x12\x34\x56\x78", Tracker, true},
		{"\x00\x00\x00\x03\x12\x34\x56\x78", Tracker, true},
		{"\x00\x00\x00\x04\x12\x34\x56\x78", 0, false},
		{"\x00\x00\x04\x17\x27\x10\x19\x80", 0, false}, // a request to a tracker
		{"BT-SEARCH * HTTP/1.1\r\n", 0, false},
		{"d1:y1:q", 0, false},
		{"", 0, false},
	} {
		kind, ok := kindOf([]byte(c.packet))
		require.Equal(t, c.ok, ok, "%q", c.packet)
		require.Equal(t, c.kind, kind, "%q", c.packet)
	}
}

func TestSameKind(t *testing.T) {
	for _, c := range []struct {
		packets string
		kind    Kind
		ok      bool
		n       int
	}{
		{"d1:y1:q1", KRPC, true, 8},
		{"d1:y1:q1d1:y1:r1", KRPC, true, 16},
		{"d1:y1:q1d1:y1:r1\x01______", KRPC, true, 16}, // the last is too short for any
		{"d1:y1:q1\x01_______d1:y1:r1", KRPC, true, 8},
		{"\x01_______\x21_______d1:y1:r1", UTP, true, 16},
		{"nonsense, twice!d1:y1:r1", 0, false, 16},
	} {
		kind, ok, n := sameKind([]byte(c.packets), 8)
		require.Equal(t, c.ok, ok, c.packets)
		require.Equal(t, c.kind, kind, c.packets)
		require.Equal(t, c.n, n, c.packets)
	}
}
