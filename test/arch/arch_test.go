package arch

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/doc"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/wholefs/wholefs"

func root(t *testing.T) string {
	t.Helper()
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

type listed struct {
	ImportPath string
	Name       string
	Dir        string
	GoFiles    []string
	Imports    []string
}

func (p listed) path() string {
	return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
}

func list(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Name,Dir,GoFiles,Imports", "./...")
	cmd.Dir = root(t)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	var all []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// matches reports whether a path is the pattern or, where that ends in
// "...", begins with what stands before it.
func matches(pattern, path string) bool {
	if before, ok := strings.CutSuffix(pattern, "..."); ok {
		return strings.HasPrefix(path+"/", before)
	}
	return pattern == path
}

func anyMatch(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, path) })
}

func TestImportTable(t *testing.T) {
	used := map[string]bool{}
	for _, p := range list(t) {
		row, ok := "", false
		for name := range imports {
			if matches(name, p.path()) {
				row, ok = name, true
			}
		}
		if !ok {
			t.Errorf("%q is in no row of the import table", p.path())
			continue
		}
		used[row] = true
		for _, imported := range p.Imports {
			rel, ours := strings.CutPrefix(imported, module+"/")
			if ours && !anyMatch(imports[row], rel) {
				t.Errorf("%s may not import %s", p.path(), rel)
			}
			for prefix, who := range owners {
				if strings.HasPrefix(imported, prefix) && !anyMatch(who, p.path()) {
					t.Errorf("%s may not import %s: it belongs to %v", p.path(), imported, who)
				}
			}
			if slices.Contains(pure[p.path()], imported) {
				t.Errorf("%s is pure and may not import %s", p.path(), imported)
			}
		}
	}
	for row := range imports {
		if !used[row] {
			t.Errorf("the import table has a row for %q, which does not exist", row)
		}
	}
}

// Every package says what it is, in a comment that the tools see.
func TestPackageComments(t *testing.T) {
	for _, p := range list(t) {
		files := p.GoFiles
		if len(files) == 0 {
			files = testFiles(t, p.Dir)
		}
		text := ""
		for _, name := range files {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if f.Doc != nil {
				text += f.Doc.Text()
			}
		}
		want := "Package " + p.Name + " "
		if p.Name == "main" {
			want = "Command "
		}
		if !strings.HasPrefix(text, want) {
			t.Errorf("%s: the package comment does not begin with %q: %.60q", p.path(), want, text)
		}
		if new(doc.Package).Synopsis(text) == "" {
			t.Errorf("%s: no synopsis", p.path())
		}
	}
}

func testFiles(t *testing.T, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range paths {
		paths[i] = filepath.Base(paths[i])
	}
	return paths
}

// goFiles visits every Go file of the tree.
func goFiles(t *testing.T, visit func(rel string, text []byte)) {
	t.Helper()
	top := root(t)
	err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "build") && p != top {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(p, ".go") {
			return nil
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(top, p)
		visit(rel, text)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestFileLength(t *testing.T) {
	long := map[string]int{}
	goFiles(t, func(rel string, text []byte) {
		if n := bytes.Count(text, []byte("\n")); n > maxLines && !strings.HasSuffix(rel, "_test.go") {
			long[rel] = n
		}
	})
	for rel, n := range long {
		if longFiles[rel] == "" {
			t.Errorf("%s has %d lines: split it, or say in longFiles why not", rel, n)
		}
	}
	for rel := range longFiles {
		if long[rel] == 0 {
			t.Errorf("longFiles lists %s, which is not long", rel)
		}
	}
}

// accepted are the conditions under which a test may skip itself: none holds
// where "make test" runs, as root and without the race detector.
var accepted = regexp.MustCompile(`testing\.Short\(\)|Gete?uid\(\)|raceEnabled|WHOLEFS_ALLOW_SKIP`)

// A skipped test proves nothing: one that can be stands right below an
// accepted condition, or has a reason in the table.
func TestNothingIsSkippedInSilence(t *testing.T) {
	found := map[string]bool{}
	goFiles(t, func(rel string, text []byte) {
		lines := strings.Split(string(text), "\n")
		for i, line := range lines {
			if !strings.Contains(line, "t.Skip"+"(") && !strings.Contains(line, "t.Skipf"+"(") && !strings.Contains(line, "t.SkipNow"+"(") {
				continue
			}
			if accepted.MatchString(strings.Join(lines[max(0, i-3):i+1], "\n")) {
				continue
			}
			found[rel] = true
			if skips[rel] == "" {
				t.Errorf("%s:%d skips a test: fail instead, or give a reason in skips", rel, i+1)
			}
		}
	})
	for rel := range skips {
		if !found[rel] {
			t.Errorf("skips lists %s, which skips nothing", rel)
		}
	}
}
