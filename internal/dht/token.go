package dht

import (
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"time"
)

const (
	tokenLife = 5 * time.Minute
	tokenSize = 8
)

// tokens makes the tokens that permit storing (BEP 5): a node that shows one has received a packet that we sent to
// its address. They are derived from a secret, so none is stored.
type tokens struct {
	rng           *rand.Rand
	secret        [2][16]byte // the current one and the one before it
	secretExpires time.Time
}

// make returns the token for an address, whose port does not matter, and a target.
func (t *tokens) make(now time.Time, to netip.Addr, target ID) []byte {
	t.rotate(now)
	token := t.sum(0, to, target)
	return token[:]
}

// valid reports whether token was made for that address and target within the last five minutes; it may
// have been up to ten.
func (t *tokens) valid(now time.Time, token []byte, from netip.Addr, target ID) bool {
	t.rotate(now)
	if len(token) != tokenSize {
		return false
	}
	shown := [tokenSize]byte(token)
	return shown == t.sum(0, from, target) || shown == t.sum(1, from, target)
}

func (t *tokens) sum(secret int, ip netip.Addr, target ID) (token [tokenSize]byte) {
	var p [16 + 16 + 20]byte
	a := ip.As16()
	copy(p[:], t.secret[secret][:])
	copy(p[16:], a[:])
	copy(p[32:], target[:])
	sum := sha256.Sum256(p[:])
	copy(token[:], sum[:])
	return token
}

func (t *tokens) rotate(now time.Time) {
	switch late := now.Sub(t.secretExpires); {
	case late < 0:
	case late < tokenLife:
		t.secret[0], t.secret[1] = t.draw(), t.secret[0]
		t.secretExpires = t.secretExpires.Add(tokenLife)
	default: // the first, or both were not used for long
		t.secret[0], t.secret[1] = t.draw(), t.draw()
		t.secretExpires = now.Add(tokenLife)
	}
}

func (t *tokens) draw() (secret [16]byte) {
	binary.BigEndian.PutUint64(secret[:], t.rng.Uint64())
	binary.BigEndian.PutUint64(secret[8:], t.rng.Uint64())
	return secret
}
