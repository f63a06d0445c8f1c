package bencode

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	zeebo "github.com/zeebo/bencode"
)

func TestSalvage(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		// Sound values.
		{"i1e", "i1e"},
		{"4:spam", "4:spam"},
		{"d1:al1:b0:i-1ee1:cdee", "d1:al1:b0:i-1ee1:cdee"},

		// Entries whose value is malformed.
		{"d1:ai-0e1:bi2ee", "d1:bi2ee"},
		{"d1:ai01e1:bi2ee", "d1:bi2ee"},
		{"d1:ai1800e1:bi-007ee", "d1:ai1800ee"},
		{"d1:ai18446744073709551616e1:bi2ee", "d1:bi2ee"},
		{"d1:aie1:bi-e1:ci+1e1:di1.5e1:ei 1e1:fi1ee", "d1:fi1ee"},
		{"d1:a04:spam1:b00:1:c1:xe", "d1:c1:xe"},

		// Entries whose key is malformed.
		{"d01:ai1e1:bi2ee", "d1:bi2ee"},
		{"di1ei2e1:bi2ee", "d1:bi2ee"},
		{"di01ei2e1:bi2ee", "d1:bi2ee"},
		{"dli1e1:xei2e1:bi2ee", "d1:bi2ee"},
		{"dd1:ai1eel1:xe1:bi2ee", "d1:bi2ee"},
		{"d1:bi2e1:ae", "d1:bi2ee"}, // it has no value
		{"d1:bi2ei1ee", "d1:bi2ee"},

		// Elements, and what lies deeper.
		{"li1ei-0ei2ee", "li1ei2ee"},
		{"l1:a01:b1:ce", "l1:a1:ce"},
		{"d1:ad1:xi01e1:yi1ee1:bli00ei1eee", "d1:ad1:yi1ee1:bli1eee"},
		{"d5:peersld2:ip1:x4:porti080eed2:ip1:y4:porti80eeee", "d5:peersld2:ip1:xed2:ip1:y4:porti80eeee"},

		// Keys that come twice stay.
		{"d1:ai1e1:ai2ee", "d1:ai1e1:ai2ee"},
		{"d1:bi1e1:ai2e1:bi3e1:ci-0ee", "d1:bi1e1:ai2e1:bi3ee"},
		{"d1:ai1e1:ai-0ee", "d1:ai1ee"},
	} {
		value, n, err := Salvage([]byte(c.in+" trailing"), roomy)
		require.NoError(t, err, c.in)
		require.Equal(t, len(c.in), n, c.in)
		require.Equal(t, c.want, string(value), c.in)
	}
}

func TestSalvageStops(t *testing.T) {
	for _, c := range []struct {
		in, want, reason string
		offset           int
	}{
		{"", "", "unexpected end", 0},
		{"x", "", "not a value", 0},
		{"e", "", "not a value", 0},
		{"i-0e", "", "negative zero", 0},
		{"01:a", "", "leading zero", 0},
		{"500000000:ab", "", "longer than what is left", 0},
		{"d", "de", "unexpected end", 1},
		{"l", "le", "unexpected end", 1},
		{"d1:a", "de", "unexpected end", 4},
		{"d1:ai1", "de", "unexpected end", 4},
		{"d1:ai1e", "d1:ai1ee", "unexpected end", 7},
		{"d1:ai1e1:b500000000:xe", "d1:ai1ee", "longer than what is left", 10},
		{"d1:ai1e1:bxe", "d1:ai1ee", "not a value", 10},
		{"d1:ai1e1:b4spam1:ci1ee", "d1:ai1ee", "malformed string length", 10},
		{"d1:ai1e1:bitrueee", "d1:ai1ee", "malformed integer", 10},
		{"d1:ai-0e1:bi2", "de", "unexpected end", 11},
		{"d1:al1:xd1:yi1e1:zi2", "d1:al1:xd1:yi1eeee", "unexpected end", 18},
		{"dl1:x", "de", "unexpected end", 5},
		{"dli1ee", "de", "unexpected end", 6},
	} {
		value, n, err := Salvage([]byte(c.in), roomy)
		var syntax *SyntaxError
		require.ErrorAs(t, err, &syntax, c.in)
		require.Contains(t, syntax.Reason, c.reason, c.in)
		require.Equal(t, c.offset, syntax.Offset, c.in)
		require.Zero(t, n, c.in)
		require.Equal(t, c.want, string(value), c.in)
		require.Equal(t, c.want == "", value == nil, c.in)
	}
}

func TestSalvageLimits(t *testing.T) {
	for _, c := range []struct {
		name, in string
		limits   Limits
		want     string
		reason   string
	}{
		{"too deep", "d1:ai-0e1:bi1e1:cllleeee", Limits{100, 3, 100}, "d1:bi1e1:clleee", "nested too deep"},
		{"a million lists", strings.Repeat("l", 1e6), Limits{1 << 20, 3, 100}, "llleee", "nested too deep"},
		{"too many", "li1ei1ei1ei1ee", Limits{100, 3, 4}, "li1ei1ei1ee", "more values"},
		{"malformed ones count", "li01ei01ei01ei1ee", Limits{100, 3, 4}, "le", "more values"},
		{"keys do not", "d1:ai1e1:bi1e1:ai1ee", Limits{100, 3, 4}, "d1:ai1e1:bi1e1:ai1ee", ""},
		{"unless they are no strings", "di1ei1ei1ei1ee", Limits{100, 3, 4}, "de", "more values"},
		{"too long", "l4:spam4:spame", Limits{12, 3, 4}, "l4:spame", "longer than 12 bytes"},
	} {
		value, _, err := Salvage([]byte(c.in), c.limits)
		if c.reason == "" {
			require.NoError(t, err, c.name)
		} else {
			require.ErrorContains(t, err, c.reason, c.name)
		}
		require.Equal(t, c.want, string(value), c.name)
	}
}

func TestSalvageStrict(t *testing.T) {
	for _, c := range []struct {
		in, want string
		reason   string
		offset   int
	}{
		{"d4:infod1:ai1eee", "d4:infod1:ai1eee", "", 0},
		{"d1:ai01e4:infod1:ai1ee1:bi1ee", "d4:infod1:ai1ee1:bi1ee", "", 0},
		{"d4:infod1:ai1ee1:bi1e1:bi1ee", "d4:infod1:ai1ee1:bi1e1:bi1ee", "", 0},
		{"d1:xd4:infoi01eee", "d1:xdee", "", 0}, // it stands deeper
		{"d4:infod1:ai01eee", "de", "leading zero", 11},
		{"d1:zi1e4:infod1:ai1e1:ai1eee", "d1:zi1ee", "duplicate key", 20},
		{"d4:infode4:infodee", "d4:infodee", `duplicate key "info"`, 9},
		{"d1:ai-0e4:infod1:a", "de", "unexpected end", 18},
		{"d4:infoe", "de", "not a value", 7},
		{"d4:infodli01eeee", "de", "key is not a string", 8},
	} {
		value, _, err := Salvage([]byte(c.in), roomy, "info")
		require.Equal(t, c.want, string(value), c.in)
		if c.reason == "" {
			require.NoError(t, err, c.in)
			continue
		}
		var syntax *SyntaxError
		require.ErrorAs(t, err, &syntax, c.in)
		require.Contains(t, syntax.Reason, c.reason, c.in)
		require.Equal(t, c.offset, syntax.Offset, c.in)
	}

	// Slips are tolerated; values over the limits are not.
	for _, l := range []Limits{{Bytes: 100, Depth: 1, Values: 100}, {Bytes: 100, Depth: 9, Values: 3}, {Bytes: 12, Depth: 9, Values: 9}} {
		_, _, err := Salvage([]byte("d1:ai-0e4:infod1:ai1eee"), l, "info")
		require.Error(t, err)
	}
}

// Any slip in one entry leaves the others readable.
func TestSalvageKeepsNeighbours(t *testing.T) {
	slips := []string{"1:mi-0e", "1:mi01e", "1:mi99999999999999999999e", "1:m03:abc", "01:mi1e", "i1ei1e", "le0:", "1:ai5e",
		"1:md1:xi-0ee", "1:mli00ee", "1:mi1.5e"}
	for _, slip := range slips {
		for _, in := range []string{"d%s1:a4:spam1:zli1eee", "d1:a4:spam%s1:zli1eee", "d1:a4:spam1:zli1ee%se"} {
			value, n, err := Salvage(fmt.Appendf(nil, in, slip), roomy)
			require.NoError(t, err, slip)
			require.Equal(t, len(in)-len("%s")+len(slip), n)
			require.Contains(t, string(value), "1:a4:spam", slip)
			require.Contains(t, string(value), "1:zli1ee", slip)
		}
	}
}

// FuzzSalvage checks that what is returned is a whole value that can be walked and is its own salvage,
// that nothing is lost of what is sound, and that the values of strict keys are as they stood.
func FuzzSalvage(f *testing.F) {
	for _, s := range []string{"i0e", "4:spam", "d1:ai1e1:bl1:xee", "d1:bi2e1:ai1ee", "d1:ai1e1:ai2ee", "500000000:ab", "i-0e", "llllllll",
		"d4:infod1:ai1ee1:bi-0ee", "d1:al04:spami1ee", "dl1:xei1e1:ai1ee", "d4:infod1:ai01eee"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		value, n, err := Salvage(p, roomy)
		whole, scanErr := Scan(p, roomy)
		if scanErr == nil {
			require.NoError(t, err)
			require.Equal(t, whole, n)
			require.Equal(t, p[:n], value)
			return
		}
		if err != nil {
			var syntax *SyntaxError
			if !errors.As(err, &syntax) || syntax.Offset < 0 || syntax.Offset > len(p) || n != 0 {
				t.Fatalf("%#v", err)
			}
		} else {
			require.True(t, 0 < n && n <= len(p))
		}
		if value == nil {
			require.Error(t, err)
			return
		}
		require.LessOrEqual(t, len(value), len(p)+roomy.Depth)
		tree(value)
		d := zeebo.NewDecoder(bytes.NewReader(value))
		require.NoError(t, d.Decode(new(any)))
		require.Equal(t, d.BytesParsed(), len(value))
		again, n, err := Salvage(value, Limits{2 * roomy.Bytes, roomy.Depth, roomy.Values})
		require.NoError(t, err)
		require.Equal(t, len(value), n)
		require.Equal(t, string(value), string(again))

		strict, _, err := Salvage(p, roomy, "info")
		if err != nil || !IsDict(strict) {
			return
		}
		count := 0
		for key, info := range Keys(strict) {
			if string(key) != "info" {
				continue
			}
			count++
			require.LessOrEqual(t, count, 1)
			require.True(t, bytes.Contains(p, info))
			n, err := Scan(info, roomy)
			require.NoError(t, err)
			require.Len(t, info, n)
		}
	})
}

// The worst that a salvage can be made to do: a scan that fails at the end, and as much to copy.
func BenchmarkSalvage(b *testing.B) {
	p := []byte("l" + strings.Repeat("d6:lengthi1048576e4:pathl3:dir8:file.bineee"[:42], 10000) + "i-0ee")
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Salvage(p, Limits{len(p), 64, 4 << 20}); err != nil {
			b.Fatal(err)
		}
	}
}
