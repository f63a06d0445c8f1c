package portmap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/shoal-go/torrent/internal/netaddr"
)

// httpTimeout bounds one request to a router, all in all.
const httpTimeout = 5 * time.Second

// upnp is a driver of UPnP, for one service of one device.
type upnp struct {
	*router
	port      uint16
	service   service
	permanent bool // the device makes no mapping that ends by itself
}

func (*upnp) protocol() Protocol { return UPnP }

// newUPnP finds the service that maps ports at the first device that has one.
func newUPnP(ctx context.Context, r *router, port uint16, devices []device) (*upnp, error) {
	var errs []error
	for _, d := range devices {
		services, err := r.describe(ctx, d.location)
		if err != nil {
			errs = append(errs, err)
		} else if len(services) > 0 {
			return r.choose(ctx, port, services), nil
		}
	}
	return nil, errors.Join(append(errs, errors.New("no device that speaks UPnP maps ports"))...)
}

// describe fetches the description of a device.
func (r *router) describe(ctx context.Context, location *url.URL) ([]service, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, location.String(), nil)
	if err != nil {
		return nil, err
	}
	status, body, err := r.do(req)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("HTTP status %d", status)
	}
	var services []service
	if err == nil {
		services, err = parseDescription(body, location)
	}
	if err != nil {
		return nil, fmt.Errorf("description at %s: %w", location, err)
	}
	return services, nil
}

// choose returns the driver of one of the services of a device. One that has no line has no address, so the
// first that has a public one is taken, or else the first that has any, or else the first.
func (r *router) choose(ctx context.Context, port uint16, services []service) *upnp {
	first := &upnp{router: r, port: port, service: services[0]}
	if len(services) == 1 {
		return first
	}
	chosen := first
	found := false
	for _, s := range services {
		d := &upnp{router: r, port: port, service: s}
		addr, err := d.address(ctx)
		if err != nil || !addr.IsValid() {
			continue
		}
		if !netaddr.IsLocal(addr) {
			return d
		}
		if !found {
			chosen, found = d, true
		}
	}
	return chosen
}

// do makes a request of a router, whose host is an IP address that was judged before. Nothing else is
// connected to, whatever the answer is.
func (r *router) do(req *http.Request) (status int, body []byte, err error) {
	ctx, cancel := context.WithTimeout(req.Context(), httpTimeout)
	defer cancel()
	at, err := hostPort(req.URL)
	if err != nil {
		return 0, nil, err
	}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return r.dial(ctx, "tcp4", at.String())
		},
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxSSDP,
	}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req.WithContext(ctx)) // follows no redirect
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols { // no context ends a read of such a body
		return resp.StatusCode, nil, nil
	}
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	if err == nil && len(body) > maxDocument {
		err = errors.New("answer too long")
	}
	return resp.StatusCode, body, err
}

// call calls an action of the service.
func (d *upnp) call(ctx context.Context, action string, arguments ...argument) (map[string]string, error) {
	results, err := d.post(ctx, action, soapRequest(d.service.kind, action, arguments))
	if err != nil {
		return nil, fmt.Errorf("%s at %s: %w", action, d.service.control, err)
	}
	return results, nil
}

func (d *upnp) post(ctx context.Context, action string, body []byte) (map[string]string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.service.control.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", `text/xml; charset="utf-8"`)
	req.Header["SOAPAction"] = []string{`"` + d.service.kind + "#" + action + `"`} // some devices know no other case
	status, answer, err := d.do(req)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK && status != http.StatusInternalServerError { // which a fault comes with
		return nil, fmt.Errorf("HTTP status %d", status)
	}
	return parseSOAP(answer, action)
}

// name is what people read in their router's list of mappings.
const name = "BitTorrent"

func (d *upnp) add(ctx context.Context, t transport, external uint16) (grant, error) {
	if err := d.checkFree(ctx, t, external); err != nil {
		return grant{}, err
	}
	err := d.addMapping(ctx, t, external)
	if codeOf(err) == upnpOnlyPermanentLease && !d.permanent {
		d.permanent = true
		err = d.addMapping(ctx, t, external)
	}
	switch codeOf(err) {
	case upnpConflict, upnpActionFailed: // the latter is all that some devices ever say
		return grant{}, takenError{err}
	}
	return grant{external, lifetime}, err // one that is permanent is looked after as often
}

func (d *upnp) addMapping(ctx context.Context, t transport, external uint16) error {
	life := lifetime
	if d.permanent {
		life = 0
	}
	_, err := d.call(ctx, "AddPortMapping", append(portArguments(t, external),
		argument{"NewInternalPort", decimal(d.port)},
		argument{"NewInternalClient", d.Local.String()},
		argument{"NewEnabled", "1"},
		argument{"NewPortMappingDescription", name},
		argument{"NewLeaseDuration", strconv.Itoa(int(life / time.Second))})...)
	return err
}

func (d *upnp) remove(ctx context.Context, t transport, external uint16) error {
	if err := d.checkFree(ctx, t, external); err != nil {
		return err // another has it by now
	}
	_, err := d.call(ctx, "DeletePortMapping", portArguments(t, external)...)
	return err
}

// checkFree returns a takenError if a port is mapped to another host or port: some devices
// would overwrite the mapping.
func (d *upnp) checkFree(ctx context.Context, t transport, external uint16) error {
	entry, err := d.call(ctx, "GetSpecificPortMappingEntry", portArguments(t, external)...)
	if err != nil {
		return interrupted(ctx, nil) // there is none, or the device does not know
	}
	if d.isOurs(entry) {
		return nil
	}
	return takenError{fmt.Errorf("external port %d is mapped to %q", external, entry["NewInternalClient"])}
}

// isOurs reports whether an entry of the device's table leads here. Some devices give hosts names.
func (d *upnp) isOurs(entry map[string]string) bool {
	client, err := netip.ParseAddr(entry["NewInternalClient"])
	return (err != nil || client == d.Local) && entry["NewInternalPort"] == decimal(d.port)
}

func (d *upnp) check(ctx context.Context, ports map[transport]uint16) (netip.Addr, error) {
	for t, external := range ports {
		entry, err := d.call(ctx, "GetSpecificPortMappingEntry", portArguments(t, external)...)
		if codeOf(err) == upnpNoSuchEntry || err == nil && !d.isOurs(entry) {
			return netip.Addr{}, errLost
		}
		if err != nil && codeOf(err) == 0 {
			return netip.Addr{}, err // no word of the device's: it may not be there any more
		}
	}
	return d.address(ctx)
}

// address is the external address, invalid if the device has none.
func (d *upnp) address(ctx context.Context) (netip.Addr, error) {
	results, err := d.call(ctx, "GetExternalIPAddress")
	if err != nil && codeOf(err) == 0 {
		return netip.Addr{}, err
	}
	addr, err := netip.ParseAddr(results["NewExternalIPAddress"])
	if err != nil || !addr.Is4() || addr.IsUnspecified() {
		return netip.Addr{}, nil
	}
	return addr, nil
}

func portArguments(t transport, external uint16) []argument {
	protocol := "TCP"
	if t == udp {
		protocol = "UDP"
	}
	return []argument{{"NewRemoteHost", ""}, {"NewExternalPort", decimal(external)}, {"NewProtocol", protocol}}
}

func decimal(port uint16) string {
	return strconv.Itoa(int(port))
}

// codeOf is the code of a *soapError, or 0.
func codeOf(err error) int {
	var e *soapError
	if errors.As(err, &e) {
		return e.code
	}
	return 0
}
