package pop3server

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Each text of a reply has its translation in each language, with the same verbs in the same order, and
// no translation is of a text that no reply has. RFC 6856 section 3.2.
func TestCatalog(t *testing.T) {
	texts := map[string]bool{faultText: true}
	for _, r := range refusals {
		texts[r.text] = true
	}
	files, _ := filepath.Glob("*.go")
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				if sel, ok := call.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "say" && len(call.Args) > 0 {
					if lit, ok := call.Args[0].(*ast.BasicLit); ok {
						s, _ := strconv.Unquote(lit.Value)
						texts[s] = true
					}
				}
			}
			return true
		})
	}
	if len(texts) < 20 {
		t.Fatalf("found only %d texts", len(texts))
	}
	verbs := regexp.MustCompile(`%[a-z]`)
	for _, l := range languages {
		if l.texts == nil {
			continue
		}
		for text := range texts {
			got, ok := l.texts[text]
			if !ok {
				t.Errorf("%s has no %q", l.tag, text)
			}
			if !slices.Equal(verbs.FindAllString(got, -1), verbs.FindAllString(text, -1)) {
				t.Errorf("%s: %q for %q", l.tag, got, text)
			}
			if strings.HasPrefix(got, "[") {
				t.Errorf("%s: %q would be read as a response code", l.tag, got)
			}
		}
		for text := range l.texts {
			if !texts[text] {
				t.Errorf("%s translates %q, which no reply has", l.tag, text)
			}
		}
	}
	for text := range texts { // DefaultLanguage is ASCII: RFC 1939 section 3
		if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q is not ASCII", text)
		}
	}
}

// A basic language range finds a language. RFC 6856 section 3.2.
func TestFindLanguage(t *testing.T) {
	for wanted, tag := range map[string]string{
		"de": "de", "DE": "de", "de-AT": "de", "fr-CA-x-a": "fr", "i-default": "i-default", "I-DEFAULT": "i-default", "en-GB": "en",
		"": "", "d": "", "deu": "", "-": "", "--": "", "uga": "", "-de": "", "de-": "", "de--AT": "", "x": "",
	} {
		got := ""
		if l := findLanguage(wanted); l != nil {
			got = l.tag
		}
		if got != tag {
			t.Errorf("%q finds %q, want %q", wanted, got, tag)
		}
	}
}
