package mta

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// A section of a page is one configuration: its files by name, and what is to be run.
type section struct {
	files  map[string]string // what follows a line that ends in `/the/file`:
	append map[string]string // the same, where the line begins with To be added
	shell  string            // the blocks of sh
}

var fileLine = regexp.MustCompile("^(To be added to )?`(/[^`]+)`:$")

// readPage takes the code blocks out of a page, by the sections' headings.
func readPage(t *testing.T, name string) map[string]*section {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	sections := make(map[string]*section)
	s := &section{}
	var file []string // of the next block
	var block *strings.Builder
	language := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "```") && block == nil:
			block, language = &strings.Builder{}, strings.TrimPrefix(line, "```")
		case strings.HasPrefix(line, "```"):
			switch {
			case language == "sh":
				s.shell += block.String()
			case file == nil:
				t.Fatalf("%s: a block of no file:\n%s", name, block)
			case file[1] != "":
				s.append[file[2]] = block.String()
			default:
				s.files[file[2]] = block.String()
			}
			block, file = nil, nil
		case block != nil:
			block.WriteString(line + "\n")
		case strings.HasPrefix(line, "## "):
			s = &section{files: make(map[string]string), append: make(map[string]string)}
			sections[strings.TrimPrefix(line, "## ")] = s
		case line != "":
			file = fileLine.FindStringSubmatch(line)
		}
	}
	return sections
}

// configure puts a section's files on the machine, and runs its commands.
func (m *machine) configure(page map[string]*section, heading string) {
	m.t.Helper()
	before, s := page["Before all"], page[heading]
	if before == nil || s == nil || len(s.files) == 0 {
		m.t.Fatalf("the page has no section %q with files", heading)
	}
	m.shell(before.shell)
	for name, content := range s.files {
		m.write(name, strings.ReplaceAll(content, "2424", m.lmtp))
	}
	for name, content := range s.append {
		m.write(name, m.read(name)+content)
	}
	m.shell(s.shell)
}
