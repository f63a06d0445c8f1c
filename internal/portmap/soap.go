package portmap

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"strconv"
)

// The errors of actions that say more than that it did not work (UPnP WANIPConnection 1, 2.4.16).
const (
	upnpActionFailed       = 501
	upnpNoSuchEntry        = 714
	upnpConflict           = 718
	upnpOnlyPermanentLease = 725
)

// A soapError is what a device says of an action that failed.
type soapError struct {
	code int
	text string
}

func (e *soapError) Error() string {
	return fmt.Sprintf("UPnP error %d %q", e.code, e.text)
}

// An argument of an action. Their order matters to some devices.
type argument struct {
	name, value string
}

// soapRequest is the call of an action of a kind of service.
func soapRequest(kind, action string, arguments []argument) []byte {
	var b bytes.Buffer
	b.WriteString(xml.Header + `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body><u:` +
		action + ` xmlns:u="`)
	xml.EscapeText(&b, []byte(kind)) // a stranger's words
	b.WriteString(`">`)
	for _, a := range arguments {
		b.WriteString("<" + a.name + ">")
		xml.EscapeText(&b, []byte(a.value))
		b.WriteString("</" + a.name + ">")
	}
	b.WriteString("</u:" + action + "></s:Body></s:Envelope>\r\n")
	return b.Bytes()
}

// parseSOAP reads the answer to the call of an action: its results by name, or a *soapError.
func parseSOAP(b []byte, action string) (map[string]string, error) {
	results := make(map[string]string)
	var fault *soapError
	answered := false
	err := walk(b, func(path []string, text string) {
		if len(path) < 3 || path[0] != "Envelope" || path[1] != "Body" {
			return
		}
		name := path[len(path)-1]
		switch {
		case path[2] == "Fault":
			if fault == nil {
				fault = &soapError{}
			}
			switch name {
			case "errorCode":
				fault.code, _ = strconv.Atoi(text)
			case "errorDescription":
				fault.text = text
			}
		case path[2] == action+"Response":
			answered = true
			if len(path) == 4 && len(results) < maxValues {
				results[name] = text
			}
		}
	})
	switch {
	case fault != nil:
		return nil, fault
	case err != nil:
		return nil, err
	case !answered:
		return nil, errors.New("no answer to the action in it")
	}
	return results, nil
}
