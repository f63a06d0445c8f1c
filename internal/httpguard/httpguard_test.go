package httpguard

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"
)

func parse(t *testing.T, s string) *url.URL {
	u, err := url.Parse(s)
	require.NoError(t, err)
	return u
}

var inward = []string{
	"127.0.0.1", "10.1.2.3", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
	"::1", "::ffff:10.1.2.3", "fe80::1%eth0", "fd00::1", "::", "localhost", "LOCALHOST.", "x.localhost",
	"nas", "NAS.", "tracker.local", "tracker.internal", "a.tracker.lan", "tracker.home.arpa",
	"64:ff9b::a00:1", "64:ff9b::c0a8:101", "2002:c0a8:101::1", "::7f00:1",
}

func TestIsInward(t *testing.T) {
	for _, host := range inward {
		require.True(t, IsInward(host), host)
	}
	for _, host := range []string{"1.1.1.1", "2606:4700::1111", "64:ff9b::101:101", "example.com", "localhost.example", "local.example", "home.arpa.example", "example.lans"} {
		require.False(t, IsInward(host), host)
	}
}

// A server on the open internet redirects to no address inside the network, whoever named it.
func TestGuardRedirected(t *testing.T) {
	g := New(nil, func(*url.URL) bool { return true })
	require.NoError(t, g.Begin(parse(t, "http://name.example/")))
	require.NoError(t, g.checkConn("127.0.0.1"), "the server itself may be anywhere")
	g.redirected.Store(true)
	require.NoError(t, g.checkConn("1.1.1.1"))
	for _, host := range inward {
		require.ErrorIs(t, g.checkConn(host), ErrInward, host)
		ctx := g.Watch(t.Context(), func(error) {})
		require.ErrorIs(t, Check(ctx, host), ErrInward, host)
		require.NoError(t, Check(t.Context(), host), "no request of ours")
	}
}

// A server of the user's network redirects to another one there, also if a proxy may hide its address.
func TestRedirectWithinTheNetwork(t *testing.T) {
	for host, public := range map[string]bool{"192.168.1.4": false, "nas": false, "tracker.local": false, "tracker.example": true} {
		g := New(nil, func(*url.URL) bool { return false })
		require.NoError(t, g.Begin(parse(t, "http://"+host+"/announce")))
		g.redirected.Store(true)
		err := g.checkURL(parse(t, "http://192.168.1.5/announce"))
		require.Equal(t, public, errors.Is(err, ErrInward), host)
	}
}

func TestIsLoopback(t *testing.T) {
	for host, want := range map[string]bool{"localhost": true, "x.LOCALHOST.": true, "127.1.2.3": true, "::1": true, "0.0.0.0": true, "nas": false, "10.0.0.1": false} {
		require.Equal(t, want, isLoopback(host), host)
	}
}

// The rule holds for addresses inside the network alone, and where no proxy hides them.
func TestGuardRule(t *testing.T) {
	refused := errors.New("refused")
	rule := func(u *url.URL, here bool) error {
		require.Equal(t, "/x", u.Path)
		return refused
	}
	direct := true
	g := New(rule, func(*url.URL) bool { return direct })
	require.ErrorIs(t, g.Begin(parse(t, "http://10.0.0.1/x")), refused)
	require.NoError(t, g.Begin(parse(t, "http://name.example/x")))
	require.ErrorIs(t, g.checkConn("10.0.0.1"), refused, "what the name turned out to be")
	require.NoError(t, g.checkConn("1.1.1.1"))
	direct = false
	require.NoError(t, g.Begin(parse(t, "http://name.example/x")))
	require.NoError(t, g.checkConn("10.0.0.1"), "the proxy's address")
	require.ErrorIs(t, g.Begin(parse(t, "http://10.0.0.1/x")), refused, "the URL says it")
}

// A redirect that was remembered is judged again by the URL where it began.
func TestGuardResumed(t *testing.T) {
	for _, public := range []bool{true, false} {
		first := New(nil, func(*url.URL) bool { return true })
		require.NoError(t, first.Begin(parse(t, map[bool]string{true: "http://1.1.1.1/", false: "http://10.0.0.2/"}[public])))
		g := New(nil, func(*url.URL) bool { return true })
		err := g.Resume(parse(t, "http://10.0.0.1/x"), first.Origin())
		require.Equal(t, public, errors.Is(err, ErrInward))
	}
}

// The address of a proxy inside the network, which all connections lead to, is not taken for that of the server that redirects.
func TestRedirectsThroughAProxyInside(t *testing.T) {
	var asked []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.RequestURI)
		if to := r.URL.Query().Get("to"); to != "" {
			http.Redirect(w, r, to, http.StatusFound)
		}
	}))
	defer proxy.Close()
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(parse(t, proxy.URL))}}
	defer client.CloseIdleConnections()
	get := func(u string, begin func(*Guard, *url.URL) error) (*Guard, error) {
		asked = nil
		g := New(nil, func(*url.URL) bool { return false })
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		req, err := http.NewRequestWithContext(g.Watch(ctx, cancel), http.MethodGet, u, nil)
		require.NoError(t, err)
		if err := begin(g, req.URL); err != nil {
			return g, err
		}
		resp, err := g.Client(client).Do(req)
		if err == nil {
			resp.Body.Close()
		}
		return g, err
	}
	_, err := get("http://name.example/?to=http://10.0.0.1/x", (*Guard).Begin)
	require.ErrorIs(t, err, ErrInward)
	require.Len(t, asked, 1)

	g, err := get("http://name.example/?to=http://other.example/x", (*Guard).Begin)
	require.NoError(t, err)
	require.Len(t, asked, 2)
	resume := func(again *Guard, u *url.URL) error { return again.Resume(u, g.Origin()) }
	_, err = get("http://other.example/x", resume)
	require.NoError(t, err)
	require.Len(t, asked, 1)
	_, err = get("http://10.0.0.1/x", resume)
	require.ErrorIs(t, err, ErrInward)
	require.Empty(t, asked)
}

func TestGuardClient(t *testing.T) {
	for _, c := range []struct {
		to  string
		via int
		err error
	}{
		{"http://2.2.2.2/", 1, nil},
		{"http://2.2.2.2:8080/", 5, nil},
		{"http://2.2.2.2/", 6, ErrRedirect},
		{"file:///etc/passwd", 1, ErrScheme},
		{"ftp://2.2.2.2/", 1, ErrScheme},
		{"http://169.254.169.254/latest", 1, ErrInward},
		{"http://[::1]/", 1, ErrInward},
	} {
		g := New(nil, func(*url.URL) bool { return true })
		require.NoError(t, g.Begin(parse(t, "http://1.1.1.1/")))
		req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, c.to, nil)
		require.NoError(t, err)
		req.Header.Set("Referer", "http://1.1.1.1/?secret")
		req.Response = new(http.Response)
		err = g.Client(new(http.Client)).CheckRedirect(req, make([]*http.Request, c.via))
		require.Equal(t, c.err, err, c.to)
		if err == nil {
			require.Empty(t, req.Header.Get("Referer"))
		}
	}
}
