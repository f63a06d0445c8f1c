package browsertest

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"golang.org/x/time/rate"

	"github.com/shoal-go/torrent"
)

var screenshots = flag.String("screenshots", "", "`directory` for pictures of the page")

// patience bounds every wait. It is for a busy machine: nothing is judged by how long it takes.
const patience = 2 * time.Minute

// need skips the test where a program is missing, or fails it where it must not be.
func need(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			if os.Getenv("REQUIRE_INTEROP") == "1" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// film makes a video with sound of a minute: four seconds, again and again.
func film(t *testing.T, path string) {
	t.Helper()
	scene := filepath.Join(t.TempDir(), "scene.webm")
	for _, args := range [][]string{
		{"-f", "lavfi", "-i", "testsrc2=size=480x270:rate=10", "-f", "lavfi", "-i", "sine=frequency=330", "-t", "4",
			"-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "600k", "-minrate", "600k", "-maxrate", "600k", "-g", "20", "-c:a", "libvorbis", scene},
		{"-stream_loop", "14", "-i", scene, "-c", "copy", path},
	} {
		cmd := exec.CommandContext(t.Context(), "ffmpeg", append([]string{"-loglevel", "error", "-y"}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("ffmpeg: %v: %s", err, out)
		}
	}
}

// seed shares a file or a directory, with a limit in bytes a second, and returns its torrent and where the seed is.
func seed(t *testing.T, path string, limit *rate.Limiter) (*torrent.Torrent, netip.AddrPort) {
	t.Helper()
	tor, err := torrent.Create(path, &torrent.CreateOptions{Private: true, PieceLength: 32 << 10})
	check(t, err)
	client := &torrent.Client{Listen: "127.0.0.1:0", UploadLimit: limit}
	t.Cleanup(func() { client.Close() })
	d, err := tor.Start(t.Context(), &torrent.Options{Client: client, Dir: filepath.Dir(path), Seed: true})
	check(t, err)
	_, err = d.Wait()
	check(t, err)
	return tor, netip.MustParseAddrPort(client.Addr().String())
}

// webui runs the program until the test ends, and returns the address that it prints.
func webui(t *testing.T, dir string, peers ...string) (url string) {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "webui")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "github.com/shoal-go/torrent/examples/webui")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := exec.Command(bin, "-dir", dir, "-http", "127.0.0.1:0", "-listen", "127.0.0.1:0", "-dht", "off", "-transport", "tcp", "-peers", strings.Join(peers, ","))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			t.Errorf("webui: %v", err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	check(t, err)
	url, ok := strings.CutPrefix(strings.TrimSpace(line), "open ")
	if !ok {
		t.Fatalf("webui prints %q", line)
	}
	return url
}

// A tab is one of a browser.
type tab struct {
	t   *testing.T
	ctx context.Context
}

// browse starts a browser, whose names of hosts below .example all lead to this machine.
func browse(t *testing.T) *tab {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.NoSandbox, // the tests run as root
		chromedp.WindowSize(1200, 950),
		chromedp.Flag("autoplay-policy", "no-user-gesture-required"),
		chromedp.Flag("host-resolver-rules", "MAP *.example 127.0.0.1"),
		chromedp.WSURLReadTimeout(patience),
	)
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	b := &tab{t, ctx}
	b.run(chromedp.Navigate("about:blank"))
	return b
}

// open is another tab of the same browser.
func (b *tab) open() *tab {
	ctx, cancel := chromedp.NewContext(b.ctx)
	b.t.Cleanup(cancel)
	return &tab{b.t, ctx}
}

func (b *tab) run(actions ...chromedp.Action) {
	b.t.Helper()
	done := make(chan error, 1)
	go func() { done <- chromedp.Run(b.ctx, actions...) }()
	select {
	case err := <-done:
		check(b.t, err)
	case <-time.After(patience):
		b.t.Fatal(errors.New("the browser does not answer"))
	}
}

// eval evaluates a JavaScript expression, and awaits its value if that is a promise.
func eval[T any](b *tab, expression string) (value T) {
	b.t.Helper()
	b.run(chromedp.Evaluate(expression, &value, awaitPromise))
	return value
}

// await waits until a JavaScript condition holds.
func (b *tab) await(condition string) {
	b.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if eval[bool](b, "Boolean("+condition+")") {
			return
		}
		if time.Now().After(deadline) {
			b.picture("failed")
			b.t.Fatalf("never: %s; the page says %q", condition, eval[string](b, "document.body.innerText"))
		}
	}
}

// picture keeps a picture of the page, if pictures are wanted.
func (b *tab) picture(name string) {
	b.t.Helper()
	if *screenshots == "" {
		return
	}
	var png []byte
	b.run(chromedp.FullScreenshot(&png, 100))
	check(b.t, os.WriteFile(filepath.Join(*screenshots, name+".png"), png, 0o666))
}
