package storage

import (
	"os"

	"golang.org/x/sys/windows"
)

// identityOf returns the identity of an open directory, or zero if it has none.
func identityOf(f *os.File) FileID {
	var info windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(windows.Handle(f.Fd()), &info); err != nil {
		return FileID{}
	}
	index := uint64(info.FileIndexHigh)<<32 | uint64(info.FileIndexLow)
	if index == 0 { // some network shares number no files
		return FileID{}
	}
	return FileID{Dev: uint64(info.VolumeSerialNumber), Inode: index}
}
