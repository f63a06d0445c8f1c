// Package expiring has maps of what is to be remembered for a while. They keep little memory of what they have forgotten.
package expiring

import (
	"iter"
	"maps"
)

// sweepOver is how many values a map has at least before those that are over are looked for.
const sweepOver = 32

// A Map holds values until they are over, and some longer. The zero value is ready.
type Map[K comparable, V any] struct {
	all     map[K]V
	sweepAt int // how many there are when it is time to look for those that are over
}

// Get returns the value of a key, which may be over.
func (m *Map[K, V]) Get(key K) (value V, ok bool) {
	value, ok = m.all[key]
	return value, ok
}

// All yields the keys and values, in no order. Some values may be over.
func (m *Map[K, V]) All() iter.Seq2[K, V] { return maps.All(m.all) }

// Len returns how many values there are.
func (m *Map[K, V]) Len() int { return len(m.all) }

// Put sets the value of a key, or reports false if there are already most values that are not over. It looks for those that are over
// only once there are twice as many as at the last time, so that it costs little for each, or most.
func (m *Map[K, V]) Put(key K, value V, most int, over func(V) bool) bool {
	if len(m.all) >= max(sweepOver, min(m.sweepAt, most)) {
		m.sweep(over)
	}
	if len(m.all) >= most {
		return false
	}
	if m.all == nil {
		m.all = make(map[K]V)
	}
	m.all[key] = value
	return true
}

// sweep forgets the values that are over.
func (m *Map[K, V]) sweep(over func(V) bool) {
	before := len(m.all)
	maps.DeleteFunc(m.all, func(_ K, v V) bool { return over(v) })
	if len(m.all) <= before/2 {
		m.all = Compact(m.all)
	}
	m.sweepAt = 2 * len(m.all)
}

// Compact returns a map with the entries of m, which keeps the memory of all that it ever held. So does maps.Clone.
func Compact[K comparable, V any](m map[K]V) map[K]V {
	left := make(map[K]V, len(m))
	maps.Copy(left, m)
	return left
}

// Remember adds a key to a set. If there are most already, a random one of the others is forgotten.
func Remember[K comparable](set map[K]struct{}, key K, most int) {
	if _, known := set[key]; !known && len(set) >= most {
		for other := range set {
			delete(set, other)
			break
		}
	}
	set[key] = struct{}{}
}
