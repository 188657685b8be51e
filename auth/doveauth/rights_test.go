package doveauth

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("DOVEAUTH_SOCKET"); path != "" { // nobody, in a process of its own
		b, err := New(Config{AuthSocket: path, Timeout: patience})
		if err == nil {
			_, err = b.CheckPassword(context.Background(), attempt("bob", "bob's secret"))
		}
		fmt.Println(outcome(err), err)
		return
	}
	os.Exit(m.Run())
}

// A socket that dewey may not write to is no refusal, and the error says what to look at.
func TestPermission(t *testing.T) {
	d := newDovecot(t, "")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.path("test"), self, 0o755); err != nil {
		t.Fatal(err)
	}
	ask := func() string {
		cmd := exec.Command(d.path("test"))
		cmd.Env = append(os.Environ(), "DOVEAUTH_SOCKET="+d.path("run/auth-client"))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%v: %s", err, out)
		}
		return string(out)
	}
	const want = "can't tell dovecot: auth: Dovecot is not to be reached; does it run, and may the user of this process write to the socket? dial unix "
	if got := ask(); len(got) < len(want) || got[:len(want)] != want {
		t.Errorf("not open to nobody: %s; want %s", got, want)
	}
	if err := os.Chmod(d.path("run/auth-client"), 0o666); err != nil {
		t.Fatal(err)
	}
	if got := ask(); got != "in <nil>\n" {
		t.Errorf("open to all: %s", got)
	}
}
