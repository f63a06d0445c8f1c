//go:build linux

package interop

import (
	"context"
	"crypto/ed25519"
	"crypto/sha512"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
)

//go:embed dht.py
var libtorrentDHTScript []byte

//go:embed dht.mjs
var npmDHTScript []byte

// networkSize is how many nodes a network has. All of them are among the nearest to anything, so that a client that
// finds nothing is at fault, and not the paths.
const networkSize = 8

// dhtNetwork is a kind of network that clients join, whose nodes store what they announce and put.
type dhtNetwork struct {
	name     string
	programs []string
	start    func(t *testing.T) (nodes []netip.AddrPort) // and waits until they know each other
}

var dhtNetworks = []dhtNetwork{
	{"our nodes", nil, func(t *testing.T) (nodes []netip.AddrPort) {
		var members []*torrent.DHT
		for range networkSize {
			host := newNodeAddr()
			c := newMember(t, host, nodes)
			members = append(members, c.DHT())
			nodes = append(nodes, netip.AddrPortFrom(host, peerPort))
		}
		for _, d := range members {
			require.Eventuallyf(t, func() bool { return d.Stats().NodesIPv4 >= networkSize-1 }, patience, time.Second/20,
				"the nodes do not find each other")
		}
		return nodes
	}},
	{"libtorrent's nodes", libtorrent.programs, func(t *testing.T) (nodes []netip.AddrPort) {
		args := []string{scratch(t, "dht.py", libtorrentDHTScript), "nodes"}
		for range networkSize {
			host := newNodeAddr()
			args = append(args, host.String())
			nodes = append(nodes, netip.AddrPortFrom(host, peerPort))
		}
		run(t, pythonLibtorrent, args...).awaitText(t, "ready")
		return nodes
	}},
}

// newMember is a client of this library that has joined the DHT at these nodes, if there are any.
func newMember(t *testing.T, host netip.Addr, nodes []netip.AddrPort) *torrent.Client {
	t.Helper()
	c := newClient(t, host, "")
	c.NoDHT, c.DHTNodes = false, addrs(nodes)
	t.Cleanup(func() { c.Close() })
	require.NoError(t, c.DHT().Stats().Err)
	return c
}

// addrs is never nil, which would stand for the well-known routers.
func addrs(nodes []netip.AddrPort) []string {
	list := make([]string, 0, len(nodes))
	for _, node := range nodes {
		list = append(list, node.String())
	}
	return list
}

// lastNode counts the addresses given out to nodes.
var lastNode atomic.Int32

// newNodeAddr is an address in a /24 of its own, since of one many programs take few nodes.
func newNodeAddr() netip.Addr {
	n := lastNode.Add(1)
	return netip.AddrFrom4([4]byte{10, byte(128 + n>>8&0x7f), byte(n), 1})
}

// overNetworks runs a test for each network and way, whose columns are those of the table. A nil way is left out.
func overNetworks(t *testing.T, r *row, from, to func(t *testing.T, nodes []netip.AddrPort)) {
	for _, network := range dhtNetworks {
		for _, way := range []struct {
			name string
			do   func(t *testing.T, nodes []netip.AddrPort)
		}{{"from it", from}, {"to it", to}} {
			if way.do == nil {
				continue
			}
			column := network.name + ": " + way.name
			t.Run(column, func(t *testing.T) {
				need(t, network.programs...)
				t.Parallel()
				defer r.record(t, column)
				way.do(t, network.start(t))
			})
		}
	}
}

// networkColumns are the columns that overNetworks fills.
func networkColumns() (columns []string) {
	for _, network := range dhtNetworks {
		columns = append(columns, network.name+": from it", network.name+": to it")
	}
	return columns
}

// TestDHT has this library and each client find each other through the DHT alone: one seeds a torrent that
// has no tracker, the other downloads it by a link that says nothing but the info hash.
func TestDHT(t *testing.T) {
	t.Parallel()
	tb := newTable(t, "DHT, magnet link without a tracker: client", networkColumns()...)
	for _, c := range append(slices.Clip(clients), qbittorrent) {
		t.Run(c.name, func(t *testing.T) {
			need(t, c.programs...)
			r := tb.row(c.name + " " + c.version(t))
			t.Parallel()
			from := func(t *testing.T, nodes []netip.AddrPort) { meetInDHT(t, nodes, c, library) }
			to := func(t *testing.T, nodes []netip.AddrPort) { meetInDHT(t, nodes, library, c) }
			if c.misreadsPeers {
				to = nil
			}
			overNetworks(t, r, from, to)
		})
	}
}

func meetInDHT(t *testing.T, nodes []netip.AddrPort, from, to client) {
	content, dir := t.TempDir(), t.TempDir()
	makeContent(t, content)
	what := makeWithLibrary(torrent.V1)(t, content, "") // no tracker
	tor, err := torrent.Read(what)
	require.NoError(t, err)

	seed := from.start(t, role{what: what, dir: content, seed: true, nodes: nodes})
	awaitInDHT(t, nodes, tor.InfoHash(), netip.AddrPortFrom(seed.addr(), peerPort), seed.ended())
	link := &torrent.Magnet{InfoHash: tor.InfoHash()}
	p := to.start(t, role{what: link.String(), dir: dir, nodes: nodes})
	p.awaitComplete(t)
	p.stop()
	requireSame(t, content, dir)
}

// awaitInDHT waits until a peer is to be found in the DHT. The lookups are those of a client that does
// nothing else.
func awaitInDHT(t *testing.T, nodes []netip.AddrPort, h torrent.Hash, want netip.AddrPort, ended <-chan struct{}) {
	t.Helper()
	d := newMember(t, newAddr(t), nodes).DHT()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	again := time.NewTicker(2 * time.Second) // nodes are silent to those that ask all the time
	defer again.Stop()
	for {
		for peer, err := range d.Peers(ctx, h) {
			if err == nil && peer == want {
				return
			}
		}
		select {
		case <-again.C:
		case <-ended:
			t.Fatalf("%s ended before it was in the DHT", want)
		case <-ctx.Done():
			t.Fatalf("%s is not in the DHT within %v", want, patience)
		}
	}
}

// dhtNode is a kind of node that can be told what to do.
type dhtNode struct {
	name     string
	programs []string
	version  func(t *testing.T) string
	secret   func(key ed25519.PrivateKey) []byte // as the node takes it
	command  func(t *testing.T) (name string, args []string)
}

var (
	libtorrentNode = dhtNode{
		name:     "libtorrent",
		programs: libtorrent.programs,
		version:  libtorrent.version,
		secret: func(key ed25519.PrivateKey) []byte { // what a seed is hashed to (RFC 8032, 5.1.5)
			h := sha512.Sum512(key.Seed())
			h[0] &= 248
			h[31] = h[31]&127 | 64
			return h[:]
		},
		command: func(t *testing.T) (string, []string) {
			return pythonLibtorrent, []string{scratch(t, "dht.py", libtorrentDHTScript), "ask"}
		},
	}
	npmNode = dhtNode{
		name:     "bittorrent-dht (npm)",
		programs: []string{npmDHT, "node"},
		version: func(t *testing.T) string {
			b, err := os.ReadFile(filepath.Join(program(t, npmDHT), "package.json"))
			require.NoError(t, err)
			var about struct{ Version string }
			require.NoError(t, json.Unmarshal(b, &about))
			return about.Version
		},
		secret: ed25519.PrivateKey.Seed,
		command: func(t *testing.T) (string, []string) {
			return "node", []string{scratch(t, "dht.mjs", npmDHTScript), program(t, npmDHT)}
		},
	}
)

// ask has a node of the kind do one thing, and returns what it printed.
func (n dhtNode) ask(t *testing.T, nodes []netip.AddrPort, what ...string) string {
	t.Helper()
	name, args := n.command(t)
	args = append(args, newAddr(t).String(), strings.Join(addrs(nodes), ","))
	return strings.TrimSpace(output(t, name, append(args, what...)...))
}

// TestDHTPeers has this library and npm's node, which is no client, find what the other announces.
func TestDHTPeers(t *testing.T) {
	need(t, npmNode.programs...)
	tb := newTable(t, "DHT, peers: node", networkColumns()...)
	r := tb.row(npmNode.name + " " + npmNode.version(t))
	h := torrent.Hash{0xd1, 19: 7}
	overNetworks(t, r,
		func(t *testing.T, nodes []netip.AddrPort) {
			name, args := npmNode.command(t)
			host := newAddr(t)
			out := output(t, name, append(args, host.String(), strings.Join(addrs(nodes), ","), "announce", h.String(), "4711")...)
			require.Positive(t, number(t, out))
			awaitInDHT(t, nodes, h, netip.AddrPortFrom(host, 4711), nil)
		},
		func(t *testing.T, nodes []netip.AddrPort) {
			host := newAddr(t)
			require.NoError(t, newMember(t, host, nodes).DHT().Announce(t.Context(), h, 4711))
			require.Contains(t, npmNode.ask(t, nodes, "peers", h.String()), netip.AddrPortFrom(host, 4711).String())
		})
}

// TestDHTItems has this library and others fetch what the other has put (BEP 44).
func TestDHTItems(t *testing.T) {
	tb := newTable(t, "DHT items (BEP 44): node", networkColumns()...)
	for _, n := range []dhtNode{libtorrentNode, npmNode} {
		for _, kind := range []struct {
			name     string
			from, to func(*testing.T, dhtNode, []netip.AddrPort)
		}{{"unsigned", getUnsigned, putUnsigned}, {"signed", getSigned, putSigned}} {
			t.Run(n.name+"/"+kind.name, func(t *testing.T) {
				need(t, n.programs...)
				r := tb.row(n.name + " " + n.version(t) + ": " + kind.name)
				t.Parallel()
				overNetworks(t, r,
					func(t *testing.T, nodes []netip.AddrPort) { kind.from(t, n, nodes) },
					func(t *testing.T, nodes []netip.AddrPort) { kind.to(t, n, nodes) })
			})
		}
	}
}

const itemText = "a herring in the DHT"

var itemValue = []byte("20:" + itemText)

func getUnsigned(t *testing.T, n dhtNode, nodes []netip.AddrPort) {
	target, err := torrent.ParseHash(n.ask(t, nodes, "put", itemText))
	require.NoError(t, err)
	value, err := newMember(t, newAddr(t), nodes).DHT().Get(t.Context(), target)
	require.NoError(t, err)
	require.Equal(t, string(itemValue), string(value))
}

func putUnsigned(t *testing.T, n dhtNode, nodes []netip.AddrPort) {
	target, err := newMember(t, newAddr(t), nodes).DHT().Put(t.Context(), itemValue)
	require.NoError(t, err)
	require.Equal(t, itemText, n.ask(t, nodes, "get", target.String()))
}

// itemKey draws a key, and returns it as a node's script takes it: the secret, and the public key.
func itemKey(t *testing.T, n dhtNode) (key ed25519.PrivateKey, secret, public string) {
	_, key, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	return key, hex.EncodeToString(n.secret(key)), hex.EncodeToString(key.Public().(ed25519.PublicKey))
}

// getSigned gets an item, and then what replaces it, with a salt and without.
func getSigned(t *testing.T, n dhtNode, nodes []netip.AddrPort) {
	key, secret, public := itemKey(t, n)
	d := newMember(t, newAddr(t), nodes).DHT()
	for _, salt := range []string{"", "salt"} {
		for i, text := range []string{"first", "second"} {
			seq := i + 1
			require.Equal(t, seq, number(t, n.ask(t, nodes, "put-signed", secret, public, salt, text)))
			value, got, err := d.GetSigned(t.Context(), key.Public().(ed25519.PublicKey), []byte(salt))
			require.NoError(t, err)
			require.EqualValues(t, seq, got)
			require.Equal(t, fmt.Sprintf("%d:%s", len(text), text), string(value))
		}
	}
}

// putSigned puts an item, and then what replaces it, with a salt and without; what is older
// does not replace it.
func putSigned(t *testing.T, n dhtNode, nodes []netip.AddrPort) {
	key, _, public := itemKey(t, n)
	d := newMember(t, newAddr(t), nodes).DHT()
	for _, salt := range []string{"", "salt"} {
		for i, text := range []string{"first", "second"} {
			seq := i + 1
			require.NoError(t, d.PutSigned(t.Context(), key, []byte(salt), fmt.Appendf(nil, "%d:%s", len(text), text), int64(seq)))
			require.Equal(t, fmt.Sprint(seq, " ", text), n.ask(t, nodes, "get-signed", public, salt))
		}
		// A node that missed what came last, on a busy machine, may take what is older.
		if err := d.PutSigned(t.Context(), key, []byte(salt), []byte("3:old"), 1); err != nil {
			require.ErrorContains(t, err, "302")
		}
		require.Equal(t, "2 second", n.ask(t, nodes, "get-signed", public, salt))
	}
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(s))
	require.NoError(t, err)
	return n
}
