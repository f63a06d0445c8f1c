package dht

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha1"
	"errors"
	"fmt"
	"strconv"

	"github.com/shoal-go/torrent/internal/bencode"
	"github.com/shoal-go/torrent/internal/krpc"
)

const (
	maxValue = 1000 // bytes of a value, encoded (BEP 44)
	MaxSalt  = 64   // bytes of the salt of a mutable item (BEP 44)
)

// Item is what the DHT stores under a target (BEP 44). It is immutable, and found by the hash of its
// value; or it has a key, by which it is found and signed, and may be replaced by one with a higher Seq.
type Item struct {
	Value []byte // bencoded, up to 1,000 bytes

	Key  ed25519.PublicKey // 32 bytes, or nil if the item is immutable
	Salt []byte            // tells the items of a key apart, up to 64 bytes; may be empty
	Seq  int64             // at least 0
	Sig  []byte            // 64 bytes
}

// Sign makes a mutable item.
func Sign(key ed25519.PrivateKey, salt, value []byte, seq int64) *Item {
	item := &Item{Value: value, Key: key.Public().(ed25519.PublicKey), Salt: salt, Seq: seq}
	item.Sig = ed25519.Sign(key, item.signed())
	return item
}

// Target is where the item is stored.
func (i *Item) Target() ID {
	if i.Key == nil {
		return sha1.Sum(i.Value)
	}
	return signedTarget(i.Key, i.Salt)
}

// signedTarget is where the mutable items of a key and a salt are stored.
func signedTarget(key ed25519.PublicKey, salt []byte) ID {
	return sha1.Sum(append(append(make([]byte, 0, len(key)+len(salt)), key...), salt...))
}

// signed is what the signature of a mutable item is of.
func (i *Item) signed() []byte {
	b := make([]byte, 0, 100+len(i.Value))
	if len(i.Salt) > 0 {
		b = append(b, "4:salt"...)
		b = append(strconv.AppendInt(b, int64(len(i.Salt)), 10), ':')
		b = append(b, i.Salt...)
	}
	b = append(b, "3:seqi"...)
	b = append(strconv.AppendInt(b, i.Seq, 10), "e1:v"...)
	return append(b, i.Value...)
}

// itemFault is the error of a node that refuses to store an item.
type itemFault struct {
	code   int64 // of krpc
	reason string
}

func (e *itemFault) Error() string { return fmt.Sprintf("%s (code %d)", e.reason, e.code) }

// check validates an item, except for its signature.
func (i *Item) check() *itemFault {
	switch {
	case len(i.Value) > maxValue:
		return &itemFault{krpc.ValueTooBig, "value over 1,000 bytes"}
	case len(i.Salt) > MaxSalt:
		return &itemFault{krpc.SaltTooBig, "salt over 64 bytes"}
	case len(i.Value) == 0:
		return &itemFault{krpc.ProtocolError, "no value"}
	case i.Key == nil:
		return nil
	case len(i.Key) != ed25519.PublicKeySize || len(i.Sig) != ed25519.SignatureSize:
		return &itemFault{krpc.ProtocolError, "malformed key or signature"}
	case i.Seq < 0:
		return &itemFault{krpc.ProtocolError, "negative sequence number"}
	}
	return nil
}

// verified reports whether the signature of a mutable item is good.
func (i *Item) verified() bool { return ed25519.Verify(i.Key, i.signed(), i.Sig) }

// Check returns an error if an item cannot be put.
func (i *Item) Check() error {
	if fault := i.check(); fault != nil {
		return fault
	}
	n, err := bencode.Scan(i.Value, bencode.Limits{Bytes: maxValue, Depth: 30, Values: maxValue})
	if err != nil {
		return err
	}
	if n != len(i.Value) {
		return errors.New("value is more than one bencoded value")
	}
	if i.Key != nil && !i.verified() {
		return &itemFault{krpc.InvalidSignature, "invalid signature"}
	}
	return nil
}

func (i *Item) clone() *Item {
	return &Item{Value: bytes.Clone(i.Value), Key: bytes.Clone(i.Key), Salt: bytes.Clone(i.Salt), Seq: i.Seq, Sig: bytes.Clone(i.Sig)}
}
