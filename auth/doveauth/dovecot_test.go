package doveauth

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dewey/auth"
)

func TestDovecot(t *testing.T) {
	d := newDovecot(t, "")
	b := d.backend(nil)
	alice := auth.Identity{User: "alice@example.org", Home: "/srv/mail/alice", Quota: auth.Quota{Octets: 100 << 20}}
	bob := auth.Identity{User: "bob", Home: "/srv/mail/bob", Quota: auth.Quota{Octets: 1 << 30, Messages: 10}}
	some := auth.Identity{Home: "/srv/mail/x"}
	for _, c := range []struct {
		user, password, login, mail string
		want                        auth.Identity
	}{
		{"alice@example.org", "a secret", in, in, alice},
		{"Alice@Example.ORG", "a secret", in, in, alice},
		{"bob", "bob's secret", in, in, bob},
		{"bob", "another", rejected, in, bob},
		{"bob", "bob's secret ", rejected, in, bob},
		{"carol", "a secret", in, in, auth.Identity{User: "carol"}},
		{"nobody@example.org", "a secret", unknown, unknown, some},
		{"nologin", "a secret", rejected, in, some},
		{"proxied", "a secret", cantTell, in, some},
		{"nets", "a secret", rejected, in, some},
		{"here", "a secret", in, in, some},
		{"relative", "a secret", cantTell, cantTell, some},
		{"badquota", "a secret", cantTell, cantTell, some},
		{"bob", "", rejected, in, bob},
		{"bob", "bob's secret\x00", rejected, in, bob},
		{"bob", strings.Repeat("x", 4096), rejected, in, bob},
		{"bob", strings.Repeat("x", 4097), rejected, in, bob},
		{"", "a secret", unknown, unknown, some},
		{"bob\x00", "bob's secret", unknown, unknown, some},
		{strings.Repeat("x", 255), "a secret", unknown, unknown, some},
		{strings.Repeat("\t", 255), "a secret", unknown, unknown, some},
		{strings.Repeat("x", 256), "a secret", unknown, unknown, some},
		{"bob\t", "bob's secret", unknown, unknown, some},
		{"bob\n", "bob's secret", unknown, unknown, some},
		{"bob\r\n", "bob's secret", unknown, unknown, some},
		{"bob\nUSER\t1\talice@example.org", "a secret", unknown, unknown, some},
		{"bob\tresp=AGJvYgBib2IncyBzZWNyZXQ=", "x", unknown, unknown, some},
		{"\x01", "a secret", unknown, unknown, some},
		{"bob\x01t", "a secret", unknown, unknown, some},
		{"\xff\xfe", "a secret", unknown, unknown, some},
		{"../bob", "a secret", unknown, unknown, some},
		{"%u", "a secret", unknown, unknown, some},
	} {
		id, err := b.CheckPassword(t.Context(), attempt(c.user, c.password))
		if outcome(err) != c.login || err == nil && (id.Home != c.want.Home || id.Quota != c.want.Quota || c.want.User != "" && id.User != c.want.User) {
			t.Errorf("%q with %q: %+v, %v; want %s, %+v", c.user, c.password, id, err, c.login, c.want)
		}
		if err != nil && c.password != "" && c.password != "x" && strings.Contains(err.Error(), c.password) {
			t.Errorf("the password is in %v", err)
		}
		id, err = b.Recipient(t.Context(), c.user)
		if outcome(err) != c.mail || err == nil && (id.Home != c.want.Home || id.Quota != c.want.Quota || c.want.User != "" && id.User != c.want.User) {
			t.Errorf("mail for %q: %+v, %v; want %s, %+v", c.user, id, err, c.mail, c.want)
		}
	}
}

// Without a userdb nothing tells an unknown user from a wrong password, and nobody is known by name.
func TestNoUserDB(t *testing.T) {
	d := newDovecot(t, "")
	b := d.backend(func(c *Config) { c.UserDBSocket = "" })
	for _, c := range []struct{ user, password, want string }{
		{"bob", "bob's secret", in}, {"BOB", "bob's secret", in}, {"bob", "another", rejected}, {"nosuchuser", "x", rejected},
	} {
		id, err := b.CheckPassword(t.Context(), attempt(c.user, c.password))
		if outcome(err) != c.want || err == nil && (id.User != "bob" || id.Home != "") {
			t.Errorf("%s: %+v, %v; want %s", c.user, id, err, c.want)
		}
	}
	if _, err := b.Recipient(t.Context(), "bob"); outcome(err) != unknown {
		t.Error(err)
	}
}

// A user of the passdb alone, and databases that can't tell.
func TestDatabases(t *testing.T) {
	d := newDovecot(t, "")
	conf, err := os.ReadFile(d.path("conf"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ from, to, login, mail string }{
		{"args = username_format=%u " + d.path("users"), "args = username_format=%u " + d.path("others"), cantTell, unknown}, // only in the passdb
		{"args = username_format=%u " + d.path("users"), "args = username_format=%u " + d.path("missing"), cantTell, cantTell},
		{"driver = passwd-file\n  args = scheme=PLAIN username_format=%u " + d.path("users"), "driver = checkpassword\n  args = " + d.path("missing"), cantTell, in},
		{"auth_mechanisms = plain", "auth_mechanisms = cram-md5", cantTell, in},
	} {
		text := strings.Replace(string(conf), c.from, c.to, 1)
		if text == string(conf) {
			t.Fatalf("no %q in the configuration", c.from)
		}
		d.stop()
		if err := os.WriteFile(d.path("conf"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(d.path("others"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		d.start()
		b := d.backend(nil)
		if _, err := b.CheckPassword(t.Context(), attempt("bob", "bob's secret")); outcome(err) != c.login {
			t.Errorf("%s: %v; want %s", c.to, err, c.login)
		}
		if _, err := b.Recipient(t.Context(), "bob"); outcome(err) != c.mail {
			t.Errorf("%s: mail: %v; want %s", c.to, err, c.mail)
		}
	}
}

// Dovecot stops, is killed and comes back, in mid-login and between.
func TestOutage(t *testing.T) {
	d := newDovecot(t, "")
	b := d.backend(nil)
	b.auth.age, b.userdb.age = 100*time.Millisecond, 100*time.Millisecond
	login := func() error {
		_, err := b.CheckPassword(t.Context(), attempt("bob", "bob's secret"))
		return err
	}
	if err := login(); err != nil {
		t.Fatal(err)
	}
	pid := d.auth()
	_ = syscall.Kill(pid, syscall.SIGSTOP)
	b.c.Timeout = short
	for range 3 {
		start := time.Now()
		if err := login(); outcome(err) != cantTell {
			t.Errorf("stopped: %v", err)
		}
		if _, err := b.Recipient(t.Context(), "bob"); outcome(err) != cantTell {
			t.Errorf("stopped: %v", err)
		}
		if took := time.Since(start); took > 2*short+2*time.Second {
			t.Errorf("stopped: it took %v", took)
		}
	}
	b.c.Timeout = patience
	_ = syscall.Kill(pid, syscall.SIGCONT)
	until(t, "logins after a stop", func() bool { return login() == nil })

	// Killed in mid-login: the question is asked again, of the auth process that Dovecot starts in its place.
	_ = syscall.Kill(pid, syscall.SIGSTOP)
	errs := make(chan error, 1)
	go func() { errs <- login() }()
	until(t, "the question", func() bool {
		b.auth.mu.Lock()
		n := b.auth.conn
		b.auth.mu.Unlock()
		if n == nil {
			return false
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		return len(n.waiting) > 0
	})
	_ = syscall.Kill(pid, syscall.SIGKILL)
	if err := <-errs; outcome(err) == rejected || outcome(err) == unknown {
		t.Errorf("killed in mid-login: %v", err)
	}
	until(t, "logins after a kill", func() bool { return login() == nil })

	// Its auth process stays as long as we are connected.
	d.stop()
	until(t, "the end of Dovecot", func() bool { return outcome(login()) == cantTell })
	start := time.Now()
	if err := login(); outcome(err) != cantTell || time.Since(start) > time.Second {
		t.Errorf("down, again: %v after %v", err, time.Since(start))
	}
	d.start()
	until(t, "logins after a restart", func() bool { return login() == nil })
}

// 50 at once over one connection, each with his own answer.
func TestManyAtOnce(t *testing.T) {
	d := newDovecot(t, "")
	b := d.backend(nil)
	var logins sync.WaitGroup
	for i := range 50 {
		logins.Go(func() {
			user, password := "bob", "bob's secret"
			if i%2 == 0 {
				user, password = "alice@example.org", "a secret"
			}
			if id, err := b.CheckPassword(t.Context(), attempt(user, password)); err != nil || id.User != user {
				t.Errorf("%s: %+v, %v", user, id, err)
			}
			if _, err := b.CheckPassword(t.Context(), attempt(user, "another")); outcome(err) != rejected {
				t.Errorf("%s: %v", user, err)
			}
			if _, err := b.CheckPassword(t.Context(), attempt(fmt.Sprint("user", i), password)); outcome(err) != unknown {
				t.Errorf("user%d: %v", i, err)
			}
		})
	}
	logins.Wait()
	text, err := os.ReadFile(d.path("log"))
	if err != nil || strings.Contains(string(text), "Error") || strings.Contains(string(text), "Panic") {
		t.Errorf("Dovecot complains: %v\n%s", err, text)
	}
}

// Trap 42: an unknown user and a wrong password both wait for Dovecot's auth_failure_delay, and then ask the userdb.
func TestTrap42Times(t *testing.T) {
	d := newDovecot(t, "auth_failure_delay = 2 secs")
	b := d.backend(nil)
	for _, user := range []string{"bob", "nosuchuser"} {
		start := time.Now()
		if _, err := b.CheckPassword(t.Context(), attempt(user, "another")); err == nil || time.Since(start) < 900*time.Millisecond {
			t.Errorf("%s: %v after %v; Dovecot waits for two seconds of its clock", user, err, time.Since(start))
		}
	}
}
