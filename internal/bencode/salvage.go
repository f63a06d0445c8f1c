package bencode

import "math"

// Salvage returns what can be read of the value at the start of p, and the length of that value in p.
// A sound value is returned as it stands, a part of p. Of another it returns a copy without what is
// malformed: an element of a list, or an entry of a dictionary with both its key and its value. The
// result can be walked; unlike what Scan passes, a dictionary in it may have a key twice.
//
// Salvage stops where p ends, at a limit, and at what is malformed in such a way that nothing says where
// it ends. It then returns a *SyntaxError, and a value of what stands before that point: nil if that is
// nothing.
//
// In the outermost dictionary, a key that is one of strict must not come twice, and Scan must pass its
// value. Salvage stops where that is not so.
func Salvage(p []byte, l Limits, strict ...string) (value []byte, n int, err error) {
	if n, err := Scan(p, l); err == nil {
		return p[:n:n], n, nil
	}
	bounded := p[:min(len(p), l.Bytes, math.MaxInt32)]
	s := salvager{
		scanner: scanner{p: bounded},
		limits:  l,
		out:     make([]byte, 0, len(bounded)),
		strict:  make(map[string]bool, len(strict)),
	}
	for _, key := range strict {
		s.strict[key] = false
	}
	if err := s.salvage(); err != nil {
		for len(s.begun) > 0 {
			s.close()
		}
		if s.short && len(bounded) < len(p) {
			err.Reason = tooLong(len(bounded))
		}
		if len(s.out) == 0 {
			return nil, 0, err
		}
		return s.out, 0, err
	}
	return s.out, s.at, nil
}

// salvager goes over p once, front to back, and copies what is sound. Of its scanner it uses what
// reads strings and integers.
type salvager struct {
	scanner
	limits Limits
	values int // as Limits counts them
	out    []byte
	begun  []partial       // lists and dictionaries that have not ended, innermost last
	strict map[string]bool // whether the key has come
}

// partial is a list or dictionary that has not ended.
type partial struct {
	dict    bool
	pending bool // a key was read, its value was not
	spoiled bool // that key is malformed, or no string
	begin   int  // in out
	entry   int  // in out: where the pending key begins
}

func (s *salvager) salvage() *SyntaxError {
	for {
		if s.at == len(s.p) {
			return s.end("unexpected end")
		}
		if s.p[s.at] == 'e' && len(s.begun) > 0 {
			s.at++
			s.close()
		} else if err := s.item(); err != nil {
			return err
		}
		if len(s.begun) == 0 {
			return nil
		}
	}
}

// item reads a string or integer, or begins a list or dictionary.
func (s *salvager) item() *SyntaxError {
	c, start, begin := s.p[s.at], s.at, len(s.out)
	key := s.wantsKey() && isString(s.p[s.at:])
	if !key {
		if s.values++; s.values > s.limits.Values {
			return s.wrong("more values than allowed")
		}
	}
	var err *SyntaxError
	switch {
	case c == 'l' || c == 'd':
		if len(s.begun) == s.limits.Depth {
			return s.wrong("lists or dictionaries nested too deep")
		}
		s.at++
		s.out = append(s.out, c)
		s.begun = append(s.begun, partial{dict: c == 'd', begin: begin})
		return nil
	case c == 'i':
		err = s.integer()
	case isString(s.p[s.at:]):
		_, err = s.str()
	default:
		err = s.wrong("not a value")
	}
	if err == nil {
		s.out = append(s.out, s.p[start:s.at]...)
	} else if len(s.begun) == 0 || !s.skip() {
		return err
	}
	s.ended(begin, err == nil)
	if key && err == nil && len(s.begun) == 1 {
		return s.exempt(start)
	}
	return nil
}

// skip goes to the end of a malformed string or integer, and reports whether it has one.
func (s *salvager) skip() bool {
	if s.p[s.at] == 'i' {
		for i, c := range s.p[s.at+1:] {
			if c == 'e' {
				s.at += 1 + i + 1
				return true
			}
			if (c < '0' || c > '9') && c != '-' && c != '+' && c != '.' && c != ' ' {
				return false
			}
		}
		return false
	}
	// Of what can be wrong with a string, only a length with leading zeros still says where it ends.
	zeros := s.at
	for s.p[s.at] == '0' && s.at+1 < len(s.p) && '0' <= s.p[s.at+1] && s.p[s.at+1] <= '9' {
		s.at++
	}
	if s.at == zeros {
		return false
	}
	_, err := s.str()
	return err == nil
}

// exempt reads the value of the key that stands at p[at], in the outermost dictionary, if the key is one
// of those that are strict.
func (s *salvager) exempt(at int) *SyntaxError {
	key := stringAt(s.p, int32(at))
	again, strict := s.strict[string(key)]
	if !strict {
		return nil
	}
	if again {
		return duplicateKey(at, key)
	}
	s.strict[string(key)] = true
	value := scanner{p: s.p[s.at:]}
	l := s.limits
	l.Depth, l.Values = l.Depth-1, l.Values-s.values
	if err := value.scan(l); err != nil {
		err.Offset += s.at
		s.short = value.short
		return err
	}
	begin := len(s.out)
	s.out = append(s.out, value.p[:value.at]...)
	s.at += value.at
	s.ended(begin, true)
	return nil
}

// wantsKey reports whether what comes next is the key of a dictionary.
func (s *salvager) wantsKey() bool {
	if len(s.begun) == 0 {
		return false
	}
	in := &s.begun[len(s.begun)-1]
	return in.dict && !in.pending
}

// close ends the innermost list or dictionary. A key without a value is left out.
func (s *salvager) close() {
	in := s.begun[len(s.begun)-1]
	s.begun = s.begun[:len(s.begun)-1]
	if in.pending {
		s.out = s.out[:in.entry]
	}
	s.out = append(s.out, 'e')
	s.ended(in.begin, true)
}

// ended takes what has been copied to out from begin on as a part of the list or dictionary that it is
// in, or drops it. What is not sound has not been copied.
func (s *salvager) ended(begin int, sound bool) {
	if len(s.begun) == 0 {
		return
	}
	in := &s.begun[len(s.begun)-1]
	switch {
	case !in.dict:
	case !in.pending:
		in.pending, in.entry = true, begin
		in.spoiled = !sound || !isString(s.out[begin:])
	default:
		in.pending = false
		if in.spoiled || !sound {
			s.out = s.out[:in.entry]
		}
	}
}
