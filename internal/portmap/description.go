package portmap

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

const (
	maxDocument = 256 << 10 // bytes of a description or of the answer to an action
	maxDepth    = 32        // of elements
	maxValue    = 1 << 10   // bytes of text in an element
	maxServices = 8         // that are considered
	maxValues   = 32        // results of an action
)

// A service is one that maps ports, at its control URL.
type service struct {
	kind    string // such as urn:schemas-upnp-org:service:WANIPConnection:1
	control *url.URL
}

// rank orders services: those of the newer standard come first.
func (s service) rank() int {
	return slices.IndexFunc(serviceNames[:], func(name string) bool { return strings.HasSuffix(s.kind, name) })
}

// serviceNames end the kinds of the services that are of use. What they begin with names a standard,
// which is not always UPnP's own.
var serviceNames = [...]string{
	":service:WANIPConnection:2",
	":service:WANIPConnection:1",
	":service:WANPPPConnection:1",
}

// parseDescription finds the services that map ports in the description of a device, wherever in it they
// are. location is where it came from; services elsewhere than at that address are left out.
func parseDescription(b []byte, location *url.URL) ([]service, error) {
	addr, err := netip.ParseAddr(location.Hostname())
	if err != nil {
		return nil, err
	}
	base := location
	var services []service
	var found service
	var control string
	err = walk(b, func(path []string, text string) {
		switch path[len(path)-1] {
		case "URLBase": // of version 1.0, which not every description of that version has
			if u, err := location.Parse(text); err == nil && isAt(u, addr) {
				base = u
			}
		case "serviceType":
			found.kind = text
		case "controlURL":
			control = text
		case "service":
			found.control, err = base.Parse(control)
			if err == nil && found.rank() >= 0 && isAt(found.control, addr) && len(services) < maxServices {
				services = append(services, found)
			}
			found, control = service{}, ""
		}
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(services, func(a, b service) int { return cmp.Compare(a.rank(), b.rank()) })
	return services, nil
}

// walk calls f for every element of a document as it ends, with the local names of the element and of
// those around it, and the text directly in it. It is as strict as encoding/xml, but for what routers
// get wrong and what does not matter here: name spaces, and the character set of names for people.
func walk(b []byte, f func(path []string, text string)) error {
	d := xml.NewDecoder(bytes.NewReader(bytes.ToValidUTF8(b, []byte("?"))))
	d.CharsetReader = func(_ string, r io.Reader) (io.Reader, error) { return r, nil }
	var path, texts []string
	for {
		token, err := d.RawToken()
		switch {
		case err == io.EOF && len(path) == 0:
			return nil
		case err == io.EOF:
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		}
		switch token := token.(type) {
		case xml.StartElement:
			if len(path) == maxDepth {
				return errors.New("elements nested too deeply")
			}
			path, texts = append(path, token.Name.Local), append(texts, "")
		case xml.CharData:
			if last := len(texts) - 1; last >= 0 && len(texts[last]) < maxValue {
				texts[last] += string(token[:min(len(token), maxValue)])
			}
		case xml.EndElement:
			last := len(path) - 1
			if last < 0 || path[last] != token.Name.Local {
				return fmt.Errorf("element %q ends where it is not open", token.Name.Local)
			}
			f(path, strings.TrimSpace(texts[last]))
			path, texts = path[:last], texts[:last]
		}
	}
}
