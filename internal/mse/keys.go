package mse

import (
	"crypto/rand"
	"crypto/rc4"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"math/big"
)

const (
	keySize     = 96   // bytes of a public key and of the secret
	privateSize = 20   // bytes of a private key; more would not make the secret better
	discarded   = 1024 // bytes at the start of an RC4 stream that are not used, because they reveal the key
)

// prime is the modulus; the generator is 2. Nothing writes to it.
var prime, _ = new(big.Int).SetString("FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74"+
	"020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437"+
	"4FE1356D6D51C245E485B576625E7EC6F44C42E9A63A36210000000000090563", 16)

// privateKey is the secret number of one side. It is used for one handshake, so that what the time of its use may reveal
// is worth nothing afterwards.
type privateKey struct{ x *big.Int }

func newPrivateKey() privateKey {
	var b [privateSize]byte
	rand.Read(b[:])
	return privateKey{new(big.Int).SetBytes(b[:])}
}

// public is the public key, which the other side is told.
func (k privateKey) public() (y [keySize]byte) {
	new(big.Int).Exp(big.NewInt(2), k.x, prime).FillBytes(y[:])
	return y
}

// secret is the secret that both sides share. A public key that would make it a known number is refused.
func (k privateKey) secret(theirs [keySize]byte) (s [keySize]byte, err error) {
	y := new(big.Int).SetBytes(theirs[:])
	one := big.NewInt(1)
	if y.Cmp(one) <= 0 || y.Cmp(new(big.Int).Sub(prime, one)) >= 0 {
		return s, errors.New("invalid public key")
	}
	y.Exp(y, k.x, prime).FillBytes(s[:])
	return s, nil
}

// answerKey returns a private key for an answer to the public key of the other side, and the secret of the two. The
// secret does not begin with a zero byte: rtorrent drops such a byte, and one handshake in 256 would fail.
func answerKey(theirs [keySize]byte) (k privateKey, s [keySize]byte, err error) {
	for err == nil && s[0] == 0 {
		k = newPrivateKey()
		s, err = k.secret(theirs)
	}
	return k, s, err
}

func hash(label string, parts ...[]byte) (sum [sha1.Size]byte) {
	h := sha1.New()
	h.Write([]byte(label))
	for _, p := range parts {
		h.Write(p)
	}
	h.Sum(sum[:0])
	return sum
}

// StreamID is derived from an info hash. The initiator sends it, hidden, to say which info hash it means. find of Accept
// looks it up.
func StreamID(infoHash [20]byte) [20]byte { return hash("req2", infoHash[:]) }

// ciphers returns the streams from the initiator to the acceptor and back.
func ciphers(secret [keySize]byte, infoHash [20]byte) (fromInitiator, fromAcceptor *rc4.Cipher) {
	return newCipher(hash("keyA", secret[:], infoHash[:])), newCipher(hash("keyB", secret[:], infoHash[:]))
}

func newCipher(key [sha1.Size]byte) *rc4.Cipher {
	c, err := rc4.NewCipher(key[:])
	if err != nil {
		panic(err) // only a wrong length of the key is an error
	}
	var b [discarded]byte
	c.XORKeyStream(b[:], b[:])
	return c
}

// appendPad appends random bytes, 0 to maxPad of them.
func appendPad(b []byte) []byte {
	var pad [maxPad]byte
	rand.Read(pad[:])
	return append(b, pad[:padLength()]...)
}

// appendZeroPad appends the length of a padding, and the padding, which is zeros.
func appendZeroPad(b []byte) []byte {
	var pad [maxPad]byte
	n := padLength()
	return append(binary.BigEndian.AppendUint16(b, uint16(n)), pad[:n]...)
}

// padLength is a random number from 0 to maxPad.
func padLength() int {
	var b [4]byte
	rand.Read(b[:])
	return int(binary.BigEndian.Uint32(b[:]) % (maxPad + 1))
}
