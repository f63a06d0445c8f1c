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
		append  string // "" is payload
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
		"values that cannot be": {
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
		"bytes behind it": {payload: "d1:v1:xe\x00\x00", want: ExtHandshake{V: "x"}, append: "d1:mde1:v1:xe"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h, err := ParseExtHandshake([]byte(tt.payload))
			require.NoError(t, err)
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
	h, err := ParseExtHandshake(append(p, "ee"...))
	require.NoError(t, err)
	require.Len(t, h.M, maxExtensions)
}

func TestExtensionsRefuse(t *testing.T) {
	tests := map[string]string{
		"nothing":         "",
		"a list":          "le",
		"a string":        "2:de",
		"no end":          "d1:md",
		"a lying length":  "d1:v500000000:abe",
		"no type":         "d5:piecei0ee",
		"too deep":        "d1:x" + strings.Repeat("l", 100) + strings.Repeat("e", 100) + "e",
		"too many values": "d1:xl" + strings.Repeat("le", 1<<15) + "ee",
		"too long":        "d1:x1048576:" + strings.Repeat("x", 1<<20) + "e",
	}
	var violated *ProtocolError
	for name, payload := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := ParseMetadataMessage([]byte(payload))
			require.ErrorAs(t, err, &violated)
			if name == "no type" {
				return // which only ut_metadata needs
			}
			_, err = ParseExtHandshake([]byte(payload))
			require.ErrorAs(t, err, &violated)
			_, err = ParsePEX([]byte(payload))
			require.ErrorAs(t, err, &violated)
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
			m, err := ParseMetadataMessage([]byte(tt.payload))
			require.NoError(t, err)
			require.Equal(t, tt.want, m)
			require.Equal(t, tt.payload, string(m.Append(nil)))
		})
	}

	for _, payload := range []string{
		"d8:msg_typei0ee", "d5:piecei0ee", "d8:msg_typei-1e5:piecei0ee", "d8:msg_typei0e5:piecei-1ee",
		"d8:msg_type1:05:piecei0ee", "d8:msg_typei0e5:piecei2147483648ee",
	} {
		_, err := ParseMetadataMessage([]byte(payload))
		var violated *ProtocolError
		require.ErrorAs(t, err, &violated, payload)
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
	got, err := ParsePEX(x.Append(nil))
	require.NoError(t, err)
	require.Equal(t, x, got)
	require.Equal(t, "d5:added6:\x01\x02\x03\x04\x01\x027:added.f1:\x00e", string((&PEX{Added: []netip.AddrPort{four}}).Append(nil)))
	require.Equal(t, "d5:added0:e", string(new(PEX).Append(nil)))

	none := PEX{AddedFlags: []byte{}, Added6Flags: []byte{}}
	for payload, want := range map[string]PEX{
		"de":                                    none,
		"d5:addedi1e6:added6le7:droppedi0ee":    none,
		"d5:added5:abcdee":                      none,
		"d7:added.f3:abce":                      none,
		"d5:added8:\x01\x02\x03\x04\x01\x02xye": {Added: []netip.AddrPort{four}, AddedFlags: []byte{0}, Added6Flags: []byte{}},
		"d5:added6:\x01\x02\x03\x04\x01\x027:added.f2:\x10\x02e": {
			Added: []netip.AddrPort{four}, AddedFlags: []byte{PEXReachable}, Added6Flags: []byte{},
		},
	} {
		got, err := ParsePEX([]byte(payload))
		require.NoError(t, err, payload)
		require.Equal(t, want, got, payload)
	}

	crowd := PEX{Added6: make([]netip.AddrPort, 10_000)}
	for i := range crowd.Added6 {
		crowd.Added6[i] = six
	}
	got, err = ParsePEX(crowd.Append(nil))
	require.NoError(t, err)
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
	f.Fuzz(func(t *testing.T, p []byte) {
		h, err := ParseExtHandshake(p)
		if err != nil {
			return
		}
		for name, id := range h.M {
			if id < 0 || id > 255 {
				t.Fatalf("extension %q is %d", name, id)
			}
		}
		if h.M == nil {
			h.M = map[string]int{} // which is what it is written as
		}
		again, err := ParseExtHandshake(h.Append(nil))
		require.NoError(t, err)
		require.Equal(t, h, again)
	})
}

func FuzzMetadata(f *testing.F) {
	f.Add([]byte("d8:msg_typei0e5:piecei3ee"))
	f.Add([]byte("d8:msg_typei1e5:piecei0e10:total_sizei34256eexxe"))
	f.Fuzz(func(t *testing.T, p []byte) {
		m, err := ParseMetadataMessage(p)
		if err != nil {
			return
		}
		if m.Type != MetadataData {
			m.TotalSize = 0 // which is not written
		}
		again, err := ParseMetadataMessage(m.Append(nil))
		require.NoError(t, err)
		require.Equal(t, m.Type, again.Type)
		require.Equal(t, m.Piece, again.Piece)
		require.Equal(t, m.TotalSize, again.TotalSize)
		require.True(t, bytes.Equal(m.Data, again.Data))
	})
}

func FuzzPEX(f *testing.F) {
	f.Add([]byte("d5:added6:abcdef7:added.f1:x6:added618:abcdefghijklmnopqr8:added6.f1:y7:dropped12:abcdefghijkl8:dropped60:e"))
	f.Fuzz(func(t *testing.T, p []byte) {
		x, err := ParsePEX(p)
		if err != nil {
			return
		}
		again, err := ParsePEX(x.Append(nil))
		require.NoError(t, err)
		require.Equal(t, x, again)
	})
}
