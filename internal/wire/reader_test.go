package wire

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

const testPayload = 64 << 10

var (
	hashRequest        = HashRequest{Root: [32]byte{1, 31: 2}, Base: 3, Index: 1 << 31, Length: 512, Proofs: 7}
	encodedHashRequest = slices.Concat(hashRequest.Root[:], []byte{0, 0, 0, 3, 0x80, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 7})
)

// sample returns a stream with every kind of message, and what Next must return for it. Messages of variable length have about n
// bytes.
func sample(n int) (stream []byte, want []Message) {
	big := bytes.Repeat([]byte("0123456789"), n/10)
	b := AppendKeepAlive(nil)
	for _, id := range []ID{Choke, Unchoke, Interested, NotInterested, HaveAll, HaveNone} {
		b = AppendSimple(b, id)
	}
	b = AppendHave(b, 1<<31)
	b = AppendSuggest(b, 2)
	b = AppendAllowedFast(b, 3)
	b = AppendBitfield(b, []byte{0xF0, 0x0F})
	b = AppendBitfield(b, big)
	b = AppendRequest(b, 4, 5, 6)
	b = AppendPieceHeader(b, 7, 8, uint32(len(big)))
	b = append(b, big...)
	b = AppendPieceHeader(b, 9, 0, 3)
	b = append(b, "abc"...)
	b = AppendCancel(b, 10, 11, 12)
	b = AppendReject(b, 13, 14, 15)
	b = AppendPort(b, 6881)
	b = AppendExtended(b, 0, []byte("de"))
	b = AppendExtended(b, 255, nil)
	b = AppendExtended(b, 3, big)
	b = AppendHashRequest(b, hashRequest)
	b = AppendHashes(b, hashRequest, nil)
	b = AppendHashes(b, hashRequest, big[:len(big)/32*32])
	b = AppendHashReject(b, hashRequest)
	b = append(b, 0, 0, 0, 3, 99, 1, 2)
	return append(b, 0, 0, 0, 1, 100), []Message{
		{ID: KeepAlive},
		{ID: Choke}, {ID: Unchoke}, {ID: Interested}, {ID: NotInterested}, {ID: HaveAll}, {ID: HaveNone},
		{ID: Have, Index: 1 << 31},
		{ID: Suggest, Index: 2},
		{ID: AllowedFast, Index: 3},
		{ID: Bitfield, Payload: []byte{0xF0, 0x0F}},
		{ID: Bitfield, Payload: big},
		{ID: Request, Index: 4, Begin: 5, Length: 6},
		{ID: Piece, Index: 7, Begin: 8, Length: uint32(len(big))},
		{ID: Piece, Index: 9, Begin: 0, Length: 3},
		{ID: Cancel, Index: 10, Begin: 11, Length: 12},
		{ID: Reject, Index: 13, Begin: 14, Length: 15},
		{ID: Port, Index: 6881},
		{ID: Extended, ExtID: 0, Payload: []byte("de")},
		{ID: Extended, ExtID: 255, Payload: []byte{}},
		{ID: Extended, ExtID: 3, Payload: big},
		{ID: AskHashes, Payload: encodedHashRequest},
		{ID: Hashes, Payload: encodedHashRequest},
		{ID: Hashes, Payload: append(encodedHashRequest, big[:len(big)/32*32]...)},
		{ID: HashReject, Payload: encodedHashRequest},
		{ID: 99},
		{ID: 100},
	}
}

// appendMessage is the inverse of Next. block is the block of a Piece message.
func appendMessage(b []byte, m Message, block []byte) []byte {
	switch m.ID {
	case KeepAlive:
		return AppendKeepAlive(b)
	case Have:
		return AppendHave(b, m.Index)
	case Suggest:
		return AppendSuggest(b, m.Index)
	case AllowedFast:
		return AppendAllowedFast(b, m.Index)
	case Bitfield:
		return AppendBitfield(b, m.Payload)
	case Request:
		return AppendRequest(b, m.Index, m.Begin, m.Length)
	case Cancel:
		return AppendCancel(b, m.Index, m.Begin, m.Length)
	case Reject:
		return AppendReject(b, m.Index, m.Begin, m.Length)
	case Piece:
		return append(AppendPieceHeader(b, m.Index, m.Begin, m.Length), block...)
	case Port:
		return AppendPort(b, uint16(m.Index))
	case Extended:
		return AppendExtended(b, m.ExtID, m.Payload)
	case AskHashes, Hashes, HashReject:
		r, hashes := ParseHashRequest(m.Payload)
		switch m.ID {
		case AskHashes:
			return AppendHashRequest(b, r)
		case Hashes:
			return AppendHashes(b, r, hashes)
		}
		return AppendHashReject(b, r)
	}
	return AppendSimple(b, m.ID)
}

func TestReaderReadsWhatWasAppended(t *testing.T) {
	stream, want := sample(30_000)
	sources := map[string]func(io.Reader) io.Reader{
		"whole":        func(r io.Reader) io.Reader { return r },
		"byte by byte": iotest.OneByteReader,
		"halves":       iotest.HalfReader,
		"data and EOF": iotest.DataErrReader,
	}
	for name, source := range sources {
		t.Run(name, func(t *testing.T) {
			r := NewReader(source(bytes.NewReader(stream)), testPayload)
			var again []byte
			for i, w := range want {
				m, err := r.Next()
				require.NoError(t, err, "message %d", i)
				require.Equal(t, w, m, "message %d", i)
				if m.ID >= 99 && m.ID != KeepAlive {
					continue // an unknown message: only its id is returned
				}
				block := make([]byte, m.Length)
				if m.ID == Piece {
					half := m.Length / 2
					require.NoError(t, r.ReadBlock(block[:half]))
					require.Error(t, r.ReadBlock(make([]byte, m.Length)), "more than is left")
					require.NoError(t, r.ReadBlock(block[half:]))
				}
				again = appendMessage(again, m, block)
			}
			_, err := r.Next()
			require.Equal(t, io.EOF, err)
			require.Equal(t, stream[:len(again)], again)
		})
	}
}

func TestReaderSkipsBlocks(t *testing.T) {
	stream, want := sample(30_000)
	r := NewReader(bytes.NewReader(stream), testPayload)
	for i, w := range want {
		m, err := r.Next()
		require.NoError(t, err)
		require.Equal(t, w, m)
		if m.ID == Piece && i%2 == 0 { // else Next skips it
			require.NoError(t, r.ReadBlock(make([]byte, 1)))
			require.NoError(t, r.SkipBlock())
		}
	}
}

func TestReaderStreamEndsWithinAMessage(t *testing.T) {
	stream := AppendHave(nil, 1)
	stream = append(AppendPieceHeader(stream, 1, 2, 5), "block"...)
	stream = AppendBitfield(stream, make([]byte, 3*minBuffer))
	boundary := map[int]bool{0: true, 9: true, 27: true, len(stream): true}
	for n := range len(stream) {
		r := NewReader(bytes.NewReader(stream[:n]), testPayload)
		var err error
		for err == nil {
			var m Message
			if m, err = r.Next(); m.ID == Piece && err == nil {
				err = r.ReadBlock(make([]byte, m.Length))
			}
		}
		if boundary[n] {
			require.Equal(t, io.EOF, err, "after %d bytes", n)
		} else {
			require.Equal(t, io.ErrUnexpectedEOF, err, "after %d bytes", n)
		}
	}
}

func TestReaderRefuses(t *testing.T) {
	tests := map[string][]byte{
		"choke with a payload":     {0, 0, 0, 2, 0, 0},
		"short have":               {0, 0, 0, 4, 4, 0, 0, 0},
		"long have":                {0, 0, 0, 6, 4, 0, 0, 0, 0, 0},
		"short request":            {0, 0, 0, 12, 6},
		"long request":             {0, 0, 0, 14, 6},
		"long cancel":              {0, 0, 0, 14, 8},
		"long reject":              {0, 0, 0, 14, 16},
		"long port":                {0, 0, 0, 5, 9},
		"piece without a begin":    {0, 0, 0, 8, 7},
		"piece over 128 KiB":       {0, 2, 0, 10, 7},
		"bitfield over the bound":  {0, 1, 0, 2, 5},
		"extended without an id":   {0, 0, 0, 1, 20},
		"extended over 1 MiB":      {0, 0x10, 0, 1, 20},
		"short hash request":       {0, 0, 0, 48, 21},
		"hash request with hashes": {0, 0, 0, 81, 21},
		"hashes cut short":         {0, 0, 0, 80, 22},
		"hashes over the bound":    {0, 4, 8, 81, 22},
		"long hash reject":         {0, 0, 0, 50, 23},
		"have all with a payload":  {0, 0, 0, 2, 14, 0},
		"have none with a payload": {0, 0, 0, 2, 15, 0},
		"short suggest":            {0, 0, 0, 1, 13},
		"short allowed fast":       {0, 0, 0, 1, 17},
		"unknown over 1 MiB":       {0, 0x10, 0, 1, 99},
		"everything":               {0xFF, 0xFF, 0xFF, 0xFF, 0xFF},
	}
	for name, stream := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := NewReader(bytes.NewReader(stream), testPayload).Next()
			var violated *ProtocolError
			require.ErrorAs(t, err, &violated)
		})
	}
}

func TestReaderAcceptsLongestMessages(t *testing.T) {
	stream := append(AppendPieceHeader(nil, 0, 0, MaxBlock), make([]byte, MaxBlock)...)
	stream = AppendBitfield(stream, make([]byte, testPayload))
	stream = AppendExtended(stream, 1, make([]byte, maxUnknown-2))
	stream = append(append(stream, 0, 0x10, 0, 0, 99), make([]byte, maxUnknown-1)...)
	r := NewReader(bytes.NewReader(stream), testPayload)
	for _, id := range []ID{Piece, Bitfield, Extended, 99} {
		m, err := r.Next()
		require.NoError(t, err)
		require.Equal(t, id, m.ID)
	}
	_, err := r.Next()
	require.Equal(t, io.EOF, err)
}

// greedy is an io.Reader that records the length of the longest buffer passed to Read.
type greedy struct {
	io.Reader
	longest int
}

func (g *greedy) Read(p []byte) (int, error) {
	g.longest = max(g.longest, len(p))
	return g.Reader.Read(p)
}

// Only the beginning of a payload that is longer than any useful one is kept.
func TestReaderKeepsTheBeginning(t *testing.T) {
	hello := append([]byte("d1:v1:xe"), make([]byte, maxUnknown-10)...)
	stream := AppendExtended(nil, 7, hello)
	stream = AppendHashes(stream, hashRequest, make([]byte, MaxHashes*32))
	stream = AppendBitfield(stream, make([]byte, 1<<20-1))
	stream = AppendHave(stream, 3)
	r := NewReader(bytes.NewReader(stream), SkipBitfields)
	most := 0
	r.Charge(func(n int) bool { most = max(most, n); return true }, always)
	for _, want := range []Message{
		{ID: Extended, ExtID: 7, Payload: hello[:maxKept]},
		{ID: Hashes, Payload: append(slices.Clone(encodedHashRequest), make([]byte, maxKept-len(encodedHashRequest))...)},
		{ID: Bitfield},
		{ID: Have, Index: 3},
	} {
		m, err := r.Next()
		require.NoError(t, err)
		require.Equal(t, want, m)
	}
	require.LessOrEqual(t, most, maxBuffer+maxKept)
}

// A Reader reports its memory as it grows and shrinks. If it may hold no more, it reads nothing more.
func TestReaderIsCharged(t *testing.T) {
	const long = 300_000
	stream := append(AppendBitfield(nil, make([]byte, long)), AppendHave(nil, 1)...)
	var told []int
	r := NewReader(bytes.NewReader(stream), long)
	r.Charge(func(n int) bool { told = append(told, n); return true }, always)
	_, err := r.Next()
	require.NoError(t, err)
	require.True(t, slices.IsSorted(told))
	require.GreaterOrEqual(t, told[len(told)-1], long)
	_, err = r.Next()
	require.NoError(t, err)
	require.Less(t, told[len(told)-1], maxBuffer)

	src := &greedy{Reader: bytes.NewReader(stream)}
	r = NewReader(src, long)
	r.Charge(func(n int) bool { return n < 100_000 }, always)
	for range 2 {
		_, err = r.Next()
		require.ErrorIs(t, err, ErrNoRoom)
	}
	require.Less(t, src.longest, 100_000)
}

// Of a message that is only begun, little more is held than has come. A buffer for which there is no room stays small, and messages are
// read nevertheless.
func TestReaderBesideOthersThatHoldMuch(t *testing.T) {
	stream := AppendExtended(nil, 7, make([]byte, maxKept))[:6]
	r := NewReader(bytes.NewReader(stream), 0)
	most := 0
	r.Charge(func(n int) bool { most = max(most, n); return true }, always)
	_, err := r.Next()
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.LessOrEqual(t, most, 2*minBuffer)

	r = NewReader(bytes.NewReader(slices.Repeat(AppendHave(nil, 3), 100_000)), 0)
	r.Charge(func(n int) bool { return n == 0 }, func(int) bool { return false })
	for range 100_000 {
		_, err := r.Next()
		require.NoError(t, err)
	}
}

// always is a bound that is never reached.
func always(int) bool { return true }

// A peer that sends a length of a megabyte and then few bytes must not make us allocate a megabyte.
func TestReaderAllocatesAsBytesArrive(t *testing.T) {
	const claimed = 1 << 20
	for _, sent := range []int{0, 100, 10_000, 100_000, claimed - 1} {
		stream := AppendBitfield(nil, make([]byte, claimed))[:5+sent]
		src := &greedy{Reader: bytes.NewReader(stream)}
		_, err := NewReader(src, claimed).Next()
		require.Equal(t, io.ErrUnexpectedEOF, err)
		require.LessOrEqual(t, src.longest, 2*minBuffer+2*sent)
	}
}

func TestReaderReturnsErrorsOfStream(t *testing.T) {
	broken := errors.New("broken")
	stream := AppendPieceHeader(nil, 0, 0, 100)
	for n := range len(stream) + 1 {
		r := NewReader(io.MultiReader(bytes.NewReader(stream[:n]), iotest.ErrReader(broken)), testPayload)
		_, err := r.Next()
		if n == len(stream) {
			require.NoError(t, err)
			err = r.ReadBlock(make([]byte, 100))
		}
		require.ErrorIs(t, err, broken)
	}
}

// pieces is an endless stream of piece messages of 16 KiB.
type pieces struct {
	message []byte
	at      int
}

func newPieces() *pieces {
	return &pieces{message: append(AppendPieceHeader(nil, 1, 16<<10, 16<<10), make([]byte, 16<<10)...)}
}

func (p *pieces) Read(b []byte) (int, error) {
	for n := 0; n < len(b); {
		k := copy(b[n:], p.message[p.at:])
		p.at = (p.at + k) % len(p.message)
		n += k
	}
	return len(b), nil
}

func TestReaderDoesNotAllocate(t *testing.T) {
	r := NewReader(newPieces(), testPayload)
	block := make([]byte, 16<<10)
	allocs := testing.AllocsPerRun(1000, func() {
		m, err := r.Next()
		if err != nil || m.ID != Piece || r.ReadBlock(block) != nil {
			t.Fatal(m, err)
		}
	})
	require.Zero(t, allocs)
}

// in is an io.Reader that returns at most n bytes at a time.
type in struct {
	src io.Reader
	n   int
}

func (r *in) Read(p []byte) (int, error) { return r.src.Read(p[:min(len(p), r.n)]) }

func TestReaderAdaptsItsBuffer(t *testing.T) {
	src := &in{newPieces(), maxBuffer}
	r := NewReader(src, testPayload)
	block := make([]byte, 16<<10)
	read := func(blocks int) {
		for range blocks {
			m, err := r.Next()
			require.NoError(t, err)
			require.Equal(t, Message{ID: Piece, Index: 1, Begin: 16 << 10, Length: 16 << 10}, m)
			require.NoError(t, r.ReadBlock(block))
		}
	}
	require.Equal(t, minBuffer, len(r.buf))
	read(8)
	require.Equal(t, maxBuffer, len(r.buf), "large reads")
	src.n = 1000
	read(4)
	require.Equal(t, maxBuffer, len(r.buf), "a few small reads")
	read(100)
	require.Equal(t, minBuffer, len(r.buf), "many small reads")
	src.n = maxBuffer
	read(8)
	require.Equal(t, maxBuffer, len(r.buf))
}

// If the stream has much to read, one system call reads several blocks.
func TestReaderMakesFewReads(t *testing.T) {
	src := &counting{Reader: newPieces()}
	r := NewReader(src, testPayload)
	block := make([]byte, 16<<10)
	for range 1000 {
		_, err := r.Next()
		require.NoError(t, err)
		require.NoError(t, r.ReadBlock(block))
	}
	require.Less(t, src.reads, 300)
}

type counting struct {
	io.Reader
	reads int
}

func (c *counting) Read(p []byte) (int, error) {
	c.reads++
	return c.Reader.Read(p)
}

func FuzzReader(f *testing.F) {
	stream, _ := sample(20)
	f.Add(stream, uint8(0))
	f.Add(stream, uint8(1))
	f.Add(stream[:70], uint8(5))
	stream, _ = sample(2 * minBuffer)
	f.Add(stream, uint8(3))
	f.Add([]byte{0xFF, 0xFF, 0xFF, 0xFF, 0xFF}, uint8(0))
	f.Fuzz(func(t *testing.T, stream []byte, how uint8) {
		var src io.Reader = bytes.NewReader(stream)
		switch how % 3 {
		case 1:
			src = iotest.OneByteReader(src)
		case 2:
			src = iotest.HalfReader(src)
		}
		r := NewReader(src, testPayload)
		var again []byte
		at := 0 // offset in the stream after the messages read so far
		for {
			m, err := r.Next()
			if err != nil {
				var violated *ProtocolError
				if !errors.As(err, &violated) && err != io.EOF && err != io.ErrUnexpectedEOF {
					t.Fatalf("error %v", err)
				}
				if err == io.EOF && at != len(stream) {
					t.Fatalf("end after %d bytes of %d", at, len(stream))
				}
				return
			}
			size := 4 + int(stream[at])<<24 + int(stream[at+1])<<16 + int(stream[at+2])<<8 + int(stream[at+3])
			raw := stream[at:min(at+size, len(stream))]
			at += size
			var block []byte
			if m.ID == Piece {
				block = make([]byte, m.Length)
				part := min(int(how), len(block))
				if r.ReadBlock(block[:part]) != nil || r.ReadBlock(block[part:]) != nil {
					if at <= len(stream) {
						t.Fatal("a whole block could not be read")
					}
					return
				}
			}
			switch m.ID {
			case KeepAlive, Choke, Unchoke, Interested, NotInterested, Have, Bitfield, Request, Piece, Cancel,
				Port, Suggest, HaveAll, HaveNone, Reject, AllowedFast, Extended, AskHashes, Hashes, HashReject:
				again = appendMessage(again[:0], m, block)
				if (m.ID != KeepAlive || size == 4) && (size < maxKept || m.ID == Bitfield || m.ID == Piece) && !bytes.Equal(raw, again) {
					t.Fatalf("%x read as %v appends as %x", raw, m, again)
				}
			}
		}
	})
}
