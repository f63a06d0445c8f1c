// Package memtest measures the memory that a test holds. It is for tests alone.
package memtest

import "runtime"

// Heap returns how many bytes of the heap are reachable.
func Heap() int64 {
	for range 3 { // what is in pools survives one collection, and what such things refer to another
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
