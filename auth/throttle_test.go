package auth

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var (
	here      = netip.MustParseAddr("192.0.2.1")
	elsewhere = netip.MustParseAddr("198.51.100.7")
	eight     = Limits{MaxDelay: 8 * time.Second}
)

// try logs in once and returns how long it waited.
func try(t testing.TB, th *Throttle, user string, remote netip.Addr, o Outcome) time.Duration {
	t.Helper()
	before := time.Now()
	u, err := th.Wait(context.Background(), user, remote, 0)
	if err != nil {
		t.Errorf("%s from %s: %v", user, remote, err)
	}
	u.Done(o)
	return time.Since(before)
}

// guess has so many connections try names from addresses until ctx ends, each attempt as long as the hash
// takes, and returns how many were made.
func guess(ctx context.Context, wg *sync.WaitGroup, th *Throttle, connections int, user func() string, from func() netip.Addr, hangUp time.Duration) *atomic.Int64 {
	var made atomic.Int64
	for range connections {
		wg.Go(func() {
			for tries := 0; ctx.Err() == nil; tries++ {
				mine, cancel := context.WithCancel(ctx)
				if hangUp > 0 { // and comes back
					cancel()
					mine, cancel = context.WithTimeout(ctx, hangUp)
					tries = 0
				}
				u, err := th.Wait(mine, user(), from(), tries)
				cancel()
				if errors.Is(err, ErrBusy) {
					time.Sleep(time.Minute)
				}
				if err != nil {
					continue
				}
				time.Sleep(50 * time.Millisecond) // the hash
				made.Add(1)
				u.Done(Failed)
			}
		})
	}
	return &made
}

func always[T any](v T) func() T { return func() T { return v } }

func names() func() string {
	var n atomic.Int64
	return func() string { return fmt.Sprint("name", n.Add(1)) }
}

// In the long run an address tries once in MaxDelay, whatever it does.
func TestThrottleRate(t *testing.T) {
	for _, c := range []struct {
		connections int
		user        func() string
		hangUp      time.Duration
	}{
		{1, always("bob"), 0},
		{16, always("bob"), 0},
		{100, always("bob"), 0},
		{150, always("bob"), 0},
		{1, names(), 0},
		{100, names(), 0},
		{1, always("bob"), time.Second / 3},
		{16, names(), time.Second / 3},
		{100, always("bob"), 9 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			th := NewThrottle(eight)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
			defer cancel()
			var wg sync.WaitGroup
			made := guess(ctx, &wg, th, c.connections, c.user, always(here), c.hangUp)
			wg.Wait()
			// 150 of 8 s, and the first ones. Who is gone before his turn does not try at all.
			n := made.Load()
			if n > 156 || n < 140 && c.hangUp == 0 {
				t.Errorf("%d connections, leaving after %v: %d tries in 20 minutes", c.connections, c.hangUp, n)
			}
			t.Logf("%d connections, leaving after %v: %d tries in 20 minutes", c.connections, c.hangUp, n)
		})
	}
}

// What one connection waits for: nothing twice, then longer and longer.
func TestThrottlePauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := NewThrottle(eight)
		for i, want := range []float64{0, 0, 0, 1, 2, 4, 8, 8} {
			if got := try(t, th, fmt.Sprint("name", i), here, Failed).Seconds(); got != want {
				t.Errorf("try %d waits %v s, not %v", i, got, want)
			}
		}
		if got := try(t, th, "other", elsewhere, Failed); got != 0 {
			t.Errorf("another address waits %v", got)
		}
	})
}

// A pause is held between starts: a client that had to type does not pay twice.
func TestThrottleCountsFromStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := NewThrottle(eight)
		for range 6 {
			try(t, th, "bob", here, Failed)
		}
		time.Sleep(7 * time.Second)
		if got := try(t, th, "alice", here, Passed); got != time.Second {
			t.Errorf("waits %v", got)
		}
	})
}

// Success forgives nothing, or an attacker would log in as himself between guesses.
func TestThrottleSuccessForgivesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := NewThrottle(eight)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		n := 0
		for ctx.Err() == nil {
			try(t, th, "mallory", here, Passed)
			try(t, th, "bob", here, Failed)
			n++
		}
		if n > 456 {
			t.Errorf("%d tries an hour", n)
		}
	})
}

// Who leaves attempts undecided and answers all of them at the end is no faster.
func TestThrottleHangingAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := NewThrottle(eight)
		var wg sync.WaitGroup
		var made atomic.Int64
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		for range 90 {
			wg.Go(func() {
				for ctx.Err() == nil {
					u, err := th.Wait(ctx, "bob", here, 0)
					if err != nil {
						continue
					}
					made.Add(1)
					time.Sleep(10 * time.Minute)
					u.Done(Failed)
				}
			})
		}
		wg.Wait()
		if n := made.Load(); n > 460 || n < 100 {
			t.Errorf("%d tries an hour", n)
		}
		if left := try(t, th, "alice", here, Passed); left > 8*time.Second {
			t.Errorf("alice waits %v", left)
		}
	})
}

// One address that guesses at a name delays it nowhere else; addresses in turn do.
func TestThrottleOneAddressDelaysNoNameElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := NewThrottle(eight)
		for range 20 {
			try(t, th, "bob", here, Failed)
		}
		if got := try(t, th, "bob", elsewhere, Undecided); got != 0 {
			t.Errorf("one address delays bob elsewhere by %v", got)
		}
		for i := range byte(6) {
			try(t, th, "bob", netip.AddrFrom4([4]byte{203, 0, 113, i}), Failed)
		}
		if got := try(t, th, "bob", elsewhere, Undecided); got != 8*time.Second {
			t.Errorf("six addresses delay bob by %v", got)
		}
	})
}

// Guessing keeps nobody out: not another user at the same address, not the same user elsewhere.
func TestThrottleLocksNobodyOut(t *testing.T) {
	for _, connections := range []int{1, 16, 150} {
		synctest.Test(t, func(t *testing.T) {
			th := NewThrottle(eight)
			try(t, th, "Bob", elsewhere, Passed) // proven there
			ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
			var wg sync.WaitGroup
			guess(ctx, &wg, th, connections, always("bob"), always(here), 0)
			time.Sleep(10 * time.Minute)
			for i := range 20 {
				if got := try(t, th, fmt.Sprint("alice", i), here, Passed); got > 8*time.Second+50*time.Millisecond {
					t.Errorf("%d connections: alice waits %v beside the attacker", connections, got)
				}
				if got := try(t, th, fmt.Sprint("alice", i), here, Passed); got != 0 {
					t.Errorf("%d connections: alice, proven, waits %v beside the attacker", connections, got)
				}
				if got := try(t, th, "bob", elsewhere, Passed); got != 0 {
					t.Errorf("%d connections: bob waits %v where he is proven", connections, got)
				}
				if got := try(t, th, "bob", netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), Passed); got > 8*time.Second {
					t.Errorf("%d connections: bob waits %v elsewhere", connections, got)
				}
			}
			cancel()
			wg.Wait()
		})
	}
}

// A proof outlives one slip there, and ends with two running, and with the day; it is worth no more than four tries
// at once, and one more when the first of them has failed.
func TestThrottleProof(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := NewThrottle(eight)
		heat := func() {
			for range 6 {
				try(t, th, "mallory", here, Failed)
			}
		}
		expect := func(user string, want time.Duration, o Outcome) {
			t.Helper()
			if got := try(t, th, user, here, o); got != want {
				t.Errorf("%s waits %v, not %v", user, got, want)
			}
		}
		try(t, th, "alice", here, Passed)
		heat()
		expect("ALICE", 0, Failed)
		expect("alice", 0, Passed)
		expect("alice", 0, Failed)
		expect("ALICE", 0, Failed)
		expect("alice", 8*time.Second, Passed)
		expect("alice", 0, Undecided)
		time.Sleep(25 * time.Hour)
		heat()
		expect("alice", 8*time.Second, Passed)

		var wg sync.WaitGroup
		var at []time.Duration
		var mu sync.Mutex
		began := time.Now()
		for range 7 {
			wg.Go(func() {
				u, err := th.Wait(t.Context(), "alice", here, 0)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				at = append(at, time.Since(began))
				mu.Unlock()
				time.Sleep(time.Second)
				u.Done(Failed)
			})
		}
		wg.Wait()
		for i, want := range []float64{0, 0, 0, 0, 1, 8, 16} {
			if at[i].Seconds() != want {
				t.Errorf("alice's attempts start after %v", at)
				break
			}
		}
	})
}

// Failures are forgiven one a minute, and the record goes with the last.
func TestThrottleForgives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := NewThrottle(eight)
		for range 40 {
			try(t, th, "bob", here, Failed)
		}
		time.Sleep(12 * time.Minute)
		if got := try(t, th, "a", here, Undecided); got != 0 { // four are left, a pause of two seconds
			t.Errorf("waits %v", got)
		}
		if got := try(t, th, "b", here, Undecided); got != 2*time.Second {
			t.Errorf("with four failures left it waits %v", got)
		}
		time.Sleep(4 * time.Minute)
		for i := range 5 {
			if got := try(t, th, fmt.Sprint(i), here, Undecided); got != 0 {
				t.Errorf("forgiven, it waits %v", got)
			}
		}
		if n := len(th.places.byKey); n != 0 {
			t.Errorf("%d records are left", n)
		}
	})
}

func TestThrottleTrusted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := NewThrottle(Limits{8 * time.Second, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("::ffff:198.51.100.0/120")}})
		var turns []*Turn
		for range 1000 {
			for _, from := range []netip.Addr{here, netip.MustParseAddr("::ffff:192.0.2.1"), elsewhere} {
				u, err := th.Wait(t.Context(), "bob", from, 5)
				if err != nil {
					t.Fatal(err)
				}
				turns = append(turns, u)
			}
		}
		for _, u := range turns {
			u.Done(Failed)
		}
		if got := try(t, th, "bob", here, Failed); got != 0 {
			t.Errorf("a trusted address waits %v", got)
		}
		if got := try(t, th, "bob", netip.MustParseAddr("203.0.113.1"), Failed); got != 0 {
			t.Errorf("the failures of a trusted address cost others %v", got)
		}
	})
}

// No limits, no Throttle, a context that has ended, and the connection without an address.
func TestThrottleEdges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, th := range []*Throttle{nil, NewThrottle(Limits{})} {
			for range 100 {
				if got := try(t, th, "bob", here, Failed); got != 0 {
					t.Fatalf("waits %v", got)
				}
			}
		}
		(*Throttle)(nil).Reconfigure(eight)
		(*Turn)(nil).Done(Failed)

		th := NewThrottle(eight)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if u, err := th.Wait(ended, "bob", here, 0); u != nil || !errors.Is(err, context.Canceled) {
			t.Errorf("%v, %v", u, err)
		}
		for range 6 {
			try(t, th, "bob", netip.Addr{}, Failed)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if u, err := th.Wait(short, "alice", netip.Addr{}, 0); u != nil || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, %v", u, err)
		}
		u, err := th.Wait(t.Context(), "alice", netip.Addr{}, 0)
		if err != nil {
			t.Fatal(err)
		}
		u.Done(Undecided)
		u.Done(Failed) // does not count
		if n := th.places.byKey[netip.Prefix{}].Value.(*record[netip.Prefix, *place]).value.failures.n; n != 6 {
			t.Errorf("%d failures", n)
		}
	})
}

// Reconfigure counts for those who wait.
func TestThrottleReconfigure(t *testing.T) {
	for _, l := range []Limits{{}, {MaxDelay: 8 * time.Second, Trusted: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}}, {MaxDelay: time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			th := NewThrottle(Limits{MaxDelay: time.Hour})
			for range 12 {
				try(t, th, "bob", here, Failed)
			}
			var waited time.Duration
			go func() { waited = try(t, th, "alice", here, Passed) }()
			time.Sleep(time.Minute)
			th.Reconfigure(l)
			synctest.Wait()
			if waited != time.Minute {
				t.Errorf("%+v: waits %v", l, waited)
			}
		})
	}
}

// A /64 is one client; the /48 around it is counted too, and one /64 in it does not slow the others.
func TestThrottleIPv6(t *testing.T) {
	random := func(prefix ...byte) func() netip.Addr {
		return func() netip.Addr {
			a := [16]byte(append(prefix, make([]byte, 16-len(prefix))...))
			for i := len(prefix); i < 16; i++ {
				a[i] = byte(rand.N(256))
			}
			return netip.AddrFrom16(a)
		}
	}
	for _, c := range []struct {
		name  string
		from  func() netip.Addr
		least int64
		most  int64
	}{
		{"a /64", random(0x20, 1, 0xd, 0xb8, 0, 1, 0, 2), 440, 456},
		{"a /48", random(0x20, 1, 0xd, 0xb8, 0, 1), 440, 16*60 + 64 + 32},
		{"IPv4 in IPv6", always(netip.MustParseAddr("::ffff:192.0.2.1")), 440, 456},
	} {
		synctest.Test(t, func(t *testing.T) {
			th := NewThrottle(eight)
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			var wg sync.WaitGroup
			made := guess(ctx, &wg, th, 120, names(), c.from, 0)
			time.Sleep(30 * time.Minute)
			if got := try(t, th, "alice", netip.MustParseAddr("2001:db8:2::1"), Passed); got != 0 {
				t.Errorf("%s: another /48 waits %v", c.name, got)
			}
			if got := try(t, th, "alice", netip.MustParseAddr("2001:db8:1:1::1"), Passed); got != 0 && c.name != "a /48" {
				t.Errorf("%s: another /64 waits %v", c.name, got)
			}
			wg.Wait()
			if n := made.Load(); n < c.least || n > c.most {
				t.Errorf("%s: %d tries an hour", c.name, n)
			}
			t.Logf("%s: %d tries an hour", c.name, made.Load())
		})
	}
}

// Whose turn it is: the user's who was served longest ago, then the connection's with the fewest tries,
// then the first that came. ErrBusy is for the last in that order.
func TestThrottleOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := NewThrottle(eight)
		for range 6 {
			try(t, th, "bob", here, Failed)
		}
		var mu sync.Mutex
		var order, busy []string
		var wg sync.WaitGroup
		wait := func(name, user string, tries int) {
			wg.Go(func() {
				u, err := th.Wait(t.Context(), user, here, tries)
				mu.Lock()
				defer mu.Unlock()
				if errors.Is(err, ErrBusy) {
					busy = append(busy, name)
					return
				}
				order = append(order, name)
				u.Done(Undecided)
			})
			synctest.Wait()
		}
		wait("bob0", "bob", 0)
		wait("alice3", "alice", 3)
		wait("carol1", "carol", 1)
		wait("carol0", "carol", 0)
		wait("dave0", "dave", 0)
		for range 95 {
			wait("bob9", "bob", 9)
		}
		wait("erin0", "erin", 0)
		wait("bob10", "bob", 10)
		mu.Lock()
		if fmt.Sprint(busy) != "[bob9 bob10]" {
			t.Errorf("turned away: %v", busy)
		}
		mu.Unlock()
		time.Sleep(60 * time.Second)
		mu.Lock()
		if want := "[carol0 dave0 erin0 alice3 bob0 carol1 bob9"; len(order) < 7 || fmt.Sprint(order[:7]) != want+"]" {
			t.Errorf("%v, not %s", order, want)
		}
		mu.Unlock()
		th.Reconfigure(Limits{})
		wg.Wait()
	})
}
