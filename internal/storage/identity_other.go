//go:build !unix && !windows

package storage

import "os"

// identityOf returns zero: directories have no identity here.
func identityOf(*os.File) FileID { return FileID{} }
