package sockets

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
)

// errNoDevice is the error if no interface has the bound address.
var errNoDevice = errors.New("no interface has the address")

// control binds a new socket to the interface that has the bound address. Without this, the routes of the system choose
// the interface. host is the address that is dialled, or "" for a listener. A connection to an address of this machine uses
// no interface and is left alone.
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
		return nil // the address belongs to a System of a test, or the system will refuse to bind to it
	}
	var failed error
	err = c.Control(func(fd uintptr) { failed = bindToDevice(fd, device, s.config.Bind.Is6()) })
	return errors.Join(err, failed)
}

// deviceOf returns the interface that has an address, or nil if there is none.
func deviceOf(a netip.Addr) (*net.Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	for _, device := range all {
		addrs, err := device.Addrs()
		if err != nil {
			continue // the interface has disappeared
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

// Addrs returns the addresses of this machine on interfaces that are running. An interface that is down, or whose cable is
// unplugged, keeps its addresses, but they are of no use meanwhile.
func (s *Sockets) Addrs() ([]netip.Addr, error) {
	if a := s.config.System.Addrs; a != nil {
		return a()
	}
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var addrs []netip.Addr
	for _, device := range all {
		if device.Flags&net.FlagRunning == 0 {
			continue
		}
		own, err := device.Addrs()
		if err != nil {
			continue // the interface has disappeared
		}
		for _, a := range own {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				addrs = append(addrs, p.Addr().Unmap())
			}
		}
	}
	return addrs, nil
}

// present returns an error if the System of a test lacks the bound address. The real system needs no check: it refuses to
// bind to an address that it lacks.
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

// Device returns the interface that has the bound address, or nil if Config.Bind is not set. The error matches ErrCutOff if
// no interface has the address.
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
