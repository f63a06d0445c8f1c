package metainfo

import (
	"fmt"
	"math/bits"

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
