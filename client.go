package torrent

import (
	"context"
	"log/slog"
	"net"
	"net/http"

	"golang.org/x/time/rate"
)

// EncryptionPolicy says what to do about Message Stream Encryption.
type EncryptionPolicy uint8

const (
	PreferEncryption  EncryptionPolicy = iota // try it first, take plain connections too
	RequireEncryption                         // encrypted connections only, both ways
	DisableEncryption                         // plain connections only, both ways
)

// Client is what downloads share: one listener, limits and a budget of connections and memory. The
// zero value is ready to use. Its fields are fixed by the first Start that names it.
type Client struct {
	// Listen is the TCP address to accept peers on. Empty is any free port on all addresses.
	Listen string
	// NoListen accepts nobody.
	NoListen bool
	// MaxPeers bounds the connections of all downloads together; 0 is no bound beside each download's own.
	MaxPeers int
	// DownloadLimit and UploadLimit bound the payload of all downloads together in bytes a second.
	// Nil is no limit. They may be shared further, and changed while in use.
	DownloadLimit *rate.Limiter
	UploadLimit   *rate.Limiter
	// Encryption says whether connections are encrypted.
	Encryption EncryptionPolicy
	// LocalDiscovery looks for peers in the local network (BEP 14).
	LocalDiscovery bool
	// Dial connects to peers; nil is a net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// HTTPClient speaks to trackers; nil is one of the client's own, closed with it.
	HTTPClient *http.Client
	// Logger is told what goes on; nil is silent.
	Logger *slog.Logger
}
