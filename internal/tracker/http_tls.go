package tracker

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"time"
)

// handshakeTimeout is how long a TLS handshake may take.
const handshakeTimeout = 10 * time.Second

// maxChain is how many bytes of certificates a server may show. Parsed, they take up to fourteen times as much, for as long as the
// connection lasts, and crypto/tls takes 256 KiB of them. Those of real servers are a few KiB.
const maxChain = 32 << 10

// maxIssuers is how many of the certificates that a server shows beside its own are used to verify that. Real servers need one to
// three.
const maxIssuers = 4

// checkChain refuses a server that shows more certificates than maxChain.
func checkChain(s tls.ConnectionState) error {
	n := 0
	for _, c := range s.PeerCertificates {
		n += len(c.Raw)
	}
	if n > maxChain {
		return fmt.Errorf("certificates of %d bytes, over %d", n, maxChain)
	}
	return nil
}

// handshake makes a TLS connection of conn, which it closes on error. It verifies the server as crypto/tls does, but at less cost.
func handshake(ctx context.Context, conn net.Conn, addr string, base *tls.Config) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		conn.Close()
		return nil, err
	}
	c := base.Clone()
	c.ServerName = host
	c.InsecureSkipVerify = true // VerifyConnection verifies
	c.VerifyConnection = func(s tls.ConnectionState) error { return verify(s, host, base.RootCAs) }
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	secure := tls.Client(conn, c)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

// verify verifies the certificate of a server, given its host name or IP address; if roots is nil, with the roots of the system.
func verify(s tls.ConnectionState, host string, roots *x509.CertPool) error {
	if err := checkChain(s); err != nil {
		return err
	}
	shown := s.PeerCertificates
	_, err := shown[0].Verify(x509.VerifyOptions{DNSName: host, Roots: roots, Intermediates: issuers(shown)})
	if err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: shown, Err: err}
	}
	return nil
}

// issuers returns the certificates that may link the first one to a root: maxIssuers at most, and of those with one subject the first.
// Of all that a server can show, crypto/x509 would check a hundred signatures, which can take milliseconds each.
func issuers(shown []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	subjects := map[string]bool{string(shown[0].RawSubject): true}
	for _, c := range shown[1:] {
		if subject := string(c.RawSubject); !subjects[subject] && len(subjects) <= maxIssuers {
			subjects[subject] = true
			pool.AddCert(c)
		}
	}
	return pool
}
