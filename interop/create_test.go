package interop

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/shoal-go/torrent"
)

func printed(t *testing.T, path string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	require.NoErrorf(t, err, "%s %q: %s", path, args, out)
	return string(out)
}

// writeFiles writes random bytes below a directory called "share".
func writeFiles(t *testing.T, lengths map[string]int) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "share")
	random := rand.NewChaCha8([32]byte{1})
	for name, length := range lengths {
		path := filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		b := make([]byte, length)
		random.Read(b)
		require.NoError(t, os.WriteFile(path, b, 0o644))
	}
	return dir
}

// nested is a directory whose files programs are known to sort in different ways.
var nested = map[string]int{
	".hidden": 100, ".config/x": 5, "empty": 0, "a.txt": 40_000, "a-b": 1, "a/b/c": 100_000, "a/b.txt": 32 << 10,
	"a/b-c": 7, "a-d/e": 65_536, "B": 3, "Z/y": 2, "é/ü": 5, "日本": 9, "10": 10, "9": 9,
}

// plain is one that transmission-create sorts as bytes too, and leaves nothing out of.
var plain = map[string]int{"a.txt": 40_000, "a-b": 1, "a/b/c": 100_000, "a/b.txt": 32 << 10, "b": 5}

// For the same content, name, piece length and private flag, the info hash is mktorrent's.
func TestCreateAsMktorrent(t *testing.T) {
	mktorrent := program(t, "mktorrent")
	dir := writeFiles(t, nested)
	for _, path := range []string{dir, filepath.Join(dir, "a", "b", "c")} {
		for _, exponent := range []int{15, 18} {
			for _, private := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/2^%d/private=%v", filepath.Base(path), exponent, private), func(t *testing.T) {
					file := filepath.Join(t.TempDir(), "theirs.torrent")
					args := []string{"-a", "http://tracker.example/announce", "-l", strconv.Itoa(exponent), "-n", "name", "-o", file, path}
					if private {
						args = append([]string{"-p"}, args...)
					}
					printed(t, mktorrent, args...)
					requireSameTorrent(t, file, path, torrent.CreateOptions{Name: "name", PieceLength: 1 << exponent, Private: private})
				})
			}
		}
	}
}

// Transmission 3 writes private=0 into a torrent that is not private, which makes for another info
// hash; so the private ones are compared.
func TestCreateAsTransmission(t *testing.T) {
	transmission := program(t, "transmission-create")
	dir := writeFiles(t, plain)
	for _, path := range []string{dir, filepath.Join(dir, "a", "b", "c")} {
		for _, kib := range []int{32, 1024} {
			t.Run(fmt.Sprintf("%s/%dKiB", filepath.Base(path), kib), func(t *testing.T) {
				file := filepath.Join(t.TempDir(), "theirs.torrent")
				printed(t, transmission, "-p", "-t", "http://tracker.example/announce", "-s", strconv.Itoa(kib), "-o", file, path)
				requireSameTorrent(t, file, path, torrent.CreateOptions{PieceLength: int64(kib) << 10, Private: true})
			})
		}
	}
}

func requireSameTorrent(t *testing.T, theirs, path string, o torrent.CreateOptions) {
	t.Helper()
	want, err := torrent.Read(theirs)
	require.NoError(t, err)
	got, err := torrent.Create(path, &o)
	require.NoError(t, err)
	require.Equal(t, fileList(want), fileList(got))
	require.Equal(t, want.InfoHash(), got.InfoHash())
}

func fileList(t *torrent.Torrent) (list []string) {
	for f := range t.Files() {
		list = append(list, fmt.Sprintf("%s %d", f.Path, f.Length))
	}
	return list
}

// libtorrentCreate makes a torrent of the files listed, in the order of the list or, with padding, in
// libtorrent's own, and prints its info hash.
const libtorrentCreate = `
import os, sys, libtorrent as lt
parent, piece_length, private, pad, *names = sys.argv[1:]
files = lt.file_storage()
for name in names:
    files.add_file(name, os.path.getsize(os.path.join(parent, name)))
flags = lt.create_torrent.v1_only
if pad == "true":
    flags |= lt.create_torrent.canonical_files_no_tail_padding
t = lt.create_torrent(files, int(piece_length), flags=flags)
t.set_priv(private == "true")
lt.set_piece_hashes(t, parent)
print(lt.torrent_info(t.generate()).info_hash())
`

// Given the order of the files, the info hash is libtorrent's.
func TestCreateAsLibtorrent(t *testing.T) {
	python := program(t, pythonLibtorrent)
	// Of padded files, libtorrent takes its own order: names of directories as such, not paths.
	padded := writeFiles(t, map[string]int{"a/b/c": 100_000, "a/d": 32 << 10, "a/e": 0, "a/f": 1, "b": 5, "c": 0})
	dir := writeFiles(t, nested)
	for _, path := range []string{dir, filepath.Join(dir, "a", "b", "c"), padded} {
		for _, private := range []bool{false, true} {
			pad := path == padded
			t.Run(fmt.Sprintf("%s/private=%v/pad=%v", filepath.Base(path), private, pad), func(t *testing.T) {
				got, err := torrent.Create(path, &torrent.CreateOptions{PieceLength: 32 << 10, Private: private, Pad: pad})
				require.NoError(t, err)
				args := []string{"-c", libtorrentCreate, filepath.Dir(path), "32768", strconv.FormatBool(private), strconv.FormatBool(pad)}
				for f := range got.Files() {
					args = append(args, f.Path)
				}
				require.Equal(t, strings.TrimSpace(printed(t, python, args...)), got.InfoHash().String())
			})
		}
	}
}

// libtorrentCreateV2 makes a torrent of a file or a directory in libtorrent's own order, and prints its info hashes.
const libtorrentCreateV2 = `
import os, sys, libtorrent as lt
path, piece_length, private, version = sys.argv[1:]
files = lt.file_storage()
lt.add_files(files, path)
flags = lt.create_torrent.no_attributes
if version == "2":
    flags |= lt.create_torrent.v2_only
t = lt.create_torrent(files, int(piece_length), flags=flags)
t.set_priv(private == "true")
lt.set_piece_hashes(t, os.path.dirname(path))
h = lt.torrent_info(t.generate()).info_hashes()
print(h.v1 if version == "hybrid" else "", h.v2)
`

// Of version 2 and hybrids, both info hashes are libtorrent's.
func TestCreateVersion2AsLibtorrent(t *testing.T) {
	python := program(t, pythonLibtorrent)
	nested := maps.Clone(nested)
	delete(nested, ".hidden") // add_files leaves these out
	delete(nested, ".config/x")
	dir := writeFiles(t, nested)
	edges := writeFiles(t, map[string]int{"block": 16 << 10, "piece": 32 << 10, "pieces": 96 << 10, "over": 96<<10 + 1, "under": 96<<10 - 1, "z/empty": 0})
	for _, path := range []string{dir, edges, filepath.Join(dir, "a", "b", "c"), filepath.Join(dir, "a-b"), filepath.Join(edges, "pieces"), filepath.Join(dir, "Z")} {
		for _, version := range []torrent.Version{torrent.Hybrid, torrent.V2} {
			for _, private := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%v/private=%v", filepath.Base(path), version, private), func(t *testing.T) {
					got, err := torrent.Create(path, &torrent.CreateOptions{PieceLength: 32 << 10, Private: private, Version: version})
					require.NoError(t, err)
					out := printed(t, python, "-c", libtorrentCreateV2, path, "32768", strconv.FormatBool(private), version.String())
					v2, ok := got.InfoHashV2()
					require.True(t, ok)
					want := []string{v2.String()}
					if version == torrent.Hybrid {
						want = []string{got.InfoHash().String(), v2.String()}
					}
					require.Equal(t, want, strings.Fields(out))
				})
			}
		}
	}
}

// Other clients read the torrents that Create makes, and see the same info hash.
func TestCreateIsReadByOthers(t *testing.T) {
	dir := writeFiles(t, nested)
	for name, o := range map[string]*torrent.CreateOptions{
		"defaults": nil,
		"all": {
			PieceLength: 16 << 10, Private: true, Pad: true, Comment: "a comment", CreatedBy: "interop",
			Trackers: [][]string{{"http://a.example/announce", "udp://b.example:80/announce"}, {"https://c.example/announce"}},
			WebSeeds: []string{"http://w.example/"},
		},
	} {
		made, err := torrent.Create(dir, o)
		require.NoError(t, err)
		path := filepath.Join(t.TempDir(), name+".torrent")
		writeTorrent(t, path, made)

		t.Run(name+"/transmission", func(t *testing.T) {
			out := printed(t, program(t, "transmission-show"), path)
			require.Regexp(t, regexp.MustCompile(`Hash: `+made.InfoHash().String()), out)
			for _, tier := range made.Trackers() {
				require.Contains(t, out, tier[0])
			}
		})
		t.Run(name+"/aria2", func(t *testing.T) {
			out := printed(t, program(t, "aria2c"), "--no-conf", "-S", path)
			require.Contains(t, out, "Info Hash: "+made.InfoHash().String())
		})
		t.Run(name+"/libtorrent", func(t *testing.T) {
			out := printed(t, program(t, pythonLibtorrent), "-c", "import sys, libtorrent as lt; t = lt.torrent_info(sys.argv[1]); print(t.info_hash(), t.priv())", path)
			want := made.InfoHash().String() + map[bool]string{false: " False", true: " True"}[made.Private()]
			require.Equal(t, want, strings.TrimSpace(out))
		})
	}
}

func writeTorrent(t *testing.T, path string, made *torrent.Torrent) {
	t.Helper()
	file, err := os.Create(path)
	require.NoError(t, err)
	_, err = made.WriteTo(file)
	require.NoError(t, err)
	require.NoError(t, file.Close())
}
