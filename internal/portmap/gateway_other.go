//go:build !linux && !windows && !darwin && !dragonfly && !freebsd && !netbsd && !openbsd

package portmap

import "errors"

func defaultRoutes() ([]defaultRoute, error) {
	return nil, errors.ErrUnsupported
}
