package dht

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/krpc"
)

func TestTokens(t *testing.T) {
	tk := tokens{rng: rand.New(rand.NewPCG(1, 1))}
	hash, other := ID{1}, ID{2}
	ip := addr1.Addr()
	token := tk.make(epoch, ip, hash)
	require.Len(t, token, tokenSize)
	for _, tc := range []struct {
		name  string
		at    time.Duration
		token []byte
		ip    netip.Addr
		hash  ID
		want  bool
	}{
		{"at once", 0, token, ip, hash, true},
		{"another target", 0, token, ip, other, false},
		{"another address", 0, token, host(1).Addr(), hash, false},
		{"none", 0, nil, ip, hash, false},
		{"cut", 0, token[:7], ip, hash, false},
		{"longer", 0, append(token[:8:8], 0), ip, hash, false},
		{"within its five minutes", tokenLife - 1, token, ip, hash, true},
		{"within the next", 2*tokenLife - 1, token, ip, hash, true},
		{"after those", 2 * tokenLife, token, ip, hash, false},
	} {
		require.Equal(t, tc.want, tk.valid(epoch.Add(tc.at), tc.token, tc.ip, tc.hash), tc.name)
	}
	require.NotEqual(t, token, tk.make(epoch.Add(time.Hour), ip, hash))

	late := tokens{rng: rand.New(rand.NewPCG(1, 2))}
	token = late.make(epoch, ip, hash)
	require.False(t, late.valid(epoch.Add(24*time.Hour), token, ip, hash), "a secret that was not used for long is forgotten")
}

// The vector of BEP 33.
func TestFilter(t *testing.T) {
	var f filter
	for i := range 256 {
		f.add(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
	}
	for i := range 0x3e8 {
		f.add(netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i)))
	}
	want := strings.ReplaceAll(`F6C3F5EA A07FFD91 BDE89F77 7F26FB2B FF37BDB8 FB2BBAA2 FD3DDDE7 BACFFF75 EE7CCBAE
		FE5EEDB1 FBFAFF67 F6ABFF5E 43DDBCA3 FD9B9FFD F4FFD3E9 DFF12D1B DF59DB53 DBE9FA5B
		7FF3B8FD FCDE1AFB 8BEDD7BE 2F3EE71E BBBFE93B CDEEFE14 8246C2BC 5DBFF7E7 EFDCF24F
		D8DC7ADF FD8FFFDF DDFFF7A4 BBEEDF5C B95CE81F C7FCFF1F F4FFFFDF E5F7FDCB B7FD79B3
		FA1FC77B FE07FFF9 05B7B7FF C7FEFEFF E0B8370B B0CD3F5B 7F2BD93F EB4386CF DD6F7FD5
		BFAF2E9E BFFFFEEC D67ADBF7 C67F17EF D5D75EBA 6FFEBA7F FF47A91E B1BFBB53 E8ABFB57
		62ABE8FF 237279BF EFBFEEF5 FFC5FEBF DFE5ADFF ADFEE1FB 737FFFFB FD9F6AEF FEEE76B6
		FD8F72EF`, "\n", "")
	want = strings.NewReplacer(" ", "", "\t", "").Replace(want)
	require.Equal(t, strings.ToLower(want), hex.EncodeToString(f[:]))
	require.InDelta(t, 1224.9308, f.count(), .0001)

	var none, full filter
	require.Zero(t, math.Round(none.count()))
	for i := range full {
		full[i] = 0xff
	}
	require.False(t, math.IsInf(full.count(), 0))
	none.join(f[:])
	require.Equal(t, f, none)
}

// The vectors of BEP 44. The private key there is the expanded one, so the signatures are only verified.
func TestItemVectors(t *testing.T) {
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		require.NoError(t, err)
		return b
	}
	key := unhex("77ff84905a91936367c01360803104f92432fcd904a43511876df5cdf3e7e548")
	value := []byte("12:Hello World!")
	for _, tc := range []struct {
		name, signed, target, sig string
		salt                      []byte
	}{
		{
			"mutable", "3:seqi1e1:v12:Hello World!", "4a533d47ec9c7d95b1ad75f576cffc641853b750",
			"305ac8aeb6c9c151fa120f120ea2cfb923564e11552d06a5d856091e5e853cff1260d3f39e4999684aa92eb73ffd136e6f4f3ecbfda0ce53a1608ecd7ae21f01", nil,
		}, {
			"mutable with salt", "4:salt6:foobar3:seqi1e1:v12:Hello World!", "411eba73b6f087ca51a3795d9c8c938d365e32c1",
			"6834284b6b24c3204eb2fea824d82f88883a3d95e8b4a21b8c0ded553d17d17ddf9a8a7104b1258f30bed3787e6cb896fca78c58f8e03b5f18f14951a87d9a08", []byte("foobar"),
		},
	} {
		item := Item{Value: value, Key: key, Salt: tc.salt, Seq: 1, Sig: unhex(tc.sig)}
		require.Equal(t, tc.signed, string(item.signed()), tc.name)
		require.Equal(t, idOf(t, tc.target), item.Target(), tc.name)
		require.NoError(t, item.Check(), tc.name)
		item.Seq = 2
		require.Error(t, item.Check(), tc.name)
	}
	immutable := Item{Value: value}
	require.Equal(t, idOf(t, "e5f96f6f38320f0f33959cb4d3d656452117aadb"), immutable.Target())
	require.NoError(t, immutable.Check())

	// And those of BEP 46.
	key = unhex("8543d3e6115f0f98c944077a4493dcd543e49c739fd998550a1f614ab36ed63e")
	require.Equal(t, idOf(t, "cc3f9d90b572172053626f9980ce261a850d050b"), signedTarget(key, nil))
	require.Equal(t, idOf(t, "59ee7c2cb9b4f7eb1986ee2d18fd2fdb8a56554f"), signedTarget(key, []byte("n")))
}

func newKey(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32))
}

func TestItemCheck(t *testing.T) {
	good := Sign(newKey(1), []byte("salt"), []byte("i1e"), 7)
	require.NoError(t, good.Check())
	for name, change := range map[string]func(i *Item){
		"no value":                 func(i *Item) { i.Value = nil },
		"not bencoded":             func(i *Item) { i.Value = []byte("hello") },
		"two values":               func(i *Item) { i.Value = []byte("i1ei2e") },
		"too large":                func(i *Item) { i.Value = []byte("996:" + strings.Repeat("x", 997)) },
		"malformed key":            func(i *Item) { i.Key = i.Key[1:] },
		"malformed signature":      func(i *Item) { i.Sig = i.Sig[1:] },
		"salt too long":            func(i *Item) { i.Salt = []byte(strings.Repeat("x", 65)) },
		"another salt":             func(i *Item) { i.Salt = nil },
		"another value":            func(i *Item) { i.Value = []byte("i2e") },
		"negative sequence number": func(i *Item) { i.Seq = -1 },
	} {
		bad := good.clone()
		change(bad)
		require.Error(t, bad.Check(), name)
	}
	require.NoError(t, Sign(newKey(1), nil, []byte("996:"+strings.Repeat("x", 996)), 0).Check(), "1,000 bytes are not too many")
}

func TestPeerStore(t *testing.T) {
	s := newPeerStore(epoch, rand.New(rand.NewPCG(1, 1)))
	hash, self := ID{1}, ID{}
	all := func(netip.AddrPort) bool { return true }
	draw := func(n int, noSeed bool) []netip.AddrPort { return s.draw(hash, n, noSeed, nil, all) }

	require.Empty(t, draw(10, false))
	require.True(t, s.announce(epoch, self, hash, host(1), false))
	require.True(t, s.announce(epoch, self, hash, netip.AddrPortFrom(host(1).Addr(), 9), true))
	require.Equal(t, []netip.AddrPort{netip.AddrPortFrom(host(1).Addr(), 9)}, draw(10, false), "an address has one entry (BEP 33)")
	require.Empty(t, draw(10, true), "and is a seed now")
	for i := range 9 {
		s.announce(epoch.Add(time.Minute), self, hash, host(2+i), i%3 == 0)
	}
	require.Len(t, draw(5, false), 5)
	require.Len(t, draw(100, false), 10)
	require.Len(t, draw(100, true), 6)
	for range 5 {
		require.NotSubset(t, []netip.AddrPort{host(2), host(5), host(8)}, draw(1, true))
	}
	seen := make(map[netip.AddrPort]bool)
	for range 200 {
		seen[draw(1, false)[0]] = true
	}
	require.Len(t, seen, 10, "each is drawn now and then")
	require.Len(t, s.draw(hash, 100, false, nil, func(p netip.AddrPort) bool { return p == host(3) }), 1)

	seeds, leeches, ok := s.filters(hash)
	require.True(t, ok)
	require.InDelta(t, 4, seeds.count(), .1)
	require.InDelta(t, 6, leeches.count(), .1)
	_, _, ok = s.filters(ID{2})
	require.False(t, ok)

	s.sweep(epoch.Add(peerLife))
	require.Equal(t, 10, s.peers)
	s.sweep(epoch.Add(peerLife + 2*time.Second))
	require.Equal(t, 9, s.peers)
	s.sweep(epoch.Add(peerLife + 2*time.Minute))
	require.Zero(t, s.peers)
	require.Empty(t, s.swarms)
	require.Empty(t, s.makers)
}

// A full swarm takes from the network that fills it, then what is oldest.
func TestFullSwarm(t *testing.T) {
	s := newPeerStore(epoch, rand.New(rand.NewPCG(1, 1)))
	hash, self := ID{1}, ID{}
	for i := range maxSwarmPeers - 100 {
		require.True(t, s.announce(epoch, self, hash, host(i), false))
	}
	flooder := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{66, 6, 6, byte(i)}), 6881)
	}
	for i := range 200 {
		require.True(t, s.announce(epoch.Add(time.Minute), self, hash, flooder(i), false))
	}
	require.Equal(t, maxSwarmPeers, s.peers)
	kept := 0
	for i := range maxSwarmPeers - 100 {
		if s.swarms[hash].index(host(i)) >= 0 {
			kept++
		}
	}
	require.Equal(t, maxSwarmPeers-100, kept, "a network pushes out its own")

	for i := range 600 {
		require.True(t, s.announce(epoch.Add(time.Hour+time.Duration(i)*time.Second), self, hash, host(1000+i), false))
	}
	require.Equal(t, maxSwarmPeers, s.peers)
	for i := range 100 {
		require.Negative(t, s.swarms[hash].index(host(1000+i)), "the oldest are gone")
	}
	require.GreaterOrEqual(t, s.swarms[hash].index(host(1599)), 0)
}

// A full store evicts entries of the maker that has the most, or else the entry farthest from us.
func TestFullPeerStore(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	s, self := newPeerStore(epoch, rng), ID{}
	for range 500 {
		s.announce(epoch, self, krpc.RandomID(rng), addr1, false)
	}
	for i := range maxSwarms - 500 {
		s.announce(epoch, self, krpc.RandomID(rng), host(i), false)
	}
	far, near := ID{0xff, 0xff, 0xff, 0xff}, ID{0, 0, 0, 1}
	require.True(t, s.room(self, far, host(9999)))
	require.True(t, s.announce(epoch, self, far, host(9999), false))
	require.EqualValues(t, 499, s.makers[makerOf(addr1)], "the greedy one made room")
	require.Len(t, s.swarms, maxSwarms)

	for i := 0; s.makers[makerOf(addr1)] > 1; i++ {
		require.True(t, s.announce(epoch, self, krpc.RandomID(rng), host(10_000+i), false))
	}
	require.False(t, s.room(self, ID{0xff, 0xff, 0xff, 0xff, 1}, host(20_000)), "now none is greedy, and this one is far")
	require.False(t, s.announce(epoch, self, ID{0xff, 0xff, 0xff, 0xff, 1}, host(20_000), false))
	require.True(t, s.room(self, near, host(20_000)))
	require.True(t, s.announce(epoch, self, near, host(20_000), false))
	require.NotContains(t, s.swarms, far, "for it, the farthest made room")
	require.True(t, s.room(self, near, addr1), "a swarm that is there takes any peer")
	require.Len(t, s.swarms, maxSwarms)
}

// Its peers are bounded in all, too: the largest swarms give.
func TestPeerStoreInAll(t *testing.T) {
	s, self := newPeerStore(epoch, rand.New(rand.NewPCG(1, 1))), ID{}
	for h := range 60 {
		for i := range maxSwarmPeers {
			require.True(t, s.announce(epoch, self, ID{1, byte(h)}, host(i), false))
		}
	}
	require.Equal(t, maxPeers, s.peers)
	sum, least := 0, maxSwarmPeers
	for _, w := range s.swarms {
		sum += len(w.peers)
		least = min(least, len(w.peers))
	}
	require.Equal(t, maxPeers, sum)
	require.Greater(t, least, maxPeers/60-10)
}

func TestMaker(t *testing.T) {
	seen := make(map[maker]string)
	for _, a := range []string{
		"1.2.3.4:1", "1.2.4.4:1", "[2001:db8:0:1::1]:1", "[2001:db8:0:2::1]:1", "10.0.0.1:1", "10.0.0.1:2", "10.0.0.2:1", "[fd00::1]:1", "[fd00::1]:2", "[fd00::2]:1",
	} {
		m := makerOf(netip.MustParseAddrPort(a))
		require.Empty(t, seen[m], a)
		seen[m] = a
	}
	require.Equal(t, "1.2.3.4:1", seen[makerOf(netip.MustParseAddrPort("1.2.3.200:7"))])
	require.Equal(t, "[2001:db8:0:1::1]:1", seen[makerOf(netip.MustParseAddrPort("[2001:db8:0:1:9::1]:7"))])
}

func TestSample(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	s, self := newPeerStore(epoch, rng), ID{}
	require.Empty(t, s.hashes(epoch))
	for i := range 10 {
		s.announce(epoch, self, krpc.RandomID(rng), host(i), false)
	}
	require.Len(t, s.hashes(epoch), 10, "all, as long as they fit")
	for i := range 90 {
		s.announce(epoch, self, krpc.RandomID(rng), host(i), false)
	}
	sample := append([]ID(nil), s.hashes(epoch)...)
	require.Len(t, sample, maxSample)
	require.Equal(t, sample, s.hashes(epoch.Add(sampleInterval-1)))
	require.NotEqual(t, sample, s.hashes(epoch.Add(sampleInterval)))
	for _, hash := range sample {
		require.Contains(t, s.swarms, hash)
	}
}

func TestItemStore(t *testing.T) {
	s, self := newItemStore(), ID{}
	key, salt := newKey(1), []byte("salt")
	first := Sign(key, salt, []byte("i1e"), 1)
	cas := func(n int64) *int64 { return &n }
	code := func(f *itemFault) int64 {
		if f == nil {
			return 0
		}
		require.NotEmpty(t, f.Error())
		return f.code
	}
	require.Nil(t, s.get(first.Target()))
	bad := first.clone()
	bad.Sig[0]++
	for _, tc := range []struct {
		name string
		item *Item
		cas  *int64
		want int64
	}{
		{"the first, whatever it replaces", first, cas(9), 0},
		{"again", first, nil, 0},
		{"a lower number", Sign(key, salt, []byte("i0e"), 0), nil, krpc.SeqTooLow},
		{"the same number, another value", Sign(key, salt, []byte("i2e"), 1), nil, krpc.SeqTooLow},
		{"a higher one", Sign(key, salt, []byte("i5e"), 5), nil, 0},
		{"another than expected", Sign(key, salt, []byte("i6e"), 6), cas(4), krpc.CASMismatch},
		{"as expected", Sign(key, salt, []byte("i6e"), 6), cas(5), 0},
		{"a bad signature", &Item{Key: first.Key, Salt: salt, Value: []byte("i7e"), Seq: 7, Sig: first.Sig}, nil, krpc.InvalidSignature},
		{"a bad signature of a new one", bad, nil, krpc.SeqTooLow},
		{"too large", &Item{Value: []byte(strings.Repeat("x", 1001))}, nil, krpc.ValueTooBig},
		{"too much salt", Sign(key, []byte(strings.Repeat("x", 65)), []byte("i1e"), 1), nil, krpc.SaltTooBig},
		{"a negative number", Sign(key, salt, []byte("i1e"), -1), nil, krpc.ProtocolError},
		{"an immutable one", &Item{Value: []byte("i1e")}, cas(3), 0},
		{"without salt", Sign(key, nil, []byte("i1e"), 1), nil, 0},
	} {
		require.Equal(t, tc.want, code(s.put(epoch, self, tc.item, tc.cas, addr1)), tc.name)
	}
	require.Equal(t, "i6e", string(s.get(first.Target()).Value))
	require.Len(t, s.items, 3)
	require.EqualValues(t, 3, s.makers[makerOf(addr1)])

	s.put(epoch.Add(time.Hour), self, &Item{Value: []byte("i1e")}, nil, host(1))
	s.sweep(epoch.Add(itemLife + time.Minute))
	require.Len(t, s.items, 1, "what was put again is kept")
	s.sweep(epoch.Add(time.Hour + itemLife + time.Minute))
	require.Empty(t, s.items)
	require.Empty(t, s.makers)
}

func TestFullItemStore(t *testing.T) {
	s, self := newItemStore(), ID{}
	put := func(i int, from netip.AddrPort) *itemFault {
		return s.put(epoch, self, &Item{Value: fmt.Appendf(nil, "i%de", i)}, nil, from)
	}
	for i := range maxItems {
		require.Nil(t, put(i, addr1))
	}
	require.Nil(t, put(maxItems, host(1)))
	require.Len(t, s.items, maxItems)
	require.EqualValues(t, maxItems-1, s.makers[makerOf(addr1)])
	for i := 1; i < maxItems; i++ {
		put(maxItems+i, host(1+i))
	}
	refused, stored := 0, 0
	for i := range 200 {
		item := Item{Value: fmt.Appendf(nil, "i%de", 5000+i)}
		room := s.room(self, item.Target(), host(5000+i))
		fault := put(5000+i, host(5000+i))
		require.Equal(t, room, fault == nil)
		if room {
			stored++
		} else {
			require.EqualValues(t, krpc.ServerError, fault.code)
			refused++
		}
	}
	require.Positive(t, refused)
	require.Positive(t, stored)
	require.Len(t, s.items, maxItems)
}
