package mse

import (
	"bytes"
	"encoding/binary"
	"testing"
)

func FuzzAccept(f *testing.F) {
	f.Add([]byte{})
	f.Add(greeting)
	f.Add(bytes.Repeat([]byte{5}, 1000))
	f.Fuzz(func(t *testing.T, p []byte) {
		_, _, err := Accept(t.Context(), says(p), nil, knows(infoHash), Options{})
		if err == nil {
			t.Fatal("a peer that cannot know the secret was accepted")
		}
	})
}

func FuzzInitiate(f *testing.F) {
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{5}, 1000))
	f.Fuzz(func(t *testing.T, p []byte) {
		_, err := Initiate(t.Context(), says(p), infoHash, Options{}, greeting)
		if err == nil {
			t.Fatal("a peer that cannot know the secret was taken for one that does")
		}
	})
}

// FuzzOffer is what an initiator can send after it agreed on a secret.
func FuzzOffer(f *testing.F) {
	f.Add(uint16(0), []byte("\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00\x01\x00\x00\x05hello"))
	f.Add(uint16(512), []byte("\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, head uint16, body []byte) {
		a, err := readOffer(bytes.NewReader(offering(int(head), StreamID(infoHash), body)), [keySize]byte{}, knows(infoHash))
		if err != nil {
			return
		}
		pad := int(binary.BigEndian.Uint16(body[12:]))
		if head > maxPad || pad > maxPad || !bytes.Equal(a.initial, body[16+pad:][:len(a.initial)]) {
			t.Fatalf("read %q behind %d bytes of padding", a.initial, head)
		}
	})
}

// FuzzChoice is what an acceptor can send after it agreed on a secret.
func FuzzChoice(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x02\x00\x01\x00"))
	f.Fuzz(func(t *testing.T, p []byte) {
		stream := bytes.Clone(p)
		newCipher([20]byte{}).XORKeyStream(stream, stream)
		r := bytes.NewReader(stream)
		if _, err := readChoice(r, newCipher([20]byte{})); err == nil && len(p)-r.Len() != 6+int(binary.BigEndian.Uint16(p[4:])) {
			t.Fatalf("read %d bytes of %q", len(p)-r.Len(), p)
		}
	})
}
