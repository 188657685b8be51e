package main

import (
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A clock that is not to be believed removes nothing: not in the night in which it shows, nor in seven more, in which
// the clock looks right whether it is or not.
func TestNightsByAWrongClock(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(n *darkNight, t *testing.T)
		jump    time.Duration // after an hour
		word    string
	}{
		"damaged note":      {func(n *darkNight, t *testing.T) { write(t, n.file, "x") }, 0, "does not hold when"},
		"another version":   {func(n *darkNight, t *testing.T) { write(t, n.file, "dewey swept 3\n1999-12-31T03:30:00Z\n0\n") }, 0, "does not hold when"},
		"long ago":          {func(n *darkNight, t *testing.T) { n.last(t, 49*time.Hour) }, 0, "was 49h0m0s ago, on 1999-12-30T02:30:00Z"},
		"in the future":     {func(n *darkNight, t *testing.T) { n.last(t, -24*time.Hour) }, 0, "was -24h0m0s ago"},
		"put forward":       {func(n *darkNight, t *testing.T) { n.last(t, 24*time.Hour) }, 2 * time.Hour, "was set by 2h0m0s"},
		"put forward years": {func(n *darkNight, t *testing.T) { n.last(t, 24*time.Hour) }, 10000 * time.Hour, "was set by 10000h0m0s"},
		"put back":          {func(n *darkNight, t *testing.T) { n.last(t, 24*time.Hour) }, -61 * time.Minute, "was set by -1h1m0s"},
		"put back years":    {func(n *darkNight, t *testing.T) { n.last(t, 24*time.Hour) }, -10000 * time.Hour, "was set by -10000h0m0s"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNight(t)
				test.prepare(n, t)
				n.start(t)
				n.pass(time.Hour)
				n.jump = test.jump
				for d := time.Duration(0); n.out.Len() == 0; d += glance {
					if d > 25*time.Hour {
						t.Fatal("nothing in a day")
					}
					n.pass(glance)
				}
				if log := n.out.String(); !strings.Contains(log, test.word) {
					t.Error(log)
				}
				// It says when it goes on, and keeps to it.
				from, err := time.Parse(time.RFC3339, field(n.out.String(), "from"))
				if err != nil || from.Sub(n.wall()) < 7*24*time.Hour || from.Sub(n.wall()) > 9*24*time.Hour {
					t.Fatalf("%v, %v at %v", err, from, n.wall())
				}
				n.pass(from.Sub(n.wall()) - time.Minute)
				n.want(t)
				for line := range strings.Lines(n.out.String()) {
					if !strings.Contains(line, "level=ERROR") || field(line, "from") != from.Format(time.RFC3339) || field(line, "in_doubt_since") != field(n.out.String(), "in_doubt_since") {
						t.Errorf("%v: %s", from, line)
					}
				}
				if nights := strings.Count(n.out.String(), "\n"); nights < 8 || nights > 9 { // one may come too soon
					t.Errorf("%d nights: %s", nights, &n.out)
				}
				n.pass(2 * time.Minute)
				n.want(t, "mrose "+from.Format("02 15:04"))
			})
		})
	}
}

// A night that was done late, or a new mail.sweep_at, makes the next one too near: that is left out, without a doubt. A
// version 1 file is read.
func TestNightsTooNear(t *testing.T) {
	for _, d := range []time.Duration{11*time.Hour + 59*time.Minute, 10 * time.Minute, -59 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			n := newNight(t)
			write(t, n.file, "dewey swept 1\n"+nextTime(n.wall(), n.night.at()).Add(-d).UTC().Format(time.RFC3339)+"\n")
			n.start(t)
			n.pass(4 * time.Hour)
			n.want(t)
			if log := n.out.String(); !strings.Contains(log, "level=INFO") || !strings.Contains(log, "was not long ago") || strings.Count(log, "\n") != 1 {
				t.Error(log)
			}
			n.pass(24 * time.Hour)
			n.want(t, "mrose 02 03:30")
		})
	}
}

// A machine that sleeps over the night does its work when it wakes up, and that of the night after.
func TestNightsOfASleeper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNight(t)
		n.last(t, 24*time.Hour)
		n.start(t)
		n.pass(10 * time.Hour)
		n.want(t, "mrose 01 03:30")
		n.order.Lock() // until 17:00, which it notices soon
		n.jump, n.asleep = 31*time.Hour, 31*time.Hour
		n.order.Unlock()
		n.pass(time.Hour)
		n.want(t, "mrose 01 03:30", "mrose 02 17:05")
		n.pass(40 * time.Hour)
		n.want(t, "mrose 01 03:30", "mrose 02 17:05", "mrose 04 03:30")
		if log := n.out.String(); strings.Contains(log, "ERROR") {
			t.Error(log)
		}
	})
}

// A clock that is put right while it is in doubt is in doubt anew; the file removed is as before a first night.
func TestNightsAfterAWrongClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNight(t)
		n.last(t, 24*time.Hour)
		n.start(t)
		n.pass(time.Hour)
		n.jump = 400 * 24 * time.Hour
		n.pass(5 * 24 * time.Hour)
		n.jump = 0
		n.out.Reset()
		n.pass(24 * time.Hour)
		if got := read(t, n.file); got != "dewey swept 2\n2000-01-06T03:30:00Z\n7 since 2000-01-06T03:30:00Z\n" {
			t.Errorf("%q\n%s", got, &n.out)
		}
		n.pass(24 * time.Hour)
		if got, log := read(t, n.file), n.out.String(); got != "dewey swept 2\n2000-01-07T03:30:00Z\n6 since 2000-01-06T03:30:00Z\n" ||
			strings.Count(log, " in_doubt_since=2000-01-06T03:30:00Z from=2000-01-14T03:30:00Z or_remove=") != 2 {
			t.Errorf("%q\n%s", got, log)
		}
		if err := os.Remove(n.file); err != nil {
			t.Fatal(err)
		}
		n.pass(24 * time.Hour)
		n.want(t)
		n.pass(24 * time.Hour)
		n.want(t, "mrose 09 03:30")
	})
}

// What is no note of a night is none, however near it comes.
func TestParseSwept(t *testing.T) {
	at, since := time.Date(2026, 11, 23, 3, 30, 0, 0, time.UTC), time.Date(2026, 11, 20, 3, 30, 0, 0, time.UTC)
	const line = "2026-11-23T03:30:00Z\n"
	for text, want := range map[string]swept{
		"dewey swept 1\n" + line:                                    {at: at},
		"dewey swept 2\n" + line + "0\n":                            {at: at},
		"dewey swept 2\n" + line + "7 since 2026-11-20T03:30:00Z\n": {at: at, wary: 7, since: since},
		"":                                 {},
		"\n\n\n":                           {},
		"dewey swept 1\n":                  {},
		"dewey swept 1\n" + line + "0\n":   {},
		"dewey swept 2\n" + line:           {},
		"dewey swept 2\n" + line + "0":     {},
		"dewey swept 2\n" + line + "0\n\n": {},
		"dewey swept 2\n" + line + "7\n":   {},
		"dewey swept 2\n" + line + "8 since 2026-11-20T03:30:00Z\n":  {},
		"dewey swept 2\n" + line + "-1 since 2026-11-20T03:30:00Z\n": {},
		"dewey swept 2\n" + line + "0 since 2026-11-20T03:30:00Z\n":  {},
		"dewey swept 2\n" + line + "1 since \n":                      {},
		"dewey swept 2\nyesterday\n0\n":                              {},
	} {
		if got, ok := parseSwept(text); ok != !want.at.IsZero() || ok && (got.wary != want.wary || !got.at.Equal(want.at) || !got.since.Equal(want.since)) {
			t.Errorf("%q: %+v, %v", text, got, ok)
		}
	}
}
