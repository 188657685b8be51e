package clock

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dewey/test/chaos/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

const (
	day  = 24 * time.Hour
	year = 365 * day
)

var jumps = []time.Duration{time.Hour, -time.Hour, day, -day, 10 * year, -10 * year, 0}

func dial(t testing.TB, s *harness.Server) *harness.POP3 {
	t.Helper()
	c, err := harness.DialPOP3(s.POP3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// The clock jumps, forth and back and for good: sessions go on, those that wait for a login too; no unique-id changes or
// comes again, no mail is gone, what is removed can be brought back, and the log's times say that the clock has jumped.
func TestJumps(t *testing.T) {
	data := harness.Dir(t)
	users := []string{"mrose undelete=14d retention=90d"}
	for i := range jumps {
		users = append(users, fmt.Sprintf("open%d", i), fmt.Sprintf("waiting%d", i), fmt.Sprintf("new%d", i))
	}
	harness.AddUsers(t, data, users...)
	s := harness.Start(t, harness.Options{Data: data})
	c := newClock(t, s.Pid())
	m := harness.NewModel()
	deliver := func(m *harness.Model, user, key string) {
		t.Helper()
		l, err := harness.DialLMTP(s.LMTP)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		text := harness.Text(key, 2000)
		m.Sent(key, text)
		results, err := l.Deliver(text, user)
		if err != nil || results[0] != nil {
			t.Fatal(err, results)
		}
		m.Is(key, harness.There)
	}
	for i := range 5 {
		deliver(m, "mrose", fmt.Sprintf("before-%d", i))
	}
	for _, fault := range m.Verify(s, "mrose") {
		t.Fatal(fault)
	}
	taken := map[string]bool{}
	for i, jump := range jumps {
		open, waiting := dial(t, s), dial(t, s)
		if err := open.Login(fmt.Sprintf("open%d", i)); err != nil {
			t.Fatal(err)
		}
		c.set(jump)
		mark := len(s.Log())
		if err := waiting.Login(fmt.Sprintf("waiting%d", i)); err != nil {
			t.Errorf("%v: a connection that had not logged in: %v", jump, err)
		}
		if want := time.Now().Add(jump).UTC().Format("time=2006-01-"); !strings.Contains(s.Log()[mark:], want) {
			t.Fatalf("the clock has not jumped: no %q in %s", want, s.Log()[mark:])
		}
		fresh := harness.NewModel() // of somebody whose list is made now
		user := fmt.Sprintf("new%d", i)
		for n := range 2 {
			deliver(fresh, user, fmt.Sprintf("%s-%d", user, n))
			for _, fault := range fresh.Verify(s, user) {
				t.Errorf("%v: %s: %s", jump, user, fault)
			}
		}
		deliver(m, "mrose", fmt.Sprintf("jump-%d", i))
		for _, fault := range m.Verify(s, "mrose") {
			t.Errorf("%v: %s", jump, fault)
		}
		remover := dial(t, s)
		if err := remover.Login("mrose"); err != nil {
			t.Fatal(err)
		}
		id, err := remover.Do("UIDL 1")
		if err == nil {
			_, err = remover.Do("DELE 1")
		}
		if err == nil {
			_, err = remover.Do("QUIT")
		}
		if err != nil {
			t.Errorf("%v: removal: %v", jump, err)
		}
		id = strings.TrimPrefix(id, "1 ")
		// dewey mail has the machine's clock, so this is also what it looks like when the clock has been put right.
		code, out, stderr := harness.Run(t, data, "", "mail", "restore", "mrose", id)
		if jump > -14*day && (code != 0 || !strings.Contains(out, id)) {
			t.Errorf("%v: restore: %d, %s%s", jump, code, out, stderr)
		} else if jump < -14*day { // by the clock, its time is over: it stays where it is, and nobody has lost it yet
			left, _ := filepath.Glob(filepath.Join(data, "mail/mrose/dewey-removed/1*"))
			if len(left) != 1 {
				t.Errorf("%v: %q is left of what was removed", jump, left)
			}
			for _, key := range m.Keys(harness.There) {
				m.Is(key, harness.Maybe) // one of them, the first
			}
		}
		for _, fault := range m.Verify(s, "mrose") {
			t.Errorf("%v, after restore: %s", jump, fault)
		}
		for _, p := range []*harness.POP3{open, waiting} {
			if _, err := p.Do("NOOP"); err != nil {
				t.Errorf("%v: an open session: %v", jump, err)
			}
			if _, err := p.Do("QUIT"); err != nil {
				t.Errorf("%v: an open session: %v", jump, err)
			}
		}
		if seen, err := harness.Fetch(s.POP3, "mrose"); err == nil {
			for _, one := range seen {
				taken[one.UID] = true
			}
		}
	}
	s.Stop()
	if problems, _ := harness.Check(t, data); len(problems) > 0 {
		t.Error(problems)
	}
	code, out, stderr := harness.Run(t, data, "", "mail", "history", "mrose")
	if rows := strings.Count(out, "\n"); code != 0 || rows < 3*len(jumps) {
		t.Errorf("history: %d rows, %d, %s", rows, code, stderr)
	}
	harness.Report(t, "clock-jumps", map[string]any{"jumps": len(jumps), "unique-ids": len(taken)})
}

// Nights by a clock that has jumped remove nothing, and say why. A night is looked for at a reload.
func TestNight(t *testing.T) {
	for _, jump := range []time.Duration{2 * day, 10 * year, -10 * year} {
		data := harness.Dir(t)
		harness.AddUsers(t, data, "mrose undelete=14d")
		s := harness.Start(t, harness.Options{Data: data, Settings: []string{"mail.retention=90d"}})
		for _, age := range []time.Duration{0, 100 * day, -year} { // of a message, and of a folder
			name := fmt.Sprintf("%d.M1P1.h", 1_000_000+int(age/day))
			harness.Put(t, filepath.Join(data, "mail/mrose"), "new", name, harness.Text(name, 0))
			at := time.Now().Add(-age)
			if err := os.Chtimes(filepath.Join(data, "mail/mrose/new", name), at, at); err != nil {
				t.Fatal(err)
			}
		}
		before, err := harness.Fetch(s.POP3, "mrose")
		if err != nil || len(before) != 3 {
			t.Fatal(err, before)
		}
		if err := os.WriteFile(filepath.Join(data, "swept"), []byte("dewey swept 2\n"+time.Now().UTC().Format(time.RFC3339)+"\n0\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		c := newClock(t, s.Pid())
		c.set(jump)
		for nights := range 2 { // back in time, the first only finds out; the second is a day later
			mark := len(s.Log())
			if err := syscall.Kill(s.Pid(), syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			s.Await("a reload", func() bool { return strings.Contains(s.Log()[mark:], "msg=reloaded") })
			if jump < 0 && nights == 0 {
				c.set(jump + day)
				continue
			}
			if jump > 0 || nights > 0 {
				s.Await("a word about the clock", func() bool { return strings.Contains(s.Log(), "the clock may be wrong") })
			}
		}
		after, err := harness.Fetch(s.POP3, "mrose")
		if err != nil || len(after) != 3 || after[0].UID != before[0].UID {
			t.Errorf("%v: %v, %v, want %v", jump, err, after, before)
		}
		s.Stop()
	}
}

// The times of files and folders are long ago, or to come, as after a restore or beside a file server with another clock:
// what is added is seen at once, what was removed is gone, and unique-ids stay.
func TestFileTimes(t *testing.T) {
	data := harness.Dir(t)
	shifts := []time.Duration{time.Hour, -time.Hour, 10 * year, -10 * year}
	var users []string
	for i := range shifts {
		users = append(users, fmt.Sprintf("u%d", i))
	}
	harness.AddUsers(t, data, users...)
	s := harness.Start(t, harness.Options{Data: data})
	for i, shift := range shifts {
		user := fmt.Sprintf("u%d", i)
		root := filepath.Join(data, "mail", user)
		m := harness.NewModel()
		at := time.Now().Add(shift).Truncate(time.Second)
		stamp := func() {
			t.Helper()
			for _, pattern := range []string{"new", "cur", "new/*", "cur/*", "dovecot-uidlist"} {
				names, _ := filepath.Glob(filepath.Join(root, pattern))
				for _, name := range names {
					if err := os.Chtimes(name, at, at); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		for n := range 6 {
			key := fmt.Sprintf("%s-%d", user, n)
			text := harness.Text(key, 1000)
			m.Sent(key, text)
			m.Is(key, harness.There)
			harness.Put(t, root, "new", fmt.Sprintf("%d.M1P1.h", 1000+n), text)
			stamp()
			for range 2 {
				seen, err := harness.Fetch(s.POP3, user)
				if err != nil {
					t.Fatal(err)
				}
				for _, fault := range m.Hold(seen) {
					t.Errorf("%v: %s", shift, fault)
				}
			}
			stamp()
		}
		c := dial(t, s)
		if err := c.Login(user); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(root, "new/1000.M1P1.h")); err != nil {
			t.Fatal(err)
		}
		m.Is(user+"-0", harness.Gone)
		stamp()
		_, err := c.Multi("RETR 1")
		if r := (*harness.Refusal)(nil); !errors.As(err, &r) || !strings.Contains(r.Reply, "gone") && !strings.Contains(r.Reply, "[SYS/TEMP]") {
			t.Errorf("%v: RETR of what somebody removed: %v", shift, err)
		}
		if _, err = c.Do("DELE 2"); err == nil {
			_, err = c.Do("QUIT")
		}
		if err != nil {
			t.Errorf("%v: %v", shift, err)
		}
		m.Is(user+"-1", harness.Gone)
		for _, fault := range m.Verify(s, user) {
			t.Errorf("%v: %s", shift, fault)
		}
	}
}
