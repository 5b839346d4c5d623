package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// declared are the names of the code, as "owner.flush" or "decide", and the files they are in.
func declared(t *testing.T) map[string][]string {
	t.Helper()
	names := map[string][]string{}
	files := token.NewFileSet()
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && path != root && (strings.HasPrefix(e.Name(), ".") || e.Name() == "test"):
			return fs.SkipDir
		case e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		in, err := filepath.Rel(root, path)
		add := func(name string) { names[name] = append(names[name], in) }
		for _, d := range file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				add(receiver(d) + d.Name.Name)
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch spec := spec.(type) {
					case *ast.TypeSpec:
						add(spec.Name.Name)
					case *ast.ValueSpec:
						for _, name := range spec.Names {
							add(name.Name)
						}
					}
				}
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// receiver is the type whose method f is, and a dot.
func receiver(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return ""
	}
	of := f.Recv.List[0].Type
	if star, ok := of.(*ast.StarExpr); ok {
		of = star.X
	}
	if name, ok := of.(*ast.Ident); ok {
		return name.Name + "."
	}
	return ""
}

// embedding are the types whose methods others have too: session.kill is outbox.kill.
var embedding = map[string]string{"session": "outbox"}

var (
	fileName   = regexp.MustCompile(`^[a-z._/]*(/|\.(go|lua|md|example))$`)
	methodName = regexp.MustCompile(`^([A-Za-z]\w*)\.([A-Za-z]\w*)$`)
	wayRow     = regexp.MustCompile("^\\| (`[^|]+`) \\| `([a-z_/]+\\.go)` \\|")
)

// What docs/architecture.md names is in the code, and where it says.
func TestNamesOfTheCode(t *testing.T) {
	t.Parallel()
	names := declared(t)
	d := parse(t, "docs/architecture.md")
	settings := strings.Join(parse(t, "docs/configuration.md").lines, "\n")
	for _, s := range d.spans() {
		method := methodName.FindStringSubmatch(s.code)
		switch {
		case fileName.MatchString(s.code):
			if _, err := os.Stat(filepath.Join(root, s.code)); err != nil {
				t.Errorf("%s: there is no %s", d.at(s.line), s.code)
			}
		case method == nil || names[s.code] != nil || names[embedding[method[1]]+"."+method[2]] != nil:
		case strings.Contains(settings, "## ["+method[1]+"]") && strings.Contains(settings, "| `"+method[2]+"` |"):
		default:
			t.Errorf("%s: there is no %s in the code", d.at(s.line), s.code)
		}
	}
	for i, line := range d.lines {
		row := wayRow.FindStringSubmatch(line)
		if row == nil {
			continue
		}
		for _, name := range codeSpan.FindAllStringSubmatch(row[1], -1) {
			if !slices.Contains(names[name[1]], row[2]) {
				t.Errorf("%s: %s is not in %s, but in %q", d.at(i+1), name[1], row[2], names[name[1]])
			}
		}
	}
}
