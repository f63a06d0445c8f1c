package mse

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	infoHash = [20]byte([]byte("the hash of the info"))
	greeting = []byte("\x13BitTorrent protocol and the rest of a handshake")
)

// knows returns the info hash of a StreamID, if it is one of these.
func knows(infoHashes ...[20]byte) func([20]byte) ([20]byte, bool) {
	return func(id [20]byte) ([20]byte, bool) {
		for _, h := range infoHashes {
			if StreamID(h) == id {
				return h, true
			}
		}
		return [20]byte{}, false
	}
}

// pipes are the kinds of connection to try: one that holds nothing on its way, and a real one.
var pipes = map[string]func(t *testing.T) (a, b net.Conn){
	"pipe": func(t *testing.T) (a, b net.Conn) {
		a, b = net.Pipe()
		return closing(t, a), closing(t, b)
	},
	"loopback": func(t *testing.T) (a, b net.Conn) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer l.Close()
		a, err = net.Dial("tcp", l.Addr().String())
		require.NoError(t, err)
		b, err = l.Accept()
		require.NoError(t, err)
		return closing(t, a), closing(t, b)
	},
	"byte by byte": func(t *testing.T) (a, b net.Conn) {
		a, b = net.Pipe()
		return closing(t, dripping{a, iotest.OneByteReader(a)}), closing(t, dripping{b, iotest.OneByteReader(b)})
	},
}

func closing(t *testing.T, c net.Conn) net.Conn {
	t.Cleanup(func() { c.Close() })
	return c
}

type dripping struct {
	net.Conn
	from io.Reader
}

func (d dripping) Read(p []byte) (int, error) { return d.from.Read(p) }

type result struct {
	conn     net.Conn
	infoHash [20]byte
	err      error
}

// accepting runs Accept beside the test.
func accepting(t *testing.T, conn net.Conn, first []byte, o Options) <-chan result {
	done := make(chan result, 1)
	go func() {
		c, h, err := Accept(t.Context(), conn, first, knows([20]byte{1}, infoHash), o)
		done <- result{c, h, err}
	}()
	return done
}

func TestHandshake(t *testing.T) {
	tests := map[string]struct {
		initiator, acceptor []Method
		want                Method // 0: none
	}{
		"zero":                   {nil, nil, RC4},
		"plaintext":              {[]Method{Plaintext}, []Method{Plaintext}, Plaintext},
		"acceptor prefers RC4":   {[]Method{Plaintext, RC4}, []Method{RC4, Plaintext}, RC4},
		"acceptor prefers plain": {[]Method{RC4, Plaintext}, []Method{Plaintext, RC4}, Plaintext},
		"only RC4 offered":       {[]Method{RC4}, []Method{Plaintext, RC4}, RC4},
		"only plain allowed":     {[]Method{RC4, Plaintext}, []Method{Plaintext}, Plaintext},
		"nothing in common":      {[]Method{RC4}, []Method{Plaintext}, 0},
		"nothing in common, too": {[]Method{Plaintext}, []Method{RC4}, 0},
	}
	for name, tt := range tests {
		for pipe, connect := range pipes {
			for _, initial := range [][]byte{nil, greeting, make([]byte, maxInitial)} {
				t.Run(name+"/"+pipe, func(t *testing.T) {
					t.Parallel()
					a, b := connect(t)
					done := accepting(t, b, nil, Options{tt.acceptor})
					if tt.want == 0 {
						go func() {
							require.ErrorContains(t, (<-done).err, "peer provides method")
							b.Close()
						}()
						_, err := Initiate(t.Context(), a, infoHash, Options{tt.initiator}, initial)
						require.Error(t, err)
						return
					}
					mine, err := Initiate(t.Context(), a, infoHash, Options{tt.initiator}, initial)
					require.NoError(t, err)
					theirs := <-done
					require.NoError(t, theirs.err)
					require.Equal(t, infoHash, theirs.infoHash)
					require.Equal(t, tt.want == Plaintext, mine == a, "a plain connection is the bare one")

					go mine.Write([]byte("ping"))
					got := make([]byte, len(initial)+4)
					_, err = io.ReadFull(theirs.conn, got)
					require.NoError(t, err)
					require.Equal(t, string(initial)+"ping", string(got))
					go theirs.conn.Write([]byte("pong"))
					_, err = io.ReadFull(mine, got[:4])
					require.NoError(t, err)
					require.Equal(t, "pong", string(got[:4]))
				})
			}
		}
	}
}

// The bytes that the acceptor has read to distinguish an encrypted connection from a plain one are not lost.
func TestAcceptTakesWhatWasRead(t *testing.T) {
	for _, n := range []int{0, 1, PlainSize, keySize} {
		a, b := pipes["loopback"](t)
		failed := make(chan error, 1)
		go func() {
			c, err := Initiate(t.Context(), a, infoHash, Options{}, greeting)
			if err == nil {
				_, err = c.Write([]byte("ping"))
			}
			failed <- err
		}()
		first := make([]byte, n)
		_, err := io.ReadFull(b, first)
		require.NoError(t, err)
		require.False(t, IsPlain(first))
		theirs := <-accepting(t, b, first, Options{})
		require.NoError(t, theirs.err)
		got := make([]byte, len(greeting)+4)
		_, err = io.ReadFull(theirs.conn, got)
		require.NoError(t, err)
		require.Equal(t, string(greeting)+"ping", string(got))
		require.NoError(t, <-failed)
	}
	_, _, err := Accept(t.Context(), nil, make([]byte, keySize+1), nil, Options{})
	require.Error(t, err)
}

func TestIsPlain(t *testing.T) {
	require.True(t, IsPlain(greeting))
	require.True(t, IsPlain(greeting[:PlainSize]))
	require.False(t, IsPlain(greeting[:PlainSize-1]))
	require.False(t, IsPlain(make([]byte, PlainSize)))
	require.False(t, IsPlain([]byte("\x12BitTorrent protocol")))
}

// Blocks of all sizes cross in both directions at once.
func TestEncryptedCarriesMuch(t *testing.T) {
	a, b := pipes["loopback"](t)
	done := accepting(t, b, nil, Options{})
	mine, err := Initiate(t.Context(), a, infoHash, Options{}, greeting)
	require.NoError(t, err)
	theirs := (<-done).conn

	content := make([]byte, 1<<20)
	rand.Read(content)
	send := func(c net.Conn) {
		rest := content
		for n := 1; len(rest) > 0; n = min(3*n, len(rest)) {
			_, err := c.Write(rest[:n])
			if err != nil {
				return // the reader will miss it
			}
			rest = rest[n:]
		}
	}
	before := bytes.Clone(content)
	go send(mine)
	go send(theirs)
	for c, want := range map[net.Conn]string{mine: string(before), theirs: string(greeting) + string(before)} {
		got := make([]byte, len(want))
		_, err := io.ReadFull(c, got)
		require.NoError(t, err)
		require.True(t, string(got) == want)
	}
	require.Equal(t, before, content, "what is written stays as it was")
}

func TestEncryptedWriteFailsForGood(t *testing.T) {
	broken := errors.New("broken")
	c := &encrypted{Conn: failing{err: broken}, w: newCipher([20]byte{})}
	n, err := c.Write(make([]byte, 10))
	require.Equal(t, 3, n)
	require.Equal(t, broken, err)
	c.Conn = failing{}
	_, err = c.Write(make([]byte, 10))
	require.Equal(t, broken, err, "the ciphers no longer agree")
}

type failing struct {
	net.Conn
	err error
}

func (f failing) Write(p []byte) (int, error) { return 3, f.err }

func TestHandshakeEndsWithItsContext(t *testing.T) {
	reason := errors.New("not any more")
	sides := map[string]func(ctx context.Context, c net.Conn) error{
		"initiator": func(ctx context.Context, c net.Conn) error {
			_, err := Initiate(ctx, c, infoHash, Options{}, greeting)
			return err
		},
		"acceptor": func(ctx context.Context, c net.Conn) error {
			_, _, err := Accept(ctx, c, nil, knows(infoHash), Options{})
			return err
		},
	}
	peers := map[string]func(c net.Conn){
		"silent":          func(c net.Conn) {},
		"never reads":     func(c net.Conn) { c.Write(make([]byte, 10)) },
		"only reads":      func(c net.Conn) { io.ReadFull(c, make([]byte, 10)) },
		"stops in a key":  func(c net.Conn) { go io.Copy(io.Discard, c); c.Write(make([]byte, keySize-1)) },
		"stops after one": func(c net.Conn) { go io.Copy(io.Discard, c); c.Write(bytes.Repeat([]byte{5}, keySize+7)) },
	}
	for side, handshake := range sides {
		for peer, act := range peers {
			t.Run(side+"/"+peer, func(t *testing.T) {
				a, b := net.Pipe()
				defer a.Close()
				defer b.Close()
				ctx, cancel := context.WithCancelCause(t.Context())
				failed := make(chan error, 1)
				go func() { failed <- handshake(ctx, a) }()
				acted := make(chan struct{})
				go func() { act(b); close(acted) }()
				if peer != "never reads" && (side != "acceptor" || peer != "only reads") {
					<-acted // else it, too, waits
				}
				cancel(reason)
				err := <-failed
				require.ErrorIs(t, err, context.Canceled)
				require.ErrorIs(t, err, reason)
			})
		}
	}
	t.Run("ended before", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		a, b := net.Pipe()
		defer a.Close()
		defer b.Close()
		require.ErrorIs(t, sides["initiator"](ctx, a), context.Canceled)
		require.ErrorIs(t, sides["acceptor"](ctx, b), context.Canceled)
	})
}

// said is a connection on which the peer has said all that it ever will, and hears whatever we say.
type said struct {
	net.Conn
	from io.Reader
}

func says(p []byte) said                   { return said{from: bytes.NewReader(p)} }
func (s said) Read(p []byte) (int, error)  { return s.from.Read(p) }
func (s said) Write(p []byte) (int, error) { return len(p), nil }
func (s said) SetDeadline(time.Time) error { return nil }

func TestGarbageIsRefused(t *testing.T) {
	minusOne := prime.Bytes()
	minusOne[keySize-1]--
	tests := map[string]struct {
		said string
		want string
	}{
		"nothing":            {"", "unexpected EOF"},
		"web page":           {"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "unexpected EOF"},
		"key 0":              {strings.Repeat("\x00", 2000), "public key"},
		"key 1":              {strings.Repeat("\x00", keySize-1) + "\x01" + strings.Repeat("\x00", 2000), "public key"},
		"key -1":             {string(minusOne) + strings.Repeat("\x00", 2000), "public key"},
		"key over the prime": {strings.Repeat("\xFF", 2000), "public key"},
		"padding for ever":   {strings.Repeat("\x05", 2000), errNoSync.Error()},
		"end in the padding": {strings.Repeat("\x05", 300), "unexpected EOF"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Initiate(t.Context(), says([]byte(tt.said)), infoHash, Options{}, greeting)
			require.ErrorContains(t, err, tt.want)
			_, _, err = Accept(t.Context(), says([]byte(tt.said)), nil, knows(infoHash), Options{})
			require.ErrorContains(t, err, tt.want)
		})
	}
	_, err := Initiate(t.Context(), says(nil), infoHash, Options{}, make([]byte, maxInitial+1))
	require.ErrorContains(t, err, "initial payload")
}

// offering is the third step as bytes, with head bytes of padding before it and body encrypted.
func offering(head int, id [20]byte, body []byte) []byte {
	var secret [keySize]byte
	b := bytes.Repeat([]byte{0xAA}, head)
	mark, veiled := hash("req1", secret[:]), veil(id, secret)
	b = append(append(b, mark[:]...), veiled[:]...)
	w, _ := ciphers(secret, infoHash)
	at := len(b)
	b = append(b, body...)
	w.XORKeyStream(b[at:], b[at:])
	return b
}

func TestReadOffer(t *testing.T) {
	body := func(provide uint32, pad int, initial string) []byte {
		b := binary.BigEndian.AppendUint32(make([]byte, vcSize), provide)
		b = binary.BigEndian.AppendUint16(b, uint16(pad))
		b = append(b, make([]byte, min(pad, maxPad+1))...)
		b = binary.BigEndian.AppendUint16(b, uint16(len(initial)))
		return append(b, initial...)
	}
	id := StreamID(infoHash)
	tests := map[string]struct {
		said []byte
		want string // the error; "" is none
	}{
		"no padding":         {offering(0, id, body(3, 0, "hello")), ""},
		"longest padding":    {offering(maxPad, id, body(3, maxPad, "hello")), ""},
		"future methods":     {offering(5, id, body(0xFFFFFFFF, 5, "hello")), ""},
		"padding too long":   {offering(maxPad+1, id, body(3, 0, "hello")), errNoSync.Error()},
		"padding C too long": {offering(0, id, body(3, maxPad+1, "hello")), errPad.Error()},
		"padding C longest":  {offering(0, id, body(3, 0xFFFF, "hello")), errPad.Error()},
		"unknown info hash":  {offering(0, StreamID([20]byte{1}), body(3, 0, "hello")), errUnknownStream.Error()},
		"constant not zero":  {offering(0, id, []byte("00000000\x00\x00\x00\x03\x00\x00\x00\x00")), "verification constant"},
		"initial cut short":  {offering(0, id, body(3, 0, "hello"))[:20+20+8+4+2+2+4], "unexpected EOF"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := bytes.NewReader(append(tt.said, "payload"...))
			if tt.want == "unexpected EOF" {
				r = bytes.NewReader(tt.said)
			}
			a, err := readOffer(r, [keySize]byte{}, knows(infoHash))
			if tt.want != "" {
				require.ErrorContains(t, err, tt.want)
				return
			}
			require.NoError(t, err)
			require.Equal(t, "hello", string(a.initial))
			require.NotZero(t, a.provided&RC4)
			require.Equal(t, len("payload"), r.Len(), "nothing is read beyond the offer")
		})
	}
}

func TestReadChoice(t *testing.T) {
	tests := map[string]struct {
		said string
		want Method
		err  error
	}{
		"plain":               {"\x00\x00\x00\x01\x00\x00", Plaintext, nil},
		"RC4 and padding":     {"\x00\x00\x00\x02\x02\x00" + strings.Repeat("\x00", maxPad), RC4, nil},
		"a bit of the future": {"\xFF\x00\x00\x02\x00\x00", RC4, nil},
		"long padding":        {"\x00\x00\x00\x02\x02\x01" + strings.Repeat("\x00", maxPad+1), 0, errPad},
		"cut short":           {"\x00\x00\x00\x02\x02\x00", RC4, io.ErrUnexpectedEOF},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := []byte(tt.said)
			newCipher([20]byte{}).XORKeyStream(p, p)
			got, err := readChoice(bytes.NewReader(p), newCipher([20]byte{}))
			require.Equal(t, tt.err, err)
			require.Equal(t, tt.want, got)
		})
	}
}

// An acceptor that chooses what was not offered, nothing, or both, is refused.
func TestInitiateRefusesAnotherMethod(t *testing.T) {
	for _, method := range []uint32{0, 1, 3, 4} {
		a, b := net.Pipe()
		closing(t, a)
		closing(t, b)
		go func() {
			private := newPrivateKey()
			var theirs [keySize]byte
			io.ReadFull(b, theirs[:])
			go io.Copy(io.Discard, b)
			public := private.public()
			b.Write(public[:])
			secret, _ := private.secret(theirs)
			_, w := ciphers(secret, infoHash)
			p := binary.BigEndian.AppendUint32(make([]byte, vcSize), method)
			p = append(p, 0, 0)
			w.XORKeyStream(p, p)
			b.Write(p)
		}()
		_, err := Initiate(t.Context(), a, infoHash, Options{}, nil)
		require.ErrorContains(t, err, "peer chose method")
	}
}

func TestSynchronize(t *testing.T) {
	mark := []byte("aabaab")
	for _, pad := range []string{"", "x", "a", "aa", "aabaa", "aabaax", "abaab", strings.Repeat("a", maxPad)} {
		stream := pad + string(mark) + "payload"
		r := strings.NewReader(stream)
		require.NoError(t, synchronize(r, mark), pad)
		first := strings.Index(stream, string(mark)) + len(mark)
		require.Equal(t, len(stream)-first, r.Len(), "%q: nothing is read beyond the first mark", pad)
	}
	require.Equal(t, errNoSync, synchronize(strings.NewReader(strings.Repeat("a", maxPad+1)+string(mark)), mark))
}

func BenchmarkHandshake(b *testing.B) {
	for b.Loop() {
		mine, theirs := net.Pipe()
		done := make(chan error, 1)
		go func() {
			_, _, err := Accept(b.Context(), theirs, nil, knows(infoHash), Options{})
			done <- err
		}()
		_, err := Initiate(b.Context(), mine, infoHash, Options{}, greeting)
		if err := errors.Join(err, <-done); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncryptedRead(b *testing.B) {
	c := &encrypted{Conn: said{from: endless{}}, r: newCipher([20]byte{})}
	block := make([]byte, 16<<10)
	b.SetBytes(int64(len(block)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := io.ReadFull(c, block); err != nil {
			b.Fatal(err)
		}
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// A secret that begins with a zero byte is as good as any, but rtorrent gets it wrong.
func TestAnswerKeyMakesALongSecret(t *testing.T) {
	theirs := newPrivateKey()
	for range 2000 {
		k, s, err := answerKey(theirs.public())
		require.NoError(t, err)
		require.NotZero(t, s[0])
		same, err := theirs.secret(k.public())
		require.NoError(t, err)
		require.Equal(t, s, same)
	}
	_, _, err := answerKey([keySize]byte{keySize - 1: 1})
	require.Error(t, err)
}
