// Package simweb has HTTP servers on a simulated network that have content as web seeds do (BEP 19), and misbehave as a
// Script says. Tests of any package may use it.
package simweb

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/shoal-go/torrent/internal/layout"
	"github.com/shoal-go/torrent/internal/simnet"
	"github.com/shoal-go/torrent/internal/simnet/simpeer"
)

// A Script says how a server misbehaves. The zero value is an honest one.
type Script struct {
	Rangeless bool          // it sends whole files only
	Corrupt   int64         // every so many-th block of 16 KiB is false; 0 is none
	DiesAfter int64         // bytes of an answer, after which the connection is reset; 0 is never
	Busy      int           // so many requests are answered by 503, a Retry-After of a second
	Crowded   int           // it answers so many requests at once, and others by 503; 0 is any number
	Lacks     string        // a suffix of paths that it answers by 404
	Pause     time.Duration // before each answer
	Redirects string        // to the same path below this URL
	Hangs     bool          // it answers nothing
	Page      int           // it answers everything by the same page of so many bytes, and does not say how many
}

// A Server serves the files of one torrent.
type Server struct {
	script  Script
	content *simpeer.Content
	files   map[string]*layout.File // by path
	server  *http.Server
	addr    netip.AddrPort

	mu       sync.Mutex
	requests int
	serving  int
	sent     int64
}

// Serve starts a server on port 80 of a host. It serves until Close.
func Serve(h *simnet.Host, content *simpeer.Content, l layout.Layout, script Script) (*Server, error) {
	s := &Server{script: script, content: content, files: make(map[string]*layout.File), addr: h.Addr(80)}
	for i := range l.NumFiles() {
		if f := l.File(i); !f.Pad {
			s.files["/"+f.Path] = f
		}
	}
	s.server = &http.Server{Handler: s}
	listener, err := h.Listen("tcp", ":80")
	if err != nil {
		return nil, err
	}
	go s.server.Serve(listener)
	return s, nil
}

// URL is that of the directory that holds the torrent.
func (s *Server) URL() string { return fmt.Sprintf("http://%v/", s.addr.Addr()) }

// Close ends the server and all its connections.
func (s *Server) Close() { s.server.Close() }

// Served is how many requests came and how many bytes of content were sent.
func (s *Server) Served() (requests int, sent int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests, s.sent
}

// ServeHTTP answers a request as the script says.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests++
	n := s.requests
	s.serving++
	crowded := s.script.Crowded > 0 && s.serving > s.script.Crowded
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.serving--
		s.mu.Unlock()
	}()
	f := s.files[r.URL.Path]
	switch {
	case s.script.Hangs:
		<-r.Context().Done()
		return
	case n <= s.script.Busy:
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	case crowded:
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	case s.script.Page > 0:
		http.NewResponseController(w).Flush()
		(&answer{ResponseWriter: w, s: s}).Write(make([]byte, s.script.Page))
		return
	case f == nil, s.script.Lacks != "" && strings.HasSuffix(r.URL.Path, s.script.Lacks):
		http.NotFound(w, r)
		return
	case s.script.Redirects != "":
		http.Redirect(w, r, strings.TrimSuffix(s.script.Redirects, "/")+r.URL.EscapedPath(), http.StatusFound)
		return
	}
	if s.script.Pause > 0 {
		select {
		case <-time.After(s.script.Pause):
		case <-r.Context().Done():
			return
		}
	}
	if s.script.Rangeless {
		r.Header.Del("Range")
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(&answer{ResponseWriter: w, s: s}, r, "", time.Time{}, io.NewSectionReader(reader{s, f}, 0, f.Length))
}

// An answer counts the bytes of one answer, and may break it off.
type answer struct {
	http.ResponseWriter
	s    *Server
	sent int64
}

func (a *answer) Write(p []byte) (int, error) {
	if most := a.s.script.DiesAfter; most > 0 && a.sent+int64(len(p)) > most {
		a.ResponseWriter.Write(p[:most-a.sent])
		http.NewResponseController(a.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	n, err := a.ResponseWriter.Write(p)
	a.sent += int64(n)
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	a.s.sent += int64(n)
	return n, err
}

// A reader reads a file as the server has it.
type reader struct {
	s *Server
	f *layout.File
}

func (r reader) ReadAt(p []byte, off int64) (n int, err error) {
	c := r.s.content
	for n < len(p) {
		at := r.f.Offset + off + int64(n)
		end := (at/layout.BlockSize + 1) * layout.BlockSize
		if rest := at - at%c.PieceLength() + c.PieceLength(); rest < end {
			end = rest
		}
		m := copy(p[n:], c.Run(at, min(end, c.Size())-at))
		if k := r.s.script.Corrupt; k > 0 && at/layout.BlockSize%k == 0 {
			p[n] ^= 1
		}
		n += m
	}
	return n, nil
}
