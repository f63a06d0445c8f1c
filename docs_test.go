package torrent_test

import (
	"context"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/shoal-go/torrent"
)

// publicPackages are those that programs import, by directory.
var publicPackages = []string{".", "storagetest", "torrenttest"}

// parseDir parses the files of a directory that are, or are not, tests.
func parseDir(t *testing.T, dir string, tests bool) (*token.FileSet, []*ast.File) {
	t.Helper()
	fset := token.NewFileSet()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	var files []*ast.File
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") == tests {
			f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
			require.NoError(t, err)
			files = append(files, f)
		}
	}
	return fset, files
}

// Every exported name says what it is. One may share the comment of the line above it, if no empty line is between them.
func TestExportedNamesHaveComments(t *testing.T) {
	for _, dir := range publicPackages {
		fset, files := parseDir(t, dir, false)
		u := &undocumented{fset: fset}
		for _, f := range files {
			for _, decl := range f.Decls {
				u.decl(decl)
			}
		}
		assert.Empty(t, u.names, dir)
	}
}

// The targets of links in the documents exist.
func TestLinksOfDocuments(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	var documents []string
	for _, pattern := range []string{"*.md", "*/*.md"} {
		found, err := filepath.Glob(pattern)
		require.NoError(t, err)
		documents = append(documents, found...)
	}
	require.Contains(t, documents, "README.md")
	for _, document := range documents {
		text, err := os.ReadFile(document)
		require.NoError(t, err)
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			_, err := os.Stat(filepath.Join(filepath.Dir(document), m[1]))
			assert.NoError(t, err, document)
		}
	}
}

type undocumented struct {
	fset  *token.FileSet
	names []string
}

func (u *undocumented) decl(decl ast.Decl) {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if receiver := receiverOf(d); d.Doc == nil && d.Name.IsExported() && (receiver == "" || ast.IsExported(receiver)) && !isUsual[d.Name.Name] {
			u.names = append(u.names, strings.TrimPrefix(receiver+"."+d.Name.Name, "."))
		}
	case *ast.GenDecl:
		lastLine := 0 // of the last name with a comment
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() {
					if d.Doc == nil && s.Doc == nil {
						u.names = append(u.names, s.Name.Name)
					}
					u.members(s)
				}
			case *ast.ValueSpec:
				lastLine = u.group(s.Names, "", len(d.Specs) > 1 && s.Doc == nil && s.Comment == nil || d.Doc == nil && s.Doc == nil && s.Comment == nil, lastLine, s)
			}
		}
	}
}

// members looks at the fields of a struct and the methods of an interface.
func (u *undocumented) members(s *ast.TypeSpec) {
	var list *ast.FieldList
	switch t := s.Type.(type) {
	case *ast.StructType:
		list = t.Fields
	case *ast.InterfaceType:
		list = t.Methods
	default:
		return
	}
	lastLine := 0
	for _, f := range list.List {
		if len(f.Names) > 0 {
			lastLine = u.group(f.Names, s.Name.Name+".", f.Doc == nil && f.Comment == nil, lastLine, f)
		}
	}
}

// group looks at the names of one line, and returns the last line that has a comment or shares one.
func (u *undocumented) group(names []*ast.Ident, prefix string, bare bool, lastLine int, node ast.Node) int {
	from, to := u.fset.Position(node.Pos()).Line, u.fset.Position(node.End()).Line
	if !bare || from == lastLine+1 {
		return to
	}
	for _, name := range names {
		if name.IsExported() {
			u.names = append(u.names, prefix+name.Name)
		}
	}
	return lastLine
}

// isUsual are methods whose interface says all about them.
var isUsual = map[string]bool{"Error": true, "Unwrap": true, "Read": true, "Seek": true}

// receiverOf is the type that a method is of, or empty for a function.
func receiverOf(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return ""
	}
	receiver := d.Recv.List[0].Type
	if star, ok := receiver.(*ast.StarExpr); ok {
		receiver = star.X
	}
	return receiver.(*ast.Ident).Name
}

// shownElsewhere are types that an example of another shows: values with little to do.
var shownElsewhere = map[string]bool{
	"Hash": true, "HashV2": true, "Bitfield": true, "Network": true,
}

// isText are methods that make a text of a value, and need no example.
var isText = map[string]bool{"String": true, "MarshalText": true, "UnmarshalText": true}

// Every function, and every type with methods of its own, has an example that runs: of itself or of one of its methods.
// Then there are those for what people come with.
func TestMainNamesHaveExamples(t *testing.T) {
	for _, dir := range publicPackages {
		_, files := parseDir(t, dir, false)
		_, tests := parseDir(t, dir, true)
		have, missing := make(map[string]bool), make(map[string]bool)
		for _, e := range doc.Examples(tests...) {
			assert.True(t, e.Output != "" || e.EmptyOutput || dir != ".", "Example%s in %s does not run", e.Name, dir) // these may need a test around them
			have[e.Name] = true
			name, _, _ := strings.Cut(e.Name, "_")
			have[name] = true
		}
		for _, f := range files {
			for _, decl := range f.Decls {
				if d, ok := decl.(*ast.FuncDecl); ok && d.Name.IsExported() && !isUsual[d.Name.Name] && !isText[d.Name.Name] {
					name := d.Name.Name
					if receiver := receiverOf(d); receiver != "" {
						name = receiver
					}
					if !have[name] && !shownElsewhere[name] && ast.IsExported(name) {
						missing[name] = true
					}
				}
			}
		}
		if dir == "." {
			for _, name := range []string{
				"", "Create", "CreateFS", "Magnet_Resolve", "Torrent_Start_seed", "Download_Select", "Download_Stats", "Download_Completed", "Download_Open",
				"Download_Open_onDemand", "Download_Open_web", "Download_Events", "Client_limits", "Storage", "DHT",
			} {
				if !have[name] {
					missing["Example"+name] = true
				}
			}
		}
		assert.Empty(t, missing, dir)
	}
}

// Each promise of SECURITY.md names tests, and they are there.
func TestPromisesHaveTests(t *testing.T) {
	text, err := os.ReadFile("SECURITY.md")
	require.NoError(t, err)
	there := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
	require.NoError(t, filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		code, err := os.ReadFile(path)
		for _, m := range declared.FindAllSubmatch(code, -1) {
			there[string(m[1])] = true
		}
		return err
	}))
	named := regexp.MustCompile("`((?:Test|Fuzz|Benchmark)\\w+)`")
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| against") {
			continue
		}
		names := named.FindAllStringSubmatch(line, -1)
		assert.NotEmpty(t, names, line)
		for _, m := range names {
			assert.True(t, there[m[1]], m[1])
		}
	}
}

// Programs are written against these: a change here breaks them.
var (
	_ func(string) (*torrent.Torrent, error)                         = torrent.Read
	_ func(io.Reader) (*torrent.Torrent, error)                      = torrent.Parse
	_ func(string, *torrent.CreateOptions) (*torrent.Torrent, error) = torrent.Create
	_ func(...string) func(torrent.File) torrent.Priority            = torrent.Glob

	_ func(context.Context, fs.FS, *torrent.CreateOptions) (*torrent.Torrent, error) = torrent.CreateFS

	_ func(string) (*torrent.Magnet, error) = torrent.ParseMagnet

	_ func(*torrent.Torrent) string                 = (*torrent.Torrent).Name
	_ func(*torrent.Torrent) torrent.Hash           = (*torrent.Torrent).InfoHash
	_ func(*torrent.Torrent) int64                  = (*torrent.Torrent).Length
	_ func(*torrent.Torrent) int64                  = (*torrent.Torrent).PieceLength
	_ func(*torrent.Torrent) int                    = (*torrent.Torrent).NumPieces
	_ func(*torrent.Torrent) bool                   = (*torrent.Torrent).Private
	_ func(*torrent.Torrent) [][]string             = (*torrent.Torrent).Trackers
	_ func(*torrent.Torrent) []string               = (*torrent.Torrent).WebSeeds
	_ func(*torrent.Torrent) string                 = (*torrent.Torrent).Comment
	_ func(*torrent.Torrent) string                 = (*torrent.Torrent).CreatedBy
	_ func(*torrent.Torrent) time.Time              = (*torrent.Torrent).CreationDate
	_ func(*torrent.Torrent) iter.Seq[torrent.File] = (*torrent.Torrent).Files
	_ func(*torrent.Torrent, io.Writer) error       = (*torrent.Torrent).PrintTree
	_ func(*torrent.Torrent) *torrent.Magnet        = (*torrent.Torrent).Magnet
	_ io.WriterTo                                   = (*torrent.Torrent)(nil)
	_ func(torrent.Hash) string                     = torrent.Hash.String
	_ torrent.File                                  = torrent.File{Path: "", Length: int64(0)}

	_ func(*torrent.Torrent, context.Context, *torrent.Options) (*torrent.Downloaded, error) = (*torrent.Torrent).DownloadAll
	_ func(*torrent.Torrent, context.Context, *torrent.Options) (*torrent.Download, error)   = (*torrent.Torrent).Start
	_ func(*torrent.Torrent, context.Context, string) (torrent.Bitfield, error)              = (*torrent.Torrent).Verify

	_ func(torrent.Bitfield) int           = torrent.Bitfield.Len
	_ func(torrent.Bitfield, int) bool     = torrent.Bitfield.Has
	_ func(torrent.Bitfield) int           = torrent.Bitfield.Count
	_ func(torrent.Bitfield) iter.Seq[int] = torrent.Bitfield.All

	_ func(*torrent.Magnet) string                                                       = (*torrent.Magnet).String
	_ func(*torrent.Magnet, context.Context, *torrent.Options) (*torrent.Torrent, error) = (*torrent.Magnet).Resolve
	_                                                                                    = torrent.Magnet{InfoHash: torrent.Hash{}, Name: "", Trackers: []string{}, WebSeeds: []string{}, Peers: []string{}}

	_ = torrent.Options{
		Dir: "", Select: func(torrent.File) torrent.Priority { return torrent.Normal }, Peers: []netip.AddrPort{}, MaxPeers: int(0), Seed: false,
		SeedUntil: func(torrent.Stats) bool { return true }, Uploaded: int64(0), Downloaded: int64(0),
		DownloadLimit: (*rate.Limiter)(nil), UploadLimit: (*rate.Limiter)(nil),
		Storage:   func(*torrent.Torrent) (torrent.Storage, error) { return nil, nil },
		MaxMemory: int64(0), StallTimeout: time.Duration(0), Client: (*torrent.Client)(nil),
	}
	_ = [...]torrent.Priority{torrent.OnDemand, torrent.Skip, torrent.Normal, torrent.High}
	_ = torrent.Priority(int8(0))

	_ = torrent.Client{
		Listen: "", NoListen: false, MaxPeers: int(0), DownloadLimit: (*rate.Limiter)(nil), UploadLimit: (*rate.Limiter)(nil),
		Encryption: torrent.EncryptionPolicy(0), LocalDiscovery: false,
		Dial:         func(ctx context.Context, network, addr string) (net.Conn, error) { return nil, nil },
		ListenPacket: func(ctx context.Context, network, addr string) (net.PacketConn, error) { return nil, nil },
		HTTPClient:   (*http.Client)(nil), Logger: (*slog.Logger)(nil),
		Proxy: (*url.URL)(nil), Bind: netip.Addr{}, Allow: func(netip.Addr) bool { return true }, MapPorts: false,
	}
	_ = [...]torrent.EncryptionPolicy{torrent.PreferEncryption, torrent.RequireEncryption, torrent.DisableEncryption}

	_ func(*torrent.Client) iter.Seq[*torrent.Download] = (*torrent.Client).Downloads
	_ func(*torrent.Client) error                       = (*torrent.Client).Close
	_ func(*torrent.Client) error                       = (*torrent.Client).Open
	_ func(*torrent.Client, net.Listener) error         = (*torrent.Client).Serve

	_ func(*torrent.Client) torrent.ClientStats                     = (*torrent.Client).Stats
	_ func(*torrent.Client, torrent.Hash) (*torrent.Download, bool) = (*torrent.Client).Download

	_ func(*torrent.Download) *torrent.Torrent                                    = (*torrent.Download).Torrent
	_ func(*torrent.Download) <-chan struct{}                                     = (*torrent.Download).Done
	_ func(*torrent.Download) (*torrent.Downloaded, error)                        = (*torrent.Download).Wait
	_ func(*torrent.Download) iter.Seq2[*torrent.DownloadedFile, error]           = (*torrent.Download).Completed
	_ func(*torrent.Download, context.Context, string) (io.ReadSeekCloser, error) = (*torrent.Download).Open
	_ func(*torrent.Download, func(torrent.File) torrent.Priority)                = (*torrent.Download).Select
	_ func(*torrent.Download, context.Context) (torrent.Scrape, error)            = (*torrent.Download).Scrape
	_ func(*torrent.Download) torrent.Stats                                       = (*torrent.Download).Stats
	_ func(*torrent.Download) error                                               = (*torrent.Download).Close

	_ func(*torrent.Download, ...netip.AddrPort)                       = (*torrent.Download).AddPeers
	_ func(*torrent.Download, ...string)                               = (*torrent.Download).AddTrackers
	_ func(*torrent.Download)                                          = (*torrent.Download).Announce
	_ func(*torrent.Download)                                          = (*torrent.Download).Pause
	_ func(*torrent.Download)                                          = (*torrent.Download).Resume
	_ func(*torrent.Download, context.Context) error                   = (*torrent.Download).Recheck
	_ func(*torrent.Download, context.Context, string) error           = (*torrent.Download).Move
	_ func(*torrent.Download, context.Context) iter.Seq[torrent.Event] = (*torrent.Download).Events
	_ func(*torrent.Download) torrent.Bitfield                         = (*torrent.Download).Verified
	_ func(*torrent.Download) iter.Seq2[torrent.File, int64]           = (*torrent.Download).Files

	_ = [...]torrent.State{torrent.Checking, torrent.Downloading, torrent.Seeding, torrent.Paused, torrent.Stopped}

	_ = torrent.Stats{
		Length: int64(0), Wanted: int64(0), Verified: int64(0), Downloaded: int64(0), Uploaded: int64(0), Wasted: int64(0),
		DownloadRate: float64(0), UploadRate: float64(0), ETA: time.Duration(0), Checking: false, Checked: int64(0),
		Peers: []torrent.PeerStats{}, Known: int(0), Dialling: int(0), Banned: int(0), Trackers: []torrent.TrackerStats{},
	}

	_ func(*torrent.Downloaded) iter.Seq[*torrent.DownloadedFile] = (*torrent.Downloaded).Files
	_ func(*torrent.Downloaded, string) (fs.File, error)          = (*torrent.Downloaded).Open
	_ func(*torrent.Downloaded, string) ([]byte, error)           = (*torrent.Downloaded).ReadFile
	_ io.Closer                                                   = (*torrent.Downloaded)(nil)
	_ fs.ReadFileFS                                               = (*torrent.Downloaded)(nil)
	_ fs.StatFS                                                   = (*torrent.Downloaded)(nil)
	_ fs.ReadDirFS                                                = (*torrent.Downloaded)(nil)

	_ func(*torrent.DownloadedFile) string          = (*torrent.DownloadedFile).Path
	_ func(*torrent.DownloadedFile) int64           = (*torrent.DownloadedFile).Length
	_ func(*torrent.DownloadedFile) ([]byte, error) = (*torrent.DownloadedFile).Bytes

	_ func(*torrent.DownloadedFile) (fs.File, error) = (*torrent.DownloadedFile).Open

	_ torrent.Storage = interface {
		io.ReaderAt
		io.WriterAt
		Sync() error
		Close() error
	}(nil)
	_ interface {
		io.ReaderAt
		io.WriterAt
		Sync() error
		Close() error
	} = torrent.Storage(nil)

	_ = torrent.CreateOptions{
		Name: "", PieceLength: int64(0), Private: false, Trackers: [][]string{}, WebSeeds: []string{}, Comment: "", CreatedBy: "",
		CreationDate: time.Time{}, Pad: false, Progress: func(done, total int64) {},
	}

	_       = [...]error{torrent.ErrClosed, torrent.ErrTooLarge, torrent.ErrUnsupported, torrent.ErrStalled, torrent.ErrInUse}
	_ error = (*torrent.MetainfoError)(nil)
	_ error = (*torrent.TrackerError)(nil)
	_ error = (*torrent.PeerError)(nil)
	_       = torrent.MetainfoError{Field: ""}
	_       = torrent.TrackerError{URL: "", Reason: ""}
	_       = torrent.PeerError{Addr: netip.AddrPort{}}
)
