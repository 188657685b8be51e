package passwdfile

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"dewey/auth"
	"dewey/auth/scheme"
)

// Two hundred guessers of one address keep the workers busy: a login from another address is served after
// few of their hashes, and a session that is logged in goes on with its work meanwhile.
func TestGuessersStarveNobody(t *testing.T) {
	f := open(t, users(t, "bob:"+field(t, "ARGON2ID", "x")+"\nalice:"+bcrypt5+"\n"), nil)
	var hashes, work atomic.Int64
	f.ran = func(scheme.Hash) { hashes.Add(1) }
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			for ctx.Err() == nil {
				_, err := f.CheckPassword(ctx, auth.Attempt{User: "bob", Password: "guess", Remote: away})
				if !errors.Is(err, auth.ErrRejected) && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		for ctx.Err() == nil {
			work.Add(1)
			runtime.Gosched()
		}
	})
	for hashes.Load() < 5 {
		runtime.Gosched()
	}
	for range 5 {
		before := hashes.Load()
		expect(t, f, "alice", "a secret", "alice ")
		if n := hashes.Load() - before; n > 2*int64(runtime.GOMAXPROCS(0))+4 { // those that run, one of the other address, alice's, and what runs until we look
			t.Errorf("alice waited for %d hashes", n)
		}
	}
	for hashes.Load() < 40 {
		runtime.Gosched()
	}
	cancel()
	wg.Wait()
	if work.Load() < 10*hashes.Load() {
		t.Errorf("%d rounds of work beside %d hashes", work.Load(), hashes.Load())
	}
	t.Logf("%d rounds of work beside %d hashes", work.Load(), hashes.Load())
}
