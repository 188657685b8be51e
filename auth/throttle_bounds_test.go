package auth

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A million names and a million addresses leave bounded records, and do not flush that of an address
// that fails again and again.
func TestThrottleMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := NewThrottle(eight)
		for i := range byte(6) {
			try(t, th, "bob", netip.AddrFrom4([4]byte{203, 0, 113, i}), Failed)
		}
		for range 6 {
			try(t, th, "bob", here, Failed)
		}
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range 1_000_000 {
			a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
			u, err := th.Wait(t.Context(), fmt.Sprint("name", i), a, 0)
			if err != nil {
				t.Fatal(err)
			}
			u.Done(Failed)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		t.Logf("%d MiB after a million of names and addresses", (after.HeapAlloc-before.HeapAlloc)>>20)
		if n := after.HeapAlloc - before.HeapAlloc; n > 64<<20 {
			t.Errorf("%d octets", n)
		}
		if p, u := len(th.places.byKey), len(th.users.byKey); p > maxPlaces || u > maxUsers {
			t.Errorf("%d places, %d users", p, u)
		}
		if got := try(t, th, "carol", here, Undecided); got != 8*time.Second {
			t.Errorf("the address's record was flushed: waits %v", got)
		}
		if got := try(t, th, "bob", elsewhere, Undecided); got < 4*time.Second {
			t.Errorf("the user's record was flushed: waits %v", got)
		}
		for i := range 100_000 {
			try(t, th, fmt.Sprint("name", i), netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}), Passed)
		}
		if n := len(th.homes.byKey); n > maxHomes {
			t.Errorf("%d homes", n)
		}
	})
}

// Random logins from few addresses against what the doc comment promises, seen from outside: pauses between
// starts, attempts at once, nobody forgotten, nothing left.
func TestThrottleModel(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			th := NewThrottle(eight)
			type model struct {
				failures float64 // never more than the Throttle counts, as it forgives in steps
				at       time.Time
				last     time.Time
				running  int
			}
			var mu sync.Mutex
			places := make(map[netip.Addr]*model)
			var wg sync.WaitGroup
			for i := range 300 {
				from := netip.AddrFrom4([4]byte{10, 0, 0, byte(random.IntN(4))})
				start, work := time.Duration(random.IntN(600_000))*time.Millisecond, time.Duration(random.IntN(3_000))*time.Millisecond
				o := []Outcome{Failed, Failed, Failed, Undecided}[random.IntN(4)]
				wg.Go(func() {
					time.Sleep(start)
					u, err := th.Wait(context.Background(), fmt.Sprint("name", i%7), from, i%3)
					if errors.Is(err, ErrBusy) {
						return
					}
					mu.Lock()
					m := places[from]
					if m == nil {
						m = &model{at: time.Now()}
						places[from] = m
					}
					m.failures = max(0, m.failures-time.Since(m.at).Minutes())
					m.at = time.Now()
					if m.failures > 2 && time.Since(m.last) < min(8*time.Second, time.Second<<(int(m.failures)-2))/2 && !m.last.IsZero() {
						t.Errorf("seed %d: %v after the last start with %.1f failures", seed, time.Since(m.last), m.failures)
					}
					if float64(m.running) > max(0, 3-m.failures+1) {
						t.Errorf("seed %d: %d run beside this one with %.1f failures", seed, m.running, m.failures)
					}
					m.last = time.Now()
					m.running++
					mu.Unlock()
					time.Sleep(work)
					mu.Lock()
					m.running--
					m.failures = max(0, m.failures-time.Since(m.at).Minutes())
					m.at = time.Now()
					if o == Failed {
						m.failures = min(16, m.failures+1)
					}
					mu.Unlock()
					u.Done(o)
				})
			}
			wg.Wait()
			time.Sleep(20 * time.Minute)
			for i := range byte(4) {
				try(t, th, "last", netip.AddrFrom4([4]byte{10, 0, 0, i}), Undecided)
			}
			if n := len(th.places.byKey); n != 0 {
				t.Errorf("seed %d: %d records are left", seed, n)
			}
		})
	}
}

// Many goroutines, for the race detector; contexts end at the moment of the turn.
func TestThrottleStress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := NewThrottle(Limits{MaxDelay: 20 * time.Millisecond})
		var wg sync.WaitGroup
		for i := range 64 {
			wg.Go(func() {
				random := rand.New(rand.NewPCG(1, uint64(i)))
				for range 200 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.IntN(40))*time.Millisecond)
					a := netip.AddrFrom4([4]byte{10, 0, 0, byte(random.IntN(3))})
					if random.IntN(2) == 0 {
						a = netip.AddrFrom16([16]byte{0x20, 1, 6: byte(random.IntN(3))})
					}
					u, err := th.Wait(ctx, fmt.Sprint(random.IntN(9)), a, random.IntN(3))
					if (u == nil) == (err == nil) {
						t.Error(u, err)
					}
					time.Sleep(time.Duration(random.IntN(3)) * time.Millisecond)
					u.Done(Outcome(random.IntN(3)))
					u.Done(Failed)
					cancel()
					if random.IntN(50) == 0 {
						th.Reconfigure(Limits{MaxDelay: time.Duration(10+random.IntN(20)) * time.Millisecond})
					}
				}
			})
		}
		wg.Wait()
		for _, p := range th.places.all() {
			if p.waiting != 0 || len(p.line) != 0 || len(p.turns) != 0 {
				t.Errorf("left: %+v", p)
			}
		}
	})
}

// What a login costs at a quiet address, and one that is turned away where a hundred wait.
func BenchmarkThrottle(b *testing.B) {
	th := NewThrottle(eight)
	b.Run("quiet", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			u, _ := th.Wait(context.Background(), "alice", here, 0)
			u.Done(Passed)
		}
	})
	b.Run("busy", func(b *testing.B) {
		th := NewThrottle(Limits{MaxDelay: time.Hour})
		for range 16 {
			u, _ := th.Wait(b.Context(), "bob", elsewhere, 0)
			if u.Done(Failed); th.places.byKey[Network(elsewhere)].Value.(*record[netip.Prefix, *place]).value.failures.n > 3 {
				break
			}
		}
		ctx, cancel := context.WithCancel(b.Context())
		var wg sync.WaitGroup
		for i := range ofUnit.waiting {
			wg.Go(func() { _, _ = th.Wait(ctx, fmt.Sprint(i), elsewhere, 0) })
		}
		wg.Go(func() { <-ctx.Done() })
		for b.Loop() {
			_, _ = th.Wait(ctx, "bob", elsewhere, 1)
		}
		cancel()
		wg.Wait()
	})
}
