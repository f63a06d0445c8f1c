package metainfo

import (
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strconv"

	"github.com/shoal-go/torrent/internal/bencode"
	"github.com/shoal-go/torrent/internal/merkle"
)

// parseLayers reads the piece layers of version 2 (BEP 52), each of which must prove the root that it is of. Those that are missing
// are left for peers to give.
func (t *Info) parseLayers(dict []byte) *Error {
	if !t.V2 {
		return nil
	}
	t.Layers = make([][]byte, len(t.Roots))
	files := make(map[merkle.Hash][]int)
	for i, root := range t.Roots {
		if t.Layout.File(i).Length > 0 && !t.Layout.File(i).Pad {
			files[root] = append(files[root], i)
		}
	}
	for key, value := range bencode.Keys(dict) {
		if len(key) != merkle.Size {
			return layerError(key, fmt.Sprintf("a key of %d bytes, not %d", len(key), merkle.Size))
		}
		of := files[merkle.Hash(key)]
		if of == nil {
			return layerError(key, "of no file")
		}
		layer, ok := bencode.String(value)
		if !ok {
			return layerError(key, "not a string")
		}
		for _, i := range of {
			if err := t.parseLayer(i, layer); err != nil {
				return err
			}
		}
	}
	return nil
}

// parseLayer checks the layer of file i. One for a file that is no longer than a piece is its root alone, and is not kept.
func (t *Info) parseLayer(i int, layer []byte) *Error {
	first, end := t.Layout.PiecesOf(i)
	root, length := t.Roots[i], t.Layout.File(i).Length
	if len(layer) != merkle.Size*(end-first) {
		return layerError(root[:], fmt.Sprintf("%d bytes, not %d for each of %d pieces", len(layer), merkle.Size, end-first))
	}
	level := bits.TrailingZeros64(uint64(t.Layout.PieceLength() / merkle.BlockSize))
	height := merkle.Height(merkle.Blocks(length))
	layered := length > t.Layout.PieceLength()
	if !layered {
		level = height
	}
	if merkle.Root(layer, level, height) != root {
		return layerError(root[:], "does not hash to its root")
	}
	if layered {
		t.Layers[i] = layer
	}
	return nil
}

func layerError(root []byte, reason string) *Error {
	return &Error{Field: fmt.Sprintf("piece layers[%.32x]", root), Reason: reason}
}

// WithLayers returns a .torrent file that Parse takes, with piece layers added to those that it has, by the roots of their files.
// It returns raw itself if there are none to add, or if Parse would not take the result because of its size.
func WithLayers(raw []byte, layers map[merkle.Hash][]byte) []byte {
	dict, _, err := bencode.Salvage(raw, Limits(), "info")
	if err != nil || len(layers) == 0 {
		return raw
	}
	const name = "piece layers"
	all, size := make(map[string][]byte), len(dict)
	for root, layer := range layers {
		all[string(root[:])] = layer
		size += len(layer)
	}
	if size > MaxSize {
		return raw
	}
	for key, value := range bencode.Keys(dict) {
		if string(key) != name {
			continue
		}
		for root, layer := range bencode.Keys(value) {
			all[string(root)], _ = bencode.String(layer)
		}
	}
	added := append(appendString(nil, name), 'd')
	for _, root := range slices.Sorted(maps.Keys(all)) {
		added = appendString(appendString(added, root), all[root])
	}
	added = append(added, 'e')
	out := append(make([]byte, 0, len(dict)+len(added)), 'd')
	for key, value := range bencode.Keys(dict) {
		if string(key) > name { // in order, unless raw is not
			out, added = append(out, added...), nil
		}
		if string(key) != name {
			out = append(appendString(out, key), value...)
		}
	}
	out = append(append(out, added...), 'e')
	if len(out) > MaxSize {
		return raw
	}
	return out
}

func appendString[S string | []byte](b []byte, s S) []byte {
	return append(append(strconv.AppendInt(b, int64(len(s)), 10), ':'), s...)
}
