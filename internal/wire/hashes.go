package wire

import "encoding/binary"

const (
	// MaxHashes is how many hashes of a layer one message may have (BEP 52), not counting the proof hashes.
	MaxHashes = 8192
	// hashRequestSize is the length in bytes of the payload of a hash request, with which hashes messages begin too.
	hashRequestSize = 32 + 4*4
	maxHashesSize   = hashRequestSize + 32*(MaxHashes+64)
)

// HashRequest identifies hashes in the tree of one file (BEP 52). It is the payload of a hash request and of a hash reject, and
// the start of the payload of hashes. The numbers are unchecked.
type HashRequest struct {
	Root                        [32]byte // root of the file's tree
	Base, Index, Length, Proofs uint32
}

// ParseHashRequest parses the Payload of an AskHashes, Hashes or HashReject message. hashes is the part of payload after the
// request; it is empty unless the message is Hashes.
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
