// Package torrent downloads and shares files over BitTorrent.
//
// A program reads a .torrent file, downloads what it describes from whoever has it, and gets every
// file as a slice of bytes that was checked against the torrent:
//
//	t, err := torrent.Read("debian.torrent")
//	if err != nil {
//		return err
//	}
//	t.PrintTree(os.Stdout)
//	files, err := t.DownloadAll(ctx, nil)
//	if err != nil {
//		return err
//	}
//	defer files.Close()
//	for f := range files.Files() {
//		b, err := f.Bytes()
//		if err != nil {
//			return err
//		}
//		fmt.Println(f.Path(), len(b))
//	}
//
// [Torrent.DownloadAll] is [Torrent.Start] and then [Download.Wait]. Between the two a [Download] can
// be watched ([Download.Stats]), told what to fetch ([Download.Select]), iterated over file by file as
// they become whole ([Download.Completed]) and read before it is complete ([Download.Open]).
// [Downloaded] is an [io/fs.FS], so that [net/http.FileServerFS] serves it and [io/fs.WalkDir] walks it.
// [Create] makes a torrent of a file or a directory. [ParseMagnet] reads a magnet link, and
// [Magnet.Resolve] has the swarm tell what its .torrent file would say.
//
// # What is left behind
//
// Nothing that was not asked for. Without [Options.Dir] the content stays in memory and nothing is
// written. With it, files appear under their paths in that directory, never outside of it, and beside
// them, while a download is not complete, a few hidden files named for the info hash: a lock, the
// resume sidecar, and, where only some files are chosen, the bytes of others that share a piece with
// them. The package has no state of its own beyond what its values hold: no fixed port, no database,
// no global logger.
//
// # Contexts and closing
//
// The context given to Start spans the whole download, sharing included. When it ends, so does the
// download; trackers are told, if they answer at once. [Download.Close] does the same without a context
// and gives trackers a few seconds. When it has returned, no goroutine and no connection of the
// download is left. A Downloaded outlives its download and has a Close of its own.
//
// With [Options.Seed] a download that is complete goes on sharing: Wait returns the files, and it ends
// with its context, or with a Close of the Download, the Downloaded or the [Client].
//
// # Errors
//
// An error that ended the work of a context matches both its Err and its Cause. The error of a download
// that could not finish also holds the last word of each of the first few trackers, as *[TrackerError],
// and says how many peers were tried. A torrent that is malformed, or beyond the bounds of this package,
// is a *[MetainfoError] that names the field. The sentinels are [ErrClosed], [ErrTooLarge],
// [ErrUnsupported], [ErrStalled] and [ErrInUse].
//
// A download has no deadline of its own: without peers it waits for some, until the context ends, or for
// [Options.StallTimeout]. A storage that fails, such as a full disk, ends it with that error. A peer or
// tracker that fails, lies or goes away does not.
//
// # Memory
//
// A download without Dir and Storage keeps what is chosen in memory: up to [Options.MaxMemory], 1 GiB by
// default, beyond which it is refused with ErrTooLarge before anything is allocated. Beside that, blocks
// that wait for the rest of their piece take at most 32 MiB for all downloads of a Client together; what
// has no room there waits on storage instead. What strangers send is bounded before it is believed.
//
// # Verified bytes
//
// Every byte that is handed out was part of a piece that had the hash which the torrent says. What
// Bytes returns is read only, and lives until [Downloaded.Close]. From a Dir it is a map of the file, which
// shows what the file holds now: what another program writes into it later is seen, and if it is made
// shorter, reading the slice crashes the program. Open and ReadFile return an error then.
// [DownloadedFile.Bytes] says more.
//
// # Going on after a stop
//
// Start with the same Dir goes on from what is there, whoever put it there: files are hashed and what is
// right is used. After a Close or a kill the resume sidecar spares the hashing of what had been verified,
// as far as size and modification time of the files still are what it says. Two downloads cannot write
// the same content to the same directory at once: the second is refused with ErrInUse.
//
// # Many downloads
//
// Downloads that name the same [Client] share one listener, its rate limits, and a budget of connections and
// memory. Rate limits are limiters of [golang.org/x/time/rate], which may be changed while in use.
// All types may be used from any goroutine, but for the result of Download.Open, which has one position,
// as a file has; its ReadAt may be called from many.
package torrent
