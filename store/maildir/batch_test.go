package maildir_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dewey/maildrop"
)

// batch begins n deposits, each with a time of its own, the latest first.
func (f *fixture) batch(n int) []maildrop.Deposit {
	f.t.Helper()
	deposits := make([]maildrop.Deposit, n)
	for i := range deposits {
		var err error
		deposits[i], err = f.store.DepositAt(context.Background(), maildrop.Owner{}, time.Unix(1e9-int64(i), 0))
		f.check(err)
		_, err = fmt.Fprintf(deposits[i], "Subject: %d\n\nbody\n", i)
		f.check(err)
	}
	return deposits
}

// subjects are those of a maildrop, in order.
func (f *fixture) subjects() string {
	f.t.Helper()
	d := f.open()
	defer f.close(d)
	var all []string
	for i := range d.Messages() {
		_, after, _ := strings.Cut(f.read(d, i+1), "Subject: ")
		subject, _, _ := strings.Cut(after, "\r\n")
		all = append(all, subject)
	}
	return strings.Join(all, " ")
}

// Messages of a batch keep their order and their times, and new/ is made durable once.
func TestCommitAll(t *testing.T) {
	f := newFixture(t)
	syncs := 0
	f.store.SetTrace(func(op, path string) {
		if op == "sync" && strings.HasSuffix(path, "/new") {
			syncs++
		}
	})
	n, err := f.store.CommitAll(t.Context(), f.batch(40))
	if n != 40 || err != nil {
		t.Fatal(n, err)
	}
	if syncs != 1 {
		t.Errorf("new/ was synced %d times", syncs)
	}
	f.fsckDeposits()
	look, err := f.store.Look(t.Context(), maildrop.Owner{})
	f.check(err)
	for i := range look.Messages() {
		at, r, err := look.Stored(t.Context(), i+1)
		f.check(err)
		text, err := io.ReadAll(r)
		f.check(errors.Join(err, r.Close()))
		if want := fmt.Sprintf("Subject: %d\n\nbody\n", i); string(text) != want || !at.Equal(time.Unix(1e9-int64(i), 0)) {
			t.Errorf("message %d: %q at %v", i+1, text, at)
		}
	}
	if n, err := f.store.CommitAll(t.Context(), nil); n != 0 || err != nil {
		t.Error(n, err)
	}
}

// Where one fails, exactly those before it are there, and nothing is left of the others.
func TestCommitAllFails(t *testing.T) {
	for _, op := range []string{"sync", "rename", "write"} {
		t.Run(op, func(t *testing.T) {
			f := newFixture(t)
			f.deposit("Subject: first\n\n")
			deposits := f.batch(6)
			bad := ""
			for _, name := range f.folder("tmp") { // in the order of their beginning, but for the number of digits
				if bad == "" || len(name) > len(bad) || len(name) == len(bad) && name > bad {
					bad = name
				}
			}
			f.store.SetFault(func(o, path string) error {
				base, _, _ := strings.Cut(path[strings.LastIndexByte(path, '/')+1:], ",")
				if o == op && base == bad {
					return unix.ENOSPC
				}
				return nil
			})
			n, err := f.store.CommitAll(t.Context(), deposits)
			if n != 5 || !errors.Is(err, unix.ENOSPC) {
				t.Fatal(n, err)
			}
			f.store.SetFault(nil)
			f.fsckDeposits()
			if got := f.subjects(); got != "first 0 1 2 3 4" {
				t.Errorf("there are %s", got)
			}
		})
	}
}

// Where the folder could not be made durable the messages are taken out again; if one can't be, the number says
// that it and those before it are there.
func TestCommitAllUnsettled(t *testing.T) {
	for want, subjects := range []string{"", "0", "0 1", "0 1 2"} {
		f := newFixture(t)
		deposits := f.batch(3)
		taken := 0
		f.store.SetFault(func(op, path string) error {
			switch {
			case op == "sync" && strings.HasSuffix(path, "/new"):
				return unix.EIO
			case op == "unlink":
				if taken++; taken == 4-want {
					return unix.EROFS
				}
			}
			return nil
		})
		n, err := f.store.CommitAll(t.Context(), deposits)
		if n != want || !errors.Is(err, unix.EIO) || errors.Is(err, unix.EROFS) != (want > 0) {
			t.Error(n, err)
		}
		f.store.SetFault(nil)
		f.fsckDeposits()
		if got := f.subjects(); got != subjects {
			t.Errorf("%d: there are %q, want %q", want, got, subjects)
		}
	}
}

// A context that is over takes nothing in, and so do deposits that are over, or another owner's.
func TestCommitAllRefuses(t *testing.T) {
	f, g := newFixture(t), newFixture(t)
	f.deposit("Subject: x\n\n")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if n, err := f.store.CommitAll(ctx, f.batch(3)); n != 0 || !errors.Is(err, context.Canceled) {
		t.Error(n, err)
	}
	over := f.batch(2)
	over[1].Discard()
	if n, err := f.store.CommitAll(t.Context(), over); n != 0 || err == nil {
		t.Error(n, err)
	}
	if n, err := f.store.CommitAll(t.Context(), append(f.batch(1), g.batch(1)...)); n != 0 || err == nil {
		t.Error(n, err)
	}
	f.fsckDeposits()
	if got := f.subjects(); got != "x" {
		t.Errorf("there are %s", got)
	}
}

// A look holds no lock: a session can begin, and what it removes is gone for the look.
func TestLook(t *testing.T) {
	f := newFixture(t)
	for i := range 3 {
		f.deposit(fmt.Sprintf("Subject: %d\n\nbody\n", i))
	}
	look, err := f.store.Look(t.Context(), maildrop.Owner{})
	f.check(err)
	d := f.open()
	if _, err := f.store.Look(t.Context(), maildrop.Owner{}); !errors.Is(err, maildrop.ErrInUse) {
		t.Errorf("a look at a maildrop in use: %v", err)
	}
	if got, want := fmt.Sprint(look.Messages()), fmt.Sprint(d.Messages()); got != want {
		t.Errorf("seen %s, served %s", got, want)
	}
	f.check(d.Remove(t.Context(), []int{2}))
	f.close(d)
	if _, _, err := look.Stored(t.Context(), 2); !errors.Is(err, maildrop.ErrGone) {
		t.Errorf("a message that was removed: %v", err)
	}
	for _, n := range []int{0, 4} {
		if _, _, err := look.Stored(t.Context(), n); !errors.Is(err, maildrop.ErrNoMessage) {
			t.Errorf("message %d: %v", n, err)
		}
	}
	m, r, err := look.Retrieve(t.Context(), 3)
	f.check(err)
	text, err := io.ReadAll(r)
	f.check(errors.Join(err, r.Close()))
	if string(text) != "Subject: 2\r\n\r\nbody\r\n" || m.Octets != int64(len(text)) {
		t.Errorf("%q, %v", text, m)
	}
}
