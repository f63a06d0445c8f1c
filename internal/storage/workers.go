package storage

const (
	// maxWorkers bounds the goroutines that hash content in all stores together. Each has a buffer of 256 KiB, and a thread of the
	// system while it waits for the disk.
	maxWorkers = 256
	// maxFurther is how many there may be for a store to have more than one.
	maxFurther = 64
)

// Workers bounds the goroutines that hash the content of many stores at a time. It may be used from any goroutine.
type Workers struct{ quota *Quota }

// NewWorkers returns Workers, of which none is in use.
func NewWorkers() *Workers { return &Workers{NewQuota(maxWorkers)} }
