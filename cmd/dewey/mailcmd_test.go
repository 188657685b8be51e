package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dewey/internal/confine"
	"dewey/maildrop"
	"dewey/mailfile"
	"dewey/store/maildir"
)

// mailData is a data folder with a user mrose.
func mailData(t *testing.T) string {
	t.Helper()
	data := t.TempDir()
	if err := os.WriteFile(filepath.Join(data, "users"), []byte("mrose:{PLAIN}tanstaaf\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return data
}

// dewey runs a command in this process.
func dewey(t *testing.T, data string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(append(args, "--set", "data="+data), strings.NewReader(""), &out, &err)
	return code, out.String(), err.String()
}

func must(t *testing.T, data string, args ...string) string {
	t.Helper()
	code, stdout, stderr := dewey(t, data, args...)
	if code != 0 {
		t.Fatalf("%q ended with %d\n%s", args, code, stderr)
	}
	return stdout
}

// mboxOf writes an mbox of n messages.
func mboxOf(t *testing.T, n int) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "mbox")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	w := mailfile.NewMboxWriter(f)
	for i := range n {
		text := fmt.Sprintf("Subject: message %d\nFrom: a@example.org\n\nFrom here\n%s", i+1, strings.Repeat("a line of it\n", i%50))
		if err := w.Write("a@example.org", time.Unix(1e9+int64(i), 0), strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return name
}

// While a session has the maildrop, all but mail add say so and end with 75; it goes on undisturbed.
func TestMailInUse(t *testing.T) {
	data := mailData(t)
	must(t, data, "mail", "add", "mrose", mboxOf(t, 2))
	store := maildir.New(maildir.Options{Path: func(maildrop.Owner) (string, error) { return filepath.Join(data, "mail", "mrose"), nil }})
	d, err := store.Open(t.Context(), maildrop.Owner{})
	if err != nil {
		t.Fatal(err)
	}
	id := d.Messages()[0].UID
	var all sync.WaitGroup
	for _, args := range [][]string{
		{"list", "mrose"},
		{"show", "mrose", "1"},
		{"remove", "mrose", id},
		{"remove", "mrose", "--all", "--yes"},
		{"add", "mrose", "--skip-duplicates", mboxOf(t, 1)},
	} {
		all.Go(func() { // each of them waits a little
			code, stdout, stderr := dewey(t, data, append([]string{"mail"}, args...)...)
			if code != exitTempFail || stdout != "" || !strings.Contains(stderr, "the maildrop of mrose is in use") {
				t.Errorf("%q: %d %q %q", args, code, stdout, stderr)
			}
		})
	}
	all.Wait()
	must(t, data, "mail", "add", "mrose", mboxOf(t, 1)) // needs no lock
	if len(d.Messages()) != 2 {
		t.Errorf("%d messages", len(d.Messages()))
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if out := must(t, data, "mail", "list", "mrose"); !strings.HasPrefix(lastLine(out), "3 messages") {
		t.Error(out)
	}
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// The commands work beside a server, and it serves what they say.
func TestMailBesideServer(t *testing.T) {
	data := mailData(t)
	_, address := serve(t, data, "--set", "pop3.listen=127.0.0.1:0")
	must(t, data, "mail", "add", "mrose", mboxOf(t, 3))
	list := must(t, data, "mail", "list", "mrose")
	ids := strings.Fields(strings.Split(list, "\n")[2])
	c := dial(t, address)
	c.login("mrose")
	c.ok("UIDL 2", ids[1])
	code, _, stderr := dewey(t, data, "mail", "remove", "mrose", ids[1])
	if code != exitTempFail {
		t.Errorf("%d %s", code, stderr)
	}
	c.ok("QUIT")
	c.closed()
	must(t, data, "mail", "remove", "mrose", ids[1])
	c = dial(t, address)
	c.login("mrose")
	c.ok("STAT", "+OK 2 ")
	third := strings.Fields(strings.Split(list, "\n")[3])
	c.ok("UIDL 2", third[1])
	c.ok("QUIT")
}

// Ten thousand messages are added, listed and removed in bounded time; nothing is doubled by doing it again.
func TestMailManyMessages(t *testing.T) {
	const n = 10_000
	data, mbox := mailData(t), mboxOf(t, n)
	began := time.Now()
	before := began
	step := func(what, want, got string) {
		t.Helper()
		if !strings.HasPrefix(got, want) {
			t.Errorf("%s: %.200s", what, got)
		}
		t.Logf("%s: %v", what, time.Since(before))
		before = time.Now()
	}
	step("add", "added 10000 messages", must(t, data, "mail", "add", "mrose", mbox))
	step("first list", "10000 messages", lastLine(must(t, data, "mail", "list", "mrose")))
	list := must(t, data, "mail", "list", "mrose")
	step("list", "10000 messages", lastLine(list))
	for i, line := range strings.Split(list, "\n")[1 : n+1] {
		if !strings.HasSuffix(line, fmt.Sprintf(" message %d", i+1)) {
			t.Fatalf("line %d: %s", i+1, line)
		}
	}
	step("again", "added 0 messages to mrose, left out 10000", must(t, data, "mail", "add", "mrose", "--skip-duplicates", mbox))
	step("remove", "removed 5000 messages", lastLine(must(t, data, "mail", "remove", "mrose", "--yes", "--before", time.Unix(1e9+5000, 0).UTC().Format(time.RFC3339))))
	if out := must(t, data, "mail", "list", "mrose"); !strings.Contains(out, "message 5001\n") || strings.Contains(out, "message 5000\n") {
		t.Error("the wrong messages were removed")
	}
	if took := time.Since(began); took > 5*time.Minute { // 15 seconds on two busy cores
		t.Errorf("it took %v", took)
	}
}

// A fault in the middle leaves the beginning, and the way it tells to go on leads to all, once each.
func TestMailAddGoesOn(t *testing.T) {
	data := mailData(t)
	mbox := mboxOf(t, 300)
	quota := func(n int) string { return fmt.Sprintf("mail.quota_messages=%d", n) }
	code, stdout, stderr := dewey(t, data, "mail", "add", "mrose", mbox, "--set", quota(200))
	if code != 1 || stdout != "added 200 messages to mrose\n" || !strings.Contains(stderr, "with --skip 200\n") {
		t.Fatalf("%d %q %q", code, stdout, stderr)
	}
	code, stdout, stderr = dewey(t, data, "mail", "add", "mrose", mbox, "--skip", "200", "--set", quota(201))
	if code != 1 || stdout != "added 1 message to mrose\n" || !strings.Contains(stderr, "with --skip 201\n") {
		t.Fatalf("%d %q %q", code, stdout, stderr)
	}
	if got := must(t, data, "mail", "add", "mrose", mbox, "--skip", "201"); got != "added 99 messages to mrose\n" {
		t.Error(got)
	}
	list := strings.Split(must(t, data, "mail", "list", "mrose"), "\n")
	for i := range 300 {
		if !strings.HasSuffix(list[i+1], fmt.Sprintf(" message %d", i+1)) {
			t.Fatalf("line %d: %s", i+1, list[i+1])
		}
	}
	if len(list) != 303 {
		t.Errorf("%d lines", len(list))
	}
}

// An interrupted import ends at a message, says so, and is safe up to there.
func TestMailAddInterrupted(t *testing.T) {
	data := mailData(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "dewey", "mail", "add", "mrose", "-", "--set", "data="+data)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = r, &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	text, err := os.ReadFile(mboxOf(t, 200))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(text); err != nil { // more than a pipe holds: most of it is read
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	go func() { // until it is seen
		for i := 0; ; i++ {
			if _, err := fmt.Fprintf(w, "From a Thu Jan  1 00:00:01 1998\nSubject: x\n\n"); err != nil {
				return
			}
		}
	}()
	err = cmd.Wait()
	_ = w.Close()
	var ended *exec.ExitError
	if !errors.As(err, &ended) || ended.ExitCode() != 1 || !strings.HasPrefix(stderr.String(), "dewey: interrupted\n") {
		t.Fatalf("%v %s %s", err, stdout.String(), stderr.String())
	}
	var added, skip int
	if _, err := fmt.Sscanf(stdout.String(), "added %d message", &added); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(lastLine(stderr.String()), "All before that is safe. To go on: the same command with --skip %d", &skip); err != nil || skip != added {
		t.Errorf("%v: %s %s", err, stdout.String(), stderr.String())
	}
	if got := lastLine(must(t, data, "mail", "list", "mrose")); !strings.HasPrefix(got, fmt.Sprintf("%d message", added)) {
		t.Errorf("added %d; %s", added, got)
	}
}

// As root nothing is left in a Maildir, or above it, that is not the server's, whatever the command.
func TestMailLeavesNothingOfRoot(t *testing.T) {
	name, err := static()
	if err != nil || os.Geteuid() != 0 {
		t.Fatal("this test gives up root's rights: run it as root; ", err)
	}
	nobody, err := confine.LookUp("nobody", "")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.MkdirTemp("", "dewey-mail")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(data) })
	users := filepath.Join(data, "users")
	for _, err := range []error{
		os.WriteFile(users, []byte("mrose:{PLAIN}x\n"), 0o644), os.Chmod(users, 0o644), nobody.Own(data),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	mbox := mboxOf(t, 3) // which nobody can't read
	execute := func(args ...string) string {
		t.Helper()
		args = append(args, "--set", "data="+data, "--set", "process.user=nobody")
		out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
		err = filepath.WalkDir(data, func(path string, _ fs.DirEntry, err error) error {
			var st unix.Stat_t
			if err == nil {
				err = unix.Lstat(path, &st)
			}
			if path != users && int(st.Uid) != nobody.UID {
				t.Errorf("%q left %s to %d", args, path, st.Uid)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	execute("mail", "add", "mrose", mbox)
	execute("mail", "add", "mrose", mbox, "--skip-duplicates")
	list := execute("mail", "list", "mrose")
	execute("mail", "show", "mrose", "1")
	execute("mail", "remove", "mrose", strings.Fields(strings.Split(list, "\n")[1])[1])
	execute("mail", "remove", "mrose", "--all", "--yes")
}

// A message that goes while it is listed, and one that can't be read, are listed all the same.
func TestMailListUnreadable(t *testing.T) {
	data := mailData(t)
	must(t, data, "mail", "add", "mrose", mboxOf(t, 2))
	path := filepath.Join(data, "mail", "mrose")
	store := maildir.New(maildir.Options{Path: func(maildrop.Owner) (string, error) { return path, nil }, Logger: slog.New(slog.DiscardHandler)})
	look, err := store.Look(t.Context(), maildrop.Owner{})
	if err != nil {
		t.Fatal(err)
	}
	must(t, data, "mail", "remove", "mrose", look.Messages()[0].UID)
	var out bytes.Buffer
	a := &app{out: &out, err: io.Discard}
	if err := errors.Join(a.mailTable("mrose", listLook(look, "")), a.mailJSON("mrose", listLook(look, ""))); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.Contains(got, "(it was removed meanwhile)") || !strings.Contains(got, `"error":"it was removed meanwhile"`) || !strings.Contains(got, "message 2") {
		t.Error(got)
	}
}
