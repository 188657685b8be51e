package chain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"dewey/auth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	errDown     = errors.New("connection refused")
	errRejected = fmt.Errorf("fake: %w", auth.ErrRejected)
	errUnknown  = fmt.Errorf("fake: %w", auth.ErrUnknownUser)
	remote      = netip.MustParseAddr("192.0.2.1")
)

// A fake knows users by name and password, and can be down or hang.
type fake struct {
	users  map[string]string
	home   string
	fault  atomic.Pointer[error]
	hang   chan struct{} // not nil: calls wait for it, whatever their context says
	asked  atomic.Int64
	closed atomic.Int64
}

func newFake(pairs ...string) *fake {
	f := &fake{users: map[string]string{}}
	for _, p := range pairs {
		user, password, _ := strings.Cut(p, ":")
		f.users[user] = password
	}
	return f
}

func (f *fake) fail(err error) {
	if err == nil {
		f.fault.Store(nil)
		return
	}
	f.fault.Store(&err)
}

func (f *fake) look(user string) (string, error) {
	f.asked.Add(1)
	if f.hang != nil {
		<-f.hang
	}
	if err := f.fault.Load(); err != nil {
		return "", *err
	}
	password, known := f.users[user]
	if !known {
		return "", errUnknown
	}
	return password, nil
}

func (f *fake) CheckPassword(_ context.Context, a auth.Attempt) (auth.Identity, error) {
	password, err := f.look(a.User)
	switch {
	case err != nil:
		return auth.Identity{}, err
	case password != a.Password:
		return auth.Identity{}, errRejected
	}
	return auth.Identity{User: a.User, Home: f.home}, nil
}

func (f *fake) Recipient(_ context.Context, user string) (auth.Identity, error) {
	_, err := f.look(user)
	if err != nil {
		return auth.Identity{}, err
	}
	return auth.Identity{User: user, Home: f.home}, nil
}

func (f *fake) Find(ctx context.Context, user string, _ netip.Addr) (auth.Identity, error) {
	return f.Recipient(ctx, strings.ToLower(user))
}

func (f *fake) Close() error {
	f.closed.Add(1)
	return nil
}

// result is what CheckPassword says: a backend's name, "rejected", "unknown" or "fault".
func result(id auth.Identity, err error) string {
	switch {
	case err == nil:
		return id.Backend
	case errors.Is(err, auth.ErrUnknownUser):
		return "unknown"
	case errors.Is(err, auth.ErrRejected):
		return "rejected"
	}
	return "fault"
}

func try(t *testing.T, c *Chain, user, password string) string {
	t.Helper()
	return result(c.CheckPassword(t.Context(), auth.Attempt{User: user, Password: password, Remote: remote}))
}

func expect(t *testing.T, c *Chain, user, password, want string) {
	t.Helper()
	if got := try(t, c, user, password); got != want {
		t.Errorf("%q with %q: %s, want %s", user, password, got, want)
	}
}

// The first backend that knows a name decides; one that can't tell ends it as a fault, and hits nobody before it.
func TestOrder(t *testing.T) {
	one, two, three := newFake("ann:1", "both:1"), newFake("bob:2", "both:2"), newFake("cat:3")
	c := New(nil, Backend{Name: "one", Users: one}, Backend{Name: "two", Users: two}, Backend{Name: "three", Users: three, Local: true})
	expect(t, c, "ann", "1", "one")
	expect(t, c, "ann", "x", "rejected")
	expect(t, c, "bob", "2", "two")
	expect(t, c, "both", "1", "one")
	expect(t, c, "both", "2", "rejected")
	expect(t, c, "cat", "3", "three")
	expect(t, c, "dan", "4", "unknown")
	two.fail(errDown)
	expect(t, c, "ann", "1", "one")
	expect(t, c, "both", "2", "rejected")
	expect(t, c, "bob", "2", "fault")
	expect(t, c, "cat", "3", "fault") // he might be two's
	for _, user := range []string{"ann", "bob", "cat"} {
		recipient := result(c.Recipient(t.Context(), user))
		found := result(c.Find(t.Context(), strings.ToUpper(user), remote))
		if want := map[string]string{"ann": "one"}[user]; want != "" && (recipient != want || found != want) || want == "" && (recipient != "fault" || found != "fault") {
			t.Errorf("%s: recipient %s, found %s", user, recipient, found)
		}
	}
	two.fail(nil)
	expect(t, c, "cat", "3", "three")
	_, err := c.CheckPassword(t.Context(), auth.Attempt{User: "cat", Password: "x"})
	if err == nil || !strings.HasPrefix(err.Error(), "auth three: ") {
		t.Errorf("whose error is it? %v", err)
	}
	c.Close(t.Context())
	if _, err := c.Find(t.Context(), "ann", remote); !errors.Is(err, errClosed) || one.closed.Load() != 1 {
		t.Errorf("%v, %d", err, one.closed.Load())
	}
}

// A chain of one backend says what that says.
func TestOne(t *testing.T) {
	one := newFake("ann:1")
	c := New(nil, Backend{Name: "one", Users: one})
	one.fail(errDown)
	for _, err := range []error{errDown, errRejected, errUnknown} {
		one.fail(err)
		if _, got := c.CheckPassword(t.Context(), auth.Attempt{User: "ann"}); got != err { //nolint:errorlint // the very same
			t.Errorf("%v, want %v", got, err)
		}
	}
	if got := try(t, New(nil), "ann", "1"); got != "unknown" {
		t.Errorf("nobody to ask: %s", got)
	}
}

func TestDomains(t *testing.T) {
	one, two := newFake("ann@example.org:1", "ann:1", "ann@Example.ORG:1", "eve@example.net@example.org:1"), newFake("ann:2", "ann@example.net:2", "x@notexample.org:2")
	c := New(nil, Backend{Name: "one", Users: one, Domains: []string{"example.org", "example.com"}}, Backend{Name: "two", Users: two})
	expect(t, c, "ann@example.org", "1", "one")
	expect(t, c, "ann@Example.ORG", "1", "one")
	expect(t, c, "ann", "2", "two")
	expect(t, c, "ann@example.net", "2", "two")
	expect(t, c, "x@notexample.org", "2", "two")
	expect(t, c, "eve@example.net@example.org", "1", "one")
	one.fail(errDown)
	expect(t, c, "ann@example.net", "2", "two")
	expect(t, c, "zoe@example.org", "2", "fault")
}

// One that hangs, whatever its context says, costs each of its users the timeout, nobody else anything, and no more
// goroutines than it may have calls.
func TestHangingBackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := newFake("ann:1"), newFake()
		two.hang = make(chan struct{})
		c := New(nil, Backend{Name: "one", Users: one}, Backend{Name: "two", Users: two, Timeout: 5 * time.Second, Calls: 3})
		began := time.Now()
		answers := make(chan string, 20)
		for i := range 20 {
			go func() { answers <- try(t, c, fmt.Sprint("user", i), "x") }()
		}
		synctest.Wait()
		if n := two.asked.Load(); n != 3 {
			t.Errorf("%d calls are under way, want 3", n)
		}
		if n := len(answers); n != 14 { // three are in line
			t.Errorf("%d were turned away at once, want 14", n)
		}
		expect(t, c, "ann", "1", "one")
		if since := time.Since(began); since != 0 {
			t.Errorf("a user of another backend waited %v", since)
		}
		for range 20 {
			if got := <-answers; got != "fault" {
				t.Errorf("%s", got)
			}
		}
		if since := time.Since(began); since != 5*time.Second {
			t.Errorf("it took %v", since)
		}
		// While it hangs there are no more calls. When it is back, all is well.
		expect(t, c, "bob", "x", "fault")
		if n := two.asked.Load(); n != 3 {
			t.Errorf("%d calls", n)
		}
		c.Replace(Backend{Name: "one", Users: one})
		synctest.Wait()
		if two.closed.Load() != 0 {
			t.Error("closed under calls that are under way")
		}
		close(two.hang)
		synctest.Wait()
		if two.closed.Load() != 1 || one.closed.Load() != 0 {
			t.Errorf("closed: %d, and the one that stays: %d", two.closed.Load(), one.closed.Load())
		}
		expect(t, c, "bob", "x", "unknown")
	})
}

// However many strangers wait for a slow backend, who is known where he comes from gets through to it.
func TestStrangersLeaveRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		throttle := auth.NewThrottle(auth.Limits{MaxDelay: time.Second})
		turn, err := throttle.Wait(t.Context(), "ann", remote, 0)
		if err != nil {
			t.Fatal(err)
		}
		turn.Done(auth.Passed)
		if turn, err = throttle.Wait(t.Context(), "ann", remote, 0); err != nil {
			t.Fatal(err)
		}
		one := newFake("ann:1")
		one.hang = make(chan struct{})
		c := New(nil, Backend{Name: "one", Users: one, Calls: 8})
		for range 14 { // six are asked about, and eight are in line
			go func() { _ = try(t, c, "eve", "x") }()
		}
		synctest.Wait()
		if n := one.asked.Load(); n != 6 {
			t.Errorf("%d strangers are asked about, want 6", n)
		}
		go func() {
			if got := result(c.CheckPassword(turn.Mark(t.Context()), auth.Attempt{User: "ann", Password: "1"})); got != "one" {
				t.Error(got)
			}
		}()
		synctest.Wait()
		if n := one.asked.Load(); n != 7 {
			t.Errorf("%d are asked about, want 7", n)
		}
		close(one.hang)
		synctest.Wait()
		turn.Done(auth.Undecided)
	})
}

// A caller who gives up ends the call, and says nothing about the backend.
func TestCallerGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := newFake("ann:1")
		one.hang = make(chan struct{})
		var log bytes.Buffer
		c := New(slog.New(slog.NewTextHandler(&log, nil)), Backend{Name: "one", Users: one})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := c.CheckPassword(ctx, auth.Attempt{User: "ann", Password: "1"})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second || log.Len() > 0 || c.Stats()[0].Failed != 0 {
			t.Errorf("%v after %v, %s", err, time.Since(began), &log)
		}
		close(one.hang)
	})
}

// A panic of which the caller does not learn any more is in the log.
func TestPanicOfALateAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		c := New(slog.New(slog.NewTextHandler(&log, nil)), Backend{Name: "one", Timeout: time.Second, Users: auth.PasswordFunc(func(context.Context, auth.Attempt) (auth.Identity, error) {
			time.Sleep(time.Minute)
			panic("oops")
		})})
		expect(t, c, "ann", "1", "fault")
		c.Close(t.Context())
		if !strings.Contains(log.String(), "panic=oops") || !strings.Contains(log.String(), "backend=one") || !strings.Contains(log.String(), "TestPanicOfALateAnswer") {
			t.Error(log.String())
		}
	})
}

// A panic is the caller's, as without a chain; the slot is free again.
func TestPanic(t *testing.T) {
	c := New(nil, Backend{Name: "one", Calls: 1, Users: auth.PasswordFunc(func(context.Context, auth.Attempt) (auth.Identity, error) { panic("oops") })})
	for range 3 {
		func() {
			defer func() {
				if r := recover(); r != "oops" {
					t.Errorf("%v", r)
				}
			}()
			_ = try(t, c, "ann", "1")
		}()
	}
	c.Close(t.Context())
}

func TestReplaceUnderLoad(t *testing.T) {
	var fakes []*fake
	backend := func() Backend {
		f := newFake("ann:1")
		fakes = append(fakes, f)
		return Backend{Name: "one", Users: f}
	}
	c := New(nil, backend())
	stop, done := make(chan struct{}), make(chan int)
	for range 4 {
		go func() {
			n := 0
			for {
				select {
				case <-stop:
					done <- n
					return
				default:
					if n++; try(t, c, "ann", "1") != "one" {
						t.Error("a login was lost")
					}
				}
			}
		}()
	}
	for range 200 {
		c.Replace(backend())
	}
	close(stop)
	for range 4 {
		<-done
	}
	c.Close(t.Context())
	for i, f := range fakes {
		// The call that was the last one of its backend closes it after its caller has the answer.
		for end := time.Now().Add(time.Minute); f.closed.Load() == 0 && time.Now().Before(end); {
			runtime.Gosched()
		}
		if n := f.closed.Load(); n != 1 {
			t.Errorf("%d was closed %d times", i, n)
		}
	}
}

// What was verified is taken while the backend can't tell, for so long, and what it rejected is not.
func TestRememberOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := newFake("ann:1", "bob:2", "cat:3", "dan:4"), newFake("zoe:9")
		one.home = "/home/one"
		backend := Backend{Name: "one", Users: one, RememberOutage: time.Hour, Fingerprint: "a"}
		last := Backend{Name: "two", Users: two}
		c := New(nil, backend, last)
		for _, pair := range []string{"ann:1", "bob:2", "cat:3", "dan:4"} {
			user, password, _ := strings.Cut(pair, ":")
			expect(t, c, user, password, "one")
		}
		expect(t, c, "ann", "wrong", "rejected") // does no harm to the right one
		one.users["bob"] = "new"
		expect(t, c, "bob", "2", "rejected") // forgotten
		delete(one.users, "cat")
		expect(t, c, "cat", "other", "unknown") // forgotten, whatever the password was
		one.fail(errDown)
		expect(t, c, "ann", "1", "one")
		expect(t, c, "ann", "wrong", "fault")
		expect(t, c, "bob", "2", "fault")
		expect(t, c, "bob", "new", "fault")
		expect(t, c, "cat", "3", "fault")
		expect(t, c, "zoe", "9", "fault")
		if id, _ := c.CheckPassword(t.Context(), auth.Attempt{User: "ann", Password: "1"}); id.Home != "/home/one" || id.User != "ann" {
			t.Errorf("%+v", id)
		}
		if s := c.Stats()[0]; s.Remembered != 2 || s.Accepted != 4 || s.Rejected != 2 || s.Unknown != 1 || s.Failed != 7 {
			t.Errorf("%+v", s)
		}
		c.Replace(backend, last) // the same: a reload in an outage shuts nobody out
		expect(t, c, "ann", "1", "one")
		time.Sleep(time.Hour - time.Second)
		expect(t, c, "ann", "1", "one") // which does not make it last longer
		time.Sleep(time.Second)
		expect(t, c, "ann", "1", "fault")
		one.fail(nil)
		expect(t, c, "dan", "4", "one")
		one.fail(errDown)
		expect(t, c, "dan", "4", "one")
		backend.Fingerprint = "b" // another server, say
		c.Replace(backend, last)
		expect(t, c, "dan", "4", "fault")
	})
}

// In an outage nobody counts failures: who guesses has few tries, and a program with an old password as many as it likes.
func TestGuessesInAnOutage(t *testing.T) {
	one := newFake("ann:1", "bob:2")
	c := New(nil, Backend{Name: "one", Users: one, RememberOutage: time.Hour})
	expect(t, c, "ann", "1", "one")
	expect(t, c, "bob", "2", "one")
	one.fail(errDown)
	for i := range 100 {
		expect(t, c, "ann", "old", "fault")
		expect(t, c, "bob", "guess"+strconv.Itoa(i), "fault")
	}
	expect(t, c, "ann", "1", "one")
	expect(t, c, "bob", "2", "fault")
	one.fail(nil)
	expect(t, c, "bob", "2", "one")
	one.fail(errDown)
	for i := range 9 {
		expect(t, c, "bob", "guess"+strconv.Itoa(i), "fault")
	}
	expect(t, c, "bob", "2", "one")
}

// What a backend has done is logged when another takes its place; that it can't tell, and can again, once.
func TestLog(t *testing.T) {
	var log bytes.Buffer
	one := newFake("ann:1")
	c := New(slog.New(slog.NewTextHandler(&log, nil)), Backend{Name: "one", Kind: "ldap", Users: one}, Backend{Name: "two", Kind: "sql", Users: newFake()})
	expect(t, c, "ann", "1", "one")
	one.fail(errDown)
	for range 5 {
		expect(t, c, "ann", "secret", "fault")
	}
	one.fail(nil)
	expect(t, c, "ann", "secret", "rejected")
	c.Replace()
	text := log.String()
	if strings.Count(text, "can't tell") != 1 || strings.Count(text, "answers again") != 1 || strings.Count(text, "\n") != 3 || strings.Contains(text, "secret") ||
		!strings.Contains(text, `msg="auth backend" backend=one kind=ldap accepted=1 rejected=1 unknown=0 could_not_tell=5 remembered=0 mean=`) {
		t.Error(text)
	}
}

// Trace tells who was asked, and who was not.
func TestTrace(t *testing.T) {
	c := New(nil, Backend{Name: "one", Users: newFake("ann:1")}, Backend{Name: "far", Domains: []string{"example.org"}, Users: newFake()},
		Backend{Name: "tokens", Users: new(tokens)}, Backend{Name: "two", Users: newFake("bob:2")})
	var got []string
	ctx := Trace(t.Context(), func(a Answer) {
		got = append(got, fmt.Sprint(a.Backend, " ", a.Asked, " ", a.Outcome, " ", a.Identity.User, a.Reason))
	})
	_, _ = c.CheckPassword(ctx, auth.Attempt{User: "bob", Password: "2"})
	want := []string{
		"one password unknown ", "far password not asked the name is of none of its domains",
		"tokens password not asked it does not know passwords", "two password accepted bob",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
