package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"dewey/config"
)

// A program that begins as dewey-pam does, and ends with dewey.
const playsHelper = "#!/bin/sh\nprintf 'dewey-pam 1\\n' >&3\nexec cat <&3\n"

// Once rights are given up, a reload starts no dewey-pam, which would lack them: neither one more nor one that is to be
// otherwise. One that runs stays, and as long as all rights are there a reload starts it.
func TestReloadStartsNoPowerlessHelper(t *testing.T) {
	folder, err := os.MkdirTemp("", "dewey-pam") // t.TempDir lies in a folder that is root's alone
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	helper := filepath.Join(folder, "dewey-pam")
	write(t, helper, playsHelper)
	for name, mode := range map[string]os.FileMode{folder: 0o755, helper: 0o755} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	const files = "[[auth]]\nkind = 'passwd-file'\n"
	table := "[[auth]]\nkind = 'pam'\nhelper = '" + helper + "'\n"
	for name, c := range map[string]struct {
		set     []string
		refused bool
	}{
		"another user":    {[]string{"process.user=nobody", "process.landlock=off"}, true},
		"Landlock":        {[]string{"process.landlock=required"}, true},
		"root as it came": {[]string{"process.landlock=off"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			for before, after := range map[string]string{files: files + table, files + table: files + table + "processes = 3\n"} {
				data, file := filepath.Join(folder, "data"), filepath.Join(folder, "dewey.toml")
				args := []string{"--config", file, "--set", "data=" + data}
				for _, s := range c.set {
					args = append(args, "--set", s)
				}
				reload := func(text string, want ...string) {
					t.Helper()
					write(t, file, text)
					if err := os.Chmod(file, 0o644); err != nil {
						t.Fatal(err)
					}
				}
				reload(before)
				p := startStatic(t, args...)
				p.wait("msg=listening", "key=pop3.listen")
				p.signal(syscall.SIGHUP)
				p.wait("msg=reloaded") // as it was
				reload(after)
				p.signal(syscall.SIGHUP)
				if c.refused {
					line := p.wait("configuration stays as it was")
					if !strings.Contains(line, "restart dewey") || !strings.Contains(line, "auth pam: ") || !strings.Contains(line, "dewey.toml:") {
						t.Error(line)
					}
				} else {
					p.wait("msg=reloaded")
				}
				if p.saw("dewey-pam has ended") {
					t.Error("the one that ran has ended")
				}
				p.signal(syscall.SIGTERM)
				if code := p.end(); code != 0 {
					t.Errorf("code %d", code)
				}
			}
		})
	}
}

// A table with what the driver panics at is an error as others are.
func TestDSNThatPanics(t *testing.T) {
	file := filepath.Join(t.TempDir(), "dewey.toml")
	write(t, file, "[[auth]]\nkind = 'sql'\ndriver = 'mysql'\ndsn = 'dewey:x@tcp(127.0.0.1:1)/mail?strict=true'\nuser_query = 'SELECT 1'\n")
	c, err := config.Load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openBackends(c, nil, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "the dsn can't be read") {
		t.Error(err)
	}
}

// Ways to log in that no backend could serve are told, and those that one could are not.
func TestMechanismsWithoutSecrets(t *testing.T) {
	folder := t.TempDir()
	users := filepath.Join(folder, "users.sqlite")
	database(t, users, "bob", "bobs")
	elsewhere := "[[auth]]\nkind = 'sql'\ndriver = 'sqlite'\ndsn = '" + users + "'\nuser_query = 'SELECT password FROM users WHERE name = {user}'\n"
	for text, want := range map[string]string{
		"mechanisms = ['PLAIN', 'APOP', 'CRAM-MD5', 'SCRAM-SHA-256-PLUS']\n" + elsewhere:          `mechanisms="APOP CRAM-MD5 SCRAM-SHA-256-PLUS"`,
		"mechanisms = ['APOP', 'SCRAM-SHA-1']\n" + elsewhere + "[[auth]]\nkind = 'passwd-file'\n": "",
		"mechanisms = ['PLAIN', 'LOGIN']\n" + elsewhere:                                           "",
		"mechanisms = 'auto'\n" + elsewhere:                                                       "",
	} {
		file := filepath.Join(folder, "dewey.toml")
		write(t, file, "[login]\n"+text)
		p, _ := serve(t, folder, "--config", file)
		p.signal(syscall.SIGTERM)
		p.end()
		if p.saw("login.mechanisms lists what is not offered", want) != (want != "") {
			t.Errorf("%s: %q", text, p.seen)
		}
	}
}
