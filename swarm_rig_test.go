package torrent

import (
	"cmp"
	"context"
	"fmt"
	"hash/crc64"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/torrent/internal/picker"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
	"github.com/shoal-go/torrent/internal/simnet/simtracker"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// simClient is a Client on a simulated host, whose random source is seeded from its address. It is closed when
// the test ends.
func simClient(t *testing.T, h *simnet.Host, tracker *simtracker.Tracker) *Client {
	c := &Client{
		NoDHT: true, NoUTP: true,
		Listen: ":6881", Encryption: DisableEncryption,
		Dial: h.Dial, ListenPacket: simPackets(h),
		hooks: hooks{
			listen: h.Listen, addrs: simAddrs(h),
			dial: func(ctx context.Context, _ netip.Addr, network, addr string) (net.Conn, error) {
				return h.Dial(ctx, network, addr)
			},
			seed: 1 + crc64.Checksum(h.IP().AsSlice(), crc64.MakeTable(crc64.ISO)),
		},
	}
	if testing.Verbose() {
		c.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("host", h)
	}
	if tracker != nil {
		c.HTTPClient = tracker.Client(h)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// simAddrs are the addresses of a simulated machine.
func simAddrs(h *simnet.Host) func() ([]netip.Addr, error) {
	return func() ([]netip.Addr, error) { return []netip.Addr{h.IP()}, nil }
}

// simSeed has a client seed content.
func simSeed(t *testing.T, c *Client, content *simContent, peers ...netip.AddrPort) *Download {
	d, err := content.Start(t.Context(), &Options{Client: c, Seed: true, Peers: peers, Storage: newSimStorage(content).fill().open})
	require.NoError(t, err)
	<-d.Done()
	return d
}

// simLeech has a client download content, and share it until the test ends.
func simLeech(t *testing.T, c *Client, content *simContent, peers ...netip.AddrPort) *Download {
	d, err := content.Start(t.Context(), &Options{Client: c, Seed: true, Peers: peers, Storage: newSimStorage(content).open})
	require.NoError(t, err)
	return d
}

// simFewPlaces has a client download content by so many connections, and returns when it has begun.
func simFewPlaces(t *testing.T, c *Client, content *simContent, places int) *Download {
	d, err := content.Start(t.Context(), &Options{Client: c, MaxPeers: places, Storage: newSimStorage(content).open})
	require.NoError(t, err)
	simnet.Sleep(time.Second)
	return d
}

// simPackets opens the UDP sockets of a client on a simulated host.
func simPackets(h *simnet.Host) func(ctx context.Context, network, addr string) (net.PacketConn, error) {
	return func(_ context.Context, network, addr string) (net.PacketConn, error) {
		return h.ListenPacket(network, addr)
	}
}

// simDownload is the library under test on a host of a simulated network, with one download.
type simDownload struct {
	*Download
	client  *Client
	host    *simnet.Host
	content *simContent
	options Options
	steals  int64 // of earlier starts
	ledger  *simpeer.Ledger
	began   time.Time
	took    time.Duration // until it was done

	kept    int64                       // the most that started pieces held in memory at a sample
	owed    int64                       // the most work that a peer had overdrawn its account by
	held    int64                       // the most that was held for a peer
	starved map[*picker.Supplier]string // peers that were asked for nothing at the last sample, though they could have been
	faults  []string
}

// simStart starts a download of content on a host. Tracker, options and client may be nil.
func simStart(ctx context.Context, t *testing.T, h *simnet.Host, content *simContent, tracker *simtracker.Tracker, o *Options, c *Client) *simDownload {
	if o == nil {
		o = &Options{}
	}
	if c == nil {
		c = &Client{NoDHT: true, NoUTP: true, Encryption: DisableEncryption}
	}
	c.hooks.listen, c.hooks.addrs, c.ListenPacket = h.Listen, simAddrs(h), simPackets(h)
	if c.Dial == nil {
		c.Dial = h.Dial
	}
	c.Listen = cmp.Or(c.Listen, ":6881")
	c.hooks.seed = cmp.Or(c.hooks.seed, 1)
	to := content.Torrent
	if tracker != nil {
		c.HTTPClient = &http.Client{Transport: newSimHTTP(h, tracker.Client(h).Transport)}
		if len(to.trackers) == 0 {
			to.trackers = [][]string{{"http://10.255.255.255/announce"}} // within, as some peers are
		}
	}
	s := &simDownload{client: c, host: h, content: content, options: *o, began: time.Now(), starved: map[*picker.Supplier]string{}}
	s.ledger = simpeer.Watch(h, content.truth)
	s.start(ctx, t)
	return s
}

func (s *simDownload) start(ctx context.Context, t *testing.T) {
	s.options.Client = s.client
	d, err := s.content.own().Start(ctx, &s.options)
	require.NoError(t, err)
	s.Download = d
	go func() {
		<-d.Done()
		s.took = time.Since(s.began)
	}()
}

// restart closes the download with its client, and starts it again with another.
func (s *simDownload) restart(ctx context.Context, t *testing.T) {
	s.end(t)
	synctest.Wait()
	s.mu.Lock()
	s.steals += s.picker.Steals()
	s.mu.Unlock()
	s.ledger.Forget()
	old := s.client
	s.client = &Client{
		NoDHT: true, NoUTP: old.NoUTP,
		Listen: old.Listen, Encryption: old.Encryption, Dial: old.Dial, ListenPacket: old.ListenPacket,
		HTTPClient: old.HTTPClient, Logger: old.Logger, hooks: old.hooks,
	}
	s.client.hooks.seed++
	s.start(ctx, t)
}

// done reports whether the download is complete or has failed.
func (s *simDownload) done() bool {
	select {
	case <-s.Done():
		synctest.Wait()
		return true
	default:
		return false
	}
}

// simWait samples the state of downloads until all are done, or for so long at most.
func simWait(atMost time.Duration, all ...*simDownload) {
	end := time.Now().Add(atMost)
	for _, s := range all {
		for !s.done() && time.Now().Before(end) {
			select {
			case <-s.Done():
			case <-time.After(500*time.Millisecond + 1): // not in the instants in which clients have turns
				synctest.Wait()
				for _, s := range all {
					s.sample()
				}
			}
		}
	}
}

// describe says how far a download is.
func (s *simDownload) describe() string { return fmt.Sprintf("%+v", s.Stats()) }

// end closes everything, and requires that nothing is left of it.
func (s *simDownload) end(t *testing.T) {
	start := time.Now()
	assert.NoError(t, s.Close())
	assert.NoError(t, s.client.Close())
	if h := s.client.HTTPClient; h != nil {
		h.CloseIdleConnections()
	}
	assert.Less(t, time.Since(start), 10*time.Second, "to close")
	conns, listeners := s.host.Open()
	assert.Zero(t, conns, "connections left open")
	assert.Zero(t, listeners, "listeners left open")
	assert.Zero(t, s.memory(), "bytes still kept for started pieces")
}

// memory is how many bytes started pieces keep.
func (s *simDownload) memory() int64 {
	held, _ := s.client.blockPool.Held()
	return held
}

func (s *simDownload) fault(format string, args ...any) {
	if len(s.faults) < 10 {
		s.faults = append(s.faults, fmt.Sprintf("%v at %v: ", s.host, time.Since(s.began))+fmt.Sprintf(format, args...))
	}
}

// sample checks, while nothing moves, what must hold at every moment of a download. What it needs is by the
// download's own account; what passed between it and its peers is by the ledger's.
func (s *simDownload) sample() {
	s.kept = max(s.kept, s.memory())
	if _, limit := s.client.blockPool.Held(); s.kept > limit {
		s.fault("started pieces keep %d bytes", s.kept)
	}
	d := s.Download
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.progress.checking || d.life.ctx.Err() != nil {
		return
	}
	starved := map[*picker.Supplier]string{}
	if held, limit := d.client.account.Held(); held > limit {
		s.fault("strangers make us hold %d bytes, of %d at most", held, limit)
	}
	for _, p := range d.swarm.peers {
		s.checkBudget(p)
		r := &p.supply
		if p.closing != nil {
			continue
		}
		w, ok := s.ledger.Terms(p.conn.addr)
		if !ok || w.Busy {
			continue // what was said may not have been written yet
		}
		wanted, perhaps := -1, -1
		for i := range d.picker.Needed().All() {
			if has, doubt := w.Offers(i); has && doubt {
				perhaps = i
			} else if has {
				wanted = i
			}
		}
		if wanted >= 0 && !w.Wanting || wanted < 0 && perhaps < 0 && w.Wanting {
			s.fault("said to %v that we are interested: %t, it has the wanted piece %d", p.conn.addr, w.Wanting, wanted)
		}
		if d.hashing.waiting || !w.Unchoked || r.Snubbed() || r.Outstanding() > 0 || d.o.DownloadLimit != nil || d.client.DownloadLimit != nil {
			continue
		}
		if i := s.couldAsk(r, w); i >= 0 {
			starved[r] = fmt.Sprintf("%v is asked for nothing, though piece %d is wanted and free", p.conn.addr, i)
			if o := d.picker.Started(i).Sole; o != nil {
				starved[r] += fmt.Sprintf("; on parole with %v, choking %t, snubbed %t, of whom %d are asked", o.Origin, o.Choking, o.Snubbed(), o.Outstanding())
			}
			if s.starved[r] != "" {
				s.fault("%s", starved[r])
			}
		}
	}
	s.starved = starved
}

// What a peer, however it behaves, may have cost at any moment: the work of one message beyond its account, and what is
// held of one message that comes, of others that it does not read, and of what it was asked for.
const (
	budgetOverdraft = 10_000 // steps of the picker, and some for each piece
	budgetHeld      = 1<<20 + 256<<10
)

// checkBudget finds a peer that has got more of us than its budget. The caller holds s.mu.
func (s *simDownload) checkBudget(p *peer) {
	owed, held := p.work.Owed(time.Now()), p.holder.Held()
	s.owed, s.held = max(s.owed, owed), max(s.held, held)
	if most := budgetOverdraft + 8*int64(s.content.NumPieces()); owed > most {
		s.fault("%v owes %d steps of work, of %d at most", p.conn.addr, owed, most)
	}
	if held > budgetHeld {
		s.fault("%v makes us hold %d bytes, of %d at most", p.conn.addr, held, budgetHeld)
	}
}

// couldAsk finds, in the slow and plain way, a piece of which a peer could be asked for a block that no peer was
// asked for; -1 if there is none. The caller holds s.mu.
func (s *simDownload) couldAsk(r *picker.Supplier, w simpeer.Terms) int {
	for i := range s.picker.Needed().All() {
		if has, doubt := w.Offers(i); !has || doubt {
			continue
		}
		p := s.picker.Started(i)
		if p.Sole != nil && p.Sole != r && p.Sole.Outstanding() > 0 {
			continue // on parole with a peer that is at work
		}
		if p.Sole == nil && p.Kept > 0 {
			continue // it waits for a peer that did not send what is to be replaced
		}
		if p.Attempt == 0 || p.Free > 0 {
			return i
		}
	}
	return -1
}

// banned reports whether the client has banned an address.
func (s *simDownload) banned(a netip.AddrPort) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.discovery.candidates.Banned(a)
}

// compare checks that a complete download has the files that were chosen and no others, and that they hold
// the content.
func (s *simDownload) compare(sel func(File) Priority) error {
	files, err := s.Wait()
	if err != nil {
		return err
	}
	defer files.Close()
	got := map[string]*DownloadedFile{}
	for f := range files.Files() {
		got[f.Path()] = f
	}
	for f := range s.content.Files() {
		d, chosen := got[f.Path], sel == nil || sel(f) != Skip
		if chosen != (d != nil) {
			return fmt.Errorf("%s is there: %t, was chosen: %t", f.Path, d != nil, chosen)
		}
		if !chosen {
			continue
		}
		if b, err := d.Bytes(); err != nil || int64(len(b)) != f.Length || !s.content.truth.Equal(s.content.layout.File(f.Index).Offset, b) {
			return fmt.Errorf("%s is not what it should be, %w", f.Path, err)
		}
	}
	return nil
}

// account lists what the ledger, the samples and the peers found wrong.
func (s *simDownload) account(peers ...*simpeer.Peer) []string {
	all := slices.Clone(s.faults)
	all = append(all, s.ledger.Account().Faults...)
	for _, p := range peers {
		all = append(all, p.Faults()...)
	}
	return all
}

// raceEnabled reports whether the race detector watches, which makes everything some ten times slower.
func raceEnabled() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// skipUnderRace skips one of several figures, or a long test of a policy, whose goroutines do nothing that those of others do not do.
func skipUnderRace(t *testing.T, skip bool) {
	t.Helper()
	if skip && raceEnabled() {
		t.Skip("takes long under the race detector, and finds no more")
	}
}
