package config

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// docs/CONFIGURATION.md has each key with its default and its line, as the table of keys has them.
// UPDATE_GOLDEN=1 writes them anew.
func TestDocumentation(t *testing.T) {
	const name, begin, end = "../docs/CONFIGURATION.md", "| key | default | |\n| --- | --- | --- |\n", "\n\n"
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(data), begin)
	_, after, whole := strings.Cut(rest, end)
	if !found || !whole {
		t.Fatalf("%s has no table of keys", name)
	}
	var rows strings.Builder
	for _, k := range Keys() {
		fmt.Fprintf(&rows, "| `%s` | `%s` | %s |\n", k.Name, k.Default, k.Doc)
	}
	want := before + begin + strings.TrimSuffix(rows.String(), "\n") + end + after
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
		if !regexp.MustCompile(`^\s*(\[\w+\]|[\w.]+ = )`).MatchString(text) {
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
