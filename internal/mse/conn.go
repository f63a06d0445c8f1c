package mse

import (
	"crypto/rc4"
	"net"
	"slices"
	"sync"
)

// maxScratch is the size in bytes of the largest buffer that a connection keeps for encrypting. It has room for a block
// and its header.
const maxScratch = 32 << 10

// encrypted is a connection after a handshake that chose RC4.
type encrypted struct {
	net.Conn

	// Read state
	reading sync.Mutex
	initial []byte // decrypted; read before anything else
	r       *rc4.Cipher

	// Write state
	writing sync.Mutex
	w       *rc4.Cipher
	scratch []byte // grows to maxScratch as it is needed
	failed  error  // of a write, after which the ciphers of the two sides no longer agree
}

// Read decrypts in place. It may write to all of p.
func (c *encrypted) Read(p []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	if len(c.initial) > 0 {
		return take(p, &c.initial), nil
	}
	n, err := c.Conn.Read(p)
	c.r.XORKeyStream(p[:n], p[:n])
	return n, err
}

// Write fails for ever once it has failed, even by a deadline.
func (c *encrypted) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	done := 0
	for done < len(p) && c.failed == nil {
		part := p[done:min(len(p), done+maxScratch)]
		c.scratch = slices.Grow(c.scratch[:0], len(part))[:len(part)]
		c.w.XORKeyStream(c.scratch, part)
		n, err := c.Conn.Write(c.scratch)
		done += n
		c.failed = err
	}
	return done, c.failed
}

// plain is a connection after a handshake that chose Plaintext, and brought an initial payload.
type plain struct {
	net.Conn
	reading sync.Mutex
	initial []byte // read before anything else
}

func (c *plain) Read(p []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	if len(c.initial) > 0 {
		return take(p, &c.initial), nil
	}
	return c.Conn.Read(p)
}

// take moves bytes from the start of from to p, and drops from once it is empty.
func take(p []byte, from *[]byte) int {
	n := copy(p, *from)
	if *from = (*from)[n:]; len(*from) == 0 {
		*from = nil
	}
	return n
}
