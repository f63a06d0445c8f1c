package main

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// racer is a client under test. What it cannot do is nil.
type racer struct {
	name   string
	usable func(b *bench) bool // nil is always
	// leech downloads the arena's torrent to a directory, and ends.
	leech func(b *bench, a *arena, out string) *exec.Cmd
	// seed shares the arena's torrent at an address, prints "ready" once it does, and never ends.
	seed func(b *bench, a *arena, n int) *exec.Cmd
	// idle shares many torrents of what lies in the arena's content, and is otherwise as seed.
	idle func(b *bench, a *arena, n int, torrents []string) *exec.Cmd
}

// is reports whether this is the client of that name, whatever its flags.
func (r racer) is(name string) bool { return strings.Fields(r.name)[0] == name }

// Hosts of the arena: the tracker has 1, seeds are from 2 on.
const (
	aria2Host      = 200
	libtorrentHost = 201
)

var ours = racer{
	name: "ours",
	leech: func(b *bench, a *arena, out string) *exec.Cmd {
		return exec.Command(b.bin+"/ours", "-dir", out, a.torrent)
	},
	seed: func(b *bench, a *arena, n int) *exec.Cmd {
		return exec.Command(b.bin+"/ours", "-seed", "-listen", peerAddr(n), "-dir", a.content, a.bare)
	},
	idle: func(b *bench, a *arena, n int, torrents []string) *exec.Cmd {
		return exec.Command(b.bin+"/ours", append([]string{"-seed", "-listen", peerAddr(n), "-dir", a.content}, torrents...)...)
	},
}

// oursBy is this library with flags that bear on how its two ends reach each other.
func oursBy(name string, flags ...string) racer {
	return racer{
		name: "ours " + name,
		leech: func(b *bench, a *arena, out string) *exec.Cmd {
			return exec.Command(b.bin+"/ours", append(flags[:len(flags):len(flags)], "-dir", out, a.torrent)...)
		},
		seed: func(b *bench, a *arena, n int) *exec.Cmd {
			return exec.Command(b.bin+"/ours", append(flags[:len(flags):len(flags)], "-seed", "-listen", peerAddr(n), "-dir", a.content, a.bare)...)
		},
	}
}

// overUTP are this library's ways to itself.
var overUTP = []racer{
	oursBy("by TCP", "-transport", "tcp"),
	oursByUTP,
	oursBy("by uTP without offload", "-transport", "utp", "-nooffload"),
}

var oursByUTP = oursBy("by uTP", "-transport", "utp")

// allOverUTP are the clients that speak uTP.
var allOverUTP = []racer{
	oursByUTP,
	{
		name: "anacrolix by uTP",
		leech: func(b *bench, a *arena, out string) *exec.Cmd {
			return exec.Command(b.bin+"/anacrolix", "-utp", "-dir", out, a.torrent)
		},
		seed: func(b *bench, a *arena, n int) *exec.Cmd {
			return exec.Command(b.bin+"/anacrolix", "-utp", "-seed", "-listen", peerAddr(n), "-dir", a.content, a.bare)
		},
	},
	{
		name:   "libtorrent by uTP",
		usable: libtorrent.usable,
		leech: func(b *bench, a *arena, out string) *exec.Cmd {
			return exec.Command(b.python, b.script(), "utp", "leech", a.torrent, out, host(libtorrentHost))
		},
		seed: func(b *bench, a *arena, n int) *exec.Cmd {
			return exec.Command(b.python, b.script(), "utp", "seed", a.bare, a.content, "0", host(n))
		},
	},
}

// stream moves as many bytes as the content has from one program's memory to another's, and does nothing else.
func stream(name, over string) racer {
	return racer{
		name: name,
		leech: func(b *bench, a *arena, out string) *exec.Cmd {
			return exec.Command(b.bin+"/stream", "-over", over, a.peers[0])
		},
		seed: func(b *bench, a *arena, n int) *exec.Cmd {
			return exec.Command(b.bin+"/stream", "-over", over, "-like", filepath.Join(a.content, a.name()), peerAddr(n))
		},
	}
}

var streams = []racer{
	stream("TCP", "tcp"), stream("uTP", "utp"), stream("uTP without offload", "utp-nooffload"), stream("quic-go", "quic"),
}

var oursInMemory = racer{
	name: "ours",
	leech: func(b *bench, a *arena, out string) *exec.Cmd {
		return exec.Command(b.bin+"/ours", "-memory", a.torrent)
	},
}

// oursInCrowd is for seeds that connect to host 2, so many of them.
func oursInCrowd(peers int) racer {
	return racer{
		name: "ours",
		leech: func(b *bench, a *arena, out string) *exec.Cmd {
			return exec.Command(b.bin+"/ours", "-dir", out, "-listen", peerAddr(2), "-peers", strconv.Itoa(peers), a.torrent)
		},
	}
}

// floor keeps so many requests in flight a seed.
func floor(requests int, flags ...string) racer {
	return racer{
		name: strings.TrimSpace("floor " + strings.Join(flags, " ")),
		leech: func(b *bench, a *arena, out string) *exec.Cmd {
			args := append([]string{"-dir", out, "-requests", strconv.Itoa(requests)}, flags...)
			return exec.Command(b.bin+"/floor", append(append(args, a.torrent), a.peers...)...)
		},
	}
}

var anacrolix = racer{
	name: "anacrolix",
	leech: func(b *bench, a *arena, out string) *exec.Cmd {
		return exec.Command(b.bin+"/anacrolix", "-dir", out, a.torrent)
	},
	seed: func(b *bench, a *arena, n int) *exec.Cmd {
		return exec.Command(b.bin+"/anacrolix", "-seed", "-listen", peerAddr(n), "-dir", a.content, a.bare)
	},
	idle: func(b *bench, a *arena, n int, torrents []string) *exec.Cmd {
		return exec.Command(b.bin+"/anacrolix", append([]string{"-seed", "-listen", peerAddr(n), "-dir", a.content}, torrents...)...)
	},
}

var aria2 = racer{
	name:   "aria2",
	usable: func(b *bench) bool { _, err := exec.LookPath("aria2c"); return err == nil },
	leech: func(b *bench, a *arena, out string) *exec.Cmd {
		return exec.Command("aria2c", "--no-conf", "-q", "--seed-time=0", "--enable-dht=false", "--enable-dht6=false",
			"--bt-enable-lpd=false", "--file-allocation=none", "--interface="+host(aria2Host), "-d", out, a.torrent)
	},
}

var libtorrent = racer{
	name:   "libtorrent",
	usable: func(b *bench) bool { return b.python != "" },
	leech: func(b *bench, a *arena, out string) *exec.Cmd {
		return exec.Command(b.python, b.script(), "leech", a.torrent, out, host(libtorrentHost))
	},
	seed: func(b *bench, a *arena, n int) *exec.Cmd {
		return exec.Command(b.python, b.script(), "seed", a.bare, a.content, "0", host(n))
	},
	idle: func(b *bench, a *arena, n int, torrents []string) *exec.Cmd {
		return exec.Command(b.python, append([]string{b.script(), "idle", a.content, host(n)}, torrents...)...)
	},
}
