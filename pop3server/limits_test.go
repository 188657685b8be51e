package pop3server_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dewey/auth"
	"dewey/maildrop"
	"dewey/pop3server"
)

const maxDelay = 8 * time.Second

func elapsed(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

// LoginTimeout holds for a client that talks without end, in each way in which it may; not for one who is in.
func TestLoginTimeout(t *testing.T) {
	const limit = time.Minute
	each := func(pause time.Duration, text string) func(*visitor) {
		return func(v *visitor) {
			go func() { _, _ = io.Copy(io.Discard, v) }()
			for {
				if _, err := io.WriteString(v, text); err != nil {
					return
				}
				time.Sleep(pause)
			}
		}
	}
	for name, act := range map[string]func(*visitor){
		"silence":          func(v *visitor) { _, _ = io.Copy(io.Discard, v) },
		"refused commands": each(time.Second, "NOOP\r\n"),
		"CAPA":             each(7*time.Second, "CAPA\r\n"),
		"octets":           each(time.Second, "x"),
		"long lines":       each(time.Second, strings.Repeat("x", 300)),
		"exchanges":        each(time.Second, "AUTH PLAIN\r\n*\r\n"),
		"an endless response": func(v *visitor) {
			_, _ = io.WriteString(v, "AUTH PLAIN\r\n")
			each(time.Second, strings.Repeat("A", 500))(v)
		},
		"failing logins": each(time.Second, "USER mrose\r\nPASS x\r\n"),
		"many at once":   each(time.Hour, strings.Repeat("USER a\r\nPASS x\r\n", 32)),
		"reads little": func(v *visitor) {
			go func() { _, _ = io.WriteString(v, strings.Repeat("CAPA\r\n", 10_000)) }()
			for {
				if _, err := v.Read(make([]byte, 1)); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		},
		"reads nothing": func(v *visitor) { _, _ = io.WriteString(v, strings.Repeat("CAPA\r\n", 10_000)) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var ended chan pop3server.End
				b := newBench(t, newShelf(), func(s *pop3server.Server) {
					s.Settings.LoginTimeout, s.Settings.FailureDelay, ended = limit, 5*time.Second, ends(s)
				})
				start := time.Now()
				v := b.visit(t, "127.0.0.1")
				acted := make(chan struct{})
				go func() { defer close(acted); act(v) }()
				e := <-ended
				// A refusal that is held back is not cut short.
				if d := time.Since(start); !errors.Is(e.Err, pop3server.ErrTooSlow) || d < limit || d > limit+5*time.Second {
					t.Errorf("%v after %v", e.Err, d)
				}
				_ = v.Close()
				<-acted
				b.end()
			})
		})
	}
}

// Once inside, neither silence nor a slow reader has to do with the time to log in; a login that began in time is
// not cut short by a slow backend or a slow maildrop.
func TestLoginTimeoutEndsWithLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mail := newShelf(sized(100_000))
		b := newBench(t, mail, func(s *pop3server.Server) {
			s.Settings.LoginTimeout = time.Minute
			s.Users = auth.PasswordFunc(func(ctx context.Context, a auth.Attempt) (auth.Identity, error) {
				time.Sleep(40 * time.Second)
				return users(ctx, a)
			})
			s.Maildrops = storeFunc(func(ctx context.Context, o maildrop.Owner) (maildrop.Maildrop, error) {
				time.Sleep(40 * time.Second)
				return mail.Open(ctx, o)
			})
		})
		v := b.visit(t, "127.0.0.1")
		v.login(t, "+OK 1 message (100000 octets)")
		time.Sleep(9 * time.Minute)
		_, _ = io.WriteString(v, "RETR 1\r\n")
		for range 5 {
			time.Sleep(4 * time.Minute)
			if _, err := io.CopyN(io.Discard, v.in, 20_000); err != nil {
				t.Fatal(err)
			}
		}
		for v.line(t) != "." {
		}
		v.ask(t, "QUIT", "+OK bye")
		b.end()
	})
}

// The delay of a refusal is the same for each mechanism, and for whom is refused: trap 42. A broken exchange has
// it too; a command that is refused has none.
func TestTrap42FailureDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, newShelf(), func(s *pop3server.Server) { s.Users, s.Settings.FailureDelay = newRoster(), 3*time.Second })
		v := b.visit(t, "127.0.0.1")
		_ = v.line(t)
		for _, user := range []string{"tim", "nobody"} {
			for name, try := range map[string]func() string{
				"PASS":  func() string { _ = v.say(t, "USER "+user); return v.say(t, "PASS x") },
				"PLAIN": func() string { return v.say(t, "AUTH PLAIN "+plain("", user, "x")) },
				"as":    func() string { return v.say(t, "AUTH PLAIN "+plain("mrose", user, "tanstaaftanstaaf")) },
				"APOP":  func() string { return v.say(t, "APOP "+user+" "+apopDigest("", "")) },
				"CRAM-MD5": func() string {
					return v.say(t, b64(cramResponse(user, "x", unchallenge(t, v.say(t, "AUTH CRAM-MD5")))))
				},
				"SCRAM": func() string {
					return v.scram(t, "SCRAM-SHA-256", &scramClient{hash: sha256.New, gs2: "n,,", user: user, password: "x"})
				},
			} {
				if d := elapsed(func() {
					if got := try(); got != refused {
						t.Errorf("%s: %q", name, got)
					}
				}); d != 3*time.Second {
					t.Errorf("%s of %s: %v", name, user, d)
				}
			}
		}
		for line, want := range map[string]time.Duration{
			"AUTH PLAIN ====": 3 * time.Second, "AUTH PLAIN " + b64("x"): 3 * time.Second, "APOP tim x": 3 * time.Second, "AUTH CRAM-MD5 =": 3 * time.Second,
			"AUTH X": 0, "PASS x": 0, "NOOP": 0,
		} {
			if d := elapsed(func() { _ = v.say(t, line) }); d != want {
				t.Errorf("%s: %v", line, d)
			}
		}
		_ = v.Close()
		b.end()
	})
}

// A throttled bench makes those wait who fail: after three failures of an address or of a name, a second.
func throttled(t *testing.T, change func(*pop3server.Server)) (b *bench, r *roster, ended chan pop3server.End) {
	t.Helper()
	r = newRoster()
	b = newBench(t, newShelf(), func(s *pop3server.Server) {
		s.Users = r
		s.Settings.FailureDelay, s.Settings.Plaintext = 0, pop3server.PlaintextAlways
		s.Throttle = auth.NewThrottle(auth.Limits{MaxDelay: maxDelay})
		if change != nil {
			change(s)
		}
		ended = ends(s)
	})
	return b, r, ended
}

// try logs in by PLAIN on a connection of its own.
func (b *bench) try(t *testing.T, from, user, password, want string) time.Duration {
	t.Helper()
	v := b.visit(t, from)
	_ = v.line(t)
	defer v.Close()
	return elapsed(func() {
		t.Helper()
		if got := v.say(t, "AUTH PLAIN "+plain("", user, password)); !strings.HasPrefix(got, want) {
			t.Errorf("%s from %s: %q, want %q", user, from, got, want)
		}
	})
}

// Failures slow down the address from which they come, and the name that they are for, if they come from many, and
// nobody else. The fourth attempt waits, as auth.Throttle has it.
func TestThrottle(t *testing.T) {
	for _, method := range []string{"PLAIN", "PASS", "APOP", "CRAM-MD5", "SCRAM"} {
		t.Run(method, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, _, _ := throttled(t, nil)
				for n := range 5 {
					v := b.visit(t, remote)
					stamp := v.timestamp(t)
					d := elapsed(func() {
						var got string
						switch method {
						case "PLAIN":
							got = v.say(t, "AUTH PLAIN "+plain("", "tim", "x"))
						case "PASS":
							_ = v.say(t, "USER tim")
							got = v.say(t, "PASS x")
						case "APOP":
							got = v.say(t, "APOP tim "+apopDigest(stamp, "x"))
						case "CRAM-MD5":
							got = v.say(t, b64(cramResponse("tim", "x", unchallenge(t, v.say(t, "AUTH CRAM-MD5")))))
						case "SCRAM":
							got = v.scram(t, "SCRAM-SHA-256", &scramClient{hash: sha256.New, gs2: "n,,", user: "tim", password: "x"})
						}
						if got != refused {
							t.Error(got)
						}
					})
					if want := []time.Duration{0, 0, 0, time.Second, 2 * time.Second}[n]; d != want {
						t.Errorf("attempt %d: %v, want %v", n+1, d, want)
					}
					_ = v.Close()
				}
				if d := b.try(t, "192.0.2.9", "user", "pencil", "+OK"); d != 0 {
					t.Errorf("another user elsewhere: %v", d)
				}
				if d := b.try(t, remote, "user", "pencil", "+OK"); d == 0 {
					t.Error("another user from there: at once")
				}
				if d := b.try(t, "192.0.2.10", "tim", "x", refused); d != 0 {
					t.Errorf("the name elsewhere, which only one address guesses at: %v", d)
				}
				_ = b.try(t, "192.0.2.11", "tim", "x", refused)
				if d := b.try(t, "192.0.2.12", "tim", "x", refused); d == 0 {
					t.Error("the name, which many addresses guess at: at once")
				}
				b.end()
			})
		})
	}
}

// Who was proven at an address does not wait for those who guess there.
func TestThrottleKnowsWhoPassed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, ended := throttled(t, nil)
		b.try(t, remote, "user", "pencil", "+OK")
		<-ended
		for n := range 5 {
			b.try(t, remote, fmt.Sprint("guess", n), "x", refused)
			<-ended
		}
		if d := b.try(t, remote, "user", "pencil", "+OK"); d != 0 {
			t.Errorf("it took %v", d)
		}
		b.end()
	})
}

// With XCLIENT it is the client who is slowed down, not the proxy.
func TestThrottleBehindAProxy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, _ := throttled(t, withTrusted)
		try := func(addr, user string) time.Duration {
			v := b.visit(t, proxy)
			_ = v.line(t)
			defer v.Close()
			v.ask(t, "XCLIENT ADDR="+addr, "+OK")
			return elapsed(func() { v.ask(t, "AUTH PLAIN "+plain("", user, "x"), refused) })
		}
		for n := range 3 {
			if d := try("192.0.2.9", fmt.Sprint("a", n)); d != 0 {
				t.Error(d)
			}
		}
		if d := try("192.0.2.9", "b"); d != time.Second {
			t.Errorf("the client: %v", d)
		}
		if d := try("192.0.2.10", "c"); d != 0 {
			t.Errorf("another client: %v", d)
		}
		b.end()
	})
}

// Who has tried less on his connection goes first.
func TestThrottleCountsTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, _ := throttled(t, nil)
		tired, fresh := b.visit(t, remote), b.visit(t, remote)
		_, _ = tired.line(t), fresh.line(t)
		for range 3 {
			tired.ask(t, "AUTH PLAIN "+plain("", "tim", "x"), refused)
		}
		var order []string
		done := make(chan string, 2)
		for _, v := range []*visitor{tired, fresh} {
			name := map[*visitor]string{tired: "tired", fresh: "fresh"}[v]
			go func() { v.ask(t, "AUTH PLAIN "+plain("", "tim", "x"), refused); done <- name }()
			synctest.Wait()
		}
		for range 2 {
			order = append(order, <-done)
		}
		if order[0] != "fresh" {
			t.Errorf("served %q", order)
		}
		_, _ = tired.Close(), fresh.Close()
		b.end()
	})
}

// What says nothing of the password counts as no failure and gives its turn back, each time: more of them than may be
// undecided at once cost no time. A fault, a panic, a maildrop in use or damaged, bad syntax, a client that cancels
// or is gone, and a login that succeeds.
func TestThrottleTurnsComeBack(t *testing.T) {
	const rounds = 10
	for name, c := range map[string]struct {
		arrange func(*pop3server.Server)
		try     func(*testing.T, *visitor)
	}{
		"fault": {func(s *pop3server.Server) { s.Users.(*roster).fault = errAway }, func(t *testing.T, v *visitor) {
			v.ask(t, "AUTH PLAIN "+plain("", "tim", "x"), "-ERR [SYS/TEMP] temporary fault, try again later")
		}},
		"panic": {func(s *pop3server.Server) { s.Users.(*roster).panics = "tim" }, func(t *testing.T, v *visitor) {
			_, _ = io.WriteString(v, "AUTH PLAIN "+plain("", "tim", "x")+"\r\n")
			_, _ = v.rest(t)
		}},
		"in use": {func(s *pop3server.Server) { s.Maildrops.(*shelf).openErr = maildrop.ErrInUse }, func(t *testing.T, v *visitor) {
			v.ask(t, "AUTH PLAIN "+plain("", "tim", "tanstaaftanstaaf"), "-ERR [IN-USE] maildrop is in use")
		}},
		"store panics": {func(s *pop3server.Server) { s.Maildrops = storeFunc(nil) }, func(t *testing.T, v *visitor) {
			_, _ = io.WriteString(v, "AUTH PLAIN "+plain("", "tim", "tanstaaftanstaaf")+"\r\n")
			_, _ = v.rest(t)
		}},
		"damaged": {func(s *pop3server.Server) { s.Maildrops.(*shelf).openErr = maildrop.ErrDamaged }, func(t *testing.T, v *visitor) {
			v.ask(t, "AUTH PLAIN "+plain("", "tim", "tanstaaftanstaaf"), "-ERR [SYS/PERM] maildrop needs its administrator")
		}},
		"cancelled": {nil, func(t *testing.T, v *visitor) {
			_ = unchallenge(t, v.say(t, "AUTH SCRAM-SHA-256 "+b64("n,,n=tim,r=fyko+d2lbbFgONRv9qkxdawL")))
			v.ask(t, "*", "-ERR authentication cancelled")
		}},
		"malformed": {nil, func(t *testing.T, v *visitor) {
			_ = unchallenge(t, v.say(t, "AUTH SCRAM-SHA-256 "+b64("n,,n=tim,r=fyko+d2lbbFgONRv9qkxdawL")))
			v.ask(t, b64("x"), "-ERR malformed response")
		}},
		"gone": {nil, func(t *testing.T, v *visitor) {
			_ = unchallenge(t, v.say(t, "AUTH SCRAM-SHA-256 "+b64("n,,n=tim,r=fyko+d2lbbFgONRv9qkxdawL")))
		}},
		"passed": {nil, func(t *testing.T, v *visitor) {
			v.ask(t, "AUTH PLAIN "+plain("", "tim", "tanstaaftanstaaf"), "+OK 0 messages (0 octets)")
			v.ask(t, "QUIT", "+OK bye")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, _, ended := throttled(t, c.arrange)
				d := elapsed(func() {
					for range rounds {
						v := b.visit(t, remote)
						_ = v.line(t)
						c.try(t, v)
						_ = v.Close()
						<-ended
					}
				})
				if d > 0 {
					t.Errorf("%d times took %v", rounds, d)
				}
				b.end()
			})
		})
	}
}

// A wrong password is a failure also if the client has gone before the answer.
func TestThrottleCountsWhoHangsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		checked := make(chan struct{})
		b, r, ended := throttled(t, nil)
		r.gate = func(string) { <-checked }
		for n := range 3 {
			v := b.visit(t, remote)
			_ = v.line(t)
			_, _ = io.WriteString(v, "AUTH PLAIN "+plain("", fmt.Sprint("guess", n), "x")+"\r\n")
			synctest.Wait()
			_ = v.Close()
			checked <- struct{}{}
			<-ended
		}
		r.gate = nil
		if d := b.try(t, remote, "user", "pencil", "+OK"); d != time.Second {
			t.Errorf("the next one waits %v", d)
		}
		b.end()
	})
}

// Where a hundred wait, the next one is told to come back, with a code that says that it is not the password; and
// clients that wait are let go when the server closes. RFC 3206 section 4.
func TestThrottleBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, ended := throttled(t, nil)
		for n := range 3 {
			b.try(t, remote, fmt.Sprint("guess", n), "x", refused)
		}
		answers := make(chan string, 200)
		for range 102 {
			v := b.visit(t, remote)
			_ = v.line(t)
			go func() {
				_, _ = io.WriteString(v, "AUTH PLAIN "+plain("", "tim", "x")+"\r\n")
				l, _ := v.in.ReadString('\n')
				answers <- l
			}()
			synctest.Wait()
		}
		for range 2 {
			if got := <-answers; got != "-ERR [SYS/TEMP] too many failed logins from your address\r\n" && got != refused+"\r\n" {
				t.Errorf("%q", got)
			}
		}
		if !strings.Contains(b.log.String(), "too many logins wait") {
			t.Error("not logged")
		}
		b.end()
		for range 105 {
			<-ended
		}
	})
}

// Waiting has no place among the tries: who is told that it is busy has not failed.
func TestBusyIsNoFailure(t *testing.T) {
	b := newBench(t, newShelf(), func(s *pop3server.Server) {
		s.Settings.MaxAttempts, s.Settings.FailureDelay = 1, time.Hour
		s.Users = auth.PasswordFunc(func(context.Context, auth.Attempt) (auth.Identity, error) {
			return auth.Identity{}, fmt.Errorf("here: %w", auth.ErrBusy)
		})
	})
	v := b.visit(t, "127.0.0.1")
	_ = v.line(t)
	for range 3 {
		v.ask(t, "AUTH PLAIN "+plain("", "tim", "x"), "-ERR [SYS/TEMP] too many failed logins from your address")
	}
	v.ask(t, "QUIT", "+OK bye")
}
