// Package torrent downloads and shares files over BitTorrent.
//
// A program reads a .torrent file, downloads what it describes from the peers that have it, and gets every
// file as a slice of bytes that were checked against the torrent:
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
// [Torrent.DownloadAll] is [Torrent.Start] and then [Download.Wait]. Between the two a program can watch
// the [Download] ([Download.Stats]), choose what it fetches ([Download.Select]), take the files as they
// become complete ([Download.Completed]) and read from them before that ([Download.Open]).
// [Downloaded] is an [io/fs.FS], so that [net/http.FileServerFS] serves it and [io/fs.WalkDir] walks it.
// [Create] makes a torrent of a file or a directory. [ParseMagnet] reads a magnet link, and
// [Magnet.Resolve] fetches from the swarm what its .torrent file would say.
//
// # Files and state
//
// Without [Options.Dir] the content stays in memory and nothing is written. With it, files are written under their
// paths in that directory, and never outside of it. While a file of the torrent, chosen or not, is incomplete, a few
// hidden files lie beside them, named for the info hash: a lock, the resume sidecar, and, if only some files are
// chosen, the bytes of others that share a piece with them. The package has no state of its own beyond its values: no
// fixed port, no database, no global logger.
//
// # Contexts and closing
//
// The context given to Start spans the whole download, sharing included. When it ends, the download ends; trackers are
// told, if they answer at once. [Download.Close] ends the download without the context, and gives trackers a few seconds.
// When Close returns, no goroutine and no connection of the download is left. A Downloaded outlives its download. Only
// its own Close invalidates the slices that Bytes returned.
//
// With [Options.Seed] a complete download continues to share: Wait returns the files, and sharing ends with the
// context, or when the Download, the Downloaded or the [Client] is closed.
//
// # Errors
//
// If a context ended a call or a download, the error matches both the context's Err and its Cause. The error of a
// download that did not finish also holds the last error of each of the first few trackers, as *[TrackerError], and
// says how many peers were tried. The error for a torrent that is malformed, or exceeds the bounds of this package, is
// a *[MetainfoError] that names the field. The sentinels are [ErrClosed], [ErrTooLarge], [ErrUnsupported], [ErrStalled],
// [ErrInUse] and, of the DHT, [ErrNotFound].
//
// A download has no deadline of its own: without peers it waits for some, until the context ends, or for [Options.StallTimeout].
// Only DownloadAll ends at once if there is no source of peers. If storage fails, for example because the disk is full, the
// download ends with that error. A peer or tracker that fails, lies or goes away does not end it.
//
// # Web seeds
//
// A download also fetches from HTTP servers that a torrent, a magnet link or [Options.WebSeeds] names (BEP 19). They are asked
// for pieces that peers lack or send slowly, two requests at a time, or five over HTTP/2. If a server does not have a file, it
// is asked for that file again after an hour. A server that is busy is not asked for as long as it says. A server that fails, or
// lacks sixteen files in a row, is not asked for five seconds to ten minutes. A server that sent two false pieces is not asked
// again. [Stats] shows the state of each.
//
// A server on the open internet cannot redirect to an address inside the user's network, even if the user named the
// server. A server that a torrent or link named may be inside that network, but then no URL with a query is requested
// from it.
//
// # Memory
//
// A download without Dir and Storage keeps the chosen files in memory: up to [Options.MaxMemory], 1 GiB by
// default. A larger one is refused with ErrTooLarge before anything is allocated. In addition, blocks
// that wait for the rest of their piece take at most 32 MiB for all downloads of a Client together; blocks
// without room there are written to storage at once. Every length that a peer or tracker sends is checked
// before memory is allocated for it.
//
// # Verified bytes
//
// Every byte that the package returns was part of a piece with the right hash. The slice that Bytes returns must not
// be written to, and is valid until [Downloaded.Close]. With a Dir it is a memory map of the file, and shows the
// file's present content: if another program writes to the file later, the slice changes, and if the file is made
// shorter, reading the slice crashes the program. Open and ReadFile return an error in these cases.
// [DownloadedFile.Bytes] says more.
//
// # Finding peers
//
// Peers come from a torrent's trackers, from the DHT, from [Options.Peers], [Options.FindPeers] and [Download.AddPeers], from
// other peers, and from the local network if [Client.LocalDiscovery] is set. A private torrent (BEP 27) is
// announced to its trackers alone, and takes peers from them and from the user. A client joins the DHT with the first download
// that may use it, unless [Client.NoDHT] is set, at well-known routers or at [Client.DHTNodes]. It keeps no file of nodes: a
// program can save the result of [DHT.Nodes] for its next run.
//
// # Version 2
//
// Torrents of version 2 (BEP 52) and hybrids of both versions are used like others. A hybrid joins the swarms of both its info
// hashes, and each piece must have the hashes of both versions; if these disagree the download ends with an error that says so.
// Where there is room for 20 bytes only, as in [Torrent.InfoHash] and in most messages of the protocol, a torrent of version 2
// alone is identified by the first 20 bytes of its info hash.
//
// # Ways out
//
// A client sends through sockets of the operating system, unless a field of [Client] says otherwise. The fields affect each kind of
// traffic as follows, and nothing bypasses them:
//
//	                   Dial   ListenPacket   HTTPClient   Proxy     Bind    Allow
//	TCP to peers       its    -              -            through   bound   asked
//	TCP from peers     -      -              -            off       bound   asked
//	uTP                off    its            -            through   bound   asked
//	DHT                off    its            -            through   bound   asked
//	UDP trackers       off    its            -            through   bound   -
//	HTTP trackers      -      -              its          through   bound   -
//	web seeds          -      -              its          through   bound   -
//	local discovery    off    -              -            off       bound   -
//	port mapping       off    its            -            off       bound   -
//	names (DNS)        -      -              -            through   bound   -
//
// "its" means through that function or client alone, and a dash that the field has no effect. In the column of Dial, "off" holds
// only while ListenPacket is nil: then no UDP is sent at all. If both are set, Dial also makes the connections of UPnP to routers.
// With Proxy everything goes through the proxy, or is not sent at all; UDP needs a SOCKS proxy that relays UDP. With Bind
// everything leaves from that address, through the interface that has it. With Proxy, Dial and ListenPacket are used to reach the
// proxy; with Bind they are asked to bind to the address. Proxy and Bind apply to an HTTPClient only if its Transport is nil or an
// [net/http.Transport]. Allow is asked for each address before it is dialled, accepted or queried, and, where peers come from
// trackers, peer exchange or local discovery, before they are remembered; [Download.Ban] does the same for one download's peers.
//
// A client notices when its machine slept, when its addresses change and when the network returns. It drops connections that are
// lost, and announces itself to trackers, the DHT, routers and the local network within a minute.
//
// # Resuming
//
// Start with the same Dir continues from the files that are there, no matter which program wrote them: they
// are hashed, and pieces that are right are used. After a Close or a kill, the resume sidecar lists the pieces that were verified.
// They are not hashed again if their files still have the sizes and modification times that the sidecar records. With
// [Options.KeepResume] the sidecar stays once the content is complete, so that a program that shares terabytes can share them again
// immediately after a restart. Two downloads cannot write the same content to the same directory at once: the second is refused
// with ErrInUse.
//
// # Many downloads
//
// Downloads that name the same [Client] share its listener, its rate limits, and a budget of connections and memory. They never write
// to each other's files: the second to choose a path is refused with ErrInUse. Those of different Clients are kept apart on Linux only.
// Rate limits are limiters of [golang.org/x/time/rate], which may be changed while in use. All types may be used from
// several goroutines at once, except the result of Download.Open: like a file, it has one position. Its ReadAt may be
// called from several goroutines.
package torrent
