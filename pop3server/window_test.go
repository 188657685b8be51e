package pop3server_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dewey/auth"
	"dewey/maildrop"
	"dewey/pop3server"
	"dewey/store/mem"
)

// What a session sees is counted back from its login, by the database's word before the settings', and by the name's
// before both.
func TestWindow(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		own  auth.Life
		all  maildrop.Life
		view maildrop.View
		want string // unique-ids, of messages that are 0, 1, 2 and 3 days old at the login, the oldest first
	}{
		{want: "uid1 uid2 uid3 uid4"},
		{all: maildrop.Life{Window: 2 * day}, want: "uid2 uid3 uid4"},
		{all: maildrop.Life{Window: 2*day - 1}, want: "uid3 uid4"},
		{all: maildrop.Life{WindowMessages: 3}, want: "uid2 uid3 uid4"},
		{all: maildrop.Life{Window: 2 * day, WindowMessages: 1}, want: "uid4"},
		{all: maildrop.Life{Window: 2 * day, WindowMessages: 1}, own: auth.Life{WindowMessages: maildrop.Off}, want: "uid2 uid3 uid4"},
		{all: maildrop.Life{Window: 2 * day}, own: auth.Life{Window: day}, want: "uid3 uid4"},
		{all: maildrop.Life{Window: maildrop.Off, WindowMessages: maildrop.Off}, want: "uid1 uid2 uid3 uid4"},
		{all: maildrop.Life{Window: day, WindowMessages: 1}, view: maildrop.View{Recent: 2 * day}, want: "uid2 uid3 uid4"},
		{view: maildrop.View{Recent: 1}, want: "uid4"},
	} {
		synctest.Test(t, func(t *testing.T) {
			mail := newShelf()
			b := newBench(t, mail, func(s *pop3server.Server) {
				r := newRoster()
				r.lives = map[string]auth.Life{"tim": c.own}
				s.Users, s.Settings.Life, s.Settings.IdleTimeout = r, c.all, 7*day
				s.View = func(_ context.Context, name string) (string, maildrop.View) { return name, c.view }
			})
			v := b.visit(t, "127.0.0.1")
			_ = v.line(t)
			for n := range 4 { // while the client is connected: that does not count
				if n > 0 {
					time.Sleep(day)
				}
				mail.add(sized(20))
			}
			if got := v.say(t, "AUTH PLAIN "+plain("", "tim", "tanstaaftanstaaf")); !strings.HasPrefix(got, "+OK") {
				t.Fatal(got)
			}
			var got []string
			for i, line := range v.multi(t, "UIDL") {
				number, uid, _ := strings.Cut(line, " ")
				if number != fmt.Sprint(i+1) {
					t.Errorf("line %d is %q", i+1, line)
				}
				got = append(got, uid)
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("%+v, %+v, %+v: saw %v, want %v", c.own, c.all, c.view, got, c.want)
			}
			_ = v.Close()
			b.end()
		})
	}
}

// Where the dates can't be had the login is refused, with the lock and the user's place released, and the cause is in
// the log; a whole maildrop is never shown instead.
func TestWindowFails(t *testing.T) {
	for name, break_ := range map[string]func(*shelf) maildrop.Store{
		"a date can't be read": func(s *shelf) maildrop.Store { s.dateErr = errAway; return s },
		"the store knows none": func(s *shelf) maildrop.Store {
			return storeFunc(func(ctx context.Context, o maildrop.Owner) (maildrop.Maildrop, error) {
				d, err := s.Open(ctx, o)
				if err != nil {
					return nil, err
				}
				return dateless{d}, nil
			})
		},
	} {
		mail := newShelf(sized(20), sized(20))
		b := newBench(t, mail, func(s *pop3server.Server) {
			s.Maildrops = break_(mail)
			s.Settings.MaxPerUser, s.Settings.Life.WindowMessages = 1, 1
		})
		v := b.visit(t, "127.0.0.1")
		_ = v.line(t)
		for range 2 {
			v.ask(t, "USER mrose", "+OK")
			v.ask(t, "PASS tanstaaf", "-ERR [SYS/TEMP] temporary fault, try again later")
		}
		if mail.held {
			t.Errorf("%s: the maildrop is held", name)
		}
		b.end()
		if log := b.log.String(); strings.Count(log, "level=ERROR") != 2 || strings.Contains(log, "logged in") {
			t.Errorf("%s:\n%s", name, log)
		}
	}
}

type dateless struct{ maildrop.Maildrop }

// A window on a store as it comes: what is outside can't be removed from inside either.
func TestWindowOnAStore(t *testing.T) {
	store := mem.New()
	for _, age := range []time.Duration{time.Hour, 49 * time.Hour, 2 * time.Hour} {
		store.DeliverAt("mrose", []byte("Subject: a\n\nb\n"), time.Now().Add(-age))
	}
	old := store.Messages("mrose")[1].UID
	b := newBench(t, newShelf(), func(s *pop3server.Server) {
		s.Maildrops = store
		s.Settings.Life = maildrop.Life{Window: 48 * time.Hour, Deletion: maildrop.DeletionRetrieved}
	})
	got := b.ask(t, login+"RETR 1\r\nDELE 2\r\nDELE 3\r\nQUIT\r\n")
	if !strings.Contains(got, "+OK 2 messages (") || !strings.Contains(got, "-ERR no such message\r\n+OK bye") {
		t.Errorf("%q", got)
	}
	if left := store.Messages("mrose"); len(left) != 1 || left[0].UID != old {
		t.Errorf("left %v", left)
	}
}
