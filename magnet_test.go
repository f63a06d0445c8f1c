package torrent

import (
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/simnet"
)

const (
	testHash       = "c9e15763f722f23e98a29decdfae341b98d53056"
	testHashV2     = "caf1e1c30e81cb361b9ee167c4aa64228a7fa4fa9f6105232b28ad099f3a302e"
	testHashBase32 = "ZHQVOY7XELZD5GFCTXWN7LRUDOMNKMCW"
)

func TestParseMagnet(t *testing.T) {
	hash, err := ParseHash(testHash)
	require.NoError(t, err)
	hashV2, err := parseHashV2(testHashV2)
	require.NoError(t, err)

	for _, test := range []struct {
		what, uri string
		want      Magnet
	}{
		{"a bare hash", "magnet:?xt=urn:btih:" + testHash, Magnet{}},
		{"in upper case", "MAGNET:?xt=URN:BTIH:" + strings.ToUpper(testHash), Magnet{}},
		{"in base32", "magnet:?xt=urn:btih:" + testHashBase32, Magnet{}},
		{"in base32, lower case", "magnet:?xt=urn:btih:" + strings.ToLower(testHashBase32), Magnet{}},
		{"escaped, with space around", " magnet:?xt=urn%3Abtih%3A" + testHash + "\n", Magnet{}},
		{"numbered, behind another network's", "magnet:?xt.1=urn:sha1:ABC&xt.2=urn:btih:" + testHash, Magnet{}},
		{"of both versions", "magnet:?xt=urn:btmh:1220caf1&xt=urn:btih:" + testHash, Magnet{}},
		{"of version 2", "magnet:?xt=urn:btmh:1220" + testHashV2, Magnet{InfoHashV2: hashV2}},
		{"of both, whole", "magnet:?xt=urn:btmh:1220" + strings.ToUpper(testHashV2) + "&xt=urn:btih:" + testHash, Magnet{InfoHashV2: hashV2}},
		{"the first of two", "magnet:?xt=urn:btih:" + testHash + "&xt=urn:btih:" + strings.Repeat("0", 40), Magnet{}},
		{"empty and unknown parameters", "magnet:?&&xl=5&dn=&x.foo&xt=urn:btih:" + testHash + "&", Magnet{}},
		{"a name", "magnet:?dn=Cosmos+Laundromat%20%2B%C3%A9&xt=urn:btih:" + testHash, Magnet{Name: "Cosmos Laundromat +é"}},
		{"a name with a bare per cent sign", "magnet:?dn=100%&xt=urn:btih:" + testHash, Magnet{Name: "100%"}},
		{"a name that is no UTF-8", "magnet:?dn=a%FF&xt=urn:btih:" + testHash, Magnet{Name: "a\ufffd"}},
		{"a name cut between runes", "magnet:?dn=" + strings.Repeat("é", 200) + "&xt=urn:btih:" + testHash, Magnet{Name: strings.Repeat("é", 127)}},
		{
			"trackers: repeated, numbered, named twice, with a plus, of other schemes, malformed",
			"magnet:?xt=urn:btih:" + testHash + "&tr=http%3A%2F%2Fa%2Fannounce%3Fkey%3D1%26b%3D2&tr=udp://b:80" +
				"&tr.1=https://c/+&tr.2=udp://b:80&tr=wss://d&tr=ftp://e&tr=http://&tr=%3A&tr=&tr=http://f%0A/",
			Magnet{Trackers: []string{"http://a/announce?key=1&b=2", "udp://b:80", "https://c/+"}},
		},
		{"web seeds", "magnet:?xt=urn:btih:" + testHash + "&ws=http://a/b%20c&ws=udp://b&ws=https://c", Magnet{WebSeeds: []string{"http://a/b c", "https://c"}}},
		{
			"peers",
			"magnet:?xt=urn:btih:" + testHash + "&x.pe=1.2.3.4:5&x.pe=%5B2001:db8::1%5D:6&x.pe=host.example:65535&x.pe=1.2.3.4&x.pe=:1&x.pe=a:0&x.pe=a:65536&x.pe=a%20b:1",
			Magnet{Peers: []string{"1.2.3.4:5", "[2001:db8::1]:6", "host.example:65535"}},
		},
		{"escaped for HTML, once, twice and by number", "magnet:?xt=urn:btih:" + testHash + "&amp;dn=n&amp;amp;tr=udp://b:80&#38;ws=http://c/&#038;x.pe=1.2.3.4:5&#x26;so=1",
			Magnet{Name: "n", Trackers: []string{"udp://b:80"}, WebSeeds: []string{"http://c/"}, Peers: []string{"1.2.3.4:5"}, Select: []int{1}}},
		{"another entity", "magnet:?xt=urn:btih:" + testHash + "&lt;tr=udp://b:80&amp=1", Magnet{}},
		{"a bare percent sign among escapes", "magnet:?xt=urn:btih:" + testHash + "&dn=100%25%20of%2&tr=udp%3A%2F%2Fb%3A80%2F%zz", Magnet{Name: "100% of%2", Trackers: []string{"udp://b:80/%25zz"}}},
		{"bare percent signs in URLs", "magnet:?xt=urn:btih:" + testHash + "&tr=http%3A%2F%2Fa%2F50%%2Fx%2520y&tr=http://a/?key=100%&ws=http://b/%", Magnet{
			Trackers: []string{"http://a/50%25/x%20y", "http://a/?key=100%"}, WebSeeds: []string{"http://b/%25"}}},
		{"spaces around everything", "magnet:? xt = urn:btih:" + testHash + " &tr= udp://b:80&tr=%20http://a/%0A& tr=+https://c/+ &x.pe=%091.2.3.4:5 &so= 1 , 2",
			Magnet{Trackers: []string{"udp://b:80", "http://a/", "https://c/+"}, Peers: []string{"1.2.3.4:5"}, Select: []int{1, 2}}},
		{"an escaped key", "magnet:?%78t=urn:btih:" + testHash + "&x%2Epe=1.2.3.4:5", Magnet{Peers: []string{"1.2.3.4:5"}}},
		{"no choice of files", "magnet:?xt=urn:btih:" + testHash + "&so=", Magnet{}},
		{"empty items in a choice of files", "magnet:?xt=urn:btih:" + testHash + "&so=,0,,2-3,&so", Magnet{Select: []int{0, 2, 3}}},
		{"chosen files", "magnet:?xt=urn:btih:" + testHash + "&so=7,0,2,4,6-8&so=1", Magnet{Select: []int{0, 1, 2, 4, 6, 7, 8}}},
	} {
		t.Run(test.what, func(t *testing.T) {
			if test.what != "of version 2" {
				test.want.InfoHash = hash
			}
			m, err := ParseMagnet(test.uri)
			require.NoError(t, err)
			require.Equal(t, &test.want, m)

			again, err := ParseMagnet(m.String())
			require.NoError(t, err)
			require.Equal(t, m, again)
		})
	}
}

func TestParseMagnetErrors(t *testing.T) {
	good := "magnet:?xt=urn:btih:" + testHash
	for _, test := range []struct{ what, uri, want string }{
		{"nothing", "", "does not begin with magnet:?"},
		{"another scheme", "http://example.com/", "does not begin with magnet:?"},
		{"no parameters", "magnet:?", "no info hash"},
		{"another network", "magnet:?xt=urn:sha1:" + testHash, "no info hash"},
		{"a short hash", "magnet:?xt=urn:btih:" + testHash[1:], "xt: an info hash of 39 characters"},
		{"no hex", "magnet:?xt=urn:btih:x" + testHash[1:], "is not an info hash"},
		{"no base32", "magnet:?xt=urn:btih:" + strings.Repeat("1", 32), "is not an info hash"},
		{"base32 with line breaks", "magnet:?xt=urn:btih:%0A" + testHashBase32[1:], "is not an info hash"},
		{"version 2, too short", "magnet:?xt=urn:btmh:1220" + testHash, "xt: an info hash of version 2 of 40 characters"},
		{"version 2, no hex", "magnet:?xt=urn:btmh:1220" + strings.Repeat("x", 64), "is not an info hash of version 2"},
		{"version 2, another hash", "magnet:?xt=urn:btmh:1114" + testHash, "no SHA-256"},
		{"files that are no numbers", good + "&so=1,x", `so: "x" is neither`},
		{"half a range", good + "&so=1-", `so: "1-" is neither`},
		{"a negative file", good + "&so=-1", `so: "-1" is neither`},
		{"a range backwards", good + "&so=5-2", `so: "5-2" is neither`},
		{"a file out of all bounds", good + "&so=99999999", "so: index 99999999"},
		{"too many files", good + "&so=0-999999", "so: more than"},
		{"too many files in small pieces", good + "&so=" + strings.Repeat("0-999,", 200) + "0", "so: more than"},
		{"too long", good + "&dn=" + strings.Repeat("a", maxMagnet), "bytes long"},
	} {
		t.Run(test.what, func(t *testing.T) {
			_, err := ParseMagnet(test.uri)
			require.ErrorContains(t, err, test.want)
			require.Less(t, len(err.Error()), 200)
			if test.what == "version 2, another hash" {
				require.ErrorIs(t, err, ErrUnsupported)
			}
		})
	}
}

func TestMagnetString(t *testing.T) {
	m := Magnet{
		Name:     "a b&c+d/é",
		Trackers: []string{"udp://t.example:80/announce"},
		WebSeeds: []string{"http://w.example/?a=b c"},
		Peers:    []string{"[::1]:6881"},
		Select:   []int{0, 2, 4, 6, 7, 8, 10},
	}
	require.Equal(t, "magnet:?xt=urn:btih:0000000000000000000000000000000000000000"+
		"&dn=a%20b%26c%2Bd%2F%C3%A9"+
		"&tr=udp%3A%2F%2Ft.example%3A80%2Fannounce"+
		"&ws=http%3A%2F%2Fw.example%2F%3Fa%3Db%20c"+
		"&x.pe=[::1]:6881"+
		"&so=0,2,4,6-8,10", m.String())
}

func TestTorrentMagnet(t *testing.T) {
	tor := &Torrent{
		name:     "name",
		infoHash: Hash{1, 2, 3},
		trackers: [][]string{{"http://a/", "wss://b/"}, {"udp://c:1", "http://a/"}},
		webSeeds: []string{"http://w/", "ftp://w/"},
	}
	for i := range 2 * maxMagnetURLs {
		tor.trackers = append(tor.trackers, []string{fmt.Sprintf("http://t%d/", i)})
	}
	m := tor.Magnet()
	require.Equal(t, Hash{1, 2, 3}, m.InfoHash)
	require.Equal(t, "name", m.Name)
	require.Equal(t, []string{"http://a/", "udp://c:1", "http://t0/"}, m.Trackers[:3])
	require.Len(t, m.Trackers, maxMagnetURLs)
	require.Equal(t, []string{"http://w/"}, m.WebSeeds)

	again, err := ParseMagnet(m.String())
	require.NoError(t, err)
	require.Equal(t, m, again)
}

// Padding files count, because the author of the link sees them in the torrent.
func TestMagnetPriority(t *testing.T) {
	tor, err := Create(writeContent(t, map[string]int{"a": 1, "b": 1, "c": 1}), &CreateOptions{Pad: true})
	require.NoError(t, err)
	for _, test := range []struct {
		files []int
		want  string
	}{{nil, "abc"}, {[]int{0}, "a"}, {[]int{1, 3}, ""}, {[]int{0, 4}, "ac"}, {[]int{2, 100}, "b"}} {
		m := Magnet{Select: test.files}
		var chosen string
		for f := range tor.Files() {
			if m.Priority(f) == Normal {
				chosen += strings.TrimPrefix(f.Path, "content/")
			}
		}
		require.Equal(t, test.want, chosen, "%v", test.files)
	}
}

func FuzzParseMagnet(f *testing.F) {
	for _, uri := range []string{
		"magnet:?xt=urn:btih:" + testHash,
		"magnet:?xt=urn:btih:" + testHashBase32 + "&dn=a+b%20c&tr=http%3A%2F%2Fa%2F&tr.1=udp://b:1&ws=http://c/&x.pe=[::1]:2&so=0,2-4",
		"magnet:?xt.1=urn:btmh:1220caf1&xt.2=urn:btih:" + testHash + "&dn=%FF%&so=1,1",
		"magnet:?xt=urn:btmh:1220" + testHash,
		"magnet:?xt=urn:btmh:1220" + testHashV2 + "&dn=x",
		"magnet:?xt=urn:btih:" + testHash + "&xt=urn:btmh:1220" + testHashV2,
		"magnet:?xt=urn:btih:&so=4-2&tr=://&x.pe=:",
		"magnet:?xt=urn:btih:" + testHash + "&amp;tr=+http%3a//a/50%/&#38;dn=%&so=,1&ws= http://b/%zz",
	} {
		f.Add(uri)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		m, err := ParseMagnet(uri)
		if err != nil {
			require.Nil(t, m)
			return
		}
		require.LessOrEqual(t, len(m.Name), maxMagnetName)
		for _, list := range [][]string{m.Trackers, m.WebSeeds, m.Peers} {
			require.LessOrEqual(t, len(list), maxMagnetURLs)
		}
		require.LessOrEqual(t, len(m.Select), maxMagnetFiles)
		again, err := ParseMagnet(m.String())
		require.NoError(t, err)
		require.Equal(t, m, again)
	})
}

// The author of a link chooses its info hash and the addresses of peers. A program at a private address that reads lines never
// receives one of the author's. That holds for a client that prefers encryption as well, which dials again without it if the peer
// does not answer.
func TestResolveSendsNoLines(t *testing.T) {
	for _, policy := range []EncryptionPolicy{PreferEncryption, DisableEncryption, RequireEncryption} {
		simnet.Run(t, func(t *testing.T, n *simnet.Network) {
			l, err := n.NewHost("10.0.0.2", 0, 0, 0).Listen("tcp", ":6379")
			require.NoError(t, err)
			var mu sync.Mutex
			var heard []byte
			dials := 0
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					go func() {
						defer conn.Close()
						conn.SetDeadline(time.Now().Add(time.Second))
						b, _ := io.ReadAll(conn)
						mu.Lock()
						defer mu.Unlock()
						heard = append(heard, b...)
						dials++
					}()
				}
			}()
			c := simClient(t, n.NewHost("10.0.0.1", 0, 0, 0), nil)
			c.Encryption = policy
			m, err := ParseMagnet("magnet:?xt=urn:btih:" + hex.EncodeToString([]byte("..\r\nFLUSHALL\r\nQUIT\r\n")) + "&x.pe=10.0.0.2:6379")
			require.NoError(t, err)
			_, err = m.Resolve(t.Context(), &Options{Client: c, StallTimeout: time.Minute})
			require.ErrorIs(t, err, ErrStalled)
			mu.Lock()
			defer mu.Unlock()
			require.Positive(t, dials, policy)
			require.NotContains(t, string(heard), "FLUSHALL", policy)
		})
	}
	for hash, want := range map[string]bool{
		"0123456789abcdefghij":                     false,
		"01234567\n\x00\xff9ab-cd e\r":             false,
		"0123456789abcdef\nabc":                    true,
		"\r\"\\x46LUSHALL\"\r\xff\xff\xff\xff\xff": true,
	} {
		require.Equal(t, want, hasLine(Hash([]byte(hash))), "%q", hash)
	}
}
