package main

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"dewey/config"
	"dewey/pop3server"
)

// The test binary is also the program, and a small service manager that starts it.
func TestMain(m *testing.M) {
	// Under the race detector a process sleeps a second at its end if it isn't told not to.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
		panic(err)
	}
	testscript.Main(m, map[string]func(){
		"dewey":       main,
		"likesystemd": likeSystemd,
	})
}

// likeSystemd becomes `dewey serve …` with the descriptors that it has been given, as systemd does
// it: LISTEN_PID is known only now. sd_listen_fds(3).
func likeSystemd() {
	path, err := exec.LookPath("dewey")
	if err != nil {
		panic(err)
	}
	env := append(os.Environ(), "LISTEN_PID="+strconv.Itoa(os.Getpid()))
	panic(syscall.Exec(path, append([]string{"dewey"}, os.Args[1:]...), env))
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE_GOLDEN") != "",
		Setup: func(env *testscript.Env) error {
			env.Setenv("GORACE", os.Getenv("GORACE"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"busy":  busy,
			"code":  code,
			"taken": taken,
			"count": count,
		},
	})
}

// code runs a program that is to end with the code: code N program [args...].
func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N program [args...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	var ended *exec.ExitError
	got := "0"
	if errors.As(err, &ended) {
		got = strconv.Itoa(ended.ExitCode())
	}
	if got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}

// taken moves a user's only new message out of his Maildir, to the file mailN: taken USER N.
func taken(ts *testscript.TestScript, _ bool, args []string) {
	found, err := filepath.Glob(ts.MkAbs("dewey-data/mail/" + args[0] + "/new/*"))
	ts.Check(err)
	if len(found) != 1 {
		ts.Fatalf("%d messages for %s", len(found), args[0])
	}
	data, err := os.ReadFile(found[0])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("mail"+args[1]), data, 0o600))
	ts.Check(os.Rename(found[0], ts.MkAbs("dewey-data/mail/"+args[0]+"/cur/"+filepath.Base(found[0])+":2,S")))
}

// count wants N messages in a user's Maildir: count USER N.
func count(ts *testscript.TestScript, _ bool, args []string) {
	found, err := filepath.Glob(ts.MkAbs("dewey-data/mail/" + args[0] + "/???/*,S=*"))
	ts.Check(err)
	if strconv.Itoa(len(found)) != args[1] {
		ts.Fatalf("%s has %d messages, not %s", args[0], len(found), args[1])
	}
}

// busy holds a port for the time of the script, and names it in $BUSY.
func busy(ts *testscript.TestScript, _ bool, _ []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { _ = l.Close() })
	ts.Setenv("BUSY", l.Addr().String())
}

// What the configuration takes is what the server speaks.
func TestLanguagesAreThoseOfTheServer(t *testing.T) {
	got, want := slices.Sorted(slices.Values(config.Languages)), slices.Sorted(slices.Values(pop3server.Languages()))
	if !slices.Equal(got, want) {
		t.Errorf("config has %q, pop3server %q", got, want)
	}
}

func TestEveryPlaintextIsKnown(t *testing.T) {
	for _, word := range []string{config.PlaintextAlways, config.PlaintextLoopback, config.PlaintextNever} {
		c, err := config.Load("", []string{"login.plaintext=" + word})
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := plaintext[c.Login.Plaintext]; !ok {
			t.Errorf("%s", word)
		}
	}
}
