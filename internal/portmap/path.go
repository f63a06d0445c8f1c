package portmap

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const otherPorts = 4 // that are asked for if the wanted one is not free for all transports

// A path keeps the port mapped at one gateway. Everything but state is for the goroutine of run.
type path struct {
	Config
	*router
	transports []transport
	wake       chan struct{} // of run: the mapping is to be looked at now
	leave      func()        // ends run
	changed    func()        // called when state has changed

	lease  lease
	nonces map[transport]nonce
	driver driver               // how the router is asked at present; nil is unknown
	ports  map[transport]uint16 // what to ask for next: what was held last, or wanted
	asked  map[transport]uint16 // what the router may hold
	holder driver               // deletes what was asked for
	log    *slog.Logger

	mu      sync.Mutex
	mapping Mapping
	err     error
}

func newPath(c Config, g Gateway) *path {
	p := &path{
		Config: c,
		router: &router{Gateway: g, listenPacket: c.ListenPacket, dial: c.Dial},
		wake:   make(chan struct{}, 1),
		nonces: make(map[transport]nonce),
		ports:  make(map[transport]uint16),
		asked:  make(map[transport]uint16),
		log:    c.Log.With("router", g.Router, "local", g.Local),
	}
	if c.TCP {
		p.transports = append(p.transports, tcp)
	}
	if c.UDP {
		p.transports = append(p.transports, udp)
	}
	p.want(c.Port)
	return p
}

// want has one external port asked for next.
func (p *path) want(port uint16) {
	for _, t := range p.transports {
		p.ports[t] = port
	}
}

// state returns the mapping that the router holds, or the zero Mapping, and the error if it is not the wanted one.
func (p *path) state() (Mapping, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mapping, p.err
}

func (p *path) setState(m Mapping, err error) {
	p.mu.Lock()
	p.mapping, p.err = m, err
	p.mu.Unlock()
	p.changed()
}

// run keeps the port mapped until ctx ends, and then deletes the mapping.
func (p *path) run(ctx context.Context) {
	defer p.release(ctx)
	for ctx.Err() == nil {
		next, at := p.lease.next()
		if wait := time.Until(at); wait > 0 {
			p.sleep(ctx, wait)
			continue
		}
		switch next {
		case stepMap:
			p.mapPort(ctx)
		case stepCheck:
			p.check(ctx)
		case stepEnd:
			p.lease.end()
			_, err := p.state()
			p.setState(Mapping{}, err)
			p.log.Warn("port mapping expired")
		}
	}
}

// sleep waits until something is due or is hurried.
func (p *path) sleep(ctx context.Context, wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-p.wake:
		p.lease.hurry(time.Now())
	}
}

// mapPort makes or renews the mapping, by the best protocol that does it.
func (p *path) mapPort(ctx context.Context) {
	var refused [protocols]bool
	if p.Local.Is6() { // there is nothing to translate, and UPnP's way through a firewall is rarely allowed
		refused[NATPMP], refused[UPnP] = true, true
	}
	var errs []error
	for slices.Contains(refused[:], false) {
		known := p.driver != nil
		if !known {
			var err error
			if p.driver, err = p.probe(ctx, refused); err != nil {
				errs = append(errs, err)
				break
			}
		}
		by := p.driver.protocol()
		mapping, life, err := p.obtain(ctx)
		if err == nil {
			p.lease.grant(time.Now(), life, by)
			p.granted(mapping)
			return
		}
		p.driver = nil
		if !known { // else the router may speak it elsewhere, or something else, by now
			refused[by] = true
			errs = append(errs, err)
		}
		if ctx.Err() != nil {
			return
		}
	}
	if ctx.Err() != nil {
		return
	}
	err := fmt.Errorf("map port %d at %s: %w", p.Port, p.Router, errors.Join(errs...))
	p.lease.fail(time.Now(), waitOf(errs))
	mapping, _ := p.state()
	p.setState(mapping, err)
	p.log.Info("port not mapped", "err", err)
}

// granted records a mapping.
func (p *path) granted(m Mapping) {
	if before, err := p.state(); before != m || err != nil {
		p.log.Info("port mapped", "by", m.By, "external", m.External, "tcp", m.TCP, "udp", m.UDP)
		p.setState(m, nil)
	}
}

// waitOf is the longest time that a router said is to pass before it is asked again.
func waitOf(errs []error) (wait time.Duration) {
	for _, err := range errs {
		var r *refusal
		if errors.As(err, &r) {
			wait = max(wait, r.wait)
		}
	}
	return wait
}

// probe finds out which protocols the router speaks, and returns the driver of the best one that was not refused.
func (p *path) probe(ctx context.Context, refused [protocols]bool) (driver, error) {
	found := &probe{Gateway: p.Gateway, refused: refused}
	var best Protocol
	err := p.exchange(ctx, found.questions, func(b []byte, from netip.AddrPort, waits int) (settled bool) {
		if b != nil {
			found.hear(b, from)
		}
		best, settled = found.best(waits)
		return settled
	})
	if err != nil {
		return nil, err
	}
	switch best {
	case PCP:
		return p.newPCP()
	case NATPMP:
		return &natpmp{router: p.router, port: p.Port}, nil
	}
	d, err := newUPnP(ctx, p.router, p.Port, found.devices)
	if err != nil {
		return nil, err
	}
	return d, nil
}

// newPCP returns a driver whose nonces are those of earlier ones, so that what they made is known again.
func (p *path) newPCP() (driver, error) {
	for _, t := range p.transports {
		if p.nonces[t] != (nonce{}) {
			continue
		}
		var n nonce
		if _, err := io.ReadFull(p.Rand, n[:]); err != nil {
			return nil, fmt.Errorf("draw a nonce: %w", err)
		}
		p.nonces[t] = n
	}
	return &pcp{router: p.router, port: p.Port, nonces: p.nonces}, nil
}

// obtain asks the router to map the port for all transports, at one external port if possible.
func (p *path) obtain(ctx context.Context) (Mapping, time.Duration, error) {
	if p.holder != nil && p.holder.protocol() != p.driver.protocol() {
		clear(p.asked) // what was asked for otherwise ends by itself, where the router does not answer
	}
	p.holder = p.driver
	for try := 0; ; try++ {
		life, err := p.add(ctx)
		if err == nil && (p.agree() || try == otherPorts) {
			m, err := p.confirm(ctx)
			return m, life, err
		}
		if err != nil && !answered(err) {
			return Mapping{}, 0, err
		}
		p.remove(ctx)
		if err != nil && (!isTaken(err) || try == otherPorts) {
			p.want(p.Port)
			return Mapping{}, 0, err
		}
		other, err := p.otherPort()
		if err != nil {
			return Mapping{}, 0, err
		}
		p.want(other)
	}
}

// answered reports whether an error is an answer of the router.
func answered(err error) bool {
	var r *refusal
	return errors.As(err, &r) || codeOf(err) != 0 || isTaken(err)
}

// otherPort draws an external port that is not likely to be taken.
func (p *path) otherPort() (uint16, error) {
	var b [2]byte
	if _, err := io.ReadFull(p.Rand, b[:]); err != nil {
		return 0, fmt.Errorf("draw a port: %w", err)
	}
	return 10000 + binary.BigEndian.Uint16(b[:])%50000, nil
}

// add asks for the port of each transport. The port that the router grants for the first transport is requested for
// the next, unless the ports were different before.
func (p *path) add(ctx context.Context) (life time.Duration, err error) {
	life = maxLifetime
	first := p.transports[0]
	for i, t := range p.transports {
		port := p.ports[t]
		if i > 0 && port == p.ports[first] {
			port = p.asked[first]
		}
		p.asked[t] = port
		g, err := p.driver.add(ctx, t, port)
		if isTaken(err) {
			delete(p.asked, t) // it is another's, and not for us to delete
		}
		if err != nil {
			return 0, err
		}
		p.asked[t] = g.external
		life = min(life, g.life)
	}
	return life, nil
}

// agree reports whether what was granted is one port for all, or what was held before.
func (p *path) agree() bool {
	return maps.Equal(p.asked, p.ports) || p.asked[p.transports[0]] == p.asked[p.transports[len(p.transports)-1]]
}

// confirm sees that the router holds what it granted, and asks for its address.
func (p *path) confirm(ctx context.Context) (Mapping, error) {
	address, err := p.driver.check(ctx, p.asked)
	if errors.Is(err, errLost) || ctx.Err() != nil {
		return Mapping{}, err
	}
	p.ports = maps.Clone(p.asked)
	return Mapping{Gateway: p.Gateway, By: p.driver.protocol(), External: address, TCP: p.asked[tcp], UDP: p.asked[udp]}, nil
}

// check asks whether the router still holds the mapping, at the same address.
func (p *path) check(ctx context.Context) {
	address, err := p.driver.check(ctx, p.asked)
	switch now := time.Now(); {
	case ctx.Err() != nil:
	case errors.Is(err, errLost):
		p.log.Info("port mapping lost", "err", err)
		p.lease.lose(now)
	case err != nil:
		p.driver = nil // it may have restarted elsewhere
		p.lease.lose(now)
	default:
		m, _ := p.state()
		m.External = address
		p.lease.checked(now, m.By)
		p.granted(m)
	}
}

// remove deletes what the router may hold.
func (p *path) remove(ctx context.Context) {
	for t, port := range p.asked {
		err := p.holder.remove(ctx, t, port)
		if err != nil {
			p.log.Debug("port mapping not deleted", "err", err)
		}
		if err == nil || answered(err) {
			delete(p.asked, t)
		}
	}
}

// release deletes what is held when ctx has ended.
func (p *path) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.Farewell)
	defer cancel()
	p.remove(ctx)
	p.setState(Mapping{}, nil)
}
