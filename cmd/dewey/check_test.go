package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"dewey/maildrop"
	"dewey/store/maildir"
)

// checkData is the Maildir that docs/CHECK.md tells of.
func checkData(t *testing.T) (data string) {
	t.Helper()
	data = mailData(t)
	folder := filepath.Join(data, "mail", "mrose", "new")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for i, n := range []string{"1", "2", "3"} {
		write(t, filepath.Join(folder, "100000000"+n+".M1P1.h"), "From: Ann <ann@example.org>\n\n"+strings.Repeat("body\n", 2*i+1)[:10*i+3])
	}
	must(t, data, "mail", "list", "mrose")
	return data
}

// damage swaps two lines of the list, and leaves a temporary file.
func damage(t *testing.T, data string) {
	t.Helper()
	name := filepath.Join(data, "mail", "mrose", "dovecot-uidlist")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(text), "\n")
	lines[1], lines[2] = lines[2], lines[1]
	write(t, name, strings.Join(lines, ""))
	write(t, name+".tmp", "3 V1")
}

// The example of docs/CHECK.md goes as it is told there.
func TestCheckExample(t *testing.T) {
	page, err := os.ReadFile("../../docs/CHECK.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, found := strings.Cut(string(page), "\n## An example\n")
	example, _, whole := strings.Cut(example, "\n## ")
	data := checkData(t)
	damage(t, data)
	config := filepath.Join(t.TempDir(), "dewey.toml")
	write(t, config, "data = "+`"`+data+`"`+"\n")
	var want, got strings.Builder
	for line := range strings.Lines(example) {
		line, inside := strings.CutPrefix(line, "    ")
		if !inside {
			continue
		}
		want.WriteString(line)
		if command, is := strings.CutPrefix(line, "$ "); is {
			cmd := exec.CommandContext(t.Context(), "sh", "-c", strings.TrimSpace(command)+" --config "+config)
			out, _ := cmd.CombinedOutput() // its end is in what it says
			got.WriteString(line + strings.ReplaceAll(string(out), data+"/", ""))
		}
	}
	if !found || !whole || strings.Count(want.String(), "$ ") != 3 || got.String() != want.String() {
		t.Errorf("the document has\n%s\nand it goes\n%s", want.String(), got.String())
	}
}

// docs/CHECK.md has each kind of problem.
func TestCheckKinds(t *testing.T) {
	page, err := os.ReadFile("../../docs/CHECK.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("../../store/maildir/check_kinds.go")
	if err != nil {
		t.Fatal(err)
	}
	kinds := regexp.MustCompile(`Kind = "(.*?)"`).FindAllStringSubmatch(string(source), -1)
	if len(kinds) < 40 {
		t.Fatal(kinds)
	}
	for _, k := range kinds {
		if !strings.Contains(string(page), "`"+k[1]+"`") {
			t.Errorf("docs/CHECK.md does not tell of %s", k[1])
		}
	}
}

// How the command ends, and what it prints.
func TestCheckEnds(t *testing.T) {
	data := checkData(t)
	ends := func(code int, args ...string) string {
		t.Helper()
		got, stdout, stderr := dewey(t, data, append([]string{"check"}, args...)...)
		if got != code {
			t.Errorf("%q ended with %d, want %d\n%s%s", args, got, code, stdout, stderr)
		}
		return stdout + stderr
	}
	ends(0)
	ends(2, "nobody")
	ends(2, "--no-such-flag")
	ends(2, "--drop-missing")
	ends(2, "--set", "no.such=key")
	damage(t, data)
	if out := ends(1, "--quiet"); strings.Contains(out, "note: ") || !strings.Contains(out, "error: ") {
		t.Error(out)
	}

	_, out, _ := dewey(t, data, "check", "--json")
	var got struct {
		Problems []struct {
			User, Kind, Severity, Maildir, File, What, Advice string
			Line                                              int
			Mends, Repaired                                   bool
		}
		Users, Messages, Errors, Notes int
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || got.Users != 1 || got.Messages != 3 || got.Errors != 1 || got.Notes != 1 || len(got.Problems) != 2 {
		t.Fatalf("%v\n%s", err, out)
	}
	if p := got.Problems[0]; p.User != "mrose" || p.Kind != "list-order" || p.Severity != "error" || p.File != "dovecot-uidlist" || p.Line != 3 || !p.Mends || p.Repaired {
		t.Errorf("%+v", p)
	}

	path := filepath.Join(data, "mail", "mrose")
	store := maildir.New(maildir.Options{Path: func(maildrop.Owner) (string, error) { return path, nil }})
	d, err := store.Open(t.Context(), maildrop.Owner{})
	if err != nil {
		t.Fatal(err)
	}
	if out := ends(75, "mrose", "--repair"); !strings.Contains(out, "in use") {
		t.Error(out)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}

	// Names of files are others' words.
	write(t, filepath.Join(path, "cur", ":\x1b[2J\xff"), "")
	if out := ends(0); strings.Contains(out, "\x1b") || !strings.Contains(out, `\x1b[2J\xff`) {
		t.Errorf("%q", out)
	}
	if _, out, _ := dewey(t, data, "check", "--json"); !json.Valid([]byte(out)) || strings.Contains(out, "\x1b") {
		t.Errorf("%q", out)
	}

	// Not all users can be told: those who can are checked, and it is an error.
	users := filepath.Join(data, "users")
	write(t, users, "mrose:{PLAIN}tanstaaf\nann:{NOSUCH}x\n")
	if out := ends(1); !strings.Contains(out, "1 user,") || !strings.Contains(out, "users:2") {
		t.Error(out)
	}
	write(t, users, "mrose:{PLAIN}tanstaaf\n")
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if out := ends(0); out != "1 user, 0 Maildirs, 0 messages, 0 octets: 0 errors, 0 warnings, 0 notes\n" {
		t.Errorf("%q", out)
	}
	write(t, path, "")
	ends(1)
}
