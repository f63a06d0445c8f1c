package torrent_test

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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

// What the documents link to is there.
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
