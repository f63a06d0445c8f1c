package wire

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestExtHandshake(t *testing.T) {
	ip6 := bytes.Repeat([]byte{6}, 16)
	tests := map[string]struct {
		payload string
		want    ExtHandshake
		append  string // what Append returns; "" means payload
	}{
		"everything": {
			payload: "d4:ipv44:\x01\x02\x03\x044:ipv616:" + string(ip6) + "1:md11:lt_donthavei7e11:ut_metadatai0e6:ut_pexi1ee" +
				"13:metadata_sizei31235e1:pi6881e4:reqqi250e11:upload_onlyi1e1:v5:X 1.06:yourip4:\x7f\x00\x00\x01e",
			want: ExtHandshake{
				M: map[string]int{"lt_donthave": 7, "ut_metadata": 0, "ut_pex": 1}, V: "X 1.0", ReqQ: 250, P: 6881,
				YourIP: []byte{127, 0, 0, 1}, IPv4: []byte{1, 2, 3, 4}, IPv6: ip6, MetadataSize: 31235, UploadOnly: new(true),
			},
		},
		"not upload only": {
			payload: "d1:mde11:upload_onlyi0ee",
			want:    ExtHandshake{M: map[string]int{}, UploadOnly: new(false)},
		},
		"nothing":       {payload: "de", append: "d1:mdee"},
		"no extensions": {payload: "d1:mdee", want: ExtHandshake{M: map[string]int{}}},
		"values out of range": {
			payload: "d4:ipv43:abc1:md1:ai-1e1:bi256e1:ci255e1:d1:1e13:metadata_sizei-1e1:pi65536e4:reqqi-5e11:upload_onlyi2e6:yourip5:abcdee",
			want:    ExtHandshake{M: map[string]int{"c": 255}},
			append:  "d1:md1:ci255eee",
		},
		"values of other types": {
			payload: "d4:ipv4i1e4:ipv6le1:mle13:metadata_size1:11:p1:14:reqqde1:vi1e6:youripdee",
			want:    ExtHandshake{M: map[string]int{}},
			append:  "d1:mdee",
		},
		"unknown entries, unsorted": {
			payload: "d1:v1:x1:ei0e12:complete_agoi1ee",
			want:    ExtHandshake{V: "x"},
			append:  "d1:mde1:v1:xe",
		},
		"a long name": {
			payload: "d1:mde1:v200:" + strings.Repeat("x", 200) + "e",
			want:    ExtHandshake{M: map[string]int{}, V: strings.Repeat("x", 128)},
			append:  "d1:mde1:v128:" + strings.Repeat("x", 128) + "e",
		},
		"followed by bytes": {payload: "d1:v1:xe\x00\x00", want: ExtHandshake{V: "x"}, append: "d1:mde1:v1:xe"},
		"malformed numbers": {
			payload: "d1:md1:ai01e1:bi2e1:ci-0ee13:metadata_sizei99999999999999999999e1:pi6881e4:reqqi0250e1:v1:xe",
			want:    ExtHandshake{M: map[string]int{"b": 2}, P: 6881, V: "x"},
			append:  "d1:md1:bi2ee1:pi6881e1:v1:xe",
		},
		"duplicate keys": {
			payload: "d1:md1:ai1e1:ai2ee1:pi1e1:pi2e1:v1:xe",
			want:    ExtHandshake{M: map[string]int{"a": 2}, P: 2, V: "x"},
			append:  "d1:md1:ai2ee1:pi2e1:v1:xe",
		},
		"cut short": {
			payload: "d1:md6:ut_pexi1e11:ut_metadatai2e5:other",
			want:    ExtHandshake{M: map[string]int{"ut_pex": 1, "ut_metadata": 2}},
			append:  "d1:md11:ut_metadatai2e6:ut_pexi1eee",
		},
		"no end":                  {payload: "d1:md1:ai1ee1:v1:x", want: ExtHandshake{M: map[string]int{"a": 1}, V: "x"}, append: "d1:md1:ai1ee1:v1:xe"},
		"a length beyond the end": {payload: "d1:md1:ai1ee1:v500000000:abe", want: ExtHandshake{M: map[string]int{"a": 1}}, append: "d1:md1:ai1eee"},
		"no bytes":                {payload: "", append: "d1:mdee"},
		"a list":                  {payload: "li1ee", append: "d1:mdee"},
		"a string":                {payload: "2:de", append: "d1:mdee"},
		"only an end":             {payload: "e", append: "d1:mdee"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h := ParseExtHandshake([]byte(tt.payload))
			require.Equal(t, tt.want, h)
			if tt.append == "" {
				tt.append = tt.payload
			}
			require.Equal(t, tt.append, string(h.Append(nil)))
		})
	}
}

func TestExtHandshakeOfManyExtensions(t *testing.T) {
	p := []byte("d1:md")
	for i := range 5000 {
		p = appendIntEntry(p, fmt.Sprintf("x%04d", i), 1)
	}
	require.Len(t, ParseExtHandshake(append(p, "ee"...)).M, maxExtensions)
}

// A dictionary that exceeds a bound is read up to the value that does.
func TestExtensionsBounds(t *testing.T) {
	for name, rest := range map[string]string{
		"too deep":        "1:x" + strings.Repeat("l", 100) + strings.Repeat("e", 100) + "e",
		"too many values": "1:xl" + strings.Repeat("le", 1<<15) + "ee",
		"too long":        "1:x1048576:" + strings.Repeat("x", 1<<20) + "e",
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, "x", ParseExtHandshake([]byte("d1:v1:x"+rest)).V)
			require.Len(t, ParsePEX([]byte("d5:added6:abcdef"+rest)).Added, 1)
			request := ParseMetadataMessage([]byte("d8:msg_typei0e5:piecei3e" + rest))
			require.Equal(t, MetadataMessage{Type: MetadataRequest, Piece: 3}, request)
			data := ParseMetadataMessage([]byte("d8:msg_typei1e5:piecei3e" + rest))
			require.Equal(t, MetadataMessage{Type: metadataUnknown}, data, "the start of the data is unknown")
		})
	}
}

func TestMetadataMessage(t *testing.T) {
	tests := map[string]struct {
		payload string
		want    MetadataMessage
	}{
		"request":      {"d8:msg_typei0e5:piecei3ee", MetadataMessage{Type: MetadataRequest, Piece: 3}},
		"reject":       {"d8:msg_typei2e5:piecei3ee", MetadataMessage{Type: MetadataReject, Piece: 3}},
		"unknown type": {"d8:msg_typei9e5:piecei3ee", MetadataMessage{Type: 9, Piece: 3}},
		"data": {
			"d8:msg_typei1e5:piecei0e10:total_sizei34256eexxe",
			MetadataMessage{Type: MetadataData, TotalSize: 34256, Data: []byte("xxe")},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := ParseMetadataMessage([]byte(tt.payload))
			require.Equal(t, tt.want, m)
			require.Equal(t, tt.payload, string(m.Append(nil)))
		})
	}

	for payload, want := range map[string]MetadataMessage{
		"d8:msg_typei1e5:piecei0e10:total_sizei-0eexxe":      {Type: MetadataData, Data: []byte("xxe")},
		"d8:msg_typei1e8:msg_typei1e5:piecei7eexx":           {Type: MetadataData, Piece: 7, Data: []byte("xx")},
		"d8:msg_typei2e5:piecei7e":                           {Type: MetadataReject, Piece: 7},
		"d8:msg_typei0e5:piecei3e1:xi01ee":                   {Type: MetadataRequest, Piece: 3},
		"d8:msg_typei1e5:piecei0e10:total_size12345678901:x": {Type: metadataUnknown},
	} {
		require.Equal(t, want, ParseMetadataMessage([]byte(payload)), payload)
	}
	for _, payload := range []string{
		"", "le", "d", "d8:msg_typei0ee", "d5:piecei0ee", "d8:msg_typei-1e5:piecei0ee", "d8:msg_typei0e5:piecei-1ee",
		"d8:msg_type1:05:piecei0ee", "d8:msg_typei0e5:piecei2147483648ee", "d8:msg_typei00e5:piecei0ee",
	} {
		require.Equal(t, metadataUnknown, ParseMetadataMessage([]byte(payload)).Type, payload)
	}
}

func TestPEX(t *testing.T) {
	four := netip.MustParseAddrPort("1.2.3.4:258")
	six := netip.MustParseAddrPort("[2001:db8::1]:6881")
	x := PEX{
		Added: []netip.AddrPort{four, four}, AddedFlags: []byte{PEXSeed, PEXReachable},
		Added6: []netip.AddrPort{six}, Added6Flags: []byte{PEXEncrypts},
		Dropped: []netip.AddrPort{four}, Dropped6: []netip.AddrPort{six},
	}
	require.Equal(t, x, ParsePEX(x.Append(nil)))
	require.Equal(t, "d5:added6:\x01\x02\x03\x04\x01\x027:added.f1:\x00e", string((&PEX{Added: []netip.AddrPort{four}}).Append(nil)))
	require.Equal(t, "d5:added0:e", string(new(PEX).Append(nil)))

	none := PEX{AddedFlags: []byte{}, Added6Flags: []byte{}}
	for payload, want := range map[string]PEX{
		"de":                                 none,
		"d5:addedi1e6:added6le7:droppedi0ee": none,
		"":                                   none,
		"le":                                 none,
		"d5:added12:abcdef":                  none,
		"d5:added6:\x01\x02\x03\x04\x01\x026:added6i-0e7:added.f1:\x02": {
			Added: []netip.AddrPort{four}, AddedFlags: []byte{PEXSeed}, Added6Flags: []byte{},
		},
		"d5:added5:abcdee":                      none,
		"d7:added.f3:abce":                      none,
		"d5:added8:\x01\x02\x03\x04\x01\x02xye": {Added: []netip.AddrPort{four}, AddedFlags: []byte{0}, Added6Flags: []byte{}},
		"d5:added6:\x01\x02\x03\x04\x01\x027:added.f2:\x10\x02e": {
			Added: []netip.AddrPort{four}, AddedFlags: []byte{PEXReachable}, Added6Flags: []byte{},
		},
	} {
		require.Equal(t, want, ParsePEX([]byte(payload)), payload)
	}

	crowd := PEX{Added6: make([]netip.AddrPort, 10_000)}
	for i := range crowd.Added6 {
		crowd.Added6[i] = six
	}
	got := ParsePEX(crowd.Append(nil))
	require.Len(t, got.Added6, maxPEX)
	require.Len(t, got.Added6Flags, maxPEX)
}

func TestDontHave(t *testing.T) {
	m, err := NewReader(bytes.NewReader(AppendDontHave(nil, 7, 1<<30)), testPayload).Next()
	require.NoError(t, err)
	require.Equal(t, Extended, m.ID)
	require.EqualValues(t, 7, m.ExtID)
	index, err := ParseDontHave(m.Payload)
	require.NoError(t, err)
	require.EqualValues(t, 1<<30, index)
	for _, p := range []string{"", "abc", "abcde"} {
		_, err := ParseDontHave([]byte(p))
		var violated *ProtocolError
		require.ErrorAs(t, err, &violated)
	}
}

func FuzzExtHandshake(f *testing.F) {
	f.Add([]byte("d1:md11:ut_metadatai3e6:ut_pexi1ee13:metadata_sizei31235e1:pi6881e4:reqqi250e1:v5:X 1.06:yourip4:abcde"))
	f.Add([]byte("d4:ipv44:abcd4:ipv616:0123456789abcdef1:mde11:upload_onlyi1ee"))
	f.Add([]byte("d1:md11:ut_metadatai03e6:ut_pexi1e6:ut_pexi2ee1:pi-0e4:reqqi250e1:v5:X"))
	f.Fuzz(func(t *testing.T, p []byte) {
		h := ParseExtHandshake(p)
		for name, id := range h.M {
			if id < 0 || id > 255 {
				t.Fatalf("extension %q is %d", name, id)
			}
		}
		if h.M == nil {
			h.M = map[string]int{} // Append writes an empty dictionary
		}
		require.Equal(t, h, ParseExtHandshake(h.Append(nil)))
	})
}

func FuzzMetadata(f *testing.F) {
	f.Add([]byte("d8:msg_typei0e5:piecei3ee"))
	f.Add([]byte("d8:msg_typei1e5:piecei0e10:total_sizei34256eexxe"))
	f.Fuzz(func(t *testing.T, p []byte) {
		m := ParseMetadataMessage(p)
		if m.Type == metadataUnknown {
			require.Equal(t, MetadataMessage{Type: metadataUnknown}, m)
			return
		}
		if m.Type != MetadataData {
			m.TotalSize = 0 // Append does not write it
		}
		again := ParseMetadataMessage(m.Append(nil))
		require.Equal(t, m.Type, again.Type)
		require.Equal(t, m.Piece, again.Piece)
		require.Equal(t, m.TotalSize, again.TotalSize)
		require.True(t, bytes.Equal(m.Data, again.Data))
	})
}

func FuzzPEX(f *testing.F) {
	f.Add([]byte("d5:added6:abcdef7:added.f1:x6:added618:abcdefghijklmnopqr8:added6.f1:y7:dropped12:abcdefghijkl8:dropped60:e"))
	f.Fuzz(func(t *testing.T, p []byte) {
		x := ParsePEX(p)
		require.LessOrEqual(t, len(x.Added)+len(x.Added6), 2*maxPEX)
		require.Equal(t, x, ParsePEX(x.Append(nil)))
	})
}
