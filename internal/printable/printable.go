// Package printable makes what strangers say fit for a log or a terminal. It holds no state; any package
// may call it, from any goroutine.
package printable

import (
	"strings"
	"unicode"
)

// maxLine is how many bytes of a text are kept.
const maxLine = 300

// Line returns the start of s as one line of valid UTF-8 without control characters.
func Line(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s[:min(len(s), maxLine)]))
}
