package wire

import "encoding/binary"

const (
	// MaxHashes is how many hashes of a layer one message may carry (BEP 52), beside those that prove them.
	MaxHashes = 8192
	// hashRequestSize is the length of a hash request in bytes, and of what hashes begin with.
	hashRequestSize = 32 + 4*4
	maxHashesSize   = hashRequestSize + 32*(MaxHashes+64)
)

// HashRequest names hashes of the tree of one file (BEP 52): the payload of a hash request and of a hash reject, and what the
// payload of hashes begins with. Its numbers may be any.
type HashRequest struct {
	Root                        [32]byte // of the file
	Base, Index, Length, Proofs uint32
}

// ParseHashRequest parses the Payload of a message that is one of these three, and returns with it the hashes of the last kind,
// which are a part of it.
func ParseHashRequest(payload []byte) (r HashRequest, hashes []byte) {
	r.Root = [32]byte(payload)
	for i, v := range []*uint32{&r.Base, &r.Index, &r.Length, &r.Proofs} {
		*v = binary.BigEndian.Uint32(payload[32+4*i:])
	}
	return r, payload[hashRequestSize:]
}

// AppendHashRequest appends a hash request.
func AppendHashRequest(b []byte, r HashRequest) []byte { return appendHashes(b, AskHashes, r, nil) }

// AppendHashes appends hashes, the answer to a hash request.
func AppendHashes(b []byte, r HashRequest, hashes []byte) []byte {
	return appendHashes(b, Hashes, r, hashes)
}

// AppendHashReject appends a hash reject, the refusal of a hash request.
func AppendHashReject(b []byte, r HashRequest) []byte { return appendHashes(b, HashReject, r, nil) }

func appendHashes(b []byte, id ID, r HashRequest, hashes []byte) []byte {
	b = append(header(b, id, hashRequestSize+len(hashes)), r.Root[:]...)
	for _, v := range []uint32{r.Base, r.Index, r.Length, r.Proofs} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return append(b, hashes...)
}
