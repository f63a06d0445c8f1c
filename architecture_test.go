package torrent

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// policyPackages hold plain data: their tests can drive a million histories through them.
var policyPackages = []string{"internal/choker", "internal/extaddr", "internal/hashfetch", "internal/metadata", "internal/netwatch", "internal/peerlist", "internal/pex", "internal/picker"}

const modulePath = "github.com/shoal-go/torrent"

// sources are the files of the packages in dir that are no tests.
func sources(t *testing.T, dir string) map[string]*ast.File {
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	files := make(map[string]*ast.File)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		files[filepath.ToSlash(name)] = f
	}
	require.NotEmpty(t, files)
	return files
}

func imports(f *ast.File) (paths []string) {
	for _, i := range f.Imports {
		path, _ := strconv.Unquote(i.Path.Value)
		paths = append(paths, path)
	}
	return paths
}

// Policy packages, and those of ours that they are built on, do without the system and locks.
func TestPolicyHasNoGoroutineClockOrIO(t *testing.T) {
	for _, dir := range policyPackages {
		for name, f := range sources(t, dir) {
			requirePlain(t, name, f)
		}
	}
	below := slices.Clone(policyPackages)
	for k := 0; k < len(below); k++ {
		for name, f := range sources(t, below[k]) {
			for _, path := range imports(f) {
				first, _, _ := strings.Cut(path, "/")
				if path != "net/netip" {
					require.NotContains(t, []string{"context", "net", "os", "sync", "syscall"}, first, name)
				}
				if dir, ours := strings.CutPrefix(path, modulePath+"/"); ours && !slices.Contains(below, dir) {
					below = append(below, dir)
				}
			}
		}
	}
}

// requirePlain fails the test where f starts a goroutine, uses a channel or a clock, or draws at random from
// anything but a source that it was given.
func requirePlain(t *testing.T, name string, f *ast.File) {
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt, *ast.SelectStmt, *ast.SendStmt, *ast.ChanType:
			t.Errorf("%s: a goroutine or a channel", name)
		case *ast.SelectorExpr:
			pkg, ok := n.X.(*ast.Ident)
			if !ok {
				break
			}
			clock := []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"}
			if pkg.Name == "time" && slices.Contains(clock, n.Sel.Name) {
				t.Errorf("%s: time.%s", name, n.Sel.Name)
			}
			if pkg.Name == "rand" && !slices.Contains([]string{"Rand", "New", "NewPCG"}, n.Sel.Name) {
				t.Errorf("%s: rand.%s draws from a source that all share", name, n.Sel.Name)
			}
		}
		return true
	})
}

// Files of the root that need no download do not refer to one.
func TestInternalPackagesDoNotImportTheRoot(t *testing.T) {
	for _, dir := range internalPackages(t) {
		for name, f := range sources(t, dir) {
			for _, path := range imports(f) {
				if other, ok := strings.CutPrefix(path, modulePath); ok {
					require.True(t, strings.HasPrefix(other, "/internal/"), "%s imports %s", name, path)
				}
			}
		}
	}
}

// Some packages are for tests alone.
func TestOnlyTestsImportWhatIsForTests(t *testing.T) {
	forTests := func(path string) bool {
		return strings.HasPrefix(path, "internal/simnet") || path == "internal/storage/disktest" || path == "internal/proctest" || path == "internal/memtest"
	}
	for _, dir := range append(internalPackages(t), ".") {
		if forTests(dir) {
			continue
		}
		for name, f := range sources(t, dir) {
			for _, path := range imports(f) {
				require.False(t, forTests(strings.TrimPrefix(path, modulePath+"/")), "%s imports %s", name, path)
			}
		}
	}
}

// internalPackages are the directories of packages below internal/, with slashes.
func internalPackages(t *testing.T) (dirs []string) {
	require.NoError(t, fs.WalkDir(os.DirFS("."), "internal", func(path string, e fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".go") && !slices.Contains(dirs, filepath.ToSlash(filepath.Dir(path))) {
			dirs = append(dirs, filepath.ToSlash(filepath.Dir(path)))
		}
		return err
	}))
	slices.Sort(dirs)
	return dirs
}

// A reader finds every package below internal/ in ARCHITECTURE.md, and no other there. The files that it names are there.
func TestArchitectureNamesWhatIsThere(t *testing.T) {
	text, err := os.ReadFile("ARCHITECTURE.md")
	require.NoError(t, err)
	said := make(map[string]bool)
	for _, m := range regexp.MustCompile("`(internal/[a-z/]+)`").FindAllStringSubmatch(string(text), -1) {
		said[m[1]] = true
	}
	require.Equal(t, internalPackages(t), slices.Sorted(maps.Keys(said)))
	for _, m := range regexp.MustCompile("`([a-z0-9_/]+\\.go)`").FindAllStringSubmatch(string(text), -1) {
		require.FileExists(t, m[1])
	}
}

// Sockets are opened in one place, where Client.Proxy and Client.Bind are obeyed, but for a few that are given to it
// or stand in for it where there is no client.
func TestSocketsAreOpenedInOnePlace(t *testing.T) {
	opens := regexp.MustCompile(`^(net\.(Dial|Listen)(|TCP|UDP|IP|Unix|Packet|Timeout|MulticastUDP)|net\.(Dialer|ListenConfig|Resolver|DefaultResolver)|net\.Lookup(Host|IP|Addr|NetIP|TXT)|net\.Resolve[A-Za-z]+|http\.(DefaultClient|DefaultTransport|Get|Head|Post|PostForm|ListenAndServe|Transport))$`)
	allowed := []string{
		"internal/lsd/multicast.go net.ListenMulticastUDP", // by the device that it is told
		"internal/udpmux/mux.go net.ListenConfig",          // without a Config.Listen
		"internal/tracker/http.go net.Dialer",              // without an HTTPConfig.Dial
		"internal/tracker/http.go http.Transport",          // by HTTPConfig.Dial
		"internal/tracker/guard.go http.Transport",         // only looked at
		"internal/tracker/http2.go http.Transport",         // that http.go makes
		"internal/portmap/upnp.go http.Transport",          // by Config.Dial
	}
	for _, dir := range append(internalPackages(t), ".") {
		if dir == "internal/sockets" || strings.HasPrefix(dir, "internal/simnet") || dir == "internal/proctest" {
			continue
		}
		for name, f := range sources(t, dir) {
			ast.Inspect(f, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok {
					if pkg, ok := s.X.(*ast.Ident); ok {
						what := pkg.Name + "." + s.Sel.Name
						require.True(t, !opens.MatchString(what) || slices.Contains(allowed, name+" "+what), "%s: %s", name, what)
					}
				}
				return true
			})
		}
	}
}
