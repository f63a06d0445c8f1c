package clientflags

import (
	"flag"
	"fmt"
)

// Usage has -h print line before the flags. It returns line.
func Usage(line string) string {
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), line)
		flag.PrintDefaults()
	}
	return line
}
