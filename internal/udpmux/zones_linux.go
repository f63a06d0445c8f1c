package udpmux

import (
	"net"
	"strconv"
	"sync"
)

// zones remembers the names of the interfaces that link-local addresses belong to. The zero value is ready.
type zones struct {
	mu      sync.Mutex
	names   map[uint32]string
	indexes map[string]uint32
}

// maxZones bounds what is remembered; interfaces come and go.
const maxZones = 64

// name is the zone of an interface: its name, or its number if it has none.
func (z *zones) name(index uint32) string {
	z.mu.Lock()
	defer z.mu.Unlock()
	name, ok := z.names[index]
	if !ok {
		name = strconv.FormatUint(uint64(index), 10)
		if i, err := net.InterfaceByIndex(int(index)); err == nil {
			name = i.Name
		}
		z.add(index, name)
	}
	return name
}

// index is the number of a zone's interface.
func (z *zones) index(name string) (uint32, error) {
	if name == "" {
		return 0, nil
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	index, ok := z.indexes[name]
	if !ok {
		if n, err := strconv.ParseUint(name, 10, 32); err == nil {
			return uint32(n), nil
		}
		i, err := net.InterfaceByName(name)
		if err != nil {
			return 0, err
		}
		index = uint32(i.Index)
		z.add(index, name)
	}
	return index, nil
}

// The caller holds z.mu.
func (z *zones) add(index uint32, name string) {
	if z.names == nil || len(z.names) >= maxZones || len(z.indexes) >= maxZones {
		z.names, z.indexes = make(map[uint32]string), make(map[string]uint32)
	}
	z.names[index], z.indexes[name] = name, index
}
