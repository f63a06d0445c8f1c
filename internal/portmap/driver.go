package portmap

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// A driver is one protocol as one router speaks it. It is used by one goroutine.
type driver interface {
	protocol() Protocol
	// add makes or renews the mapping for a transport, at an external port if possible.
	add(ctx context.Context, t transport, external uint16) (grant, error)
	// remove deletes the mapping.
	remove(ctx context.Context, t transport, external uint16) error
	// check returns the external address, which is invalid if the router does not say, or errLost if the
	// mappings at these ports are gone.
	check(ctx context.Context, ports map[transport]uint16) (netip.Addr, error)
}

// A grant is a mapping made.
type grant struct {
	external uint16
	life     time.Duration
}

var errLost = errors.New("the router has forgotten the mapping")

// A takenError is the error for an external port that cannot be mapped although another one may be.
type takenError struct{ error }

func (e takenError) Unwrap() error { return e.error }

func isTaken(err error) bool {
	var e takenError
	return errors.As(err, &e)
}

// pcp is a driver of PCP.
type pcp struct {
	*router
	port    uint16
	nonces  map[transport]nonce // the same for as long as the machine's address is
	epoch   epoch
	address netip.Addr // outside, as the last mapping said
}

func (*pcp) protocol() Protocol { return PCP }

func (d *pcp) add(ctx context.Context, t transport, external uint16) (grant, error) {
	r, err := d.mapPort(ctx, t, external, lifetime)
	if err == nil && (r.life <= 0 || r.mapping.external == 0) {
		err = &refusal{by: PCP, reason: "an empty mapping"}
	}
	if err != nil {
		return grant{}, err
	}
	d.address = netip.Addr{}
	if !r.mapping.address.IsUnspecified() {
		d.address = r.mapping.address
	}
	return grant{r.mapping.external, r.life}, nil
}

func (d *pcp) remove(ctx context.Context, t transport, _ uint16) error {
	_, err := d.mapPort(ctx, t, 0, 0)
	return err
}

// mapPort sends a request for a mapping.
func (d *pcp) mapPort(ctx context.Context, t transport, external uint16, life time.Duration) (r pcpResponse, err error) {
	m := pcpMapping{nonce: d.nonces[t], transport: t, internal: d.port, external: external, address: netip.IPv6Unspecified()}
	if life > 0 && d.address.IsValid() {
		m.address = d.address
	} else if d.Local.Is4() {
		m.address = netip.IPv4Unspecified()
	}
	err = d.ask(ctx, appendPCPMap(nil, d.Local, life, m), func(b []byte) (ok bool) {
		r, ok = parsePCP(b)
		return ok && r.opcode == pcpMap &&
			(!r.mapped || r.mapping.nonce == m.nonce && r.mapping.transport == t && r.mapping.internal == d.port)
	})
	if err != nil {
		return r, err
	}
	d.epoch.restarted(time.Now(), r.epoch) // the mapping is of the new epoch
	if r.result != 0 {
		return r, &refusal{PCP, reasonOf(pcpResults[:], int(r.result)), r.life}
	}
	return r, nil
}

func (d *pcp) check(ctx context.Context, _ map[transport]uint16) (netip.Addr, error) {
	var r pcpResponse
	err := d.ask(ctx, appendPCPAnnounce(nil, d.Local), func(b []byte) (ok bool) {
		r, ok = parsePCP(b)
		return ok && r.opcode == pcpAnnounce
	})
	if err != nil {
		return netip.Addr{}, err
	}
	if d.epoch.restarted(time.Now(), r.epoch) { // which is also what a new address outside looks like
		return netip.Addr{}, errLost
	}
	return d.address, nil
}

// natpmp is a driver of NAT-PMP.
type natpmp struct {
	*router
	port  uint16
	epoch epoch
}

func (*natpmp) protocol() Protocol { return NATPMP }

func (d *natpmp) add(ctx context.Context, t transport, external uint16) (grant, error) {
	r, err := d.mapPort(ctx, t, external, lifetime)
	if err == nil && (r.life <= 0 || r.external == 0) {
		err = &refusal{by: NATPMP, reason: "an empty mapping"}
	}
	if err != nil {
		return grant{}, err
	}
	return grant{r.external, r.life}, nil
}

func (d *natpmp) remove(ctx context.Context, t transport, _ uint16) error {
	_, err := d.mapPort(ctx, t, 0, 0)
	return err
}

// mapPort sends a request for a mapping.
func (d *natpmp) mapPort(ctx context.Context, t transport, external uint16, life time.Duration) (natpmpResponse, error) {
	return d.request(ctx, appendNATPMPMap(nil, t, d.port, external, life), func(r natpmpResponse) bool {
		return r.opcode == natpmpOpcode(t) && (r.result != 0 || r.internal == d.port)
	})
}

// request sends a request until there is an answer that fits, which may be a refusal.
func (d *natpmp) request(ctx context.Context, b []byte, fits func(natpmpResponse) bool) (r natpmpResponse, err error) {
	err = d.ask(ctx, b, func(b []byte) (ok bool) {
		r, ok = parseNATPMP(b)
		return ok && fits(r)
	})
	if err == nil && r.result != 0 {
		err = &refusal{by: NATPMP, reason: reasonOf(natpmpResults[:], int(r.result))}
	}
	return r, err
}

func (d *natpmp) check(ctx context.Context, _ map[transport]uint16) (netip.Addr, error) {
	r, err := d.request(ctx, appendNATPMPAddress(nil), func(r natpmpResponse) bool { return r.opcode == natpmpAddress })
	if err != nil && r.result != natpmpNoNetwork {
		return netip.Addr{}, err
	}
	if d.epoch.restartedNATPMP(time.Now(), r.epoch) {
		return netip.Addr{}, errLost
	}
	if r.address.IsUnspecified() {
		return netip.Addr{}, nil
	}
	return r.address, nil
}
