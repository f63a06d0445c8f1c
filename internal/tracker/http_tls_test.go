package tracker

import (
	"bytes"
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"testing"

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
