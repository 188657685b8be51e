package doveauth

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	greetAuth   = "VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nSPID\t7\nCUID\t1\nCOOKIE\t00\nDONE\n"
	greetUserDB = "VERSION\t1\t1\nSPID\t7\n"
)

// fake is a Dovecot that greets, and answers each line by a function; an empty answer is none.
func fake(t *testing.T, greeting string, answer func(c net.Conn, fields []string) string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.WriteString(c, greeting)
				lines := bufio.NewScanner(c)
				for lines.Scan() {
					if f := strings.Split(lines.Text(), "\t"); f[0] == "AUTH" || f[0] == "USER" {
						a := answer(c, f)
						if _, err := io.WriteString(c, a); err != nil || a == "close" {
							return
						}
					}
				}
			}()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return path
}

// say answers with a line in which %s is the number of the question.
func say(line string) func(net.Conn, []string) string {
	return func(_ net.Conn, f []string) string { return strings.ReplaceAll(line, "%s", f[1]) }
}

// What the answers mean. Of FAIL's words and codes the protocol's description says: temp and temp_fail are no refusal.
func TestAnswers(t *testing.T) {
	const there = "USER\t%s\tbob\tuid=1\thome=/srv/bob\n"
	for _, c := range []struct{ auth, userdb, want string }{
		{"OK\t%s\tuser=bob\n", there, in},
		{"OK\t%s\tuser=bob\t\tx\n", there, in},
		{"FAIL\t%s\tuser=bob\n", there, rejected},
		{"FAIL\t%s\n", there, rejected},
		{"FAIL\t%s\tuser=bob\n", "NOTFOUND\t%s\n", unknown},
		{"FAIL\t%s\tuser=bob\n", "FAIL\t%s\treason=down\n", cantTell},
		{"FAIL\t%s\tuser=bob\ttemp\n", there, cantTell},
		{"FAIL\t%s\tuser=bob\tcode=temp_fail\n", "NOTFOUND\t%s\n", cantTell},
		{"FAIL\t%s\tuser=bob\tcode=temp_fail\treason=code=authz_fail\n", there, cantTell},
		{"FAIL\t%s\tuser=bob\tcode=some_new_one\n", there, cantTell},
		{"FAIL\t%s\tuser=bob\tauthz\n", "NOTFOUND\t%s\n", rejected},
		{"FAIL\t%s\tuser=bob\tcode=authz_fail\n", "NOTFOUND\t%s\n", rejected},
		{"FAIL\t%s\tuser=bob\tuser_disabled\n", "NOTFOUND\t%s\n", rejected},
		{"FAIL\t%s\tuser=bob\tcode=user_disabled\n", "NOTFOUND\t%s\n", rejected},
		{"FAIL\t%s\tuser=bob\tpass_expired\n", "NOTFOUND\t%s\n", rejected},
		{"FAIL\t%s\tcode=pass_expired\n", "NOTFOUND\t%s\n", rejected},
		{"CONT\t%s\tAAAA\n", there, cantTell},
		{"OK\t%s\n", there, cantTell},
		{"OK\t%s\tuser=\n", there, cantTell},
		{"OK\t%s\tuser=a\x01tb\n", there, cantTell},
		{"OK\t%s\tuser=a\x010b\n", there, cantTell},
		{"OK\t%s\tuser=" + strings.Repeat("x", 256) + "\n", there, cantTell},
		{"OK\t%s\tuser=bob\tproxy\thost=x\n", there, cantTell},
		{"OK\t%s\tuser=bob\tnologin\n", there, rejected},
		{"OK\t%s\tuser=bob\n", "NOTFOUND\t%s\n", cantTell},
		{"OK\t%s\tuser=bob\n", "FAIL\t%s\n", cantTell},
		{"OK\t%s\tuser=bob\n", "OK\t%s\tuser=bob\n", cantTell},
		{"OK\t%s\tuser=bob\n", "USER\t%s\n", cantTell},
		{"OK\t%s\tuser=bob\n", "USER\t%s\t\n", cantTell},
		{"OK\t%s\tuser=bob\n", "USER\t%s\tbob\thome=srv/bob\n", cantTell},
		{"OK\t%s\tuser=bob\n", "USER\t%s\tbob\thome=/srv/../bob\n", cantTell},
		{"OK\t%s\tuser=bob\n", "USER\t%s\tbob\tquota_rule=*:storage=x\n", cantTell},
		{"USER\t%s\tbob\n", there, cantTell},
		{"NOTFOUND\t%s\n", there, cantTell},
		{"HELLO\t%s\n", there, cantTell},
		{"\n", there, cantTell},
		{"OK\n", there, cantTell},
		{"OK\t-1\tuser=bob\n", there, cantTell},
		{"OK\t99999999999\tuser=bob\n", there, cantTell},
		{"OK\t77\tuser=eve\n", there, cantTell}, // nobody's answer
		{"close", there, cantTell},
		{strings.Repeat("x", 1<<20), there, cantTell},
	} {
		b := newBackend(t, Config{AuthSocket: fake(t, greetAuth, say(c.auth)), UserDBSocket: fake(t, greetUserDB, say(c.userdb)), Timeout: short})
		start := time.Now()
		id, err := b.CheckPassword(t.Context(), attempt("bob", "a secret"))
		if outcome(err) != c.want || err == nil && (id.User != "bob" || id.Home != "/srv/bob") {
			t.Errorf("%.60q, %.60q: %+v, %v; want %s", c.auth, c.userdb, id, err, c.want)
		}
		if took := time.Since(start); took > short+2*time.Second {
			t.Errorf("%.60q: it took %v", c.auth, took)
		}
		if err != nil && strings.Contains(err.Error(), "a secret") {
			t.Errorf("the password is in %v", err)
		}
		_ = b.Close()
	}
}

func TestGreetings(t *testing.T) {
	for _, greeting := range []string{
		"", "\n", "VERSION\t2\t0\nDONE\n", "VERSION\n", "SPID\t7\n", "DONE\n", "+OK ready\r\n", "VERSION\t1\t2\nMECH\tCRAM-MD5\nDONE\n",
		"VERSION\t1\t2\n" + strings.Repeat("MECH\tX\n", 1000), "VERSION\t1\t2\nMECH\tPLAIN\n", strings.Repeat("x", 1<<20),
	} {
		b := newBackend(t, Config{AuthSocket: fake(t, greeting, say("OK\t%s\tuser=bob\n")), Timeout: short})
		for range 2 {
			start := time.Now()
			if _, err := b.CheckPassword(t.Context(), attempt("bob", "a secret")); outcome(err) != cantTell || time.Since(start) > short+2*time.Second {
				t.Errorf("%.40q: %v after %v", greeting, err, time.Since(start))
			}
		}
		_ = b.Close()
	}
}

// Octet by octet, never whole in time.
func TestSlow(t *testing.T) {
	slow := func(c net.Conn, _ []string) string {
		for range 100 {
			if _, err := io.WriteString(c, "O"); err != nil {
				break
			}
			_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			_, _ = c.Read(make([]byte, 1))
		}
		return "close"
	}
	b := newBackend(t, Config{AuthSocket: fake(t, greetAuth, slow), Timeout: short})
	start := time.Now()
	if _, err := b.CheckPassword(t.Context(), attempt("bob", "a secret")); outcome(err) != cantTell || time.Since(start) > short+2*time.Second {
		t.Errorf("%v after %v", err, time.Since(start))
	}
}

// Answers come in any order, late ones too; each goes to who asked.
func TestOrder(t *testing.T) {
	held := make(chan string, 1)
	b := newBackend(t, Config{AuthSocket: fake(t, greetAuth, func(c net.Conn, f []string) string {
		select {
		case first := <-held:
			return "OK\t" + f[1] + "\tuser=second\n" + "OK\t" + first + "\tuser=first\n" + "OK\t" + f[1] + "\tuser=again\n"
		default:
			held <- f[1]
			return ""
		}
	}), Timeout: patience})
	first := make(chan string)
	go func() {
		id, err := b.CheckPassword(t.Context(), attempt("first", "x"))
		first <- fmt.Sprint(id.User, err)
	}()
	until(t, "the first question", func() bool { return len(held) == 1 })
	if id, err := b.CheckPassword(t.Context(), attempt("second", "x")); err != nil || id.User != "second" {
		t.Errorf("%+v, %v", id, err)
	}
	if got := <-first; got != "first<nil>" {
		t.Error(got)
	}
}

// Who hangs up, and Close, end a wait at once.
func TestGivenUp(t *testing.T) {
	asked := make(chan struct{}, 9)
	path := fake(t, greetAuth, func(net.Conn, []string) string { asked <- struct{}{}; return "" })
	b := newBackend(t, Config{AuthSocket: path, Timeout: patience})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	if _, err := b.CheckPassword(ctx, attempt("bob", "x")); !errors.Is(err, context.Canceled) || outcome(err) != cantTell {
		t.Error(err)
	}
	go func() { <-asked; _ = b.Close() }()
	if _, err := b.CheckPassword(t.Context(), attempt("bob", "x")); !errors.Is(err, errClosed) {
		t.Error(err)
	}
	if _, err := b.CheckPassword(t.Context(), attempt("bob", "x")); !errors.Is(err, errClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// An old connection gets no more questions, and ends with the last answer: Dovecot's old processes wait for that. One
// that waits for an answer ends with Close.
func TestOld(t *testing.T) {
	var mu sync.Mutex
	seen := map[net.Conn]bool{}
	hold := make(chan struct{})
	path := fake(t, greetAuth, func(c net.Conn, f []string) string {
		mu.Lock()
		seen[c] = true
		first := len(seen) == 1
		mu.Unlock()
		if first {
			<-hold
		}
		return "OK\t" + f[1] + "\tuser=bob\n"
	})
	b := newBackend(t, Config{AuthSocket: path, Timeout: patience})
	b.auth.age = 20 * time.Millisecond
	held := make(chan error, 1)
	login := func() error { _, err := b.CheckPassword(t.Context(), attempt("bob", "x")); return err }
	go func() { held <- login() }()
	count := func() int { mu.Lock(); defer mu.Unlock(); return len(seen) }
	until(t, "the first question", func() bool { return count() == 1 })
	b.auth.mu.Lock()
	first := b.auth.conn
	b.auth.mu.Unlock()
	until(t, "its retirement", func() bool { return !first.takes() })
	until(t, "four connections", func() bool {
		if err := login(); err != nil {
			t.Error(err)
		}
		return count() >= 4
	})
	select {
	case <-first.done:
		t.Error("a connection that waited for an answer was ended")
	default:
	}
	close(hold)
	if err := <-held; err != nil {
		t.Error(err)
	}
	b.auth.mu.Lock()
	last := b.auth.conn
	b.auth.mu.Unlock()
	for _, n := range []*conn{first, last} {
		until(t, "the end of old connections", func() bool {
			select {
			case <-n.done:
				return true
			default:
				return false
			}
		})
	}
}

// A connection that turns out to be lost costs no login: the question is asked again on another, once.
func TestLost(t *testing.T) {
	var mu sync.Mutex
	asked := map[net.Conn]int{}
	b := newBackend(t, Config{AuthSocket: fake(t, greetAuth, func(c net.Conn, f []string) string {
		mu.Lock()
		defer mu.Unlock()
		if asked[c]++; asked[c] > 1 {
			return "close"
		}
		return "OK\t" + f[1] + "\tuser=bob\n"
	}), Timeout: patience})
	for range 5 {
		if _, err := b.CheckPassword(t.Context(), attempt("bob", "x")); err != nil {
			t.Error(err)
		}
	}
}

func TestSocketFaults(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "missing"), file, dir} {
		b := newBackend(t, Config{AuthSocket: path, UserDBSocket: path, Timeout: short})
		if _, err := b.CheckPassword(t.Context(), attempt("bob", "x")); outcome(err) != cantTell || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
		if _, err := b.Recipient(t.Context(), "bob"); outcome(err) != cantTell {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []Config{
		{AuthSocket: "auth"}, {UserDBSocket: "run/x"}, {AuthSocket: "/a\x00"}, {Service: "a b"}, {Service: "a\tb"}, {Timeout: -1},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
	if _, err := New(Config{}); err != nil {
		t.Error(err)
	}
}

// What Dovecot's str_tabescape makes of a text is that text again, and has no more tabs or line ends.
func FuzzEscape(f *testing.F) {
	f.Add("a\tb\x01c\r\n\x00d")
	f.Fuzz(func(t *testing.T, s string) {
		e := escape(s)
		if unescape(e) != s || strings.ContainsAny(e, "\t\r\n\x00") {
			t.Errorf("%q, %q, %q", s, e, unescape(e))
		}
		unescape(s)
	})
}

// Whatever a Dovecot says, it is an answer or an error, in time.
func FuzzGreeting(f *testing.F) {
	f.Add([]byte(greetAuth), true)
	f.Add([]byte(greetUserDB), false)
	f.Add([]byte("VERSION\t\nMECH\nDONE\n"), true)
	f.Fuzz(func(t *testing.T, data []byte, auth bool) {
		if err := greeting(bufio.NewReaderSize(bytes.NewReader(data), maxLine), auth); err == nil && !bytes.Contains(data, []byte("VERSION\t1")) {
			t.Errorf("%q is taken", data)
		}
	})
}
