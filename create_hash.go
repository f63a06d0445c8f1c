package torrent

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"runtime"
	"sort"
	"sync"
	"sync/atomic"
)

const (
	sumBuffer = 256 << 10 // bytes that a core reads at a time: they are still in its cache when hashed
	sumRun    = 4 << 20   // bytes, about, that a core hashes in sequence, as disks like to read
)

// sumPieces fills sums with the SHA-1 sums of the pieces, 20 bytes each. Each core reads its own pieces through a
// buffer of its own, with at most one file open, so memory and open files do not grow with the number of pieces
// or files. report is called with the number of bytes that were read since the last call.
func sumPieces(ctx context.Context, src source, sums []byte, files []contentFile, total, pieceLength int64, report func(n int)) error {
	pieces := len(sums) / sha1.Size
	run := int(max(1, sumRun/pieceLength))

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64 // the first piece that no core has taken
	var cores sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), (pieces-1)/run+1) {
		cores.Go(func() {
			r := contentReader{src: src, files: files, buf: make([]byte, min(sumBuffer, total)), report: report}
			defer r.close()
			h := sha1.New()
			for {
				end := int(next.Add(int64(run)))
				for i := end - run; i < min(end, pieces); i++ {
					off := int64(i) * pieceLength
					if err := r.sum(ctx, h, off, min(pieceLength, total-off)); err != nil {
						cancel(err)
						return
					}
					h.Sum(sums[:i*sha1.Size])
					h.Reset()
				}
				if end >= pieces {
					return
				}
			}
		})
	}
	cores.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	// A file that changed after it was read, or in a way that reading did not show, has another time now.
	for i := range files {
		if f := &files[i]; f.path != "" {
			info, err := src.lstat(f.path)
			if err != nil {
				return err
			}
			if err := f.check(info); err != nil {
				return err
			}
		}
	}
	return nil
}

// contentReader reads the files as one run of bytes, forward only.
type contentReader struct {
	src    source
	files  []contentFile
	buf    []byte
	report func(n int)

	file fs.File     // files[0], if it is open
	at   io.ReaderAt // of file
}

// sum writes n bytes of the content from off on to h.
func (r *contentReader) sum(ctx context.Context, h hash.Hash, off, n int64) error {
	for n > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if skip := sort.Search(len(r.files), func(i int) bool { return r.files[i].offset+r.files[i].length > off }); skip > 0 {
			r.close()
			r.files = r.files[skip:]
		}
		f := &r.files[0]
		b := r.buf[:min(int64(len(r.buf)), n, f.offset+f.length-off)]
		if f.path == "" {
			clear(b)
		} else {
			if err := r.read(f, b, off-f.offset); err != nil {
				return err
			}
			r.report(len(b))
		}
		h.Write(b)
		off, n = off+int64(len(b)), n-int64(len(b))
	}
	return nil
}

func (r *contentReader) read(f *contentFile, b []byte, off int64) error {
	if r.file == nil {
		var err error
		if r.file, err = r.src.open(f.path); err != nil {
			return err
		}
		r.at = forward(r.file)
		info, err := r.file.Stat()
		if err != nil {
			return err
		}
		if err := f.check(info); err != nil {
			return err
		}
	}
	if n, err := r.at.ReadAt(b, off); n < len(b) {
		if errors.Is(err, io.EOF) {
			return f.changed()
		}
		return err
	}
	return nil
}

func (r *contentReader) close() {
	if r.file != nil {
		r.file.Close()
		r.file = nil
	}
}

// check returns an error if the file is not as it was when it was found.
func (f *contentFile) check(info fs.FileInfo) error {
	if !info.Mode().IsRegular() || info.Size() != f.length || !info.ModTime().Equal(f.modTime) {
		return f.changed()
	}
	return nil
}

func (f *contentFile) changed() error { return fmt.Errorf("%s changed while it was read", f.path) }

// progressOf turns progress into a function that takes each step by itself, from any goroutine.
func progressOf(total int64, progress func(done, total int64)) func(n int) {
	if progress == nil {
		return func(int) {}
	}
	var mu sync.Mutex
	var done int64
	return func(n int) {
		mu.Lock()
		defer mu.Unlock()
		done += int64(n)
		progress(done, total)
	}
}
