// Package bencode reads bencoded values (BEP 3) that strangers may have made, and writes our own. A
// scan that allocates next to nothing decides whether a value is sound and within bounds; only then is
// it walked in place. A decoder would believe any length it is told.
package bencode

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"math"
	"slices"
)

// Limits bound one value. All of them must be set.
type Limits struct {
	Bytes  int // length of the encoded value
	Depth  int // lists and dictionaries within each other; a string alone has depth 0
	Values int // strings, integers, lists and dictionaries, keys not counted
}

// SyntaxError says where a value is malformed, or passes a limit.
type SyntaxError struct {
	Offset int // of the first byte of what is wrong
	Reason string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("bencode: %s at byte %d", e.Reason, e.Offset)
}

// Scan returns the length of the one value that stands at the start of p, having checked all of it:
// integers fit in 64 bits and have neither leading zeros nor a negative zero, strings end within p,
// no dictionary has a key twice. Keys out of order are let pass, since real torrents have them. What
// follows the value is not looked at. The error is a *SyntaxError.
func Scan(p []byte, l Limits) (n int, err error) {
	whole := len(p)
	p = p[:min(whole, l.Bytes, math.MaxInt32)]
	s := scanner{p: p, open: make([]container, 0, 16), keys: make([]int32, 0, 32)}
	if err := s.scan(l); err != nil {
		if s.short && len(p) < whole {
			err.Reason = tooLong(len(p))
		}
		return 0, err
	}
	return s.at, nil
}

// scanner goes over p once, front to back. The containers that are open are kept in a slice rather
// than on the stack of calls, so depth costs no more than the limit says.
type scanner struct {
	p    []byte
	at   int         // everything before it is sound
	open []container // innermost last
	keys []int32     // offsets of the keys seen so far of all open dictionaries, outermost first

	short bool // the error is that more bytes are needed than there are
}

type container struct {
	dict     bool
	pending  bool // a key was read, its value was not
	unsorted bool // a key was smaller than the one before it
	first    int  // of this dictionary's keys in scanner.keys
}

func (s *scanner) scan(l Limits) *SyntaxError {
	values := 0
	for {
		var in *container
		if len(s.open) > 0 {
			in = &s.open[len(s.open)-1]
		}
		if s.at == len(s.p) {
			return s.end("unexpected end")
		}
		c := s.p[s.at]
		if in != nil && c == 'e' && !in.pending {
			if err := s.close(in); err != nil {
				return err
			}
			if len(s.open) == 0 {
				return nil
			}
			continue
		}
		if in != nil && in.dict && !in.pending {
			if err := s.key(in); err != nil {
				return err
			}
			in.pending = true
			continue
		}

		if values++; values > l.Values {
			return s.wrong("more values than allowed")
		}
		if in != nil {
			in.pending = false
		}
		switch {
		case c == 'l' || c == 'd':
			if len(s.open) == l.Depth {
				return s.wrong("lists or dictionaries nested too deep")
			}
			s.open = append(s.open, container{dict: c == 'd', first: len(s.keys)})
			s.at++
			continue
		case c == 'i':
			if err := s.integer(); err != nil {
				return err
			}
		case '0' <= c && c <= '9':
			if _, err := s.str(); err != nil {
				return err
			}
		default:
			return s.wrong("not a value")
		}
		if in == nil {
			return nil
		}
	}
}

// key reads a dictionary's key and compares it with the one before it.
func (s *scanner) key(d *container) *SyntaxError {
	start := s.at
	if c := s.p[start]; c < '0' || c > '9' {
		return s.wrong("key is not a string")
	}
	key, err := s.str()
	if err != nil {
		return err
	}
	if len(s.keys) > d.first {
		switch bytes.Compare(stringAt(s.p, s.keys[len(s.keys)-1]), key) {
		case 0:
			return duplicateKey(start, key)
		case 1:
			d.unsorted = true
		}
	}
	s.keys = append(s.keys, int32(start))
	return nil
}

// close ends the innermost container. Only an unsorted dictionary still may hold a key twice.
func (s *scanner) close(d *container) *SyntaxError {
	if d.unsorted {
		if at, ok := duplicate(s.p, s.keys[d.first:]); ok {
			return duplicateKey(at, stringAt(s.p, int32(at)))
		}
	}
	s.keys = s.keys[:d.first]
	s.open = s.open[:len(s.open)-1]
	s.at++
	return nil
}

// duplicate is the offset of a key that equals an earlier one, if there is such. The dictionaries of
// careless programs have a handful of keys; for larger ones, numbers are sorted in place of strings,
// so that a hostile dictionary of millions costs a fraction of a second.
func duplicate(p []byte, keys []int32) (at int, ok bool) {
	if len(keys) <= 16 {
		for i, k := range keys {
			for _, earlier := range keys[:i] {
				if bytes.Equal(stringAt(p, k), stringAt(p, earlier)) {
					return int(k), true
				}
			}
		}
		return 0, false
	}

	seed := maphash.MakeSeed()
	sums := make([]uint64, len(keys))
	for i, k := range keys {
		sums[i] = maphash.Bytes(seed, stringAt(p, k))
	}
	slices.Sort(sums)
	for i, sum := range sums[1:] {
		if sum != sums[i] {
			continue
		}
		first := []byte(nil)
		for _, k := range keys {
			switch key := stringAt(p, k); {
			case maphash.Bytes(seed, key) != sum:
			case first == nil:
				first = key
			case bytes.Equal(first, key):
				return int(k), true
			}
		}
	}
	return 0, false
}

// integer reads i…e.
func (s *scanner) integer() *SyntaxError {
	i := s.at + 1
	negative := i < len(s.p) && s.p[i] == '-'
	if negative {
		i++
	}
	digits := i
	var v uint64
	for ; i < len(s.p) && '0' <= s.p[i] && s.p[i] <= '9'; i++ {
		if i-digits == 19 { // the largest int64 has 19 digits, and 19 nines fit in a uint64
			return s.wrong("integer over 64 bits")
		}
		v = 10*v + uint64(s.p[i]-'0')
	}
	limit := uint64(math.MaxInt64)
	if negative {
		limit++
	}
	switch {
	case i == len(s.p):
		return s.end("unexpected end")
	case s.p[i] != 'e' || i == digits:
		return s.wrong("malformed integer")
	case s.p[digits] == '0' && (negative || i-digits > 1):
		return s.wrong("integer with a leading zero or a negative zero")
	case v > limit:
		return s.wrong("integer over 64 bits")
	}
	s.at = i + 1
	return nil
}

// str reads a string. Its length is compared with what is left of the input before it is believed.
func (s *scanner) str() ([]byte, *SyntaxError) {
	i, n := s.at, int64(0)
	for ; i < len(s.p) && '0' <= s.p[i] && s.p[i] <= '9'; i++ {
		if n = 10*n + int64(s.p[i]-'0'); n > int64(len(s.p)) {
			return nil, s.end("string longer than what is left")
		}
	}
	switch {
	case i == len(s.p):
		return nil, s.end("unexpected end")
	case s.p[i] != ':':
		return nil, s.wrong("malformed string length")
	case s.p[s.at] == '0' && i-s.at > 1:
		return nil, s.wrong("string length with a leading zero")
	}
	i++
	if n > int64(len(s.p)-i) {
		return nil, s.end("string longer than what is left")
	}
	s.at = i + int(n)
	return s.p[i:s.at], nil
}

func tooLong(n int) string { return fmt.Sprintf("value longer than %d bytes", n) }

func duplicateKey(at int, key []byte) *SyntaxError {
	return &SyntaxError{at, fmt.Sprintf("duplicate key %.40q", key)}
}

func (s *scanner) wrong(reason string) *SyntaxError { return &SyntaxError{s.at, reason} }

func (s *scanner) end(reason string) *SyntaxError {
	s.short = true
	return s.wrong(reason)
}
