package browsertest

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"golang.org/x/time/rate"
)

func awaitPromise(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }

// card is the selector of a torrent on the page.
func card(hash string) string { return `li.torrent[data-key="` + hash + `"]` }

func query(selector string) string { return "document.querySelector(" + strconv.Quote(selector) + ")" }

func TestPage(t *testing.T) {
	need(t, "chromium", "ffmpeg")
	share := t.TempDir()
	media := filepath.Join(share, "Tidal Films")
	check(t, os.Mkdir(media, 0o777))
	film(t, filepath.Join(media, "flood.webm"))
	check(t, os.WriteFile(filepath.Join(media, "notes.txt"), []byte(strings.Repeat("the moon pulls\n", 2000)), 0o666))
	slow := rate.NewLimiter(150_000, 64<<10) // half a minute for all of it
	films, filmSeed := seed(t, media, slow)
	other := filepath.Join(share, "reef.txt")
	check(t, os.WriteFile(other, []byte(strings.Repeat("coral ", 50_000)), 0o666))
	reef, reefSeed := seed(t, other, nil)
	file := filepath.Join(share, "films.torrent")
	check(t, os.WriteFile(file, films.Bytes(), 0o666))

	dir := t.TempDir()
	address := webui(t, dir, filmSeed.String(), reefSeed.String())
	b := browse(t)
	b.run(chromedp.Navigate(address))
	b.await(`!document.querySelector("#empty").hidden`)
	b.picture("empty")
	if got := eval[string](b, "location.href"); strings.Contains(got, "#") {
		t.Errorf("the token stays in the address: %s", got)
	}

	// A file is added, opened, and played from where it is not there yet.
	b.run(chromedp.SetUploadFiles("#file", []string{file}))
	one := card(films.InfoHash().String())
	b.await(query(one))
	b.run(chromedp.Click(one + " .name"))
	b.await(query(one + " .play"))
	b.run(chromedp.Click(one + " .play"))
	b.await(query(one+" video") + ".readyState >= 2")
	eval[float64](b, query(one+" video")+".currentTime = 50")
	b.await(query(one+" video") + ".currentTime > 51")
	share1 := eval[string](b, query(one+" .file:first-child .bar > *")+".style.width")
	if eval[bool](b, query(one)+`.classList.contains("seeding")`) || share1 == "100%" {
		t.Errorf("it was complete (%s) before it played", share1)
	}
	if width := eval[float64](b, query(one+" video")+".videoWidth"); width != 480 {
		t.Errorf("the picture is %v wide", width)
	}
	t.Logf("played from 50 s on with %s of the file here", share1)
	b.await(query(one+" .peers") + ".hidden === false")

	// A link is added beside it.
	b.run(chromedp.SendKeys("#magnet", reef.Magnet().String()), chromedp.Click("#add .primary"))
	two := card(reef.InfoHash().String())
	b.await(query(two) + `?.classList.contains("seeding")`)
	if got, err := os.ReadFile(filepath.Join(dir, "reef.txt")); err != nil || len(got) != 300_000 {
		t.Errorf("reef.txt: %d bytes, %v", len(got), err)
	}
	eval[any](b, query(one+" video")+".pause()")
	b.picture("wide")
	for _, look := range []struct {
		name          string
		width, height int64
		dark          string
	}{{"narrow", 390, 844, "light"}, {"narrow-dark", 390, 844, "dark"}, {"wide-dark", 1200, 950, "dark"}} {
		b.run(emulation.SetDeviceMetricsOverride(look.width, look.height, 1, look.width < 500),
			emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: look.dark}}))
		if over := eval[float64](b, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
			t.Errorf("%s: %v pixels are beside the screen", look.name, over)
		}
		b.picture(look.name)
	}
	b.run(emulation.ClearDeviceMetricsOverride())

	// Hostile pages see and change nothing.
	t.Run("hostile", func(t *testing.T) {
		hostile(t, b, address, films.InfoHash().String())
	})

	b.run(chromedp.Click(one + " .pause"))
	b.await(query(one) + `.classList.contains("paused")`)
	b.run(chromedp.Click(one + " .pause"))
	b.await(query(one) + `.classList.contains("downloading")`)
	slow.SetLimit(rate.Inf)
	b.await(query(one) + `.classList.contains("seeding")`)
	b.picture("complete")

	// A page that is loaded again knows the token, and finds all.
	b.run(chromedp.Reload())
	b.await("document.querySelectorAll('li.torrent').length === 2")
	for _, selector := range []string{one, two} {
		b.run(chromedp.Click(selector + " .remove"))
		b.picture("remove")
		b.run(chromedp.Click(selector + " .delete"))
		b.await("!" + query(selector))
	}
	b.await(`!document.querySelector("#empty").hidden`)
	entries, err := os.ReadDir(dir)
	check(t, err)
	if len(entries) != 1 || entries[0].Name() != ".webui" {
		t.Errorf("left behind: %v", entries)
	}
}

// hostile tries what a page elsewhere could, in the same browser. hash is of a torrent that it would pause or remove.
func hostile(t *testing.T, victim *tab, address, hash string) {
	at, err := url.Parse(address)
	check(t, err)
	base := "http://" + at.Host
	media := eval[string](victim, query(card(hash)+" video")+".src")
	before := eval[string](victim, "[...document.querySelectorAll('li.torrent')].map(t => t.className).join()")

	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Write([]byte("<!doctype html><title>evil</title><body>"))
	}))
	defer evil.Close()
	elsewhere, err := url.Parse(evil.URL)
	check(t, err)
	for _, from := range []string{"http://evil.example:" + elsewhere.Port(), evil.URL} { // another site, and another port of the same
		b := victim.open()
		b.t = t
		b.run(chromedp.Navigate(from))
		orders := []string{
			// A simple request needs no leave of the server.
			`fetch(base + "/api/torrents", {method: "POST", mode: "no-cors", credentials: "include", headers: {"Content-Type": "text/plain"}, body: '{"magnet":"magnet:?xt=urn:btih:0000000000000000000000000000000000000001"}'}).then(r => r.type, () => "refused")`,
			`fetch(base + "/api/torrents/` + hash + `/pause", {method: "POST", mode: "no-cors", credentials: "include"}).then(r => r.type, () => "refused")`,
			// These ask for it, and get none.
			`fetch(base + "/api/torrents/` + hash + `?files=1", {method: "DELETE", credentials: "include"}).then(r => "allowed", () => "refused")`,
			`fetch(base + "/api/torrents", {method: "POST", headers: {"Content-Type": "application/json"}, body: '{"magnet":"magnet:?xt=urn:btih:0000000000000000000000000000000000000001"}'}).then(r => "allowed", () => "refused")`,
			`fetch(base + "/").then(r => "allowed", () => "refused")`,
			// What the page loads, others may not, even with its address.
			`new Promise(done => { const v = document.createElement("video"); v.oncanplay = () => done("allowed"); v.onerror = () => done("refused"); v.src = media; })`,
			`new Promise(done => { const s = document.createElement("script"); s.onload = () => done("allowed"); s.onerror = () => done("refused"); s.src = base + "/app.js"; document.body.append(s); })`,
			`new Promise(done => { const i = new Image(); i.onload = () => done("allowed"); i.onerror = () => done("refused"); i.src = base + "/icon.svg"; })`,
		}
		for _, order := range orders {
			got := eval[string](b, "(base => media => "+order+")("+strconv.Quote(base)+")("+strconv.Quote(media)+")")
			if got != "refused" && got != "opaque" {
				t.Errorf("from %s: %s: %s", from, got, order)
			}
		}

		// A form goes there by itself, and a frame shows nothing.
		eval[any](b, `(base => { const f = document.createElement("iframe"); f.name = "f"; f.src = base + "/"; document.body.append(f);
			return new Promise(done => f.onload = () => done(null)); })(`+strconv.Quote(base)+`)`)
		var frames *page.FrameTree
		b.run(chromedp.ActionFunc(func(ctx context.Context) (err error) { frames, err = page.GetFrameTree().Do(ctx); return err }))
		for _, child := range frames.ChildFrames {
			if !strings.HasPrefix(child.Frame.URL, "chrome-error:") {
				t.Errorf("from %s: a frame shows %s", from, child.Frame.URL)
			}
		}
		eval[any](b, `(base => { const f = document.createElement("form"); f.method = "POST"; f.enctype = "text/plain"; f.action = base + "/api/torrents/`+hash+`/pause";
			document.body.append(f); f.submit(); })(`+strconv.Quote(base)+`)`)
		b.await(`location.href.startsWith(` + strconv.Quote(base) + `)`)
		b.await(`document.body.innerText.includes("another page")`)
	}

	// A name that was made to lead here is of the same origin to the browser, but not to us.
	b := victim.open()
	b.t = t
	rebound := "http://rebind.example:" + at.Port()
	b.run(chromedp.Navigate(rebound + "/"))
	b.await(`document.body.innerText.includes("another name")`)
	if code := eval[float64](b, `fetch("/api/torrents/`+hash+`/pause", {method: "POST", headers: {Authorization: "Bearer x"}}).then(r => r.status)`); code != 403 {
		t.Errorf("by another name: %v", code)
	}
	if stored := eval[string](b, `localStorage.getItem("token") ?? "none"`); stored != "none" {
		t.Error("the token is stored for another name")
	}

	time.Sleep(2 * time.Second) // what could have happened would be seen by now
	if after := eval[string](victim, "[...document.querySelectorAll('li.torrent')].map(t => t.className).join()"); after != before {
		t.Errorf("before %q, after %q", before, after)
	}
}
