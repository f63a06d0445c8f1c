package torrent

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"sync"

	"github.com/shoal-go/torrent/internal/dht"
	"github.com/shoal-go/torrent/internal/sockets"
	"github.com/shoal-go/torrent/internal/udpmux"
)

// DHT is a client's node in the mainline DHT. The DHT finds peers of torrents without a tracker (BEP 5, over IPv4 and IPv6,
// BEP 32), and stores small items for anyone (BEP 44). Downloads use it on their own; these methods are for programs that
// use the DHT directly. It ends with the client. All methods may be called from any goroutine.
//
// If the client has no node, because of Client.NoDHT or because no UDP may be sent, methods return an error that
// matches ErrUnsupported. Once the client is closed they return ErrClosed.
type DHT struct {
	node *dht.Node
	err  error // why there is none
}

// DHT returns the client's node in the DHT. The first call opens the client if it is not open, and joins the DHT if
// no download has done so.
func (c *Client) DHT() *DHT {
	if err := c.Open(); err != nil {
		return &DHT{err: err}
	}
	node, err := c.joinDHT(c.opens)
	c.locate(node)
	return &DHT{node, err}
}

// Peers looks for peers of a torrent, and yields each once, as they are found. It ends when the nodes nearest to the info
// hash have answered, or with an error as the last pair.
func (d *DHT) Peers(ctx context.Context, h Hash) iter.Seq2[netip.AddrPort, error] {
	return func(yield func(netip.AddrPort, error) bool) {
		if d.err != nil {
			yield(netip.AddrPort{}, d.err)
			return
		}
		for a, err := range d.node.Peers(ctx, dht.ID(h)) {
			if !yield(a, dhtError(err)) {
				return
			}
		}
	}
}

// Announce tells the nodes nearest to an info hash that this client's address has a peer of that torrent at a port, by
// TCP and uTP. Nodes forget it within an hour, so it must be repeated; downloads repeat their own announces.
func (d *DHT) Announce(ctx context.Context, h Hash, port uint16) error {
	switch {
	case d.err != nil:
		return d.err
	case port == 0:
		return errors.New("announce: port 0, at which there is no peer")
	}
	_, err := d.node.Announce(ctx, dht.Torrent{Hash: dht.ID(h), Port: port})
	return dhtError(err)
}

// Get fetches an immutable item by the SHA-1 of its value, which is bencoded (BEP 44). It is checked against target.
// ErrNotFound means that nodes answered, and none has it.
func (d *DHT) Get(ctx context.Context, target Hash) ([]byte, error) {
	if d.err != nil {
		return nil, d.err
	}
	value, err := d.node.Get(ctx, dht.ID(target))
	return value, dhtError(err)
}

// Put stores an immutable item of up to 1,000 bytes, which must be bencoded, and returns the target to fetch it by. Nodes
// forget items after two hours, unless they are put again.
func (d *DHT) Put(ctx context.Context, value []byte) (Hash, error) {
	if d.err != nil {
		return Hash{}, d.err
	}
	item := &dht.Item{Value: value}
	if err := item.Check(); err != nil {
		return Hash{}, fmt.Errorf("put: %w", err)
	}
	_, err := d.node.Put(ctx, item, nil)
	return Hash(item.Target()), dhtError(err)
}

// GetSigned fetches the mutable item of a key and a salt, which may be empty. If nodes hold several, it returns the one
// with the highest sequence number. The signature is checked. In BEP 46 such an item holds the info hash of a torrent's
// latest version.
func (d *DHT) GetSigned(ctx context.Context, key ed25519.PublicKey, salt []byte) (value []byte, seq int64, err error) {
	switch {
	case d.err != nil:
		return nil, 0, d.err
	case len(key) != ed25519.PublicKeySize:
		return nil, 0, fmt.Errorf("get: a public key of %d bytes, not %d", len(key), ed25519.PublicKeySize)
	case len(salt) > dht.MaxSalt:
		return nil, 0, fmt.Errorf("get: a salt of %d bytes, over %d", len(salt), dht.MaxSalt)
	}
	item, err := d.node.GetSigned(ctx, key, salt)
	if err != nil {
		return nil, 0, dhtError(err)
	}
	return item.Value, item.Seq, nil
}

// PutSigned stores a mutable item: a bencoded value of up to 1,000 bytes under a key and a salt of up to 64 bytes, in place
// of one with a lower sequence number. Nodes forget items after two hours, unless they are put again.
func (d *DHT) PutSigned(ctx context.Context, key ed25519.PrivateKey, salt, value []byte, seq int64) error {
	switch {
	case d.err != nil:
		return d.err
	case len(key) != ed25519.PrivateKeySize:
		return fmt.Errorf("put: a private key of %d bytes, not %d", len(key), ed25519.PrivateKeySize)
	}
	item := dht.Sign(key, salt, value, seq)
	if err := item.Check(); err != nil {
		return fmt.Errorf("put: %w", err)
	}
	_, err := d.node.Put(ctx, item, nil)
	return dhtError(err)
}

// Nodes returns nodes that answered recently, as host:port for Client.DHTNodes of a later run; nil if there are none. It may be
// called after the client is closed.
func (d *DHT) Nodes() (nodes []string) {
	if d.err != nil {
		return nil
	}
	for _, a := range d.node.Nodes() {
		nodes = append(nodes, a.String())
	}
	return nodes
}

// DHTStats is a snapshot of what a client does in the DHT. Counts are since it joined.
type DHTStats struct {
	Err error // why the client is not in the DHT, or nil

	NodesIPv4, NodesIPv6       int        // nodes in the routing tables
	ExternalIPv4, ExternalIPv6 netip.Addr // our addresses, as several nodes agree; invalid if unknown

	QueriesSent, AnswersReceived int64 // our own, and the answers to them
	QueriesTimedOut              int64
	QueriesReceived, AnswersSent int64 // of other nodes, and our answers to them
	QueriesSilenced              int64 // of those, left unanswered because there were too many
	Dropped                      int64 // packets that were no message, or answered nothing
	BytesSent, BytesReceived     int64 // of packets, without the headers of UDP and IP

	Lookups  int64 // begun
	Torrents int   // that downloads have announced
	Swarms   int   // that other nodes announced to us
	Peers    int   // in those swarms
	Items    int   // that other nodes stored here
}

// Stats returns a snapshot. It is cheap: no I/O, and nothing waits for it.
func (d *DHT) Stats() DHTStats {
	if d.err != nil {
		return DHTStats{Err: asText(d.err)}
	}
	s := d.node.Stats()
	var err error
	if d.node.Closed() {
		err = ErrClosed
	}
	return DHTStats{
		Err:       asText(err),
		NodesIPv4: s.Nodes4, NodesIPv6: s.Nodes6, ExternalIPv4: s.External4, ExternalIPv6: s.External6,
		QueriesSent: s.QueriesSent, AnswersReceived: s.AnswersReceived, QueriesTimedOut: s.TimedOut,
		QueriesReceived: s.QueriesReceived, AnswersSent: s.AnswersSent, QueriesSilenced: s.Silenced, Dropped: s.Dropped,
		BytesSent: s.BytesSent, BytesReceived: s.BytesReceived,
		Lookups: s.Lookups, Torrents: s.Torrents, Swarms: s.Swarms, Peers: s.Peers, Items: s.Items,
	}
}

// dhtError converts an error of package dht to one of this package.
func dhtError(err error) error {
	if errors.Is(err, dht.ErrClosed) {
		return ErrClosed
	}
	return err
}

// dhtVersion is the version that we tell other nodes (BEP 5, v).
const dhtVersion = "SL\x01\x00"

var errNoDHT = fmt.Errorf("the client stays out of the DHT: %w", ErrUnsupported)

// dhtMember is a client's node in the DHT, if it has joined.
type dhtMember struct {
	mu   sync.Mutex // taken before the client's
	node *dht.Node
	over bool // the client is closed
}

// joinDHT returns the client's node, and has it join the DHT the first time. Until ctx ends, it waits for UDP sockets.
func (c *Client) joinDHT(ctx context.Context) (*dht.Node, error) {
	if c.NoDHT {
		return nil, errNoDHT
	}
	if node := c.dhtMember.member(); node != nil && !node.Closed() {
		return node, nil
	}
	if err := c.openPackets(ctx); err != nil {
		return nil, err
	}
	m := &c.dhtMember
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.over {
		return nil, ErrClosed
	}
	if m.node != nil {
		return m.node, nil
	}
	cfg := dht.Config{
		Send:     c.sendPacket,
		Nodes:    c.DHTNodes,
		LookUp:   c.lookUpFor(sockets.DHT),
		ReadOnly: c.Proxy != nil, // other nodes cannot query us through a proxy
		Version:  dhtVersion,
		Allow:    c.Allow,
		Rand:     c.newRand(),
	}
	if c.DHTNodes == nil {
		cfg.Routers = dht.Routers()
	}
	addrs, err := c.sockets.Addrs()
	if err != nil {
		c.log.Debug("look at the network", "err", err)
	}
	cfg.IPv4, cfg.IPv6 = c.packetFamilies(addrs)
	m.node = dht.New(cfg)
	c.mux.Handle(udpmux.KRPC, m.node.Receive, nil)
	return m.node, nil
}

// member returns the client's node if it has joined the DHT, or nil.
func (m *dhtMember) member() *dht.Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.node
}

// leave ends the node, before the sockets are closed.
func (m *dhtMember) leave() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.over = true
	if m.node != nil {
		m.node.Close()
	}
}

// dhtPort is the UDP port that peers are told of (BEP 5), or 0 if we are not in the DHT.
func (c *Client) dhtPort() uint16 {
	if c.dhtMember.member() == nil || c.Proxy != nil {
		return 0
	}
	for _, a := range c.mux.Addrs() {
		return a.Port()
	}
	return 0
}

// heardOfNode takes the address of a node that a peer named (PORT, BEP 5).
func (c *Client) heardOfNode(a netip.AddrPort) {
	if node := c.dhtMember.member(); node != nil {
		node.AddNode(a)
	}
}

// locate tells our DHT node, if there is one, the external addresses that routers report (BEP 42).
func (c *Client) locate(node *dht.Node) {
	if node == nil {
		return
	}
	for _, a := range c.externals() {
		node.Located(a.Addr())
	}
}
