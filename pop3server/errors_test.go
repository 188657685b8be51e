package pop3server_test

import (
	"errors"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dewey/auth"
	"dewey/pop3server"
)

// A client that sends nothing but errors before login is answered, up to a bound, and the log has no more lines than
// answers; a broken exchange counts as a failed login does.
func TestErrorsEndTheSession(t *testing.T) {
	const attempts = 7
	for name, c := range map[string]struct {
		lines  string
		want   error
		errors int
		took   time.Duration
	}{
		"not base64":                {"AUTH PLAIN\r\n!\r\n", pop3server.ErrTooManyTries, attempts, attempts * time.Second},
		"AUTH for a response":       {"AUTH PLAIN\r\n", pop3server.ErrTooManyTries, attempts, attempts * time.Second},
		"not base64 in the first":   {"AUTH PLAIN !\r\n", pop3server.ErrTooManyTries, attempts, attempts * time.Second},
		"cancelled":                 {"AUTH LOGIN\r\n*\r\n", pop3server.ErrTooManyTries, attempts, attempts * time.Second},
		"malformed":                 {"AUTH PLAIN =\r\n", pop3server.ErrTooManyTries, attempts, attempts * time.Second},
		"too long":                  {"AUTH PLAIN\r\n" + strings.Repeat("A", 100_000) + "\r\n", pop3server.ErrTooManyTries, attempts, attempts * time.Second},
		"a first response too much": {"AUTH CRAM-MD5 =\r\n", pop3server.ErrTooManyTries, attempts, attempts * time.Second},
		"an unknown mechanism":      {"AUTH NONE\r\n", pop3server.ErrTooManyErrors, pop3server.MaxRefused, 0},
		"an unknown command":        {"HELO x\r\n", pop3server.ErrTooManyErrors, pop3server.MaxRefused, 0},
		"a command of TRANSACTION":  {"NOOP\r\n", pop3server.ErrTooManyErrors, pop3server.MaxRefused, 0},
		"a long line":               {strings.Repeat("x", 300) + "\r\n", pop3server.ErrTooManyErrors, pop3server.MaxRefused, 0},
		"PASS alone":                {"PASS x\r\n", pop3server.ErrTooManyErrors, pop3server.MaxRefused, 0},
		"a fault of the backend":    {"USER broken\r\nPASS x\r\n", pop3server.ErrTooManyErrors, pop3server.MaxRefused, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var ended chan pop3server.End
				b := newBench(t, newShelf(), func(s *pop3server.Server) {
					r := newRoster()
					if strings.Contains(c.lines, "broken") {
						r.fault = errAway
					}
					s.Users = r
					s.Settings.MaxAttempts, s.Settings.FailureDelay = attempts, time.Second
					ended = ends(s)
				})
				v := b.visit(t, "127.0.0.1")
				go func() {
					for { // until it is hung up
						if _, err := io.WriteString(v, c.lines); err != nil {
							return
						}
					}
				}()
				var out []byte
				took := elapsed(func() { out, _ = io.ReadAll(v.in) })
				if e := <-ended; !errors.Is(e.Err, c.want) {
					t.Errorf("ended by %v", e.Err)
				}
				if n := strings.Count(string(out), "-ERR "); n != c.errors || took != c.took {
					t.Errorf("%d refusals in %v", n, took)
				}
				if n := strings.Count(b.log.String(), "level=WARN") + strings.Count(b.log.String(), "level=ERROR"); n > c.errors {
					t.Errorf("%d lines in the log", n)
				}
				_ = v.Close()
				b.end()
			})
		})
	}
}

// What is answered with +OK does not count, nor does what is refused after login.
func TestErrorsThatEndNothing(t *testing.T) {
	b := newBench(t, newShelf(), func(s *pop3server.Server) { s.Users = newRoster() })
	v := b.visit(t, "127.0.0.1")
	_ = v.line(t)
	for range pop3server.MaxRefused - 1 {
		v.ask(t, "NOOP", "-ERR command not valid in this state")
	}
	for range pop3server.MaxRefused {
		v.ask(t, "USER mrose", "+OK")
	}
	v.ask(t, "AUTH PLAIN "+plain("", "mrose", "tanstaaf"), "+OK 0 messages (0 octets)")
	for range 2 * pop3server.MaxRefused {
		v.ask(t, "RETR 1", "-ERR no such message")
	}
	v.ask(t, "QUIT", "+OK bye")
}

// A try that has ended leaves nothing behind, however fast others follow: in here no time passes between them.
func TestTriesLeaveNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const tries = 20_000
		b := newBench(t, newShelf(), func(s *pop3server.Server) {
			s.Users = auth.PasswordFunc(users)
			s.Logger = slog.New(slog.DiscardHandler)
			s.Settings.FailureDelay = 0
		})
		v := b.visit(t, "127.0.0.1")
		_ = v.line(t)
		heap := func() uint64 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		before := heap()
		for range tries {
			_ = v.say(t, "AUTH PLAIN =")
		}
		if after := heap(); after > before+tries*64 {
			t.Errorf("%d octets are left of each try", (after-before)/tries)
		}
		_ = v.Close()
		b.end()
	})
}
