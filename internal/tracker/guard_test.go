package tracker

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/httpguard"
	"github.com/shoal-go/torrent/internal/simnet"
)

func TestTrackerPath(t *testing.T) {
	for path, want := range map[string]struct{ here, elsewhere bool }{
		"/announce":                 {true, true},
		"/announce.php?passkey=1":   {true, true},
		"/scrape?x=1":               {true, true},
		"/announce/0123456789":      {true, true},
		"/0123456789/announce":      {false, true},
		"/tracker/announce.php":     {false, true},
		"":                          {},
		"/":                         {},
		"/announcement":             {},
		"/apply.cgi?announce":       {},
		"/a/announce/b":             {},
		"/admin/":                   {},
		"/announce/../apply.cgi":    {},
		"/announce/./x":             {},
		"/announce/%2e%2e/apply":    {},
		"/apply.cgi%3f/announce":    {},
		"/apply.cgi;/announce":      {},
		"/announce\\..\\apply":      {},
		"/reboot%00/announce":       {},
		"//announce":                {false, true},
		"/announce/x#/announce":     {true, true},
		"/.hidden/announce":         {},
		"/ANNOUNCE":                 {},
		"/announce.php/exec?cmd=rm": {true, true},
	} {
		u, err := url.Parse("http://10.0.0.1" + path)
		require.NoError(t, err)
		require.Equal(t, want.here, isTrackerPath(u, true), path)
		require.Equal(t, want.elsewhere, isTrackerPath(u, false), path)
	}
}

// TestGuard lists URLs that the author of a torrent, and the user, can and cannot make a client request.
func TestGuard(t *testing.T) {
	for _, c := range []struct {
		url      string
		to       string // redirect target, or ""
		byAuthor string // error if the author named the tracker; "" is none
		byUser   string // error if the user did
	}{
		{"http://1.1.1.1/any?thing=1", "", "", ""},
		{"http://public.example/any?thing=1", "", "", ""},
		{"http://10.0.1.1/announce", "", "", ""},
		{"http://10.0.1.1/key/announce.php?passkey=1", "", "", ""},
		{"http://within.example/announce", "", "", ""},
		{"http://127.0.0.1/announce", "", "", ""},
		{"http://10.0.1.1/apply.cgi?reboot=1", "", errNoPath.Error(), ""},
		{"http://within.example/apply.cgi", "", errNoPath.Error(), ""},
		{"http://127.0.0.1/json/new?x", "", errNoPath.Error(), ""},
		{"http://127.0.0.1/x/announce", "", errNoPath.Error(), ""},
		{"http://here.example/x/announce", "", errNoPath.Error(), ""},
		{"http://10.0.1.1/announce", "http://10.0.1.2/announce", "", ""},
		{"http://10.0.1.1/announce", "http://10.0.1.2/apply.cgi", errNoPath.Error(), ""},
		{"http://10.0.1.1/announce", "http://within.example/apply.cgi", errNoPath.Error(), ""},
		{"http://10.0.1.1/announce", "http://127.0.0.1/x/announce", errNoPath.Error(), ""},
		{"http://1.1.1.1/announce", "http://127.0.0.1/announce", httpguard.ErrInward.Error(), httpguard.ErrInward.Error()},
	} {
		for who, want := range map[string]string{"author": c.byAuthor, "user": c.byUser, "both": c.byUser} {
			synctest.Test(t, func(t *testing.T) {
				r := newTrackerRig(t)
				if who != "user" {
					r.config.Tiers = [][]string{{c.url}}
				}
				if who != "author" {
					r.config.UserTiers = [][]string{{c.url}}
				}
				r.names["within.example"] = []netip.Addr{netip.MustParseAddr("10.0.1.2")}
				r.names["here.example"] = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
				r.names["public.example"] = []netip.Addr{netip.MustParseAddr("1.1.1.1")}
				asked := 0
				for _, ip := range []string{"1.1.1.1", "10.0.1.1", "10.0.1.2", "127.0.0.1"} {
					r.serve(ip, func(w http.ResponseWriter, req *http.Request) {
						if asked++; asked == 1 && c.to != "" {
							http.Redirect(w, req, c.to, http.StatusFound)
							return
						}
						fmt.Fprint(w, "d8:intervali1800e5:peers6:\x08\x09\x09\x09\x1a\xe1e")
					})
				}
				trackers, _ := r.start()
				simnet.Sleep(3 * time.Second)
				what := fmt.Sprintf("%s %s, named by %s", c.url, c.to, who)
				if want == "" {
					require.Nil(t, trackers.Status()[0].Err, what)
					require.NotEmpty(t, r.foundBy(), what)
					return
				}
				require.ErrorContains(t, trackers.Status()[0].Err, want, what)
				if c.to == "" {
					require.Zero(t, asked, what)
				} else {
					require.Equal(t, 1, asked, what)
				}
			})
		}
	}
}

func TestDirect(t *testing.T) {
	u, err := url.Parse("http://name.example/announce")
	require.NoError(t, err)
	proxy := func(*http.Request) (*url.URL, error) { return u, nil }
	dial := func(context.Context, string, string) (net.Conn, error) { return nil, nil }
	for name, c := range map[string]struct {
		transport http.RoundTripper
		want      bool
	}{
		"ours":              {NewHTTPClient(HTTPConfig{NoProxy: true}).Transport, true},
		"plain":             {&http.Transport{}, true},
		"with a proxy":      {&http.Transport{Proxy: proxy}, false},
		"that dials itself": {&http.Transport{DialContext: dial}, false},
		"unknown":           {nil, false},
	} {
		require.Equal(t, c.want, Direct(&http.Client{Transport: c.transport}, u), name)
	}
}
