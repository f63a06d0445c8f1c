package dht

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// All but the node itself is plain data: no goroutine, lock, clock or I/O, and no chance but what is given.
func TestOnlyTheNodeActs(t *testing.T) {
	allowed := []string{
		"bytes", "cmp", "crypto/ed25519", "crypto/sha1", "crypto/sha256", "encoding/binary", "errors", "fmt",
		"hash/crc32", "math", "math/bits", "math/rand/v2", "net/netip", "slices", "maps", "strconv", "time",
		"github.com/shoal-go/torrent/internal/bencode", "github.com/shoal-go/torrent/internal/extaddr",
		"github.com/shoal-go/torrent/internal/heaps", "github.com/shoal-go/torrent/internal/krpc",
		"github.com/shoal-go/torrent/internal/netaddr",
	}
	files, err := os.ReadDir(".")
	require.NoError(t, err)
	for _, file := range files {
		name := file.Name()
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || name == "node.go" || name == "operations.go" {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, i := range f.Imports {
			path, _ := strconv.Unquote(i.Path.Value)
			require.Contains(t, allowed, path, name)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt, *ast.SelectStmt, *ast.SendStmt, *ast.ChanType:
				t.Errorf("%s: a goroutine or a channel", name)
			case *ast.SelectorExpr:
				pkg, _ := n.X.(*ast.Ident)
				if pkg != nil && pkg.Name == "time" && slices.Contains([]string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"}, n.Sel.Name) {
					t.Errorf("%s: time.%s", name, n.Sel.Name)
				}
				if pkg != nil && pkg.Name == "rand" && n.Sel.Name != "Rand" {
					t.Errorf("%s: rand.%s", name, n.Sel.Name)
				}
			}
			return true
		})
	}
}
