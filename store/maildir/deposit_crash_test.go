package maildir_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"dewey/maildrop"
	"dewey/store/maildir"
)

// crashText is more than one piece of what is written.
var crashText = "Subject: whole\r\n\r\n" + strings.Repeat("a line of the message\r\n", 3000)

// As a child of TestDepositKilledAtAnyCall this process does one delivery, on its first thread from the start:
// strace counts the calls of each thread.
func init() {
	root := os.Getenv("MAILDIR_CRASH")
	if root == "" {
		return
	}
	store := maildir.New(maildir.Options{Path: func(maildrop.Owner) (string, error) { return root, nil }})
	d, err := store.Deposit(context.Background(), maildrop.Owner{})
	if err == nil {
		_, err = d.Write([]byte(crashText))
	}
	if err == nil {
		err = d.Commit(context.Background())
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("taken in")
	os.Exit(0)
}

// The process is killed before each call of a delivery that changes anything: either nothing is seen of the
// message and it was not acknowledged, or it is there, whole; and there for certain if it was acknowledged.
// Messages that were there keep their unique-ids, and the next delivery works.
func TestDepositKilledAtAnyCall(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Fatal("no strace: apt-get install strace")
	}
	for _, way := range []struct {
		name   string
		inject []string // beside the signal
		calls  []string
	}{
		{"rename", nil, []string{"mkdirat", "openat", "write", "fsync", "renameat2"}},
		{"link", []string{"-e", "inject=renameat2:error=EINVAL"}, []string{"linkat", "unlinkat", "fsync"}},
	} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			hidden, visible, taken := 0, 0, 0
			for i := range 2 * len(way.calls) {
				call, before := way.calls[i/2], i%2 == 0 // or the Maildir is made
				for n := 1; ; n++ {
					f := newFixture(t)
					if before {
						f.deposit("before\r\n")
						f.ids()
					}
					out, done := f.killAt(strace, call, n, way.inject)
					acknowledged := out == "taken in\n"
					if done && !acknowledged || n > 100 {
						t.Fatalf("%s %d: %q", call, n, out)
					}
					switch saw := f.checkCrash(fmt.Sprint(call, " ", n), acknowledged, before); {
					case acknowledged:
						taken++
					case saw:
						visible++
					default:
						hidden++
					}
					if done {
						break
					}
				}
			}
			t.Logf("%d deliveries not seen, %d seen and not acknowledged, %d acknowledged", hidden, visible, taken)
			if hidden < 2 || visible < 2 || taken < 2*len(way.calls) {
				t.Error("the test tests little")
			}
		})
	}
}

// killAt runs a delivery that is killed before its n-th call of a kind, and says what it printed, and whether it
// came to its end.
func (f *fixture) killAt(strace, call string, n int, inject []string) (out string, done bool) {
	f.t.Helper()
	args := append([]string{
		"-f", "-qq", "-o", "/dev/null", "-e", "trace=" + call + ",renameat2",
		"-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", call, n),
	}, inject...)
	cmd := exec.Command(strace, append(args, os.Args[0])...)
	cmd.Env = append(os.Environ(), "MAILDIR_CRASH="+f.root, "GODEBUG=asyncpreemptoff=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if stderr.Len() > 0 {
		f.t.Fatalf("%s %d: %v, %s", call, n, err, stderr.String())
	}
	return string(text), err == nil
}

// checkCrash looks at what a killed delivery left.
func (f *fixture) checkCrash(what string, acknowledged, before bool) (saw bool) {
	t := f.t
	t.Helper()
	want := 0
	if before {
		want = 1
	}
	if !exists(f.root) {
		if acknowledged {
			t.Errorf("%s: acknowledged, and there is no Maildir", what)
		}
		return false
	}
	f.restart()
	if exists(filepath.Join(f.root, "cur")) {
		f.checkUsage()
	}
	d := f.open()
	first := uids(d)
	saw = len(first) == want+1
	switch {
	case len(first) != want && !saw:
		t.Errorf("%s: %d messages", what, len(first))
	case acknowledged && !saw:
		t.Errorf("%s: acknowledged, and not there", what)
	case saw:
		if got := f.read(d, want+1); got != crashText {
			t.Errorf("%s: %d octets came, want %d", what, len(got), len(crashText))
		}
	}
	f.close(d)
	f.deposit("after\r\n")
	if got := f.ids(); len(got) != len(first)+1 || strings.Join(got[:len(first)], " ") != strings.Join(first, " ") {
		t.Errorf("%s: unique-ids %q, before %q", what, got, first)
	}
	_ = os.RemoveAll(f.root)
	return saw
}

// A disk that is full for real, of octets or of files: who was told that his message is in has it, nobody else,
// and when there is room again all works.
func TestDepositDiskFull(t *testing.T) {
	if dir := os.Getenv("MAILDIR_FULL"); dir != "" {
		fillDisk(t, dir)
		return
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "MAILDIR_FULL="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS} // the mount is the child's alone
	if os.Getuid() != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("a child with mounts of its own: %v (is it root, or may it have a user namespace?)\n%s", err, out)
	}
	if !strings.Contains(string(out), "--- PASS") {
		t.Errorf("the child tested nothing:\n%s", out)
	}
}

func fillDisk(t *testing.T, dir string) {
	for _, options := range []string{"size=1m", "size=1m,nr_inodes=50"} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
			t.Fatalf("mounting a tmpfs: %v", err)
		}
		f := newFixture(t)
		f.root = filepath.Join(dir, "Maildir")
		f.deposit("first\r\n")
		before := f.ids()
		for i := range 10 {
			f.put(fmt.Sprint("filler/", i), strings.Repeat("x", 20_000))
		}

		large := strings.Repeat("0123456789abcd\r\n", 100_000)
		if err := f.tryDeposit(large); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%s: a message larger than the disk: %v", options, err)
		}
		if left := f.folder("tmp"); len(left) > 0 {
			t.Errorf("%s: left in tmp/: %q", options, left)
		}
		var mu sync.Mutex
		taken := map[string]bool{"first\r\n": true}
		refused := 0
		var wg sync.WaitGroup
		for w := range 8 {
			wg.Go(func() {
				for i := range 20 {
					text := fmt.Sprintf("Subject: %d-%d\r\n", w, i) + large[:16*1000]
					err := f.tryDeposit(text)
					mu.Lock()
					if err == nil {
						taken[text] = true
					} else if refused++; !errors.Is(err, unix.ENOSPC) {
						t.Errorf("%s: %v", options, err)
					}
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if refused == 0 || len(taken) < 10 {
			t.Errorf("%s: %d taken in, %d refused", options, len(taken), refused)
		}
		if left := f.folder("tmp"); len(left) > 0 {
			t.Errorf("%s: left in tmp/: %q", options, left)
		}
		d := f.open() // those that can't get a unique-id are hidden (trap 28)
		for n := range d.Messages() {
			if text := f.read(d, n+1); !taken[text] {
				t.Errorf("%s: not acknowledged, and there: %.30q", options, text)
			}
		}
		f.close(d)

		f.check(os.RemoveAll(filepath.Join(f.root, "filler")))
		text := "Subject: there is room\r\n"
		f.deposit(text)
		taken[text] = true
		d = f.open()
		if got := uids(d); len(got) != len(taken) || got[0] != before[0] {
			t.Errorf("%s: %d messages, want %d; the first was %s, is %s", options, len(got), len(taken), before[0], got[0])
		}
		for n := range d.Messages() {
			text := f.read(d, n+1)
			if !taken[text] {
				t.Errorf("%s: not acknowledged, or twice: %.30q", options, text)
			}
			delete(taken, text)
		}
		f.close(d)
		f.fsckDeposits()
		f.check(unix.Unmount(dir, 0))
	}
}
