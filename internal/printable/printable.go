// Package printable makes what strangers say fit for a log or a terminal, and words sizes. It holds no state; any package
// may call it, from any goroutine.
package printable

import (
	"strings"
	"unicode"
)

// maxLine is how many bytes of a text are kept.
const maxLine = 300

// Line returns the start of s as one line of valid UTF-8 without control characters. It shares no memory with s, which may be
// much longer.
func Line(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if seen(r) {
			return r
		}
		return ' '
	}, strings.Clone(s[:min(len(s), maxLine)])))
}

// Name returns s with a replacement character for each rune that is not seen: so that it does not hide in a name what
// follows, or make two names look alike.
func Name(s string) string {
	return strings.Map(func(r rune) rune {
		if seen(r) || unicode.Is(unicode.Zs, r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// seen reports whether r is printable and takes up room, or is an ordinary mark on the letter before it.
func seen(r rune) bool {
	switch r {
	case 0x2800: // a braille pattern without dots
		return false
	}
	return unicode.IsPrint(r) && !unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}
