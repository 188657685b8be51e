package dewey_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "dewey"

// rooms says what each package may import of the others; DESIGN.md has the picture. A new package needs
// a line here, and so does a new arrow: it is to be thought about.
var rooms = map[string][]string{
	"pop3":                  {},
	"maildrop":              {},
	"auth":                  {},
	"config":                {"pop3", "maildrop"},
	"internal/dotstuff":     {},
	"internal/surrogate":    {},
	"internal/popwire":      {"pop3", "internal/dotstuff"},
	"internal/poptest":      {},
	"maildrop/message":      {"maildrop", "internal/dotstuff", "internal/surrogate"},
	"maildrop/maildroptest": {"maildrop"},
	"pop3server":            {"pop3", "auth", "maildrop", "maildrop/message", "internal/popwire", "sasl"},
	"store/mem":             {"maildrop", "maildrop/message"},
	"store/maildir":         {"maildrop", "maildrop/message", "store/maildir/uidlist"},
	"store/maildir/uidlist": {},
	"sasl":                  {"auth"},
	"lmtp":                  {"maildrop"},
	"recipients":            {"auth", "maildrop"},
	"mailfile":              {"store/maildir/uidlist"},
	"certificate":           {},
	"internal/confine":      {},
	"internal/proxyheader":  {},
	"auth/oidc":             {"auth"},
	"auth/oidc/oidctest":    {},
	"auth/passwdfile":       {"auth", "auth/scheme"},
	"auth/scheme":           {"auth"},
	"auth/chain":            {"auth"},
	"auth/ldap":             {"auth", "auth/scheme"},
	"auth/sql":              {"auth", "auth/scheme"},
	"auth/pam":              {"auth", "auth/scheme"},
	"auth/doveauth":         {"auth", "auth/scheme"},
	"history":               {"maildrop", "pop3server"},
	"bench":                 {},
	"bench/compare":         {"bench"},
	"cmd/dewey":             {"*"},
	"test/chaos/attacks":    {},
	"test/chaos/harness":    {},
	"test/chaos/others":     {},
	"test/chaos/soak":       {},
	"test/chaos/power":      {},
	"test/chaos/scenario":   {"test/chaos/harness", "test/chaos/tracer"},
	"test/chaos/kill":       {},
	"test/chaos/tracer":     {},
	"test/clients":          {},
	"test/mta":              {},
	"pam-helper":            {},
}

// libraries are the packages that programs import: they depend on the standard library alone, and for
// SASL on saslLibraries.
var libraries = []string{"pop3", "maildrop", "auth", "sasl", "pop3server", "maildrop/message", "internal/popwire", "internal/dotstuff", "internal/surrogate"}

var saslLibraries = []string{"github.com/emersion/go-sasl", "github.com/xdg-go/scram", "github.com/xdg-go/stringprep"}

// goFiles parses all Go files of the project.
func goFiles(t *testing.T) map[string]*ast.File {
	t.Helper()
	files := make(map[string]*ast.File)
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && p != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "bin" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ParseComments)
		files[p] = f
		return err
	})
	if err != nil || len(files) < 20 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	return files
}

// The protocol never imports a store or an auth backend, stores and backends never import each other or
// the protocol, and the libraries need nothing but the standard library.
func TestImportDirection(t *testing.T) {
	for p, f := range goFiles(t) {
		room := path.Dir(filepath.ToSlash(p))
		if strings.HasSuffix(p, "_test.go") || room == "." {
			continue
		}
		allowed, ok := rooms[room]
		if !ok {
			t.Errorf("%s: the package %s is not in the picture of the house", p, room)
			continue
		}
		for _, imp := range f.Imports {
			name := strings.Trim(imp.Path.Value, `"`)
			if to, ok := strings.CutPrefix(name, module+"/"); ok {
				if !slices.Contains(allowed, to) && !slices.Contains(allowed, "*") {
					t.Errorf("%s: a new arrow, to %s", p, to)
				}
			} else if strings.Contains(strings.Split(name, "/")[0], ".") && slices.Contains(libraries, room) && (room != "sasl" || !slices.Contains(saslLibraries, name)) {
				t.Errorf("%s: a library imports %s", p, name)
			}
		}
	}
}

// Each package has a comment that says what it is for, and no file is so long that it asks to be split.
func TestPackageComments(t *testing.T) {
	has := make(map[string]bool)
	for p, f := range goFiles(t) {
		room := path.Dir(filepath.ToSlash(p))
		if strings.HasSuffix(p, "_test.go") {
			continue
		}
		has[room] = has[room] || f.Doc != nil
		if data, err := os.ReadFile(p); err != nil || strings.Count(string(data), "\n") > 600 {
			t.Errorf("%s has over 600 lines (%v)", p, err)
		}
	}
	for room, ok := range has {
		if !ok {
			t.Errorf("the package %s has no comment", room)
		}
	}
}

// A comment that names a section of an RFC names one that exists.
func TestReferences(t *testing.T) {
	data, err := os.ReadFile("testdata/rfc-sections.txt")
	if err != nil {
		t.Fatal(err)
	}
	sections := make(map[string][]string)
	for line := range strings.Lines(string(data)) {
		if rfc, list, ok := strings.Cut(line, ": "); ok && !strings.HasPrefix(line, "#") {
			sections[rfc] = strings.Fields(list)
		}
	}
	reference := regexp.MustCompile(`RFC[ \n/]+(\d+),?[ \n/]+sections?[ \n/]+(\d+(?:\.\d+)*(?:(?:,| and| to| or)[ \n/]+\d+(?:\.\d+)*)*)`)
	numbers := regexp.MustCompile(`\d+(?:\.\d+)*`)
	found := 0
	for p, f := range goFiles(t) {
		for _, group := range f.Comments {
			for _, c := range append([]*ast.Comment{{Text: group.Text()}}, group.List...) {
				for _, m := range reference.FindAllStringSubmatch(c.Text, -1) {
					for _, section := range numbers.FindAllString(m[2], -1) {
						found++
						if list, ok := sections[m[1]]; ok && !slices.Contains(list, section) && !slices.Contains(list, "*") {
							t.Errorf("%s: RFC %s has no section %s", p, m[1], section)
						} else if !ok {
							t.Errorf("%s: RFC %s is not in testdata/rfc-sections.txt", p, m[1])
						}
					}
				}
			}
		}
	}
	if found < 50 {
		t.Errorf("found only %d references", found)
	}
}

// go-sasl's OAUTHBEARER server panics on an empty line after a token that failed: nothing may use it.
func TestTrap45OAuthBearer(t *testing.T) {
	for p, f := range goFiles(t) {
		ast.Inspect(f, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && strings.EqualFold(sel.Sel.Name, "NewOAuthBearerServer") {
				t.Errorf("%s uses %s", p, sel.Sel.Name)
			}
			return true
		})
	}
}

// Each trap that DESIGN.md speaks of and that applies so far has a test, or a transcript, with its number
// in its name.
func TestTrapsHaveTests(t *testing.T) {
	names := regexp.MustCompile(`(?i)trap(\d\d)`)
	has := make(map[string]bool)
	for p, f := range goFiles(t) {
		if !strings.HasSuffix(p, "_test.go") {
			continue
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && strings.HasPrefix(fn.Name.Name, "TestTrap") {
				for _, m := range names.FindAllStringSubmatch(fn.Name.Name, -1) {
					has[m[1]] = true
				}
			}
		}
	}
	transcripts, _ := filepath.Glob("pop3server/testdata/transcripts/trap*.txt")
	for _, p := range transcripts {
		for _, m := range names.FindAllStringSubmatch(filepath.Base(p), -1) {
			has[m[1]] = true
		}
	}
	// 48 to 50 are about clients.
	for _, trap := range strings.Fields("01 02 03 04 05 06 07 08 09 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 51 52 53") {
		if !has[trap] {
			t.Errorf("trap %s has no test with its number in its name", trap)
		}
	}
}
