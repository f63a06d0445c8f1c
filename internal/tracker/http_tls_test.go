package tracker

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What a server shows of certificates is kept, parsed, as long as the connection. So a server that shows very many is refused,
// also if they are not needed to verify it.
func TestManyCertificates(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		for _, size := range []int{0, maxChain / 2, 2 * maxChain, 200 << 10} {
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			server.EnableHTTP2 = http2
			server.Config.ErrorLog = log.New(io.Discard, "", 0)
			server.StartTLS()
			leaf := server.TLS.Certificates[0]
			extra := bytes.Clone(leaf.Certificate[0])
			shown := tls.Certificate{Certificate: leaf.Certificate[:1:1], PrivateKey: leaf.PrivateKey}
			for n := 0; n+len(extra) < size; n += len(extra) {
				shown.Certificate = append(shown.Certificate, extra)
			}
			server.TLS.Certificates[0] = shown
			client := newTLSClient(t, server.Listener.Addr().String(), server.Certificate())
			resp, err := client.Get("https://example.com/f")
			if size > maxChain {
				require.ErrorContains(t, err, "certificates of")
			} else {
				require.NoError(t, err, "%d bytes", size)
				require.Equal(t, http2, resp.ProtoMajor == 2)
				resp.Body.Close()
			}
			client.CloseIdleConnections()
			server.Close()
		}
	}
}

// A signer is a certificate and its key.
type signer struct {
	*x509.Certificate
	key *ecdsa.PrivateKey
}

// sign returns a certificate with a key of its own, signed by another one, or by itself if that is nil.
func sign(t *testing.T, name string, by *signer, ca bool) *signer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: ca, BasicConstraintsValid: true,
	}
	if !ca {
		c.DNSNames, c.IPAddresses = []string{name}, []net.IP{net.IPv4(192, 0, 2, 1)}
	}
	if by == nil {
		by = &signer{c, key}
	}
	raw, err := x509.CreateCertificate(rand.Reader, c, by.Certificate, &key.PublicKey, by.key)
	require.NoError(t, err)
	parsed, err := x509.ParseCertificate(raw)
	require.NoError(t, err)
	return &signer{parsed, key}
}

// What a server shows of certificates may have crypto/x509 check a hundred signatures, which take milliseconds each: for that, many
// certificates have the name of the same issuer. So few are tried, of each name one.
func TestCertificatesAreVerifiedInFewSteps(t *testing.T) {
	root := sign(t, "root", nil, true)
	issuer := sign(t, "issuer", root, true)
	leaf := sign(t, "example.com", issuer, false)
	var others []*signer // that have the name of the issuer, and not its key
	for range 20 {
		others = append(others, sign(t, "issuer", root, true))
	}
	chain := func(links int) (shown []*signer) { // of so many certificates between the root and that of the server
		by := root
		for i := range links {
			by = sign(t, fmt.Sprint("link ", i), by, true)
			shown = append([]*signer{by}, shown...)
		}
		return append([]*signer{sign(t, "example.com", by, false)}, shown...)
	}
	for name, c := range map[string]struct {
		url     string
		shown   []*signer
		refused string
	}{
		"as usual":               {"https://example.com/f", []*signer{leaf, issuer}, ""},
		"by address":             {"https://192.0.2.1/f", []*signer{leaf, issuer}, ""},
		"another name":           {"https://example.org/f", []*signer{leaf, issuer}, "example.org"},
		"another address":        {"https://192.0.2.2/f", []*signer{leaf, issuer}, "192.0.2.2"},
		"with the root":          {"https://example.com/f", []*signer{leaf, issuer, root}, ""},
		"twice":                  {"https://example.com/f", []*signer{leaf, leaf, issuer, issuer}, ""},
		"others behind it":       {"https://example.com/f", append([]*signer{leaf, issuer}, others...), ""},
		"others before it":       {"https://example.com/f", append(append([]*signer{leaf}, others...), issuer), "unknown authority"},
		"not signed":             {"https://example.com/f", []*signer{sign(t, "example.com", nil, false)}, "unknown authority"},
		"as long as may be":      {"https://example.com/f", chain(maxIssuers), ""},
		"longer than may be":     {"https://example.com/f", chain(maxIssuers + 1), "unknown authority"},
		"an issuer that is none": {"https://example.com/f", []*signer{sign(t, "example.com", leaf, false), leaf, issuer}, "unknown authority"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			server.Config.ErrorLog = log.New(io.Discard, "", 0)
			shown := tls.Certificate{PrivateKey: c.shown[0].key}
			for _, s := range c.shown {
				shown.Certificate = append(shown.Certificate, s.Raw)
			}
			server.TLS = &tls.Config{Certificates: []tls.Certificate{shown}}
			server.StartTLS()
			defer server.Close()
			client := newTLSClient(t, server.Listener.Addr().String(), root.Certificate)
			resp, err := client.Get(c.url)
			if c.refused != "" {
				require.ErrorContains(t, err, c.refused)
				var invalid *tls.CertificateVerificationError
				require.ErrorAs(t, err, &invalid)
				return
			}
			require.NoError(t, err)
			resp.Body.Close()
			client.CloseIdleConnections()
		})
	}
}
