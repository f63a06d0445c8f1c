package udpmux

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	readBatch   = 8 // packets, or runs of packets, in one read
	longRun     = 16 << 10
	maxSegments = 64    // of a run, as old kernels bound it
	maxRun      = 65000 // bytes of a run; with its headers it has to fit in an IP packet
)

// message is the kernel's struct mmsghdr.
type message struct {
	hdr unix.Msghdr
	n   uint32
}

// linuxSocket reads and writes with recvmmsg and sendmmsg, and with segmentation offload where the kernel
// has it: UDP_SEGMENT has it cut what is sent into packets as late as it can, UDP_GRO has it join what
// comes from one address. Nothing is allocated for a packet.
type linuxSocket struct {
	conn  *net.UDPConn
	raw   syscall.RawConn
	ipv6  bool
	zones zones

	// Read state, the reader's alone.
	in      [readBatch]message
	inVec   [readBatch]unix.Iovec
	inName  [readBatch]unix.RawSockaddrInet6 // large enough for both families
	inOOB   [readBatch][64]byte
	inBuf   [readBatch][]byte
	inAsk   int  // messages to ask for
	inWait  bool // for the first
	inCount int
	inErr   error
	receive func(fd uintptr) bool // made once

	// Write state.
	mu       sync.Mutex
	offload  bool // runs are sent with UDP_SEGMENT
	out      [maxSegments]message
	outVec   [maxSegments]unix.Iovec
	outName  unix.RawSockaddrInet6
	outOOB   [24]byte // one control message of two bytes
	outFirst int      // of the messages to send
	outEnd   int
	outErr   error
	transmit func(fd uintptr) // made once
}

func newSystemSocket(conn *net.UDPConn, noOffload bool) socket {
	raw, err := conn.SyscallConn()
	if err != nil {
		return newUDPSocket(conn)
	}
	local := unmap(conn.LocalAddr().(*net.UDPAddr).AddrPort())
	s := &linuxSocket{conn: conn, raw: raw, ipv6: local.Addr().Is6(), inAsk: readBatch}
	s.prepare(noOffload)
	for i := range s.in {
		s.inBuf[i] = make([]byte, maxPacket)
		s.inVec[i] = unix.Iovec{Base: &s.inBuf[i][0]}
		s.inVec[i].SetLen(maxPacket)
		h := &s.in[i].hdr
		h.Name = (*byte)(unsafe.Pointer(&s.inName[i]))
		h.Iov = &s.inVec[i]
		h.SetIovlen(1)
		h.Control = &s.inOOB[i][0]
	}
	for i := range s.out {
		h := &s.out[i].hdr
		h.Name = (*byte)(unsafe.Pointer(&s.outName))
		h.Namelen = unix.SizeofSockaddrInet4
		if s.ipv6 {
			h.Namelen = unix.SizeofSockaddrInet6
		}
		h.Iov = &s.outVec[i]
		h.SetIovlen(1)
	}
	s.receive = s.recvmmsg
	s.transmit = s.sendmmsg
	return s
}

// prepare sets the socket's options. A kernel that knows one of them not goes without it.
func (s *linuxSocket) prepare(noOffload bool) {
	s.raw.Control(func(fd uintptr) {
		s.fragment(int(fd), true)
		if noOffload {
			return
		}
		unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_GRO, 1)
		// A kernel that has never heard of UDP_SEGMENT would send a run as one packet.
		_, err := unix.GetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT)
		s.offload = err == nil
	})
}

// fragment sets whether packets may be fragmented on their way. If not, what the kernel
// believes of the path is ignored, for that is what a probe is to find out.
func (s *linuxSocket) fragment(fd int, may bool) error {
	if s.ipv6 {
		mode := unix.IPV6_PMTUDISC_PROBE
		if may {
			mode = unix.IPV6_PMTUDISC_DONT
		}
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, mode)
	}
	mode := unix.IP_PMTUDISC_PROBE
	if may {
		mode = unix.IP_PMTUDISC_DONT
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, mode)
}

func (s *linuxSocket) localAddr() net.Addr { return s.conn.LocalAddr() }
func (s *linuxSocket) close() error        { return s.conn.Close() }

func (s *linuxSocket) read(deliver func([]byte, int, netip.AddrPort)) error {
	// A long run is handed on while it is in the processor's cache, before the next is read over it.
	for total := 0; total < readBatch; total += s.inCount {
		s.inWait = total == 0
		if err := s.raw.Read(s.receive); err != nil {
			return err
		}
		if s.inErr != nil {
			return os.NewSyscallError("recvmmsg", s.inErr)
		}
		asked := s.inAsk
		s.inAsk = readBatch
		for i := range s.inCount {
			m := &s.in[i]
			if m.n > longRun {
				s.inAsk = 1
			}
			if from, ok := s.parse(&s.inName[i]); ok && m.hdr.Flags&unix.MSG_TRUNC == 0 {
				deliver(s.inBuf[i][:m.n], segmentOf(s.inOOB[i][:m.hdr.Controllen]), from)
			}
		}
		if s.inCount < asked {
			break
		}
	}
	return nil
}

// recvmmsg reports whether there was something to read, be it an error, or there is no need to wait for it.
func (s *linuxSocket) recvmmsg(fd uintptr) bool {
	for i := range s.inAsk {
		s.in[i].hdr.Namelen = unix.SizeofSockaddrInet6
		s.in[i].hdr.SetControllen(len(s.inOOB[i]))
	}
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&s.in[0])), uintptr(s.inAsk), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			s.inCount, s.inErr = int(n), nil
			return true
		case unix.EAGAIN:
			s.inCount, s.inErr = 0, nil
			return !s.inWait
		case unix.EINTR:
		default:
			s.inCount, s.inErr = 0, errno
			return true
		}
	}
}

// segmentOf is the length of the packets that were joined, by the control messages that came with them, or 0.
func segmentOf(oob []byte) int {
	for len(oob) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
		n := int(h.Len)
		if n < unix.SizeofCmsghdr || n > len(oob) {
			break
		}
		if h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && n >= unix.CmsgLen(4) {
			return int(int32(binary.NativeEndian.Uint32(oob[unix.CmsgLen(0):])))
		}
		oob = oob[min(unix.CmsgSpace(n-unix.CmsgLen(0)), len(oob)):]
	}
	return 0
}

func (s *linuxSocket) send(p []byte, segment int, to netip.AddrPort) (n int, err error) {
	if segment == 0 || segment >= len(p) {
		segment = max(len(p), 1)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.address(to); err != nil {
		return 0, err
	}
	for {
		end := min(len(p), n+min(maxSegments, max(maxRun/segment, 1))*segment)
		sent, err := s.run(p[n:end], segment)
		n += sent
		if err != nil || n < end || n == len(p) {
			return n, err
		}
	}
}

func (s *linuxSocket) probe(p []byte, to netip.AddrPort) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.address(to); err != nil {
		return err
	}
	var unsupported bool
	err := s.raw.Control(func(fd uintptr) { unsupported = s.fragment(int(fd), false) != nil })
	if err != nil {
		return err
	}
	if unsupported {
		return errors.ErrUnsupported
	}
	defer s.raw.Control(func(fd uintptr) { s.fragment(int(fd), true) })
	n, err := s.run(p, max(len(p), 1))
	if err == nil && n < len(p) {
		err = os.NewSyscallError("sendmmsg", unix.EAGAIN)
	}
	return err
}

// run sends what the kernel may take at once. The caller holds s.mu.
func (s *linuxSocket) run(p []byte, segment int) (n int, err error) {
	defer s.forget()
	if s.offload && len(p) > segment {
		s.put(0, p, segment)
		sent, err := s.sendMessages(1)
		if sent == 1 || err == nil {
			return sent * len(p), nil
		}
		switch {
		case errors.Is(err, unix.EIO):
			s.offload = false // the device cannot, or something between it and us
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EMSGSIZE):
			// This run does not suit its route: its packets may be too long for the device.
		default:
			return 0, err
		}
	}
	count := 0
	for rest := p; count == 0 || len(rest) > 0; count++ {
		end := min(segment, len(rest))
		s.put(count, rest[:end], 0)
		rest = rest[end:]
	}
	sent, err := s.sendMessages(count)
	return min(sent*segment, len(p)), err
}

// put makes p the i-th message, to be cut into packets of segment bytes if that is not 0. The caller holds s.mu.
func (s *linuxSocket) put(i int, p []byte, segment int) {
	s.outVec[i].Base = unsafe.SliceData(p)
	s.outVec[i].SetLen(len(p))
	h := &s.out[i].hdr
	h.Control = nil
	h.SetControllen(0)
	if segment != 0 {
		c := (*unix.Cmsghdr)(unsafe.Pointer(&s.outOOB[0]))
		c.Level, c.Type = unix.SOL_UDP, unix.UDP_SEGMENT
		c.SetLen(unix.CmsgLen(2))
		binary.NativeEndian.PutUint16(s.outOOB[unix.CmsgLen(0):], uint16(segment))
		h.Control = &s.outOOB[0]
		h.SetControllen(unix.CmsgSpace(2))
	}
}

// forget lets go of what was sent. The caller holds s.mu.
func (s *linuxSocket) forget() {
	for i := 0; i < maxSegments && s.outVec[i].Base != nil; i++ {
		s.outVec[i].Base = nil
	}
}

// sendMessages sends the first count messages. It returns how many went out, which is less than count
// without an error if the system's queue is full. The caller holds s.mu.
func (s *linuxSocket) sendMessages(count int) (sent int, err error) {
	s.outFirst, s.outEnd, s.outErr = 0, count, nil
	if err := s.raw.Control(s.transmit); err != nil {
		return 0, err
	}
	if s.outErr == unix.EAGAIN || s.outErr == unix.ENOBUFS {
		return s.outFirst, nil
	}
	return s.outFirst, os.NewSyscallError("sendmmsg", s.outErr)
}

func (s *linuxSocket) sendmmsg(fd uintptr) {
	for s.outFirst < s.outEnd {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&s.out[s.outFirst])),
			uintptr(s.outEnd-s.outFirst), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			s.outFirst += int(n)
		case unix.EINTR:
		default:
			s.outErr = errno
			return
		}
	}
}

// address makes to the address of all messages. The caller holds s.mu.
func (s *linuxSocket) address(to netip.AddrPort) error {
	if s.ipv6 {
		scope, err := s.zones.index(to.Addr().Zone())
		if err != nil {
			return err
		}
		s.outName = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: to.Addr().As16(), Scope_id: scope}
		putPort(&s.outName.Port, to.Port())
	} else {
		if !to.Addr().Is4() {
			return unix.EAFNOSUPPORT
		}
		name := (*unix.RawSockaddrInet4)(unsafe.Pointer(&s.outName))
		*name = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: to.Addr().As4()}
		putPort(&name.Port, to.Port())
	}
	return nil
}

// parse reads the address of a packet's sender.
func (s *linuxSocket) parse(name *unix.RawSockaddrInet6) (from netip.AddrPort, ok bool) {
	switch name.Family {
	case unix.AF_INET:
		name := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return netip.AddrPortFrom(netip.AddrFrom4(name.Addr), getPort(&name.Port)), true
	case unix.AF_INET6:
		addr := netip.AddrFrom16(name.Addr)
		if name.Scope_id != 0 {
			addr = addr.WithZone(s.zones.name(name.Scope_id))
		}
		return netip.AddrPortFrom(addr.Unmap(), getPort(&name.Port)), true
	}
	return netip.AddrPort{}, false
}

// A port stands in network byte order.
func putPort(field *uint16, port uint16) {
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(field))[:], port)
}

func getPort(field *uint16) uint16 {
	return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(field))[:])
}
