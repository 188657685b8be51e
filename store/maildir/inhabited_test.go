package maildir_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dewey/maildrop"
)

// A Maildir that had mail and is gone as a whole is not made anew: neither a login nor a delivery gets past that, and
// when it is back all is as it was.
func TestTrap19VanishedMaildir(t *testing.T) {
	for _, delivered := range []bool{false, true} {
		f := newFixture(t)
		var before []string
		if delivered {
			f.deposit("Subject: x\r\n")
		} else {
			f.deliver("Subject: x\n")
			before = f.ids()
		}
		away := f.root + ".away"
		f.check(os.Rename(f.root, away))
		if d, err := f.store.Open(t.Context(), maildrop.Owner{}); err == nil || !strings.Contains(err.Error(), "has vanished") {
			t.Errorf("delivered %v: %v, %v", delivered, d, err)
		}
		if err := f.tryDeposit("Subject: y\r\n"); err == nil || !strings.Contains(err.Error(), "has vanished") {
			t.Errorf("delivered %v: %v", delivered, err)
		}
		if exists(f.root) {
			t.Fatalf("delivered %v: it was made", delivered)
		}
		f.check(os.Rename(away, f.root))
		if after := f.ids(); len(after) != 1 || len(before) > 0 && after[0] != before[0] {
			t.Errorf("delivered %v: %q, before %q", delivered, after, before)
		}
	}
}

// Where there was no mail, or it was removed, nothing is lost by making it; and what a person has made again is taken.
func TestEmptyMaildirIsMadeAgain(t *testing.T) {
	f := newFixture(t)
	f.deliver("Subject: x\n")
	d := f.open()
	f.check(d.Remove(t.Context(), []int{1}))
	f.close(d)
	f.check(os.RemoveAll(f.root))
	f.close(f.open())

	f.deliver("Subject: x\n")
	f.ids()
	f.check(os.RemoveAll(f.root))
	for _, folder := range []string{"new", "cur", "tmp"} {
		f.check(os.MkdirAll(filepath.Join(f.root, folder), 0o700))
	}
	f.close(f.open())
}
