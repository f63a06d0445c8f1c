package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
	"github.com/shoal-go/torrent/torrenttest"
)

var tide = map[string]string{
	"tide/ebb.txt":   strings.Repeat("out ", 100_000),
	"tide/page.html": "<script>alert(1)</script>",
	"tide/song.ogg":  strings.Repeat("la ", 50_000),
}

// A browser is at a page of its own.
type browser struct {
	t     *testing.T
	url   string
	token string
	shelf *shelf
	site  http.Handler
}

// visit serves a shelf in dir, whose client finds the given peers.
func visit(t *testing.T, dir string, peers ...netip.AddrPort) *browser {
	t.Helper()
	client := &torrent.Client{Listen: "127.0.0.1:0", NoDHT: true, NoUTP: true}
	t.Cleanup(func() { client.Close() })
	s, err := openShelf(torrent.Options{Client: client, Dir: dir, Peers: peers})
	require.NoError(t, err)
	t.Cleanup(s.close)
	token, err := s.state.token()
	require.NoError(t, err)
	b := &browser{t: t, token: token, shelf: s}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { b.site.ServeHTTP(w, r) }))
	b.site = newSite(s, token, server.Listener.Addr().String())
	server.Start()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	b.url = server.URL
	return b
}

// do sends a request with the token, changed by edit.
func (b *browser) do(method, path, kind, body string, edit ...func(*http.Request)) (int, http.Header, string) {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), method, b.url+path, strings.NewReader(body))
	require.NoError(b.t, err)
	r.Header.Set("Authorization", "Bearer "+b.token)
	r.Header.Set("Content-Type", kind)
	for _, f := range edit {
		f(r)
	}
	response, err := http.DefaultClient.Do(r)
	require.NoError(b.t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(b.t, err)
	return response.StatusCode, response.Header, string(text)
}

func (b *browser) upload(tor *torrent.Torrent) {
	b.t.Helper()
	code, _, text := b.do("POST", "/api/torrents", "application/x-bittorrent", string(tor.Bytes()))
	require.Equal(b.t, http.StatusCreated, code, text)
}

// await reads events until one makes f true, and returns the last of each kind.
func (b *browser) await(h torrent.Hash, f func(list []summary, d detail) bool) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 2*time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", b.url+"/api/events?torrent="+h.String(), nil)
	require.NoError(b.t, err)
	r.Header.Set("Authorization", "Bearer "+b.token)
	response, err := http.DefaultClient.Do(r)
	require.NoError(b.t, err)
	defer response.Body.Close()
	require.Equal(b.t, "text/event-stream", response.Header.Get("Content-Type"))
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 1<<20)
	var list []summary
	var d detail
	event := ""
	for lines.Scan() {
		if name, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
			event = name
		} else if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			if event == "list" {
				list = nil
				require.NoError(b.t, json.Unmarshal([]byte(data), &list))
			} else {
				d = detail{}
				require.NoError(b.t, json.Unmarshal([]byte(data), &d))
			}
		}
		if f(list, d) {
			return
		}
	}
	require.Fail(b.t, "the events ended", "%v: %+v", lines.Err(), list)
}

func inState(want string) func([]summary, detail) bool {
	return func(list []summary, _ detail) bool { return len(list) == 1 && list[0].State == want }
}

func TestUpload(t *testing.T) {
	tor, seed := torrenttest.Seed(t, tide)
	dir := t.TempDir()
	b := visit(t, dir, seed)
	b.upload(tor)
	b.await(tor.InfoHash(), func(list []summary, d detail) bool {
		return len(list) == 1 && list[0].State == "seeding" && list[0].Complete && list[0].Name == "tide" && list[0].Received >= tor.Length() &&
			len(d.Files) == 3 && d.Files[2].Verified == d.Files[2].Length && d.Files[2].Kind == "audio/ogg" && d.Have != ""
	})
	got, err := os.ReadFile(filepath.Join(dir, "tide", "ebb.txt"))
	require.NoError(t, err)
	require.Equal(t, tide["tide/ebb.txt"], string(got))
	code, _, text := b.do("POST", "/api/torrents", "application/x-bittorrent", string(tor.Bytes()))
	require.Equal(t, http.StatusConflict, code, text)
}

func TestMagnet(t *testing.T) {
	tor, seed := torrenttest.Seed(t, tide)
	b := visit(t, t.TempDir(), seed)
	link, err := json.Marshal(map[string]string{"magnet": " " + tor.Magnet().String() + "\n"})
	require.NoError(t, err)
	code, _, text := b.do("POST", "/api/torrents", "application/json", string(link))
	require.Equal(t, http.StatusCreated, code, text)
	b.await(tor.InfoHash(), inState("seeding"))
}

// A link of version 2 alone leads to a hybrid, which has another hash as a torrent, and is found again after a restart.
func TestMagnetOfVersion2(t *testing.T) {
	files := fstest.MapFS{"tide.txt": {Data: []byte(strings.Repeat("neap ", 20_000))}}
	tor, err := torrent.CreateFS(t.Context(), files, &torrent.CreateOptions{Version: torrent.Hybrid, Private: true})
	require.NoError(t, err)
	client := &torrent.Client{Listen: "127.0.0.1:0", NoDHT: true, NoUTP: true}
	t.Cleanup(func() { client.Close() })
	_, err = tor.Start(t.Context(), &torrent.Options{Client: client, Storage: torrent.FSStorage(files), Seed: true})
	require.NoError(t, err)
	seed := netip.MustParseAddrPort(client.Addr().String())
	v2, _ := tor.InfoHashV2()
	link := &torrent.Magnet{InfoHashV2: v2}
	dir := t.TempDir()
	t.Run("first", func(t *testing.T) {
		b := visit(t, dir, seed)
		it, err := b.shelf.add(nil, link)
		require.NoError(t, err)
		require.NotEqual(t, tor.InfoHash(), it.hash)
		b.await(it.hash, inState("seeding"))
	})
	b := visit(t, dir)
	b.await(hashOf(link), inState("seeding"))
	code, _, text := b.do("DELETE", "/api/torrents/"+hashOf(link).String()+"?files=1", "", "")
	require.Equal(t, http.StatusNoContent, code, text)
	require.Equal(t, []string{".webui"}, names(t, dir))
}

func TestMalformed(t *testing.T) {
	b := visit(t, t.TempDir())
	for _, c := range []struct {
		kind, body string
		code       int
	}{
		{"application/x-bittorrent", "d4:infoe", http.StatusBadRequest},
		{"application/x-bittorrent", strings.Repeat("1", maxTorrent+1), http.StatusRequestEntityTooLarge},
		{"application/json", `{"magnet":"magnet:?dn=x"}`, http.StatusBadRequest},
		{"application/json", `{`, http.StatusBadRequest},
		{"text/plain", `{"magnet":""}`, http.StatusBadRequest},
	} {
		code, _, text := b.do("POST", "/api/torrents", c.kind, c.body)
		assert.Equal(t, c.code, code, "%.40q: %s", c.body, text)
	}
	code, _, _ := b.do("POST", "/api/torrents/00000000000000000000/pause", "", "")
	require.Equal(t, http.StatusNotFound, code)
	require.Empty(t, b.shelf.list())
}

// A file is read by ranges while it comes, though it is not chosen.
func TestMedia(t *testing.T) {
	tor, seed := torrenttest.Seed(t, tide)
	b := visit(t, t.TempDir(), seed)
	b.upload(tor)
	var files []fileView
	b.await(tor.InfoHash(), func(list []summary, d detail) bool {
		files = d.Files
		return len(files) == 3 && list[0].State != "starting"
	})
	byName := make(map[string]fileView)
	for _, f := range files {
		byName[f.Path] = f
	}
	song := byName["tide/song.ogg"]
	noToken := func(r *http.Request) { r.Header.Del("Authorization") }
	code, header, text := b.do("GET", song.URL, "", "", noToken, func(r *http.Request) { r.Header.Set("Range", "bytes=149995-") })
	require.Equal(t, http.StatusPartialContent, code, text)
	require.Equal(t, "a la ", text[:5])
	require.Equal(t, "audio/ogg", header.Get("Content-Type"))
	require.Equal(t, "bytes 149995-149999/150000", header.Get("Content-Range"))

	// What could be a page of this origin is none.
	code, header, _ = b.do("GET", byName["tide/page.html"].URL, "", "", noToken)
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, "application/octet-stream", header.Get("Content-Type"))
	require.Contains(t, header.Get("Content-Disposition"), "attachment")
	require.Contains(t, header.Get("Content-Security-Policy"), "sandbox")
	require.Equal(t, "nosniff", header.Get("X-Content-Type-Options"))

	// A ticket is for one file.
	_, ticket, _ := strings.Cut(song.URL, "?")
	path, _, _ := strings.Cut(byName["tide/ebb.txt"].URL, "?")
	for _, url := range []string{path, path + "?" + ticket, path + "?ticket="} {
		code, _, _ = b.do("GET", url, "", "", noToken)
		require.Equal(t, http.StatusNotFound, code, url)
	}
}

func TestPauseChooseRemove(t *testing.T) {
	tor, seed := torrenttest.Seed(t, tide)
	dir := t.TempDir()
	b := visit(t, dir)
	b.upload(tor)
	at := "/api/torrents/" + tor.InfoHash().String()
	order := func(method, path, body string) {
		t.Helper()
		code, _, text := b.do(method, at+path, "application/json", body)
		require.Equal(t, http.StatusNoContent, code, text)
	}
	b.await(tor.InfoHash(), inState("downloading"))
	order("POST", "/pause", "")
	b.await(tor.InfoHash(), inState("paused"))
	order("PUT", "/files/0", `{"wanted":false}`)
	order("PUT", "/files/1", `{"wanted":false}`)
	code, _, _ := b.do("PUT", at+"/files/7", "application/json", `{"wanted":false}`)
	require.Equal(t, http.StatusBadRequest, code)
	order("POST", "/resume", "")
	b.shelf.item(tor.InfoHash()).underWay().AddPeers(seed)
	b.await(tor.InfoHash(), func(list []summary, d detail) bool {
		return inState("seeding")(list, d) && len(d.Files) == 3 && list[0].Wanted == int64(len(tide["tide/song.ogg"])) && !d.Files[0].Wanted && d.Files[2].Wanted
	})
	order("DELETE", "?files=1", "")
	require.Empty(t, b.shelf.list())
	require.Equal(t, []string{".webui"}, names(t, dir))
	require.Equal(t, []string{"token"}, names(t, filepath.Join(dir, ".webui")))
}

func names(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Deleting what was downloaded leaves alone what the user had under the same name.
func TestRemoveLeavesOtherFiles(t *testing.T) {
	tor := torrenttest.Make(t, tide)
	dir := t.TempDir()
	b := visit(t, dir)
	mine := filepath.Join(dir, "tide", "ebb.txt")
	require.NoError(t, os.Mkdir(filepath.Dir(mine), 0o777))
	require.NoError(t, os.WriteFile(mine, []byte("my own"), 0o666))
	b.upload(tor)
	b.await(tor.InfoHash(), inState("downloading"))
	code, _, _ := b.do("DELETE", "/api/torrents/"+tor.InfoHash().String()+"?files=1", "", "")
	require.Equal(t, http.StatusNoContent, code)
	got, err := os.ReadFile(mine)
	require.NoError(t, err)
	require.Equal(t, "my own", string(got))
}

// All is there again after a restart: what was downloaded, what was paused, and a link that was not resolved.
func TestRestart(t *testing.T) {
	tor, seed := torrenttest.Seed(t, tide)
	other := torrenttest.Make(t, map[string]string{"reef.txt": "coral"})
	link := &torrent.Magnet{InfoHash: torrent.Hash{1}, Name: "unknown", Peers: []string{"127.0.0.1:9"}}
	dir := t.TempDir()
	token := ""
	t.Run("first", func(t *testing.T) {
		b := visit(t, dir, seed)
		token = b.token
		b.upload(tor)
		b.await(tor.InfoHash(), inState("seeding"))
		b.upload(other)
		require.NoError(t, b.shelf.item(other.InfoHash()).pause(true))
		_, err := b.shelf.add(nil, link)
		require.NoError(t, err)
	})
	b := visit(t, dir)
	require.Equal(t, token, b.token)
	b.await(tor.InfoHash(), func(list []summary, _ detail) bool {
		states := make(map[torrent.Hash]string)
		for _, s := range list {
			states[s.Hash] = s.Name + " " + s.State
			if s.Hash == tor.InfoHash() && s.Received < tor.Length() {
				return false
			}
		}
		return len(list) == 3 && states[tor.InfoHash()] == "tide seeding" && states[other.InfoHash()] == "reef.txt paused" && states[link.InfoHash] == "unknown resolving"
	})
}

// A failed download says why, and can be tried again.
func TestFailure(t *testing.T) {
	tor := torrenttest.Make(t, tide)
	dir := t.TempDir()
	b := visit(t, dir)
	taken := &torrent.Client{Listen: "127.0.0.1:0", NoDHT: true, NoUTP: true}
	d, err := tor.Start(t.Context(), &torrent.Options{Client: taken, Dir: dir})
	require.NoError(t, err)
	b.upload(tor)
	b.await(tor.InfoHash(), func(list []summary, _ detail) bool { return inState("failed")(list, detail{}) && list[0].Error != "" })
	require.NoError(t, d.Close())
	require.NoError(t, taken.Close())
	code, _, _ := b.do("POST", "/api/torrents/"+tor.InfoHash().String()+"/resume", "", "")
	require.Equal(t, http.StatusNoContent, code)
	b.await(tor.InfoHash(), inState("downloading"))
}

func TestGuard(t *testing.T) {
	tor := torrenttest.Make(t, tide)
	b := visit(t, t.TempDir())
	host := strings.TrimPrefix(b.url, "http://")
	set := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	named := func(host string) func(*http.Request) { return func(r *http.Request) { r.Host = host } }
	_, port, _ := strings.Cut(host, ":")
	for name, c := range map[string]struct {
		edit func(*http.Request)
		code int
	}{
		"the page itself": {set("Origin", b.url), http.StatusConflict},
		"a program":       {func(*http.Request) {}, http.StatusConflict},
		"localhost":       {func(r *http.Request) { r.Host = "localhost:" + port }, http.StatusConflict},
		"no token":        {func(r *http.Request) { r.Header.Del("Authorization") }, http.StatusUnauthorized},
		"another token":   {set("Authorization", "Bearer x"), http.StatusUnauthorized},
		"a cookie": {func(r *http.Request) {
			r.Header.Del("Authorization")
			r.AddCookie(&http.Cookie{Name: "token", Value: b.token})
		}, http.StatusUnauthorized},
		"another page":          {set("Origin", "http://evil.example"), http.StatusForbidden},
		"a page without origin": {set("Origin", "null"), http.StatusForbidden},
		"another port":          {set("Origin", "http://127.0.0.1:1"), http.StatusForbidden},
		"cross-site":            {set("Sec-Fetch-Site", "cross-site"), http.StatusForbidden},
		"same site":             {set("Sec-Fetch-Site", "same-site"), http.StatusForbidden},
		"a bookmarked order":    {set("Sec-Fetch-Site", "none"), http.StatusForbidden},
		"a name that points here": {func(r *http.Request) { named("evil.example:" + port)(r); set("Origin", "http://evil.example:"+port)(r) },
			http.StatusForbidden},
		"another port's name": {named("127.0.0.1:1"), http.StatusForbidden},
	} {
		if b.shelf.item(tor.InfoHash()) == nil {
			b.upload(tor)
		}
		code, header, text := b.do("POST", "/api/torrents", "application/x-bittorrent", string(tor.Bytes()), c.edit)
		assert.Equal(t, c.code, code, "%s: %s", name, text)
		assert.Equal(t, "DENY", header.Get("X-Frame-Options"), name)
		assert.Contains(t, header.Get("Content-Security-Policy"), "frame-ancestors 'none'", name)
		assert.Empty(t, header.Get("Access-Control-Allow-Origin"), name)
		assert.Empty(t, header.Get("Set-Cookie"), name)
	}
	code, _, text := b.do("GET", "/", "", "", named("evil.example:"+port))
	require.Equal(t, http.StatusForbidden, code, text)
	code, _, text = b.do("GET", "/", "", "", func(r *http.Request) { r.Header = make(http.Header) })
	require.Equal(t, http.StatusOK, code)
	require.NotContains(t, text, b.token)
	require.Contains(t, text, "app.js")
}

func TestListenOnLoopbackAlone(t *testing.T) {
	for _, addr := range []string{":0", "0.0.0.0:0", "192.0.2.1:80", "[::]:0"} {
		_, err := listen(addr)
		require.Error(t, err, addr)
	}
	l, err := listen("127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
}

// What the page says about itself is what its server allows: nothing inline, nothing from elsewhere.
func TestPageNeedsNothingInline(t *testing.T) {
	index, err := page.ReadFile("page/index.html")
	require.NoError(t, err)
	for _, inline := range []string{"<style", "style=", "onclick", "://", "javascript:"} {
		require.False(t, bytes.Contains(index, []byte(inline)), inline)
	}
	require.Equal(t, 1, bytes.Count(index, []byte("<script")))
}
