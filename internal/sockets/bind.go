package sockets

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
)

// errNoDevice is that no interface has the address that everything is bound to.
var errNoDevice = errors.New("no interface has the address")

// control binds a socket that is about to be opened to the interface that has the address that everything is bound
// to: the address alone would have packets leave by whichever interface the routes say. host is the address that is
// dialled; what is for this machine itself leaves by no interface.
func (s *Sockets) control(host string, c syscall.RawConn) error {
	if !s.config.Bind.IsValid() {
		return nil
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if own, err := s.Addrs(); err == nil && slices.Contains(own, ip.Unmap()) {
			return nil
		}
	}
	device, err := deviceOf(s.config.Bind)
	if err != nil {
		return err
	}
	if device == nil {
		return nil // the system has it, or refuses to bind to it
	}
	var failed error
	err = c.Control(func(fd uintptr) { failed = bindToDevice(fd, device, s.config.Bind.Is6()) })
	return errors.Join(err, failed)
}

// deviceOf is the interface that has an address, or nil.
func deviceOf(a netip.Addr) (*net.Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("interfaces of this machine: %w", err)
	}
	for _, device := range all {
		addrs, err := device.Addrs()
		if err != nil {
			continue // it has gone since
		}
		for _, b := range addrs {
			p, err := netip.ParsePrefix(b.String())
			if err != nil {
				continue
			}
			if own := p.Addr().Unmap(); own == a.WithZone("") || a.IsLoopback() && own.IsLoopback() && p.Contains(a) {
				return &device, nil
			}
		}
	}
	return nil, nil
}

// Addrs are the addresses of this machine on interfaces that are connected to something. One whose cable is out, or that is
// down, keeps its addresses, which are of no use meanwhile.
func (s *Sockets) Addrs() ([]netip.Addr, error) {
	if a := s.config.System.Addrs; a != nil {
		return a()
	}
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("interfaces of this machine: %w", err)
	}
	var addrs []netip.Addr
	for _, device := range all {
		if device.Flags&net.FlagRunning == 0 {
			continue
		}
		own, err := device.Addrs()
		if err != nil {
			continue // it has gone since
		}
		for _, a := range own {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				addrs = append(addrs, p.Addr().Unmap())
			}
		}
	}
	return addrs, nil
}

// present is an error if the system of a test lacks the address that everything is bound to; the real one refuses
// to bind to it then.
func (s *Sockets) present() error {
	if !s.config.Bind.IsValid() || s.config.System.Addrs == nil {
		return nil
	}
	addrs, err := s.config.System.Addrs()
	if err == nil && !slices.Contains(addrs, s.config.Bind) {
		err = fmt.Errorf("%w: %w %s", ErrCutOff, errNoDevice, s.config.Bind)
	}
	return err
}

// Device is the interface that has the address that everything is bound to, or nil if there is no such address.
func (s *Sockets) Device() (*net.Interface, error) {
	if !s.config.Bind.IsValid() {
		return nil, nil
	}
	device, err := deviceOf(s.config.Bind)
	if err == nil && device == nil {
		err = fmt.Errorf("%w: %w %s", ErrCutOff, errNoDevice, s.config.Bind)
	}
	return device, err
}
