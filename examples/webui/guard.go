package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"strings"
)

// A guard stands before all else. Loopback keeps other machines out, but not the other pages in the user's browser, and not
// other users of this machine:
//
//   - A page elsewhere can send requests here. It does not know the token, which no cookie carries, so that there is nothing that
//     a browser would add on its own. Requests that a browser says another site has caused are refused as well.
//   - A page whose name was made to point here (DNS rebinding) is of the same origin to the browser. But it calls this host by
//     its name, and that is not ours.
//   - A page that shows this one in a frame could have the user click without knowing it. Frames are forbidden.
//   - A file of a torrent may be a page, too. See serveMedia.
type guard struct {
	token string
	hosts map[string]bool // names of this host, with the port
	next  http.Handler
}

func newGuard(token, addr string, next http.Handler) *guard {
	g := &guard{token: token, hosts: map[string]bool{addr: true}, next: next}
	if _, port, err := net.SplitHostPort(addr); err == nil {
		g.hosts["localhost:"+port] = true
	}
	return g
}

// policy is what the page may do: load what is here, and speak with whom it came from.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; " +
	"frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Frame-Options", "DENY")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	if why := g.refusal(r); why != "" {
		http.Error(w, why, http.StatusForbidden)
		return
	}
	if strings.HasPrefix(r.URL.Path, "/api/") && !g.hasToken(r) {
		h.Set("WWW-Authenticate", "Bearer")
		http.Error(w, "the token is missing or wrong: open the address that webui has printed", http.StatusUnauthorized)
		return
	}
	g.next.ServeHTTP(w, r)
}

// refusal says why a request is not served, or is empty.
func (g *guard) refusal(r *http.Request) string {
	if !g.hosts[r.Host] {
		return "this host is called by another name"
	}
	if origin := r.Header.Get("Origin"); origin != "" && origin != "http://"+r.Host {
		return "the request comes from another page"
	}
	switch site := r.Header.Get("Sec-Fetch-Site"); {
	case site == "" || site == "same-origin": // no browser, or the page itself
	case site == "none" && (r.Method == http.MethodGet || r.Method == http.MethodHead): // the user typed it
	default:
		return "the request comes from another page"
	}
	return ""
}

func (g *guard) hasToken(r *http.Request) bool {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return ok && subtle.ConstantTimeCompare([]byte(token), []byte(g.token)) == 1
}

// ticket is what allows to read one file: a video element and a player beside the browser can send no header. It
// says nothing of the token.
func (g *guard) ticket(hash string, index int) string {
	mac := hmac.New(sha256.New, []byte(g.token))
	fmt.Fprintf(mac, "file %d of %s", index, hash)
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

func (g *guard) hasTicket(r *http.Request, hash string, index int) bool {
	return hmac.Equal([]byte(r.URL.Query().Get("ticket")), []byte(g.ticket(hash, index)))
}
