package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent/internal/proxy"
)

func TestNew(t *testing.T) {
	long := strings.Repeat("x", 256)
	for u, want := range map[string]string{ // want is what String returns, or the error
		"socks5://proxy.example":              "socks5://proxy.example:1080",
		"socks5h://10.0.0.1:9050":             "socks5://10.0.0.1:9050",
		"socks5://u:p@[2001:db8::1]":          "socks5://[2001:db8::1]:1080",
		"http://u@proxy.example/":             "http://proxy.example:80",
		"http://proxy.example:3128":           "http://proxy.example:3128",
		"https://proxy.example":               `scheme "https" is not socks5, socks5h or http`,
		"socks4://proxy.example":              `scheme "socks4"`,
		"//proxy.example":                     `scheme ""`,
		"socks5://":                           "invalid host name",
		"socks5://proxy.example:0":            "invalid port",
		"socks5://proxy.example:65536":        "invalid port",
		"socks5://:p@proxy.example":           "user name of 0 bytes",
		"socks5://" + long + "@proxy.example": "user name of 256 bytes",
		"socks5://u:" + long + "@a":           "password of 256 bytes",
		"http://" + long + ":secret@a":        "http://a:80",
	} {
		parsed, err := url.Parse(u)
		require.NoError(t, err)
		p, err := proxy.New(parsed, nil, nil)
		if strings.Contains(want, "://") {
			require.NoError(t, err, u)
			require.Equal(t, want, p.String())
			continue
		}
		require.ErrorContains(t, err, want, u)
		require.NotContains(t, err.Error(), "secret")
	}
}

// A line is one exchange of a script: what the client must send, and what the proxy answers.
type line struct {
	client, proxy string
}

// through returns the Proxy of a URL and the addresses that it has dialled. The proxy plays the script on each connection,
// and afterwards echoes what it receives.
func through(t *testing.T, u string, script ...line) (*proxy.Proxy, *[]string) {
	parsed, err := url.Parse(u)
	require.NoError(t, err)
	var dialled []string
	p, err := proxy.New(parsed, func(_ context.Context, network, addr string) (net.Conn, error) {
		dialled = append(dialled, network+" "+addr)
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			for _, l := range script {
				b := make([]byte, len(l.client))
				if _, err := io.ReadFull(theirs, b); err != nil {
					return
				}
				if string(b) != l.client {
					theirs.Write([]byte("\x00the client said " + string(b)))
					return
				}
				if _, err := theirs.Write([]byte(l.proxy)); err != nil {
					return
				}
			}
			io.Copy(theirs, theirs)
		}()
		return ours, nil
	}, nil)
	require.NoError(t, err)
	return p, &dialled
}

const (
	greet   = "\x05\x01\x00"
	greeted = "\x05\x00"
	done    = "\x05\x00\x00\x01\x01\x02\x03\x04\x05\x06"
)

func TestDial(t *testing.T) {
	const get = "CONNECT 203.0.113.7:6881 HTTP/1.1\r\nHost: 203.0.113.7:6881\r\n"
	for name, tt := range map[string]struct {
		proxy, to string
		script    []line
		err       string // "" is success
		early     string // what the target sends first
	}{
		"IPv4": {"socks5://p", "203.0.113.7:6881", []line{
			{greet, greeted}, {"\x05\x01\x00\x01\xcb\x00\x71\x07\x1a\xe1", done},
		}, "", ""},
		"IPv4, mapped": {"socks5://p", "[::ffff:203.0.113.7]:6881", []line{
			{greet, greeted}, {"\x05\x01\x00\x01\xcb\x00\x71\x07\x1a\xe1", done},
		}, "", ""},
		"IPv6": {"socks5h://p", "[2001:db8::7]:6881", []line{
			{greet, greeted}, {"\x05\x01\x00\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07\x1a\xe1", done},
		}, "", ""},
		"a name": {"socks5://p", "tracker.example:80", []line{
			{greet, greeted}, {"\x05\x01\x00\x03\x0ftracker.example\x00\x50", done},
		}, "", ""},
		"a user": {"socks5://u:pw@p", "a:1", []line{
			{"\x05\x02\x00\x02", "\x05\x02"}, {"\x01\x01u\x02pw", "\x01\x00"}, {"\x05\x01\x00\x03\x01a\x00\x01", done},
		}, "", ""},
		"a user, not required": {"socks5://u:pw@p", "a:1", []line{
			{"\x05\x02\x00\x02", greeted}, {"\x05\x01\x00\x03\x01a\x00\x01", done},
		}, "", ""},
		"a user without a password": {"socks5://u@p", "a:1", []line{
			{"\x05\x02\x00\x02", "\x05\x02"}, {"\x01\x01u\x00", "\x05\x00"}, {"\x05\x01\x00\x03\x01a\x00\x01", done},
		}, "", ""},
		"bound to a name":    {"socks5://p", "a:1", []line{{greet, greeted}, {"\x05\x01\x00\x03\x01a\x00\x01", "\x05\x00\x00\x03\x00\x00\x00"}}, "", ""},
		"bound to IPv6":      {"socks5://p", "a:1", []line{{greet, greeted}, {"\x05\x01\x00\x03\x01a\x00\x01", "\x05\x00\x00\x04" + strings.Repeat("\x00", 18)}}, "", ""},
		"target sends first": {"socks5://p", "a:1", []line{{greet, greeted}, {"\x05\x01\x00\x03\x01a\x00\x01", done + "hello"}}, "", "hello"},

		"a wrong password":     {"socks5://u:pw@p", "a:1", []line{{"\x05\x02\x00\x02", "\x05\x02"}, {"\x01\x01u\x02pw", "\x01\x01"}}, "the proxy refuses the user or the password", ""},
		"no user":              {"socks5://p", "a:1", []line{{greet, "\x05\xff"}}, "the proxy requires a user", ""},
		"no user, required":    {"socks5://p", "a:1", []line{{greet, "\x05\x02"}}, "unsupported authentication method 2", ""},
		"an unknown method":    {"socks5://u:pw@p", "a:1", []line{{"\x05\x02\x00\x02", "\x05\x01"}}, "unsupported authentication method 1", ""},
		"refused":              {"socks5://p", "a:1", []line{{greet, greeted}, {"\x05\x01\x00\x03\x01a\x00\x01", "\x05\x05\x00\x01"}}, "dial a:1 by proxy socks5://p:1080: the proxy says: connection refused", ""},
		"refused, unknown":     {"socks5://p", "a:1", []line{{greet, greeted}, {"\x05\x01\x00\x03\x01a\x00\x01", "\x05\xaa\x00\x01"}}, "reply 170", ""},
		"not SOCKS":            {"socks5://p", "a:1", []line{{greet, "HTTP/1.1 400 Bad Request\r\n"}}, "version 72: not a SOCKS 5 proxy", ""},
		"not SOCKS, later":     {"socks5://p", "a:1", []line{{greet, greeted}, {"\x05\x01\x00\x03\x01a\x00\x01", "HTTP"}}, "version 72: not a SOCKS 5 proxy", ""},
		"unknown address type": {"socks5://p", "a:1", []line{{greet, greeted}, {"\x05\x01\x00\x03\x01a\x00\x01", "\x05\x00\x00\x02\x01\x02\x03"}}, "unknown address type 2", ""},

		"a tunnel":                {"http://p", "203.0.113.7:6881", []line{{get + "\r\n", "HTTP/1.1 200 OK\r\n\r\n"}}, "", ""},
		"a tunnel, with a body":   {"http://p", "203.0.113.7:6881", []line{{get + "\r\n", "HTTP/1.0 200 Connection established\r\nContent-Length: 3\r\n\r\nhello"}}, "", "hello"},
		"a tunnel for a user":     {"http://u:pw@p", "203.0.113.7:6881", []line{{get + "Proxy-Authorization: Basic dTpwdw==\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"}}, "", ""},
		"a tunnel to IPv6":        {"http://p", "[2001:db8::7]:1", []line{{"CONNECT [2001:db8::7]:1 HTTP/1.1\r\nHost: [2001:db8::7]:1\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"}}, "", ""},
		"no tunnel":               {"http://p", "203.0.113.7:6881", []line{{get + "\r\n", "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 100000\r\n\r\n"}}, "the proxy says: HTTP status 407", ""},
		"not HTTP":                {"http://p", "203.0.113.7:6881", []line{{get + "\r\n", "\x05\x00\r\n\r\n"}}, "malformed HTTP", ""},
		"a header without an end": {"http://p", "203.0.113.7:6881", []line{{get + "\r\n", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 20000)}}, "answer over 16384 bytes", ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, dialled := through(t, tt.proxy, tt.script...)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				conn, err := p.Dial(ctx, "tcp", tt.to)
				require.Len(t, *dialled, 1)
				require.True(t, strings.HasPrefix((*dialled)[0], "tcp p:"))
				if tt.err != "" {
					require.ErrorContains(t, err, tt.err)
					require.NotContains(t, err.Error(), "pw")
					return
				}
				require.NoError(t, err)
				defer conn.Close()
				time.Sleep(time.Hour) // the deadline of the handshake must be gone
				go conn.Write([]byte(" world"))
				b := make([]byte, len(tt.early)+6)
				_, err = io.ReadFull(conn, b)
				require.NoError(t, err)
				require.Equal(t, tt.early+" world", string(b))
			})
		})
	}
}

// TestDialRefuses checks that an invalid address is refused before the proxy is dialled.
func TestDialRefuses(t *testing.T) {
	p, dialled := through(t, "socks5://p")
	for addr, want := range map[string]string{
		"":                              "missing port",
		"a":                             "missing port",
		"a:http":                        "invalid port",
		"a:0":                           "invalid port",
		":1":                            "invalid host name",
		"a b:1":                         "invalid host name",
		"a\r\nX: y:1":                   "too many colons",
		"a\r\n:1":                       "invalid host name",
		strings.Repeat("a", 256) + ":1": "invalid host name",
		"[fe80::1%eth0]:1":              "address with a zone",
	} {
		_, err := p.Dial(t.Context(), "tcp", addr)
		require.ErrorContains(t, err, want, addr)
	}
	_, err := p.Dial(t.Context(), "unix", "a:1")
	require.ErrorContains(t, err, "unknown network")
	require.Empty(t, *dialled)

	p, dialled = through(t, "http://p")
	_, err = p.Dial(t.Context(), "udp", "a:1")
	require.ErrorIs(t, err, errors.ErrUnsupported)
	_, err = p.ListenPacket(t.Context(), "udp4", "")
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.Empty(t, *dialled)
}

// TestSilentProxy checks that Dial returns when the context ends, after whichever byte the proxy falls silent.
func TestSilentProxy(t *testing.T) {
	answers := []line{{greet, greeted}, {"\x05\x01\x00\x03\x01a\x00\x01", done}}
	for said := range len(greeted) + len(done) { // bytes that the proxy sends
		script := []line{{greet, greeted[:min(said, 2)]}}
		if said >= 2 {
			script = append(script, line{answers[1].client, done[:said-2]})
		}
		script = append(script, line{"for ever", ""})
		synctest.Test(t, func(t *testing.T) {
			p, _ := through(t, "socks5://p", script...)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			began := time.Now()
			_, err := p.Dial(ctx, "tcp", "a:1")
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Equal(t, 5*time.Second, time.Since(began))
		})
		synctest.Test(t, func(t *testing.T) {
			p, _ := through(t, "socks5://p", script...)
			ctx, cancel := context.WithCancelCause(t.Context())
			why := errors.New("it is over")
			time.AfterFunc(time.Second, func() { cancel(why) })
			_, err := p.Dial(ctx, "tcp", "a:1")
			require.ErrorIs(t, err, why)
		})
	}
}

// TestCutOff checks the error when the proxy closes the connection, after each byte of its answer in turn.
func TestCutOff(t *testing.T) {
	for name, answer := range map[string]string{"socks5": greeted + done, "http": "HTTP/1.1 200 OK\r\n\r\n"} {
		for n := range answer {
			ours, theirs := net.Pipe()
			p, err := proxy.New(&url.URL{Scheme: name, Host: "p"}, func(context.Context, string, string) (net.Conn, error) { return ours, nil }, nil)
			require.NoError(t, err)
			go io.Copy(io.Discard, theirs)
			go func() { theirs.Write([]byte(answer[:n])); theirs.Close() }()
			_, err = p.Dial(t.Context(), "tcp", "a:1")
			require.Error(t, err, "%s, %d", name, n)
			require.NotErrorIs(t, err, io.EOF, "%s, %d", name, n)
		}
	}
}

// TestDialFails checks that the error of Dial includes why the proxy could not be dialled.
func TestDialFails(t *testing.T) {
	for _, scheme := range []string{"socks5", "http"} {
		why := errors.New("no route")
		p, err := proxy.New(&url.URL{Scheme: scheme, Host: "p"}, func(context.Context, string, string) (net.Conn, error) { return nil, why }, nil)
		require.NoError(t, err)
		_, err = p.Dial(t.Context(), "tcp", "a:1")
		require.ErrorIs(t, err, why)
		require.True(t, bytes.HasPrefix([]byte(err.Error()), []byte("dial a:1 by proxy "+scheme+"://p:")))
	}
}
