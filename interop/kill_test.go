//go:build linux

package interop

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/shoal-go/torrent"
)

var (
	kills    = flag.Int("kills", 5, "how often TestKill kills a download")
	killSeed = flag.Uint64("killseed", 1, "chooses TestKill's moments, and the content")
)

const (
	// leechEnv marks the start of the test binary that is a leecher, and says what it is to do.
	leechEnv    = "TORRENT_INTEROP_LEECH"
	killsARun   = 20       // kills before other content is begun with
	bytesAKill  = 15 << 20 // of content, for each of them
	seedRate    = 40 << 20 // bytes a second, so that most kills come during a transfer
	hashingTime = 100 * time.Millisecond
)

// leech is what the process that is killed does: it downloads a torrent from one peer into a directory. It
// prints the number of each piece that it verified, and "complete" once it is complete, and stops in good order on SIGTERM.
func leech() error {
	what := strings.Split(os.Getenv(leechEnv), "\n")
	t, err := torrent.Read(what[0])
	if err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	c := &torrent.Client{NoDHT: true, NoUTP: true, NoListen: true, Encryption: torrent.DisableEncryption}
	d, err := t.Start(context.Background(), &torrent.Options{
		Dir: what[1], Peers: []netip.AddrPort{netip.MustParseAddrPort(what[2])}, Client: c,
	})
	if err != nil {
		return err
	}
	var saying sync.WaitGroup
	events := d.Events(context.Background())
	for i := range t.NumPieces() { // verified before there were events
		if d.Verified().Has(i) {
			fmt.Println(i)
		}
	}
	saying.Go(func() {
		for e := range events {
			if e.Kind == torrent.PieceVerified {
				fmt.Println(e.Piece)
			}
		}
	})
	complete := false
	select {
	case <-ctx.Done():
	case <-d.Done():
		_, err = d.Wait()
		complete = err == nil
	}
	err = errors.Join(err, d.Close(), c.Close())
	saying.Wait()
	if complete {
		fmt.Println("complete")
	}
	return err
}

// killRun is one content that is downloaded to its end, however often the download is killed.
type killRun struct {
	t       *torrent.Torrent
	path    string // of the .torrent
	content string // the directory that holds it
	dir     string // where it is downloaded to
	relay   *relay
	seed    killSeeder

	kills, stops, steady int
	asked, lost          int64 // as in killFigures
}

// killSeeder is a peer that reports how much it uploaded, once it was stopped.
type killSeeder interface {
	addrPort() netip.AddrPort
	stop()
	uploaded(t *testing.T) int64
}

// A download that is killed again and again continues each time from all that it had verified and written. The
// seed sends no more than what reached it and what was under request at the kills. At most a twentieth of the content is lost
// by the kills when the relay is steady, that is, when it does not fill the socket and the memory of a leecher that a busy
// machine or disk keeps from verifying. -v prints the figures.
func TestKill(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	rng := rand.New(rand.NewPCG(*killSeed, 1))
	var all killFigures
	for all.kills < *kills {
		all.add(killOften(t, rng, min(*kills-all.kills, killsARun), int64(128<<10)<<rng.IntN(2)))
	}
	t.Log(all)
	require.Zero(t, all.again, "bytes of verified pieces were asked for again")
	require.LessOrEqual(t, float64(all.twice-all.lost), 0.05*float64(all.steady*bytesAKill))
	require.LessOrEqual(t, all.sent, all.content+all.twice+all.asked)
}

// killFigures are the figures of a run, in bytes but for the first line.
type killFigures struct {
	kills, stops, runs int
	steady             int // kills and stops when the relay was steady
	content            int64
	sent               int64 // by the seed, as it counts
	asked              int64 // under request at the kills
	twice              int64 // that passed the relay beyond the content
	lost               int64 // of these, by the other kills and stops
	again              int64 // of verified pieces that were asked for
	seed               string
}

func (f *killFigures) add(g killFigures) {
	f.kills += g.kills
	f.stops += g.stops
	f.runs++
	f.content += g.content
	f.sent += g.sent
	f.twice += g.twice
	f.asked += g.asked
	f.again += g.again
	f.steady += g.steady
	f.lost += g.lost
	f.seed = g.seed
}

func (f killFigures) String() string {
	return fmt.Sprintf("%d kills, %d stops, %d resumes; %d contents, %d bytes in all, each equal in the end\n"+
		"%s sent %d bytes, %.4f of the content; %d had been asked for at the kills\n"+
		"%d bytes came twice, of which %d for %d of the kills and stops, when the relay was not steady\n"+
		"%d bytes of verified pieces were asked for again",
		f.kills, f.stops, f.kills+f.stops, f.runs, f.content,
		f.seed, f.sent, float64(f.sent)/float64(f.content), f.asked, f.twice, f.lost, f.kills+f.stops-f.steady, f.again)
}

// killOften downloads one content, killing the download so often on the way.
func killOften(t *testing.T, rng *rand.Rand, kills int, pieceLength int64) killFigures {
	t.Helper()
	r := &killRun{content: t.TempDir(), dir: t.TempDir()}
	length := r.makeContent(t, rng, int64(kills)*bytesAKill, pieceLength)
	host := netip.MustParseAddr("127.0.0.1")
	name := "libtorrent"
	if outside == "" && hasLibtorrent() {
		p := startLibtorrent(t, role{what: r.path, dir: r.content, seed: true, setting: "disabled"}, "--up", strconv.Itoa(seedRate))
		p.awaitText(t, "seeding")
		r.seed, host = killLibtorrent{p}, trackerAddr
	} else {
		r.seed, name = startKillLibrary(t, r.path, r.content), "this library"
	}
	r.relay = startRelay(t, host, r.seed.addrPort(), r.t)

	for !r.live(t, rng, r.kills < kills, length) {
	}
	requireSame(t, r.content, r.dir)
	r.seed.stop()
	f := killFigures{
		kills: r.kills, stops: r.stops, steady: r.steady, runs: 1, content: length,
		sent: r.seed.uploaded(t), asked: r.asked, lost: r.lost, twice: r.relay.payload - length, again: r.relay.again, seed: name,
	}
	t.Logf("pieces of %d: %v", pieceLength, f)
	return f
}

// makeContent makes about length bytes in files of all sizes, and the torrent.
func (r *killRun) makeContent(t *testing.T, rng *rand.Rand, length, pieceLength int64) int64 {
	t.Helper()
	random := rand.NewChaCha8([32]byte{byte(rng.Uint32())})
	for i := 0; length > 0; i++ {
		n := min(length, 1+rng.Int64N(1<<(10+rng.IntN(18))))
		b := make([]byte, n)
		random.Read(b)
		path := filepath.Join(r.content, contentName, strconv.Itoa(i%7), strconv.Itoa(i))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, b, 0o644))
		length -= n
	}
	var err error
	r.t, err = torrent.Create(filepath.Join(r.content, contentName), &torrent.CreateOptions{PieceLength: pieceLength})
	require.NoError(t, err)
	r.path = filepath.Join(t.TempDir(), "kill.torrent")
	writeTorrent(t, r.path, r.t)
	return r.t.Length()
}

// live starts the download and lets it live for a random while, at the end of which it is killed, or
// sometimes asked to stop. It reports whether the download was complete before that.
func (r *killRun) live(t *testing.T, rng *rand.Rand, kill bool, length int64) (complete bool) {
	t.Helper()
	steady := kill && (r.kills+r.stops)%2 == 0
	r.relay.setSteady(steady)
	before, _ := r.relay.passed()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), leechEnv+"="+strings.Join([]string{r.path, r.dir, r.relay.addr.String()}, "\n"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var out logBuffer
	said := leecherSays{relay: r.relay}
	cmd.Stdout, cmd.Stderr = &said, &out
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	t.Cleanup(func() { cmd.Process.Kill(); <-ended })

	// Most ends come when so many bytes have passed, some soon after the start, while files are hashed.
	soon := make(<-chan time.Time)
	until := before + rng.Int64N(bytesAKill)
	switch {
	case !kill:
		until = before + 2*length
	case rng.IntN(5) == 0:
		soon = time.After(time.Duration(rng.Int64N(int64(hashingTime))))
	}
	deadline := time.After(patience)
	for passed, more := r.relay.passed(); passed < until; passed, more = r.relay.passed() {
		select {
		case <-more:
			continue
		case <-soon:
		case <-ended:
		case <-deadline:
			t.Fatalf("nothing came of it within %v: %v\n%s", patience, r.relay, out.String())
		}
		break
	}
	stop := kill && rng.IntN(8) == 0
	if stop {
		cmd.Process.Signal(syscall.SIGTERM)
	} else if kill {
		cmd.Process.Kill()
	}
	<-ended
	switch status := cmd.ProcessState.Sys().(syscall.WaitStatus); {
	case said.complete && cmd.ProcessState.Success():
		return true
	case status.Signaled() && status.Signal() == syscall.SIGKILL:
		r.kills++
	case stop && cmd.ProcessState.Success() || status.Signaled() && status.Signal() == syscall.SIGTERM:
		r.stops++
	default:
		t.Fatalf("it ended with %v: %s", cmd.ProcessState, out.String())
	}
	have, err := r.t.Verify(t.Context(), r.dir)
	require.NoError(t, err)
	for _, i := range said.verified {
		require.Truef(t, have.Has(i), "piece %d was verified before the end, and is not there after it", i)
	}
	asked, lost := r.relay.killed(have)
	r.asked += asked
	if steady {
		r.steady++
	} else {
		r.lost += lost
	}
	return false
}

// leecherSays takes what a leecher prints. It may be read once that has ended.
type leecherSays struct {
	relay    *relay
	line     []byte
	verified []int // pieces
	complete bool
}

func (l *leecherSays) Write(b []byte) (int, error) {
	l.line = append(l.line, b...)
	for {
		line, rest, whole := bytes.Cut(l.line, []byte("\n"))
		if !whole {
			return len(b), nil
		}
		if piece, err := strconv.Atoi(string(line)); err == nil {
			l.verified = append(l.verified, piece)
			l.relay.settle(uint32(piece))
		}
		l.complete = l.complete || string(line) == "complete"
		l.line = rest
	}
}

func hasLibtorrent() bool {
	_, err := findProgram(pythonLibtorrent)
	return err == nil
}

// killLibtorrent is a libtorrent that seeds.
type killLibtorrent struct{ programPeer }

func (k killLibtorrent) addrPort() netip.AddrPort { return netip.AddrPortFrom(k.host, peerPort) }

// uploaded is how many bytes of content a libtorrent peer sent, once it was stopped.
func (k programPeer) uploaded(t *testing.T) int64 {
	t.Helper()
	k.awaitText(t, "uploaded ")
	n, err := strconv.ParseInt(regexp.MustCompile(`uploaded (\d+)`).FindStringSubmatch(k.text())[1], 10, 64)
	require.NoError(t, err)
	return n
}

// killLibrary is this library, seeding in the test's own process.
type killLibrary struct {
	*torrent.Download
	client *torrent.Client
}

func startKillLibrary(t *testing.T, path, dir string) killLibrary {
	t.Helper()
	tor, err := torrent.Read(path)
	require.NoError(t, err)
	c := &torrent.Client{NoDHT: true, NoUTP: true, Listen: "127.0.0.1:0", UploadLimit: rate.NewLimiter(seedRate, 256<<10)}
	d, err := tor.Start(t.Context(), &torrent.Options{Dir: dir, Seed: true, Client: c})
	require.NoError(t, err)
	t.Cleanup(func() { d.Close(); c.Close() })
	<-d.Done()
	return killLibrary{d, c}
}

func (k killLibrary) addrPort() netip.AddrPort {
	return netip.MustParseAddrPort(k.client.Addr().String())
}
func (k killLibrary) stop()                       { k.Close() }
func (k killLibrary) uploaded(t *testing.T) int64 { return k.Stats().Uploaded }
