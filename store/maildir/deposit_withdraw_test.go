package maildir_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dewey/maildrop"
	"dewey/store/maildir"
)

// unsettled lets the first sync of new/ fail, after meanwhile.
func (f *fixture) unsettled(meanwhile func()) {
	var once sync.Once
	f.store.SetFault(func(op, path string) (err error) {
		if op == "sync" && filepath.Base(path) == "new" {
			once.Do(func() { meanwhile(); err = unix.EIO })
		}
		return err
	})
}

// A sender who is told to come again must not find the message there: what was moved to new/ and could not be made
// durable is taken out, wherever somebody has moved it meanwhile. The quota counts it no more.
func TestDepositWithdrawn(t *testing.T) {
	moveTo := func(f *fixture, flags string) {
		for _, name := range f.folder("new") {
			if strings.Contains(f.get("new/"+name), "again") {
				f.check(os.Rename(filepath.Join(f.root, "new", name), filepath.Join(f.root, "cur", name+flags)))
			}
		}
	}
	for name, meanwhile := range map[string]func(*fixture){
		"nobody":    func(*fixture) {},
		"a session": func(f *fixture) { f.ids() },
		"IMAP":      func(f *fixture) { moveTo(f, ":2,S") },
		"both":      func(f *fixture) { f.ids(); moveTo(f, "") },
		"removed":   func(f *fixture) { moveTo(f, ""); f.check(os.Remove(filepath.Join(f.root, "cur", f.folder("cur")[0]))) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			owner := maildrop.Owner{Quota: maildrop.Quota{Messages: 2}}
			put := func() error {
				d, err := f.store.Deposit(t.Context(), owner)
				f.check(err)
				defer d.Discard()
				_, err = d.Write([]byte("Subject: again\r\n"))
				f.check(err)
				return d.Commit(t.Context())
			}
			f.deposit("Subject: before\r\n")
			before := f.ids()
			f.unsettled(func() { meanwhile(f) })
			if err := put(); !errors.Is(err, unix.EIO) || !strings.HasPrefix(err.Error(), "message not taken in: ") {
				t.Errorf("Commit: %v", err)
			}
			if got := f.ids(); !slices.Equal(got, before) {
				t.Errorf("unique-ids %q, before %q", got, before)
			}
			f.fsckDeposits()
			f.checkUsage()
			if err := put(); err != nil { // the sender comes again, and there is room for one
				t.Error(err)
			}
			if got := f.ids(); len(got) != 2 || got[0] != before[0] {
				t.Errorf("unique-ids %q, before %q", got, before)
			}
			f.restart()
			f.checkUsage()
		})
	}
}

// Those who wait for one sync fail together, and each takes out its own.
func TestDepositsWithdrawnTogether(t *testing.T) {
	f := newFixture(t)
	f.deposit("Subject: before\r\n")
	const writers = 8
	var first sync.Once
	f.store.SetFault(func(op, path string) error {
		if op != "sync" || filepath.Base(path) != "new" {
			return nil
		}
		first.Do(func() {
			for end := time.Now().Add(10 * time.Second); len(f.folder("new")) < writers+1 && time.Now().Before(end); {
				runtime.Gosched()
			}
		})
		return unix.EIO
	})
	var failed atomic.Int32
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			if f.tryDeposit(fmt.Sprintf("Subject: %d\r\n", i)) != nil {
				failed.Add(1)
			}
		})
	}
	wg.Wait()
	f.store.SetFault(nil)
	if n := len(f.ids()); n != 1 || failed.Load() != writers {
		t.Errorf("%d messages, %d of %d failed", n, failed.Load(), writers)
	}
	f.fsckDeposits()
	f.checkUsage()
}

// Who may not write into tmp/ is told before he has the message.
func TestDepositMayNotWrite(t *testing.T) {
	f := newFixture(t)
	f.deposit("Subject: x\r\n")
	tmp := filepath.Join(f.root, "tmp")
	f.check(os.Chmod(tmp, 0o500))
	defer func() { f.check(os.Chmod(tmp, 0o700)) }()
	if os.Geteuid() == 0 {
		for dir := f.root; len(dir) > len(os.TempDir()); dir = filepath.Dir(dir) {
			f.check(os.Chmod(dir, 0o755))
		}
		f.check(os.Chown(tmp, 65534, 65534))
	}
	done := make(chan error)
	go func() {
		if os.Geteuid() == 0 { // this thread alone, which ends with the goroutine
			runtime.LockOSThread()
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), 65534, ^uintptr(0)); errno != 0 {
				done <- errno
				return
			}
		}
		_, err := f.store.Deposit(context.Background(), maildrop.Owner{})
		done <- err
	}()
	if err := <-done; !errors.Is(err, unix.EACCES) {
		t.Errorf("Deposit: %v", err)
	}
}

// descriptors are how many the process has.
func descriptors(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

// Who has named a hundred recipients and sends nothing holds no descriptors; while the message comes each has one.
func TestDepositDescriptors(t *testing.T) {
	f := newFixture(t)
	store := maildir.New(maildir.Options{Path: func(o maildrop.Owner) (string, error) { return filepath.Join(f.root, o.Name), nil }})
	const recipients = 100
	var deposits []maildrop.Deposit
	before := descriptors(t)
	for i := range recipients {
		d, err := store.Deposit(t.Context(), maildrop.Owner{Name: fmt.Sprint(i)})
		f.check(err)
		deposits = append(deposits, d)
	}
	named := descriptors(t)
	for _, d := range deposits {
		_, err := d.Write([]byte("Subject: x\r\n"))
		f.check(err)
	}
	written := descriptors(t)
	for i, d := range deposits {
		if i%2 == 0 {
			f.check(d.Commit(context.Background()))
		}
		d.Discard()
	}
	t.Logf("descriptors: %d before, %d after RCPT, %d while the message comes, %d after it", before, named, written, descriptors(t))
	if named != before || written > before+recipients || descriptors(t) != before {
		t.Error("more than one for each")
	}
	if left, err := filepath.Glob(filepath.Join(f.root, "*/tmp/*")); len(left) > 0 || err != nil {
		t.Errorf("left: %q, %v", left, err)
	}
}
