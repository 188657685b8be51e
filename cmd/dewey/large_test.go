package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// many is more than dewey unlinks before it answers.
const many = 600

func deliverMany(t *testing.T) (data string) {
	t.Helper()
	data = t.TempDir()
	addUser(t, data, "mrose")
	for i := range many + 1 {
		deliver(t, data, "mrose", fmt.Sprintf("%d.M1P1.h", 1000000000+i), "a\n\nb\n")
	}
	return data
}

// wantLeft finds so many files, and no word of other messages in the list.
func wantLeft(t *testing.T, data string, n int) {
	t.Helper()
	if left, _ := filepath.Glob(data + "/mail/mrose/*/1*"); len(left) != n {
		t.Errorf("%d files are left", len(left))
	}
	if list := read(t, filepath.Join(data, "mail/mrose/dovecot-uidlist")); strings.Count(list, "\n") != n+1 {
		t.Errorf("%d lines are left", strings.Count(list, "\n"))
	}
}

// A server that is told to end finishes a removal that it has answered; of one that is killed the next one finishes it, and
// in neither case is anything back.
func TestServeFinishesRemovals(t *testing.T) {
	for name, s := range map[string]syscall.Signal{"SIGTERM": syscall.SIGTERM, "SIGKILL": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			data := deliverMany(t)
			p, address := serve(t, data, "--set", "pop3.listen=127.0.0.1:0")
			var commands strings.Builder
			for i := range many {
				fmt.Fprintf(&commands, "DELE %d\r\n", i+1)
			}
			got := visit(t, address, "USER mrose\r\nPASS tanstaaf\r\n"+commands.String()+"QUIT\r\n")
			p.signal(s)
			if n := strings.Count(got, "+OK"); n != many+4 || strings.Contains(got, "-ERR") {
				t.Fatalf("%d positive replies\n%.500s", n, got)
			}
			if code := p.end(); s == syscall.SIGTERM && code != 0 {
				t.Errorf("exit code %d", code)
			}
			if s == syscall.SIGKILL {
				p, address = serve(t, data, "--set", "pop3.listen=127.0.0.1:0")
				if got := visit(t, address, "USER mrose\r\nPASS tanstaaf\r\nSTAT\r\nQUIT\r\n"); !strings.Contains(got, "+OK 1 8\r\n") {
					t.Errorf("after the restart: %q", got)
				}
				p.signal(syscall.SIGTERM)
				p.end()
			}
			wantLeft(t, data, 1)
		})
	}
}

// dewey mail remove ends when it has done what it says.
func TestMailRemoveMany(t *testing.T) {
	data := deliverMany(t)
	if out := must(t, data, "mail", "remove", "mrose", "--all", "--yes"); !strings.Contains(out, fmt.Sprintf("removed %d messages", many+1)) {
		t.Errorf("%.300s", out)
	}
	wantLeft(t, data, 0)
}
