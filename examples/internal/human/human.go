// Package human has the words of the example programs: sizes, rates and counts as people read them.
package human

import (
	"fmt"

	"github.com/shoal-go/torrent/internal/printable"
)

// Size is a number of bytes with three digits and a unit, such as 57.2 MiB.
func Size(n int64) string {
	number, unit := printable.Size(n)
	return number + " " + unit
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
