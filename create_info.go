package torrent

import (
	"fmt"
	"strings"

	"github.com/shoal-go/torrent/internal/bencode"
)

// encodeInfo encodes the info dictionary (BEP 3, BEP 52).
func (p *plan) encodeInfo(s *sums) ([]byte, error) {
	type entry struct {
		Attr   string   `bencode:"attr,omitempty"`
		Length int64    `bencode:"length"`
		Path   []string `bencode:"path"`
	}
	info := struct {
		FileTree    map[string]any `bencode:"file tree,omitempty"`
		Files       []entry        `bencode:"files,omitempty"`
		Length      int64          `bencode:"length,omitempty"`
		MetaVersion int            `bencode:"meta version,omitempty"`
		Name        string         `bencode:"name"`
		PieceLength int64          `bencode:"piece length"`
		Pieces      []byte         `bencode:"pieces,omitempty"`
		Private     bool           `bencode:"private,omitempty"`
	}{Name: p.name, PieceLength: p.pieceLength, Pieces: s.v1, Private: p.o.Private}
	if p.o.Version != V1 {
		info.MetaVersion, info.FileTree = 2, p.fileTree(s)
	}
	switch {
	case p.o.Version == V2:
	case !p.multi:
		info.Length = p.files[0].length
	default:
		for _, f := range p.files {
			e := entry{Length: f.length, Path: strings.Split(f.name, "/")}
			if f.path == "" {
				e.Attr = "p"
			}
			info.Files = append(info.Files, e)
		}
	}
	return bencode.Marshal(info)
}

// fileTree is the file tree of version 2.
func (p *plan) fileTree(s *sums) map[string]any {
	type leaf struct {
		Length int64  `bencode:"length"`
		Root   []byte `bencode:"pieces root,omitempty"`
	}
	tree := make(map[string]any)
	for i, f := range p.files {
		if f.path == "" {
			continue
		}
		names := []string{p.name}
		if p.multi {
			names = strings.Split(f.name, "/")
		}
		dir := tree
		for _, name := range names {
			below, ok := dir[name].(map[string]any)
			if !ok {
				below = make(map[string]any)
				dir[name] = below
			}
			dir = below
		}
		e := leaf{Length: f.length}
		if f.length > 0 {
			e.Root = s.roots[i][:]
		}
		dir[""] = e
	}
	return tree
}

// checkNames makes sure that the names in the torrent are those of the files, so that the content is found.
func (p *plan) checkNames(t *Torrent) error {
	if p.multi && !t.multi {
		if only := p.files[0].name; t.name != only {
			return fmt.Errorf("name %q is not safe everywhere and would be read as %q: %w", only, t.name, ErrUnsupported)
		}
		return nil
	}
	if t.name != p.name {
		return fmt.Errorf("name %q is not safe everywhere and would be read as %q: %w", p.name, t.name, ErrUnsupported)
	}
	for i, f := range t.layout.Files() {
		if p.files[i].path != "" && t.multi && f.Path != p.name+"/"+p.files[i].name {
			return fmt.Errorf("name %q is not safe everywhere and would be read as %q: %w", p.files[i].name, f.Path, ErrUnsupported)
		}
	}
	return nil
}
