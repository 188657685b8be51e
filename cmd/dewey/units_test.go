package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const units = "../../contrib/systemd"

// systemd has nothing against the units but, before version 253, the type.
func TestUnitsVerify(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Fatal("no systemd-analyze: apt-get install systemd")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var paths []string
	for _, name := range []string{"dewey.service", "dewey.socket"} {
		text, err := os.ReadFile(filepath.Join(units, name))
		if err != nil {
			t.Fatal(err)
		}
		here := strings.ReplaceAll(string(text), "/usr/local/bin/dewey", self) // verify looks whether it is there
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(here), 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	out, err := exec.CommandContext(t.Context(), analyze, append([]string{"verify"}, paths...)...).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, dir) && !strings.Contains(line, "notify-reload") {
			t.Error(line)
		}
	}
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// The command line in the unit is one that dewey takes.
func TestUnitStarts(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(units, "dewey.service"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\nExecStart=/usr/local/bin/dewey serve ")
	if !found {
		t.Fatal("no ExecStart")
	}
	line, _, _ := strings.Cut(rest, "\n")
	file := filepath.Join(t.TempDir(), "dewey.toml")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	args := strings.Fields(strings.ReplaceAll(line, "/etc/dewey/dewey.toml", file))
	out, err := exec.CommandContext(t.Context(), "dewey", append([]string{"config", "check"}, args...)...).CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
