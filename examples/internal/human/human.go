// Package human has the words of the example programs: sizes, rates and counts as people read them.
package human

import "fmt"

// Size is a number of bytes with three digits and a unit, such as 57.2 MiB.
func Size(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
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
	return fmt.Sprintf("%.*f %ciB", digits, v, units[0])
}

// Rate is a number of bytes a second, such as 1.50 MiB/s.
func Rate(bytesPerSecond float64) string { return Size(int64(bytesPerSecond)) + "/s" }

// Count is a number of things, such as 1 peer or 2 peers.
func Count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
