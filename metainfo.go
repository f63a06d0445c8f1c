package torrent

import (
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"time"

	"github.com/shoal-go/torrent/internal/bencode"
	"github.com/shoal-go/torrent/internal/metainfo"
	"github.com/shoal-go/torrent/internal/piecehash"
)

// Read reads the .torrent file at path. Its errors are those of opening and reading the file, and
// those of Parse.
func Read(path string) (*Torrent, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// A file that is too large is refused before it is read. A special file has size 0 here.
	if st, err := f.Stat(); err == nil && st.Size() > metainfo.MaxSize {
		return nil, fmt.Errorf("%s: %w", path, (*MetainfoError)(metainfo.TooLarge()))
	}
	t, err := Parse(f)
	if _, ok := errors.AsType[*MetainfoError](err); ok {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, err
}

// Parse reads a .torrent file of version 1 (BEP 3), of version 2 (BEP 52), or a hybrid of both, from r up to its end. A file
// whose info dictionary is malformed, that ends early, or that is larger than the bounds of this package is refused
// with a *MetainfoError; one of a newer version with one that matches ErrUnsupported. So are a hybrid whose two lists of
// files disagree, and piece layers that do not hash to their roots, or are of no file. Layers that are missing do no harm: a
// download asks its peers for them.
//
// Outside the info dictionary, a malformed value is left out, bytes after the end of the file's
// dictionary are ignored, and of a key that is there twice the last counts. URLs of trackers and web
// seeds that this package cannot use are left out as well. Names of files are changed where they would
// be unsafe.
func Parse(r io.Reader) (*Torrent, error) {
	raw, err := io.ReadAll(io.LimitReader(r, metainfo.MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read torrent: %w", err)
	}
	return parseMetainfo(raw, runtime.GOOS)
}

// WriteTo writes the .torrent file exactly as it was read.
func (t *Torrent) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(t.raw)
	return int64(n), err
}

// outer is what a .torrent file says outside its info dictionary. All of it is optional.
type outer struct {
	trackers           [][]string
	webSeeds           []string
	nodes              []string // host:port
	comment, createdBy string
	creationDate       time.Time
	layers             map[string][]byte // of version 2, by root
}

// newTorrent makes a torrent of an encoded info dictionary and the outer fields, under the rules of Parse. It
// keeps no reference to its arguments.
func newTorrent(info []byte, o outer) (*Torrent, error) {
	// After an info dictionary that ended early, its rest would be read as outer fields.
	if n, err := bencode.Scan(info, metainfo.Limits()); err != nil {
		return nil, malformed("info", err)
	} else if n < len(info) {
		return nil, malformed("info", &bencode.SyntaxError{Offset: n, Reason: "bytes behind the value"})
	}

	file := struct {
		Announce     string            `bencode:"announce,omitempty"`
		AnnounceList [][]string        `bencode:"announce-list,omitempty"`
		Comment      string            `bencode:"comment,omitempty"`
		CreatedBy    string            `bencode:"created by,omitempty"`
		CreationDate int64             `bencode:"creation date,omitempty"`
		Info         bencode.Raw       `bencode:"info"`
		Nodes        [][]any           `bencode:"nodes,omitempty"`
		Layers       map[string][]byte `bencode:"piece layers,omitempty"`
		URLList      []string          `bencode:"url-list,omitempty"`
	}{Comment: o.comment, CreatedBy: o.createdBy, Info: info, Layers: o.layers, URLList: o.webSeeds}
	for _, tier := range o.trackers {
		if len(tier) > 0 {
			file.AnnounceList = append(file.AnnounceList, tier)
		}
	}
	if len(file.AnnounceList) > 0 {
		file.Announce = file.AnnounceList[0][0]
		if len(file.AnnounceList) == 1 && len(file.AnnounceList[0]) == 1 {
			file.AnnounceList = nil
		}
	}
	for _, node := range o.nodes {
		host, port, err := net.SplitHostPort(node)
		if err != nil {
			return nil, malformed("nodes", err)
		}
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return nil, malformed("nodes", err)
		}
		file.Nodes = append(file.Nodes, []any{host, n})
	}
	if !o.creationDate.IsZero() {
		file.CreationDate = o.creationDate.Unix()
	}
	raw, err := bencode.Marshal(file)
	if err != nil {
		return nil, fmt.Errorf("make torrent: %w", err)
	}
	return parseMetainfo(raw, runtime.GOOS)
}

// parseMetainfo reads a whole .torrent file, which the result keeps. Names are made safe for goos.
func parseMetainfo(raw []byte, goos string) (*Torrent, error) {
	f, err := metainfo.Parse(raw, goos)
	if err != nil {
		return nil, (*MetainfoError)(err)
	}
	t := &Torrent{
		raw: raw, info: f.Encoded,
		name: f.Info.Name, multi: f.Info.Multi, length: f.Info.Length, layout: f.Info.Layout,
		private: f.Info.Private, pieces: f.Info.Pieces,
		trackers: f.Trackers, webSeeds: f.WebSeeds, nodes: f.Nodes,
		comment: f.Comment, createdBy: f.CreatedBy, creationDate: f.CreationDate,
	}
	if f.Info.V2 {
		t.infoHashV2 = sha256.Sum256(t.info)
		t.hashes = piecehash.New(t.layout, f.Info.Roots, f.Info.Layers)
		t.version = V2
		t.infoHash = t.infoHashV2.truncated()
	}
	if f.Info.V1 {
		t.infoHash = sha1.Sum(t.info)
		if f.Info.V2 {
			t.version = Hybrid
		}
	}
	return t, nil
}

func malformed(field string, err error) *MetainfoError {
	return (*MetainfoError)(metainfo.Malformed(field, err))
}
