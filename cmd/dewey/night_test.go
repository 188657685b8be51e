package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"dewey/auth"
	"dewey/config"
	"dewey/maildrop"
	"dewey/store/maildir"
)

// A dark night is one whose clocks, users and maildrops are the test's. In a bubble it is midnight UTC at first.
type darkNight struct {
	night
	out    bytes.Buffer
	order  sync.Mutex    // between the test and the night
	at     atomic.Int64  // mail.sweep_at
	jump   time.Duration // of the wall clock
	asleep time.Duration // while no timer went on
	reload chan struct{}
	zone   *time.Location
	names  []string
	turns  []string // user, and when it was
	err    func(user string) error
	end    context.CancelFunc
	ended  chan struct{}
}

func newNight(t *testing.T) *darkNight {
	n := &darkNight{zone: time.UTC, reload: make(chan struct{}, 1), names: []string{"mrose"}, err: func(string) error { return nil }, ended: make(chan struct{})}
	n.at.Store(int64(3*time.Hour + 30*time.Minute))
	began := time.Now()
	n.night = night{
		log:      slog.New(slog.NewTextHandler(&n.out, nil)),
		file:     filepath.Join(t.TempDir(), "swept"),
		at:       func() time.Duration { return time.Duration(n.at.Load()) },
		reloaded: n.reload,
		users:    func() ([]string, error) { return n.names, nil },
		owner: func(_ context.Context, user string) (maildrop.Owner, error) {
			if user == "gone" {
				return maildrop.Owner{}, fmt.Errorf("%w: gone", auth.ErrRejected)
			}
			return maildrop.Owner{Name: user, Life: maildrop.Life{Retention: 90 * 24 * time.Hour}}, nil
		},
		sweep: func(_ context.Context, o maildrop.Owner, now time.Time) (maildir.Swept, error) {
			n.turns = append(n.turns, o.Name+" "+n.wall().Format("02 15:04"))
			if err := n.err(o.Name); err != nil {
				return maildir.Swept{}, err
			}
			return maildir.Swept{Expired: []maildrop.Message{{UID: "1", Octets: 7}, {UID: "2", Octets: 8}}, Purged: 3}, nil
		},
		wall: func() time.Time {
			n.order.Lock()
			defer n.order.Unlock()
			return time.Now().Add(n.jump).In(n.zone)
		},
		elapsed: func() time.Duration {
			n.order.Lock()
			defer n.order.Unlock()
			return time.Since(began) + n.asleep
		},
	}
	return n
}

// start runs it in a bubble, until the test's end.
func (n *darkNight) start(t *testing.T) {
	ctx, end := context.WithCancel(t.Context())
	n.end = end
	go func() {
		defer close(n.ended)
		n.run(ctx)
	}()
	t.Cleanup(end)
}

// last says that the night before was so long before the next one.
func (n *darkNight) last(t *testing.T, before time.Duration) {
	t.Helper()
	if err := writeSwept(n.file, swept{at: nextTime(n.wall(), n.night.at()).Add(-before)}); err != nil {
		t.Fatal(err)
	}
}

func (n *darkNight) want(t *testing.T, turns ...string) {
	t.Helper()
	if !slices.Equal(n.turns, turns) {
		t.Errorf("%q, want %q; log:\n%s", n.turns, turns, &n.out)
	}
}

// pass lets time go by. What the test has done until now comes before all that the night does in it.
func (n *darkNight) pass(d time.Duration) {
	n.order.Lock()
	n.order.Unlock() //nolint:staticcheck // it is passed on
	time.Sleep(d)
	synctest.Wait()
}

// The first night only notes the time; those after it do the work, each once, and note theirs.
func TestNights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNight(t)
		n.names = []string{"mrose", "gone", "bob"}
		n.start(t)
		n.pass(5 * time.Hour)
		n.want(t)
		if got := read(t, n.file); got != "dewey swept 2\n2000-01-01T03:30:00Z\n0\n" {
			t.Errorf("%q", got)
		}
		if !strings.Contains(n.out.String(), "the first night") {
			t.Error(&n.out)
		}
		n.pass(48 * time.Hour)
		n.want(t, "mrose 02 03:30", "bob 02 03:30", "mrose 03 03:30", "bob 03 03:30")
		for _, line := range []string{
			`msg="old mail removed" user=bob messages=2 octets=15 older_than=90d`,
			`msg="night's work done" users=2 removed=4 purged=6 left_over=0 took=0s`,
		} {
			if strings.Count(n.out.String(), line) != 2 {
				t.Errorf("no %q in\n%s", line, &n.out)
			}
		}
		if strings.Contains(n.out.String(), "WARN") {
			t.Error(&n.out)
		}
		if left, err := os.ReadDir(filepath.Dir(n.file)); err != nil || len(left) != 1 {
			t.Errorf("%v, %v", left, err)
		}
	})
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A clock that is set a little, as is the rule, keeps nothing from its turn.
func TestNightsByAClockThatIsCorrected(t *testing.T) {
	for _, d := range []time.Duration{12 * time.Hour, 23 * time.Hour, 25 * time.Hour, 36 * time.Hour, 47 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			n := newNight(t)
			n.last(t, d)
			n.start(t)
			n.pass(time.Hour)
			n.jump = 59 * time.Minute
			n.pass(3 * time.Hour)
			if len(n.turns) != 1 {
				t.Errorf("%v: %q\n%s", d, n.turns, &n.out)
			}
		})
	}
}

// Where summer time begins and ends there is one night a day, at the time or within the hour.
func TestNightsOfSummerTime(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		from  string
		turns []string
	}{
		{"2000-03-24 12:00", []string{"25 02:30", "26 03:30", "27 02:30"}}, // from 02:00 to 03:00 on 26 March
		{"2000-10-27 12:00", []string{"28 02:30", "29 02:30", "30 02:30"}}, // from 03:00 to 02:00 on 29 October
	} {
		synctest.Test(t, func(t *testing.T) {
			n := newNight(t)
			n.zone = berlin
			n.at.Store(int64(2*time.Hour + 30*time.Minute))
			from, err := time.ParseInLocation("2006-01-02 15:04", test.from, berlin)
			if err != nil {
				t.Fatal(err)
			}
			n.jump = time.Until(from)
			n.last(t, 24*time.Hour)
			n.start(t)
			n.pass(72 * time.Hour)
			for i, at := range test.turns {
				if len(n.turns) != 3 || n.turns[i] != "mrose "+at {
					t.Fatalf("%q, want %q\n%s", n.turns, test.turns, &n.out)
				}
			}
		})
	}
}

// Another mail.sweep_at holds at once: neither twice in a day, nor at a time that has passed.
func TestNightsAndReloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNight(t)
		n.last(t, 24*time.Hour)
		n.start(t)
		set := func(at time.Duration) {
			n.at.Store(int64(at))
			n.reload <- struct{}{}
		}
		n.pass(time.Hour)
		set(time.Hour + time.Minute)
		n.pass(time.Minute)
		n.want(t, "mrose 01 01:01")
		set(30 * time.Minute)
		n.pass(12 * time.Hour)
		n.want(t, "mrose 01 01:01")
		n.pass(12 * time.Hour)
		n.want(t, "mrose 01 01:01", "mrose 02 00:30")
		n.reload <- struct{}{} // that says nothing new
		n.pass(24 * time.Hour)
		n.want(t, "mrose 01 01:01", "mrose 02 00:30", "mrose 03 00:30")
	})
}

// Whose maildrop is in use is tried again for an hour; a fault of one keeps nobody from his turn.
func TestNightsOfBusyUsers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNight(t)
		n.names = []string{"busy", "long", "broken", "mrose"}
		n.err = func(user string) error {
			switch {
			case user == "long", user == "busy" && time.Now().Before(time.Date(2000, 1, 1, 3, 44, 0, 0, time.UTC)):
				return fmt.Errorf("open: %w", maildrop.ErrInUse)
			case user == "broken":
				return errors.New("the disk")
			}
			return nil
		}
		n.last(t, 24*time.Hour)
		n.start(t)
		n.pass(3*time.Hour + 31*time.Minute)
		n.want(t, "busy 01 03:30", "long 01 03:30", "broken 01 03:30", "mrose 01 03:30")
		n.reload <- struct{}{}
		n.pass(time.Minute)
		n.want(t, "busy 01 03:30", "long 01 03:30", "broken 01 03:30", "mrose 01 03:30")
		n.pass(4 * time.Hour)
		tries := map[string]int{}
		for _, turn := range n.turns {
			user, _, _ := strings.Cut(turn, " ")
			tries[user]++
		}
		if tries["busy"] != 4 || tries["long"] != 13 || tries["broken"] != 1 || tries["mrose"] != 1 {
			t.Errorf("%q", n.turns)
		}
		for _, line := range []string{
			`level=ERROR msg="night's work" user=broken error="the disk"`,
			`user=long`,
			`msg="night's work done" users=2 removed=4 purged=6 left_over=2 took=1h0m0s`,
		} {
			if strings.Count(n.out.String(), line) != 1 {
				t.Errorf("not once %q in\n%s", line, &n.out)
			}
		}
		n.pass(20 * time.Hour)
		if last := n.turns[len(n.turns)-4:]; !slices.Contains(last, "long 02 03:30") {
			t.Errorf("%q", last)
		}
	})
}

// The end of the server ends it in the middle, and while it waits; a night that was cut short is not made up for at
// the next start.
func TestNightsEnd(t *testing.T) {
	for _, when := range []string{"in a turn", "between tries", "by day"} {
		t.Run(when, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNight(t)
				n.names = []string{"ann", "bob", "mrose"}
				n.err = func(user string) error {
					switch {
					case when == "in a turn" && user == "bob":
						n.end()
						return context.Canceled
					case when == "between tries":
						return maildrop.ErrInUse
					}
					return nil
				}
				n.last(t, 24*time.Hour)
				n.start(t)
				n.pass(3*time.Hour + 32*time.Minute)
				n.end()
				synctest.Wait()
				select {
				case <-n.ended:
				default:
					t.Error("it goes on")
				}
				want := map[string]string{
					"in a turn":     `msg="night's work cut short: the server ends" users=1 removed=2 purged=3 left_over=2`,
					"between tries": `msg="night's work cut short: the server ends" users=0 removed=0 purged=0 left_over=3`,
					"by day":        `msg="night's work done" users=3 removed=6 purged=9 left_over=0`,
				}[when]
				if log := n.out.String(); strings.Contains(log, "ERROR") || strings.Count(log, "night's work") != 1 || !strings.Contains(log, want) {
					t.Error(log)
				}
			})
		})
	}
}

// That the time can't be kept hinders the next night, not this one; and so it is if some lines of the users file are
// wrong.
func TestNightsWithFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNight(t)
		n.file += strings.Repeat("x", 245) // a name that leaves no room for a file to be written beside it
		write(t, n.file, "dewey swept 1\n1999-12-31T03:30:00Z\n")
		n.users = func() ([]string, error) { return n.names, errors.New("users:7: no colon") }
		n.start(t)
		n.pass(4 * time.Hour)
		n.want(t, "mrose 01 03:30")
		for _, word := range []string{"can't be kept", "users:7: no colon"} {
			if !strings.Contains(n.out.String(), word) {
				t.Errorf("no %q in %s", word, &n.out)
			}
		}
	})
}

func TestLasting(t *testing.T) {
	for text, d := range map[string]time.Duration{"1d": 24 * time.Hour, "90d": 90 * 24 * time.Hour, "36h": 36 * time.Hour, "30m": 30 * time.Minute, "1h30m": 90 * time.Minute, "1m1s": 61 * time.Second} {
		if got := lasting(d); got != text {
			t.Errorf("%v: %q, want %q", d, got, text)
		}
	}
}

// A night of a daemon, with its users, each with a retention of his own, and its store; a reload in between counts.
func TestNightOfADaemon(t *testing.T) {
	data, file := t.TempDir(), filepath.Join(t.TempDir(), "dewey.toml")
	write(t, filepath.Join(data, "users"), "mrose:{PLAIN}x\nbob:{PLAIN}x::::::retention=30d undelete=0\nann:{PLAIN}x::::::retention=never\nnone:{PLAIN}x\nwrong\n")
	write(t, file, "mail.retention = '90d'\nmail.undelete = '14d'\nmail.folders = ['Lists']\n")
	day := 24 * time.Hour
	for _, user := range []string{"mrose", "bob", "ann"} {
		for _, folder := range []string{"new", ".Lists/new"} {
			for _, age := range []time.Duration{day, 31 * day, 91 * day} {
				name := filepath.Join(data, "mail", user, folder, fmt.Sprintf("1.%d.h", age/day))
				for _, sub := range []string{"", "../cur", "../tmp"} {
					if err := os.MkdirAll(filepath.Join(filepath.Dir(name), sub), 0o700); err != nil {
						t.Fatal(err)
					}
				}
				write(t, name, "Subject: x\n\nhi\n")
				if at := time.Now().Add(-age); os.Chtimes(name, at, at) != nil {
					t.Fatal(name)
				}
			}
		}
	}
	var out bytes.Buffer
	d := &daemon{log: slog.New(slog.NewTextHandler(&out, nil)), load: func() (*config.Config, error) { return config.Load(file, []string{"data=" + data}) }}
	if err := d.prepare(); err == nil || !strings.Contains(err.Error(), "users:5") {
		t.Fatal(err)
	}
	write(t, filepath.Join(data, "users"), strings.Replace(read(t, filepath.Join(data, "users")), "wrong\n", "", 1))
	if err := d.prepare(); err != nil {
		t.Fatal(err)
	}
	n, now := d.night(), reading{time.Now().Add(time.Minute), 0} // the store removes by the real clock
	n.elapsed = func() time.Duration { return now.elapsed }
	night := func(want string, left map[string]int) {
		t.Helper()
		before := now
		now = reading{now.wall.Add(day), now.elapsed + day}
		out.Reset()
		n.work(t.Context(), before, now)
		if !strings.Contains(out.String(), want) || strings.Contains(out.String(), "ERROR") {
			t.Errorf("no %q in %s", want, &out)
		}
		for path, want := range left {
			if found, err := filepath.Glob(filepath.Join(data, "mail", path, "*.h*")); err != nil || len(found) != want {
				t.Errorf("%s: %q, want %d", path, found, want)
			}
		}
	}
	night("the first night", map[string]int{"mrose/new": 3, "bob/new": 3, "mrose/.Lists/new": 3})
	night("users=4 removed=6 purged=0 left_over=0", map[string]int{"mrose/new": 2, "bob/new": 1, "ann/new": 3, "mrose/.Lists/new": 2})
	if removed := must(t, data, "mail", "list", "mrose", "--removed", "--config", file); !strings.HasPrefix(lastLine(removed), "2 messages") {
		t.Error(removed)
	}
	for range 11 {
		night("users=4 removed=0 purged=0 left_over=0", nil)
	}
	night("users=4 removed=0 purged=2 left_over=0", nil)
	c, err := config.Load(file, []string{"data=" + data, "mail.retention=20d"})
	if err != nil {
		t.Fatal(err)
	}
	d.current.Store(c)
	night("users=4 removed=2 ", map[string]int{"mrose/new": 1, "bob/new": 1, "ann/new": 3})
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
