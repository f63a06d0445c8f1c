package bencode

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	zeebo "github.com/zeebo/bencode"
)

var roomy = Limits{Bytes: 1 << 20, Depth: 32, Values: 1 << 16}

func TestScan(t *testing.T) {
	long := strings.Repeat("x", 100)
	for _, c := range []struct {
		in     string
		n      int    // 0: refused
		reason string // part of the error
		offset int
	}{
		{in: "i0e", n: 3},
		{in: "i42e", n: 4},
		{in: "i-42e", n: 5},
		{in: "i9223372036854775807e", n: 21},
		{in: "i-9223372036854775808e", n: 22},
		{in: "0:", n: 2},
		{in: "4:spam", n: 6},
		{in: "100:" + long, n: 104},
		{in: "le", n: 2},
		{in: "de", n: 2},
		{in: "l4:spami1elee", n: 13},
		{in: "d1:ai1e1:bi2ee", n: 14},
		{in: "d0:i1e1:ade1:blee", n: 17},
		{in: "d1:bi2e1:ai1ee", n: 14}, // unsorted
		{in: "d1:cd1:bi1e1:ai2ee1:ai1ee", n: 25},
		{in: "d1:ad1:ai1ee1:bd1:ai1eee", n: 24}, // the same key in different dictionaries
		{in: "i1etrailing", n: 3},
		{in: "d8:msg_typei1eePAYLOAD", n: 15},

		{in: "", reason: "unexpected end"},
		{in: "i", reason: "unexpected end"},
		{in: "i12", reason: "unexpected end"},
		{in: "ie", reason: "malformed integer"},
		{in: "i-e", reason: "malformed integer"},
		{in: "i+1e", reason: "malformed integer"},
		{in: "i1.5e", reason: "malformed integer"},
		{in: "i 1e", reason: "malformed integer"},
		{in: "i-0e", reason: "negative zero"},
		{in: "i00e", reason: "leading zero"},
		{in: "i03e", reason: "leading zero"},
		{in: "i-03e", reason: "leading zero"},
		{in: "i9223372036854775808e", reason: "over 64 bits"},
		{in: "i-9223372036854775809e", reason: "over 64 bits"},
		{in: "i18446744073709551617e", reason: "over 64 bits"},
		{in: "i" + strings.Repeat("9", 400) + "e", reason: "over 64 bits"},
		{in: "4", reason: "longer than what is left"},
		{in: "0", reason: "unexpected end"},
		{in: "4spam", reason: "malformed string length"},
		{in: "4:spa", reason: "longer than what is left"},
		{in: "04:spam", reason: "leading zero"},
		{in: "00:", reason: "leading zero"},
		{in: "500000000:ab", reason: "longer than what is left"},
		{in: "99999999999999999999999999:ab", reason: "longer than what is left"},
		{in: "-1:a", reason: "not a value"},
		{in: "e", reason: "not a value"},
		{in: "x", reason: "not a value"},
		{in: "l", reason: "unexpected end"},
		{in: "li1e", reason: "unexpected end", offset: 4},
		{in: "lxe", reason: "not a value", offset: 1},
		{in: "d", reason: "unexpected end"},
		{in: "d1:a", reason: "unexpected end", offset: 4},
		{in: "d1:ae", reason: "not a value", offset: 4},
		{in: "di1ei2ee", reason: "key is not a string", offset: 1},
		{in: "dlee", reason: "key is not a string", offset: 1},
		{in: "d1:ai1e1:ai2ee", reason: `duplicate key "a"`, offset: 7},
		{in: "d1:bi1e1:ai2e1:bi3ee", reason: `duplicate key "b"`, offset: 13},
		{in: "d1:cd1:bi1e1:ai2e1:bi3eee", reason: `duplicate key "b"`, offset: 17},
	} {
		n, err := Scan([]byte(c.in), roomy)
		require.Equal(t, c.n, n, "%.60q", c.in)
		if c.n > 0 {
			require.NoError(t, err, "%.60q", c.in)
			continue
		}
		var syntax *SyntaxError
		require.ErrorAs(t, err, &syntax, "%.60q", c.in)
		require.Contains(t, syntax.Reason, c.reason, "%.60q", c.in)
		if c.offset > 0 {
			require.Equal(t, c.offset, syntax.Offset, "%.60q", c.in)
		}
	}
}

func TestScanLimits(t *testing.T) {
	nested := func(n int) []byte { return []byte(strings.Repeat("l", n) + strings.Repeat("e", n)) }
	list := func(n int) []byte { return []byte("l" + strings.Repeat("i1e", n) + "e") }
	for _, c := range []struct {
		name   string
		in     []byte
		limits Limits
		reason string
	}{
		{"as deep as allowed", nested(32), roomy, ""},
		{"too deep", nested(33), roomy, "nested too deep"},
		{"a million lists", bytes.Repeat([]byte("l"), 1e6), roomy, "nested too deep"},
		{"a million dictionaries", bytes.Repeat([]byte("d1:a"), 250e3), roomy, "nested too deep"},
		{"no depth", []byte("i1e"), Limits{10, 0, 10}, ""},
		{"as many as allowed", list(9), Limits{100, 1, 10}, ""},
		{"too many", list(10), Limits{100, 1, 10}, "more values"},
		{"keys are not counted", []byte("d1:ai1e1:bi1ee"), Limits{100, 1, 3}, ""},
		{"as long as allowed", []byte("4:spamrest"), Limits{6, 1, 1}, ""},
		{"string too long", []byte("4:spamrest"), Limits{5, 1, 1}, "longer than 5 bytes"},
		{"list too long", list(4), Limits{13, 1, 10}, "longer than 13 bytes"},
		{"integer too long", []byte("i12345e"), Limits{4, 1, 10}, "longer than 4 bytes"},
		{"wrong before it is too long", []byte("lx" + strings.Repeat("i1e", 9)), Limits{4, 1, 10}, "not a value"},
	} {
		_, err := Scan(c.in, c.limits)
		if c.reason == "" {
			require.NoError(t, err, c.name)
		} else {
			require.ErrorContains(t, err, c.reason, c.name)
		}
	}
}

// Dictionaries out of order are searched for duplicates in one way while small, in another when large.
func TestScanUnsorted(t *testing.T) {
	for _, n := range []int{2, 3, 16, 17, 18, 1000} {
		p := []byte("d")
		for i := n; i > 0; i-- {
			p = fmt.Appendf(p, "5:%05xle", i)
		}
		_, err := Scan(append(p, 'e'), roomy)
		require.NoError(t, err, n)

		for _, again := range []int{2, n/2 + 1, n} {
			_, err := Scan(fmt.Appendf(p, "5:%05xlee", again), roomy)
			var syntax *SyntaxError
			require.ErrorAs(t, err, &syntax)
			require.Equal(t, fmt.Sprintf(`duplicate key "%05x"`, again), syntax.Reason)
			require.Equal(t, len(p), syntax.Offset)
		}
	}
}

func TestScanAllocatesLittle(t *testing.T) {
	handshake := []byte("d1:md11:ut_metadatai2e6:ut_pexi1ee1:pi6881e4:reqqi250e1:v13:some client 1e")
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() {
		if _, err := Scan(handshake, roomy); err != nil {
			t.Error(err)
		}
	}), 2.0)
}

func TestKeys(t *testing.T) {
	p := []byte("d1:bi-7e1:al4:spami0ede0:e0:i-9223372036854775808ee")
	n, err := Scan(p, roomy)
	require.NoError(t, err)
	require.Equal(t, len(p), n)

	var got []string
	for key, value := range Keys(p) {
		got = append(got, fmt.Sprintf("%s=%s", key, value))
	}
	require.Equal(t, []string{"b=i-7e", "a=l4:spami0ede0:e", "=i-9223372036854775808e"}, got)
	require.Equal(t, map[string]any{
		"b": int64(-7),
		"a": []any{"spam", int64(0), map[string]any{}, ""},
		"":  int64(math.MinInt64),
	}, tree(p))

	for range Keys(p) {
		break
	}
	for range Elems([]byte("li1ei2ee")) {
		break
	}
	for _, other := range []string{"i1e", "1:a", "le", ""} {
		require.False(t, IsDict([]byte(other)))
		require.Empty(t, maps.Collect(stringKeys([]byte(other))))
	}
	for _, other := range []string{"i1e", "1:a", "de", ""} {
		require.False(t, IsList([]byte(other)))
		require.Empty(t, slices.Collect(Elems([]byte(other))))
	}
	for _, other := range []string{"1:a", ""} {
		_, ok := Int([]byte(other))
		require.False(t, ok)
	}
	for _, other := range []string{"i1e", ""} {
		_, ok := String([]byte(other))
		require.False(t, ok)
	}
}

// A value that is yielded may be appended to without harm to what stands behind it.
func TestTree(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"de", ""},
		{"i1e", ""},
		{"d1:ai1e1:bd1:cde1:dleee", "0a 0b 1c 1d"},
		{"d1:ad1:bd1:cdeee1:dd1:xd1:yi1eee1:ei2ee", "0a 1b 2c 0d 1x 0e"}, // it does not go into x
	} {
		var got []string
		Tree([]byte(c.in+"trailing"), func(depth int, key, value []byte) (into, end bool) {
			got = append(got, fmt.Sprint(depth, string(key)))
			return IsDict(value) && string(key) != "x", false
		})
		require.Equal(t, c.want, strings.Join(got, " "), c.in)
	}
	Tree([]byte("d1:ade1:bdee"), func(_ int, key, _ []byte) (into, end bool) {
		require.Equal(t, "a", string(key))
		return true, true
	})
	require.True(t, HasFirst([]byte("d0:dee"), ""))
	for _, in := range []string{"de", "d1:adee", "i0e", ""} {
		require.False(t, HasFirst([]byte(in), ""), in)
	}
}

func TestKeysYieldsClipped(t *testing.T) {
	p := []byte("d1:a1:x1:b1:ye")
	for key, value := range Keys(p) {
		_ = append(key, "!!!"...)
		_ = append(value, "!!!"...)
	}
	require.Equal(t, "d1:a1:x1:b1:ye", string(p))
}

func stringKeys(p []byte) func(func(string, []byte) bool) {
	return func(yield func(string, []byte) bool) {
		for k, v := range Keys(p) {
			if !yield(string(k), v) {
				return
			}
		}
	}
}

// tree is what zeebo/bencode makes of p in an interface, made by walking.
func tree(p []byte) any {
	if v, ok := Int(p); ok {
		return v
	}
	if s, ok := String(p); ok {
		return string(s)
	}
	if IsDict(p) {
		m := map[string]any{}
		for k, v := range Keys(p) {
			m[string(k)] = tree(v)
		}
		return m
	}
	var l []any
	for e := range Elems(p) {
		l = append(l, tree(e))
	}
	return l
}

// FuzzScan holds the scan against zeebo/bencode: what the scan passes, the other reads to the same
// end, and walking it gives the same values.
func FuzzScan(f *testing.F) {
	for _, s := range []string{"i0e", "4:spam", "le", "d1:ai1e1:bl1:xee", "d1:bi2e1:ai1ee", "d1:ai1e1:ai2ee",
		"500000000:ab", "i-0e", "llllllll", "d8:msg_typei1eePAYLOAD"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		n, err := Scan(p, roomy)
		if err != nil {
			var syntax *SyntaxError
			if !errors.As(err, &syntax) || syntax.Offset < 0 || syntax.Offset > len(p) {
				t.Fatalf("%#v", err)
			}
			return
		}
		d := zeebo.NewDecoder(bytes.NewReader(p))
		var want any
		require.NoError(t, d.Decode(&want))
		require.Equal(t, d.BytesParsed(), n)
		require.Equal(t, want, tree(p[:n]))

		// One byte less is no whole value; its encoding in sorted order is one, of the same length.
		_, err = Scan(p[:n-1], roomy)
		require.Error(t, err)
		again, err := Marshal(want)
		require.NoError(t, err)
		require.Len(t, again, n)
	})
}

func BenchmarkScan(b *testing.B) {
	p := []byte("l" + strings.Repeat("d6:lengthi1048576e4:pathl3:dir8:file.bineee"[:42], 10000) + "e")
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Scan(p, Limits{len(p), 64, 4 << 20}); err != nil {
			b.Fatal(err)
		}
	}
}

// The worst that a scan can be made to do: one dictionary of very many keys in no order.
func BenchmarkScanUnsorted(b *testing.B) {
	p := []byte("d")
	for i := range uint32(1 << 20) {
		p = fmt.Appendf(p, "8:%08xle", i*0x9E3779B1) // an odd factor: all different
	}
	p = append(p, 'e')
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Scan(p, Limits{len(p), 64, 4 << 20}); err != nil {
			b.Fatal(err)
		}
	}
}

func TestSorted(t *testing.T) {
	for text, want := range map[string]bool{
		"i5e": true, "3:abc": true, "le": true, "de": true,
		"d1:ai1e1:bi2ee": true, "d1:bi1e1:ai2ee": false, "d0:i1e1:ai2ee": true, "d1:ai1e0:i2ee": false,
		"d1:ai1e2:aai2ee": true, "d2:aai1e1:ai2ee": false, "d1:\x7fi1e1:\x80i2ee": true,
		"d1:ad1:bi1e1:ai2eee": false, "d1:ad1:ai1e1:bi2ee1:bi1ee": true, "d1:bd1:ai1ee1:ai1ee": false,
		"ld1:ai1ee3:bbbd1:bi1e1:ai1eee": false, "d1:al1:b1:ae1:bi1ee": true, "d1:a1:z1:b1:ae": true,
	} {
		_, err := Scan([]byte(text), roomy)
		require.NoError(t, err, text)
		require.Equal(t, want, Sorted([]byte(text)), text)
	}
}
