package proxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
)

const (
	socksVersion = 5
	authVersion  = 1

	methodNone     = 0
	methodPassword = 2
	methodRefused  = 0xff

	socksConnect   = 1
	socksAssociate = 3

	addrIPv4 = 1
	addrName = 3
	addrIPv6 = 4
)

// A socksReply is the code with which a SOCKS proxy refuses a request (RFC 1928, 6).
type socksReply uint8

const (
	replyNotAllowed  socksReply = 2
	replyUnsupported socksReply = 7
)

func (r socksReply) Error() string {
	names := [...]string{
		1: "general failure", 2: "not allowed by its rules", 3: "network unreachable", 4: "host unreachable",
		5: "connection refused", 6: "TTL expired", 7: "command not supported", 8: "address type not supported",
	}
	if int(r) < len(names) && names[r] != "" {
		return "the proxy says: " + names[r]
	}
	return fmt.Sprintf("the proxy says: reply %d", uint8(r))
}

// checkUser returns an error if the user name or the password does not fit in a request (RFC 1929).
func checkUser(u *url.Userinfo) error {
	password, _ := u.Password()
	if n := len(u.Username()); n == 0 || n > 255 {
		return fmt.Errorf("user name of %d bytes, want 1 to 255", n)
	}
	if n := len(password); n > 255 {
		return fmt.Errorf("password of %d bytes, want at most 255", n)
	}
	return nil
}

// requestSOCKS negotiates the authentication method, authenticates if the proxy requires it, and makes a request. It
// returns the address in the reply. It reads nothing after the reply.
func requestSOCKS(rw io.ReadWriter, user *url.Userinfo, command byte, to target) (target, error) {
	methods := []byte{methodNone}
	if user != nil {
		methods = append(methods, methodPassword)
	}
	if _, err := rw.Write(append([]byte{socksVersion, byte(len(methods))}, methods...)); err != nil {
		return target{}, err
	}
	var b [2]byte
	if err := readFull(rw, b[:]); err != nil {
		return target{}, err
	}
	switch {
	case b[0] != socksVersion:
		return target{}, fmt.Errorf("answer of version %d: not a SOCKS 5 proxy", b[0])
	case b[1] == methodPassword && user != nil:
		if err := authenticate(rw, user); err != nil {
			return target{}, err
		}
	case b[1] == methodRefused && user == nil:
		return target{}, errors.New("the proxy requires a user")
	case b[1] != methodNone:
		return target{}, fmt.Errorf("unsupported authentication method %d", b[1])
	}
	if _, err := rw.Write(appendTarget([]byte{socksVersion, command, 0}, to)); err != nil {
		return target{}, err
	}
	return readReply(rw)
}

// authenticate sends the user name and the password (RFC 1929).
func authenticate(rw io.ReadWriter, user *url.Userinfo) error {
	password, _ := user.Password()
	b := append([]byte{authVersion, byte(len(user.Username()))}, user.Username()...)
	b = append(append(b, byte(len(password))), password...)
	if _, err := rw.Write(b); err != nil {
		return err
	}
	var answer [2]byte
	if err := readFull(rw, answer[:]); err != nil {
		return err
	}
	if answer[1] != 0 { // answer[0] is the version, which some proxies set wrongly
		return errors.New("the proxy refuses the user or the password")
	}
	return nil
}

// readReply reads the reply to a request (RFC 1928, 6) and returns the address in it.
func readReply(r io.Reader) (target, error) {
	b := make([]byte, 4, 4+1+maxName+2)
	if err := readFull(r, b); err != nil {
		return target{}, err
	}
	if b[0] != socksVersion {
		return target{}, fmt.Errorf("answer of version %d: not a SOCKS 5 proxy", b[0])
	}
	if b[1] != 0 { // the rest of a refusal is not needed, and may be missing
		return target{}, socksReply(b[1])
	}
	b = b[:5] // every address has at least one byte; the first byte of a name is its length
	if err := readFull(r, b[4:]); err != nil {
		return target{}, err
	}
	n := targetLength(b[3:])
	if n == 0 {
		return target{}, fmt.Errorf("answer with unknown address type %d", b[3])
	}
	b = b[:3+n]
	if err := readFull(r, b[5:]); err != nil {
		return target{}, err
	}
	to, _, _ := cutTarget(b[3:])
	return to, nil
}

// readFull is io.ReadFull, but returns io.ErrUnexpectedEOF also if the stream ends before the first byte.
func readFull(r io.Reader, b []byte) error {
	_, err := io.ReadFull(r, b)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// appendTarget appends the type of an address, the address and the port (RFC 1928, 5).
func appendTarget(b []byte, t target) []byte {
	switch {
	case t.ip.Is4():
		b = append(b, addrIPv4)
		b = append(b, t.ip.AsSlice()...)
	case t.ip.Is6():
		b = append(b, addrIPv6)
		b = append(b, t.ip.AsSlice()...)
	default:
		b = append(b, addrName, byte(len(t.name)))
		b = append(b, t.name...)
	}
	return binary.BigEndian.AppendUint16(b, t.port)
}

// targetLength returns the length in bytes of an encoded target, given its first two bytes, or 0 if its type is unknown.
func targetLength(b []byte) int {
	switch b[0] {
	case addrIPv4:
		return 1 + 4 + 2
	case addrIPv6:
		return 1 + 16 + 2
	case addrName:
		return 1 + 1 + int(b[1]) + 2
	}
	return 0
}

// cutTarget parses what appendTarget wrote at the start of b, and returns the rest of b.
func cutTarget(b []byte) (t target, rest []byte, ok bool) {
	if len(b) < 2 {
		return t, nil, false
	}
	n := targetLength(b)
	if n == 0 || len(b) < n {
		return t, nil, false
	}
	host := b[1 : n-2]
	t.port = binary.BigEndian.Uint16(b[n-2:])
	if b[0] == addrName {
		t.name = string(host[1:])
	} else {
		t.ip, _ = netip.AddrFromSlice(host) // 4 or 16 bytes
		t.ip = t.ip.Unmap()
	}
	return t, b[n:], true
}
