package printable

import (
	"strconv"
)

// Size is a number of bytes with three digits, and its unit, such as 57.2 and MiB.
func Size(n int64) (number, unit string) {
	if n < 1000 {
		return strconv.FormatInt(n, 10), "B"
	}
	v, units := float64(n)/1024, "KMGTPE"
	for v >= 999.5 {
		v, units = v/1024, units[1:]
	}
	digits := 2
	switch {
	case v >= 99.95:
		digits = 0
	case v >= 9.995:
		digits = 1
	}
	return strconv.FormatFloat(v, 'f', digits, 64), units[:1] + "iB"
}
