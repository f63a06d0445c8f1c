//go:build linux

package interop

import "testing"

// swarm is a tracker and a torrent that no peer shares yet.
type swarm struct {
	*tracker
	content string // directory that holds the content that the torrent was made of
	torrent string // path
}

func newSwarm(t *testing.T, m maker) *swarm {
	t.Helper()
	s := &swarm{tracker: startTracker(t, trackerAddr), content: t.TempDir()}
	makeContent(t, s.content)
	s.torrent = m.make(t, s.content, s.url)
	return s
}

// seed starts a client that has the content, and waits until it has announced so.
func (s *swarm) seed(t *testing.T, c client, setting string) peer {
	t.Helper()
	dir := t.TempDir()
	makeContent(t, dir)
	p := c.start(t, role{what: s.torrent, dir: dir, seed: true, setting: setting})
	s.await(t, "seeds", p, seeds)
	return p
}

// download lets a client fetch the content to its end, and compares what it wrote.
func (s *swarm) download(t *testing.T, c client, setting, what string) {
	t.Helper()
	dir := t.TempDir()
	p := c.start(t, role{what: what, dir: dir, setting: setting})
	p.awaitComplete(t)
	p.stop() // so that it has written everything
	requireSame(t, s.content, dir)
}

// transfer moves a torrent of the maker's from one client, at a setting of encryption, to another.
func transfer(t *testing.T, m maker, from client, fromSetting string, to client, toSetting string) {
	t.Helper()
	s := newSwarm(t, m)
	s.seed(t, from, fromSetting)
	s.download(t, to, toSetting, s.torrent)
}
