package bencode

import (
	"bytes"
	"iter"
)

// The functions below walk values in place. Their argument must be nil, one whole value that Scan has accepted or
// Salvage has returned, or a part that was yielded from one. They may panic on anything else.

// Keys yields the entries of a dictionary in the order in which they stand: the key's own bytes and
// the encoded value. It yields nothing if p is no dictionary.
func Keys(p []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		if !IsDict(p) {
			return
		}
		for at := 1; p[at] != 'e'; {
			key := stringAt(p, int32(at))
			at = skip(p, at)
			value := at
			at = skip(p, at)
			if !yield(key, p[value:at:at]) {
				return
			}
		}
	}
}

// Tree goes once over a dictionary and the dictionaries in it, however deep they lie. It calls visit for each entry, with the number
// of dictionaries around its own, and with all of p from its value on. If visit says so, Tree goes into the value, which must be a
// dictionary, or ends.
func Tree(p []byte, visit func(depth int, key, value []byte) (into, end bool)) {
	if !IsDict(p) {
		return
	}
	for at, depth := 1, 0; depth >= 0; {
		if p[at] == 'e' {
			at++
			depth--
			continue
		}
		key := stringAt(p, int32(at))
		at = skip(p, at)
		switch into, end := visit(depth, key, p[at:]); {
		case end:
			return
		case into:
			at++
			depth++
		default:
			at = skip(p, at)
		}
	}
}

// HasFirst reports whether the first key of a dictionary is key. It does not look at what follows that.
func HasFirst(p []byte, key string) bool {
	return IsDict(p) && p[1] != 'e' && string(stringAt(p, 1)) == key
}

// Elems yields the encoded elements of a list. It yields nothing if p is no list.
func Elems(p []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		if !IsList(p) {
			return
		}
		for at := 1; p[at] != 'e'; {
			start := at
			at = skip(p, at)
			if !yield(p[start:at:at]) {
				return
			}
		}
	}
}

// IsDict reports whether p is a dictionary.
func IsDict(p []byte) bool { return len(p) > 0 && p[0] == 'd' }

// IsList reports whether p is a list.
func IsList(p []byte) bool { return len(p) > 0 && p[0] == 'l' }

// Int is the value of an integer, and whether p is one.
func Int(p []byte) (v int64, ok bool) {
	if len(p) == 0 || p[0] != 'i' {
		return 0, false
	}
	// Counting downward reaches the smallest integer without overflow.
	digits, negative := p[1:len(p)-1], p[1] == '-'
	if negative {
		digits = digits[1:]
	}
	for _, c := range digits {
		v = 10*v - int64(c-'0')
	}
	if !negative {
		v = -v
	}
	return v, true
}

// String is the bytes of a string, a part of p, and whether p is one.
func String(p []byte) (s []byte, ok bool) {
	if !isString(p) {
		return nil, false
	}
	return stringAt(p, 0), true
}

func isString(p []byte) bool { return len(p) > 0 && '0' <= p[0] && p[0] <= '9' }

// stringAt is the content of the string that starts at p[at].
func stringAt(p []byte, at int32) []byte {
	i, n := int(at), 0
	for ; p[i] != ':'; i++ {
		n = 10*n + int(p[i]-'0')
	}
	return p[i+1 : i+1+n : i+1+n]
}

// skip is the offset behind the value that starts at p[at].
func skip(p []byte, at int) int {
	depth := 0
	for {
		switch c := p[at]; c {
		case 'l', 'd':
			depth++
			at++
		case 'e':
			depth--
			at++
		case 'i':
			for at++; p[at] != 'e'; at++ {
			}
			at++
		default:
			n := 0
			for ; p[at] != ':'; at++ {
				n = 10*n + int(p[at]-'0')
			}
			at += 1 + n
		}
		if depth == 0 {
			return at
		}
	}
}

// Sorted reports whether the keys of p and of all dictionaries in it are in order, as the bytes of raw strings. No key is twice in
// one: neither Scan nor Salvage lets that pass.
func Sorted(p []byte) bool {
	type container struct {
		dict, value bool   // value: the key before it was read
		key         []byte // the last
	}
	var open []container
	for at := 0; at < len(p); {
		top := len(open) - 1
		if p[at] == 'e' {
			open = open[:top]
			at++
			continue
		}
		if top >= 0 && open[top].dict {
			if open[top].value = !open[top].value; open[top].value {
				key := stringAt(p, int32(at))
				if open[top].key != nil && bytes.Compare(open[top].key, key) > 0 {
					return false
				}
				open[top].key = key
				at = skip(p, at)
				continue
			}
		}
		if p[at] == 'd' || p[at] == 'l' {
			open = append(open, container{dict: p[at] == 'd'})
			at++
		} else {
			at = skip(p, at)
		}
	}
	return true
}
