package storage

import (
	"bytes"
	"io"
	"os"
	"strconv"
)

// mapsAreMany reports whether the process has more than half of the maps that the system allows it. If it had all of them, the Go
// runtime could not map more memory for the heap, and would end the program.
func mapsAreMany() bool {
	most := 65530
	if b, err := os.ReadFile("/proc/sys/vm/max_map_count"); err == nil {
		if n, err := strconv.Atoi(string(bytes.TrimSpace(b))); err == nil {
			most = n
		}
	}
	f, err := os.Open("/proc/self/maps") // one line for each map
	if err != nil {
		return false
	}
	defer f.Close()
	buf := make([]byte, 64<<10)
	for maps := 0; maps <= most/2; {
		n, err := f.Read(buf)
		maps += bytes.Count(buf[:n], []byte{'\n'})
		if err == io.EOF {
			return maps > most/2
		}
		if err != nil {
			return false
		}
	}
	return true
}
