package config

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// docs/CONFIGURATION.md has each key with its default and its line, as the tables of keys have them.
// UPDATE_GOLDEN=1 writes them anew.
func TestDocumentation(t *testing.T) {
	const name, end = "../docs/CONFIGURATION.md", "\n\n"
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	want := string(data)
	replace := func(begin string, rows []string) {
		before, rest, found := strings.Cut(want, begin)
		_, after, whole := strings.Cut(rest, end)
		if !found || !whole {
			t.Fatalf("%s has no table that begins with %q", name, begin)
		}
		want = before + begin + strings.Join(rows, "\n") + end + after
	}
	var rows, authRows []string
	for _, k := range Keys() {
		rows = append(rows, fmt.Sprintf("| `%s` | `%s` | %s |", k.Name, k.Default, k.Doc))
	}
	for _, k := range AuthKeys() {
		def := ""
		if k.Default != "" {
			def = "`" + k.Default + "`"
		}
		authRows = append(authRows, fmt.Sprintf("| %s | `%s` | %s | %s |", k.Kind, k.Name, def, k.Doc))
	}
	replace("| key | default | |\n| --- | --- | --- |\n", rows)
	replace("| kind | key | default | |\n| --- | --- | --- | --- |\n", authRows)
	if want == string(data) {
		return
	}
	if os.Getenv("UPDATE_GOLDEN") == "" {
		t.Fatalf("%s is not what the table of keys says; run UPDATE_GOLDEN=1 go test ./config", name)
	}
	if err := os.WriteFile(name, []byte(want), 0o644); err != nil { //nolint:gosec // a document
		t.Fatal(err)
	}
}

// The examples in the document are configurations.
func TestDocumentationExamples(t *testing.T) {
	data, err := os.ReadFile("../docs/CONFIGURATION.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, block := range regexp.MustCompile(`(?m)(^(    .*)?\n)+`).FindAllString(string(data), -1) {
		text := regexp.MustCompile(`(?m)^    `).ReplaceAllString(block, "")
		if !regexp.MustCompile(`^\s*(\[+\w+\]|[\w.]+ = )`).MatchString(text) {
			continue
		}
		n++
		if _, problems := parse("example", []byte(text), nil); len(problems) > 0 {
			t.Errorf("%v in\n%s", problems, text)
		}
	}
	if n < 3 {
		t.Errorf("found only %d examples", n)
	}
}
