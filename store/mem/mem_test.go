package mem_test

import (
	"cmp"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"dewey/maildrop"
	"dewey/maildrop/maildroptest"
	"dewey/store/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStore(t *testing.T) { maildroptest.Run(t, open) }

func TestDeposits(t *testing.T) { maildroptest.RunDeposits(t, open) }

func open(maildroptest.TB) maildroptest.Maildrop {
	s := mem.New()
	owner := maildrop.Owner{Name: "mrose"}
	uids := map[string]string{}
	return maildroptest.Maildrop{
		Store: s,
		Owner: owner,
		Deliver: func(_ maildroptest.TB, stored []byte) {
			uids[string(stored)] = s.Deliver(owner.Name, stored)
		},
		Expunge: func(t maildroptest.TB, stored []byte, uid string) {
			if !s.Expunge(owner.Name, cmp.Or(uids[string(stored)], uid)) {
				t.Errorf("nothing to expunge: %q", stored)
			}
		},
	}
}

// A second login waits for the first to end, and no longer than LockWait.
func TestLockWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &mem.Store{LockWait: 2 * time.Second}
		first, err := s.Open(t.Context(), maildrop.Owner{})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if _, err := s.Open(t.Context(), maildrop.Owner{}); !errors.Is(err, maildrop.ErrInUse) {
			t.Errorf("second Open: %v, want ErrInUse", err)
		}
		if waited := time.Since(start); waited != 2*time.Second {
			t.Errorf("waited %v, want 2s", waited)
		}
		time.AfterFunc(time.Second, func() { _ = first.Close() })
		second, err := s.Open(t.Context(), maildrop.Owner{})
		if err != nil {
			t.Fatalf("Open after Close: %v", err)
		}
		_ = second.Close()
	})
}

func TestOwnersAreApart(t *testing.T) {
	s := mem.New()
	uid := s.Deliver("mrose", []byte("one\n"))
	d, err := s.Open(context.Background(), maildrop.Owner{Name: "other"})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(d.Messages()); n != 0 {
		t.Errorf("another owner sees %d messages", n)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if got := s.Messages("mrose"); len(got) != 1 || got[0].UID != uid || got[0].Octets != 5 {
		t.Errorf("mrose has %v", got)
	}
}
