package maildir_test

import (
	"errors"
	"testing"

	"dewey/maildrop"
)

// While a quota is counted files that are yet to be unlinked count, and no longer.
func TestLargeRemovalQuota(t *testing.T) {
	f := withLarge(t, 8)
	f.checkUsage()
	d := f.open()
	release := f.hold(0)
	f.check(d.Remove(t.Context(), []int{1, 2, 3, 4, 5}))
	f.close(d)
	f.checkUsage()
	f.ids()
	f.checkUsage()
	release()
	f.finish()
	f.checkUsage()
	f.ids()
	f.checkUsage()
}

// A maildrop that was just emptied takes mail, whether the job is at work or was cut short and nobody has logged in since.
func TestLargeRemovalMakesRoom(t *testing.T) {
	for _, killed := range []bool{false, true} {
		f := withLarge(t, 8)
		quota := maildrop.Quota{Messages: 5} // which are still there: the first of each folder goes at once, one more perhaps in the end
		d := f.open()
		release := f.hold(0)
		f.check(d.Remove(t.Context(), []int{1, 2, 3, 4, 5}))
		f.close(d)
		if killed {
			release(true)
			f.die()
		} else {
			go release()
		}
		deposit, err := f.store.Deposit(t.Context(), maildrop.Owner{Quota: quota})
		if err != nil {
			t.Fatalf("killed: %v: %v", killed, err)
		}
		_, err = deposit.Write([]byte("Subject: new\n"))
		f.check(errors.Join(err, deposit.Commit(t.Context())))
		f.finish()
		if got := f.checkUsage(); got.Messages != 4 {
			t.Errorf("killed: %v: %+v", killed, got)
		}
		f.store.SetLarge(100)
		deposit, err = f.store.Deposit(t.Context(), maildrop.Owner{Quota: quota})
		f.check(err)
		_, err = deposit.Write([]byte("Subject: more\n"))
		f.check(errors.Join(err, deposit.Commit(t.Context())))
		if _, err := f.store.Deposit(t.Context(), maildrop.Owner{Quota: quota}); !errors.Is(err, maildrop.ErrFull) {
			t.Errorf("killed: %v: of six messages in room for five: %v", killed, err)
		}
	}
}
