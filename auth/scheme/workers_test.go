package scheme

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"dewey/auth"
)

func TestWorkersLeaveProcessors(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for processors, want := range map[int]int64{1: 1, 2: 1, 3: 2, 4: 3, 8: 6, 16: 12} {
		runtime.GOMAXPROCS(processors)
		if got := NewWorkers().total; got != want {
			t.Errorf("%d processors: %d workers", processors, got)
		}
	}
}

// Turns go round between networks: one that has many waiting keeps nobody out.
func TestWorkersTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &Workers{total: 2, free: 2}
		var mu sync.Mutex
		var order []string
		var wg sync.WaitGroup
		enter := func(name, from string, permits int64) {
			wg.Go(func() {
				if err := w.acquire(t.Context(), auth.Network(netip.MustParseAddr(from)), permits); err != nil {
					t.Error(err)
				}
				mu.Lock()
				order = append(order, name)
				mu.Unlock()
				time.Sleep(time.Second)
				w.release(permits)
			})
			synctest.Wait()
		}
		enter("first", "192.0.2.9", 2)
		for range 3 {
			enter("a", "2001:db8::1", 2)
		}
		enter("a", "2001:db8::2:3", 2) // the same /64
		enter("b", "192.0.2.1", 2)
		enter("b", "192.0.2.1", 2)
		enter("c", "192.0.2.2", 2)
		wg.Wait()
		if got := fmt.Sprint(order); got != "[first a b c a b a a]" {
			t.Error(got)
		}
		if w.free != 2 || !w.idle() {
			t.Errorf("left: %+v", w)
		}
	})
}

// suspected is a context as the Throttle marks it for an attempt from where one has failed.
func suspected(t *testing.T) context.Context {
	t.Helper()
	throttle := auth.NewThrottle(auth.Limits{MaxDelay: time.Second})
	from := netip.MustParseAddr("192.0.2.66")
	var turn *auth.Turn
	for _, outcome := range []auth.Outcome{auth.Failed, auth.Undecided} {
		var err error
		if turn, err = throttle.Wait(t.Context(), "mallory", from, 0); err != nil {
			t.Fatal(err)
		}
		if (auth.StandingOf(turn.Mark(t.Context())) == auth.Suspect) != (outcome == auth.Undecided) {
			t.Error("marked before the failure, or not after it")
		}
		turn.Done(outcome)
	}
	return turn.Mark(t.Context())
}

// proven is a context as the Throttle marks it for a user where he has logged in.
func proven(t *testing.T) context.Context {
	t.Helper()
	throttle := auth.NewThrottle(auth.Limits{MaxDelay: time.Second})
	for range 2 {
		turn, err := throttle.Wait(t.Context(), "alice", netip.MustParseAddr("192.0.2.67"), 0)
		if err != nil {
			t.Fatal(err)
		}
		turn.Done(auth.Passed)
		if ctx := turn.Mark(t.Context()); auth.StandingOf(ctx) == auth.Proven {
			return ctx
		}
	}
	t.Fatal("not proven")
	return nil
}

// Who is known where he comes from goes first; those from where logins have failed come last, and not never: one
// in nine.
func TestWorkersLetSuspectsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &Workers{total: 1, free: 1}
		suspect := suspected(t)
		var mu sync.Mutex
		order := ""
		var wg sync.WaitGroup
		enter := func(ctx context.Context, name string, from byte) {
			wg.Go(func() {
				if err := w.acquire(ctx, auth.Network(netip.AddrFrom4([4]byte{10, 0, 0, from})), 1); err != nil {
					t.Error(err)
				}
				mu.Lock()
				order += name
				mu.Unlock()
				time.Sleep(time.Second)
				w.release(1)
			})
			synctest.Wait()
		}
		enter(t.Context(), "-", 0)
		for i := range byte(3) {
			enter(suspect, "s", 1+i)
		}
		for i := range byte(20) {
			enter(t.Context(), "u", 10+i)
		}
		enter(proven(t), "p", 99)
		wg.Wait()
		if want := "-puuuuuuusuuuuuuuusuuuuus"; order != want {
			t.Errorf("%s, want %s", order, want)
		}
	})
}

// Random jobs of random networks that leave at random: never over the bound, nobody forgotten.
func TestWorkersAtRandom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &Workers{total: 3, free: 3}
		contexts := []context.Context{t.Context(), suspected(t), proven(t)}
		var wg sync.WaitGroup
		var running, served atomic.Int64
		for i := range 400 {
			random := rand.New(rand.NewPCG(1, uint64(i)))
			wg.Go(func() {
				time.Sleep(time.Duration(random.IntN(100)) * time.Millisecond)
				ctx, cancel := context.WithTimeout(contexts[random.IntN(3)], time.Duration(random.IntN(300))*time.Millisecond)
				defer cancel()
				permits := 1 + random.Int64N(3)
				if err := w.acquire(ctx, auth.Network(netip.AddrFrom4([4]byte{10, 0, 0, byte(random.IntN(9))})), permits); err != nil {
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Error(err)
					}
					return
				}
				if running.Add(permits) > 3 {
					t.Error("over the bound")
				}
				served.Add(1)
				time.Sleep(time.Duration(random.IntN(5)) * time.Millisecond)
				running.Add(-permits)
				w.release(permits)
			})
		}
		wg.Wait()
		if w.free != 3 || !w.idle() || served.Load() < 100 {
			t.Errorf("left: %+v after %d", w, served.Load())
		}
	})
}
