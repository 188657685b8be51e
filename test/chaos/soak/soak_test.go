package soak

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"dewey/test/chaos/harness"
)

// mostLeft is the memory that may be held beyond that at the start when all have gone, in KiB: what is remembered of
// maildrops, passwords and addresses, and what Go has not given back yet.
const mostLeft = 160 << 10

// history is the file of the day: it is open once something was fetched.
const history = 1

// Ten thousand clients at once connect, fetch, remove, hang up and come again, for ten minutes, while mail arrives. Then the
// models and the disk agree, no descriptor, lock, goroutine or temporary file is left, and the memory is back near where it
// was.
func TestSoak(t *testing.T) {
	clients, length, pause := harness.Some(10_000, 400), 8*time.Second, time.Second
	if harness.Full() {
		length, pause = 10*time.Minute, 30*time.Second
	}
	quiet := newLoad(t, 1, harness.Options{}) // how many goroutines there are without a load
	l := newLoad(t, clients, harness.Options{})
	for _, x := range []*load{quiet, l} {
		if _, err := harness.Fetch(x.POP3, "user0"); err != nil {
			t.Fatal(err)
		}
	}
	start := l.sample()
	idle := quiet.goroutines()
	l.run(length, pause)

	messages := l.disk()
	harness.Await(t, "the descriptors of before", func() bool { return l.descriptors() <= start.files+history })
	harness.Await(t, "all locks to be given back", func() bool { return l.locks() == 0 })
	harness.Await(t, "the memory of before, or near it", func() bool { return l.sample().rss <= start.rss+mostLeft })
	end := l.sample()
	if names := l.left(); len(names) > 0 {
		t.Errorf("left behind: %q", names)
	}
	if lines := l.complaints(); len(lines) > 0 {
		t.Errorf("%d complaints: %q", len(lines), lines[:min(5, len(lines))])
	}
	if n := l.goroutines(); n > idle+2 {
		t.Errorf("%d goroutines at the end, %d in a server without a load", n, idle)
	}
	if problems, _ := harness.Check(t, l.data, "--sizes"); len(problems) > 0 {
		t.Errorf("dewey check: %v", problems)
	}
	peak := start
	for _, s := range l.samples {
		if s.rss > peak.rss {
			peak = s
		}
	}
	harness.Report(t, "soak", map[string]any{
		"clients": clients, "seconds": int(length.Seconds()), "sessions": l.sessions.Load(), "retrieved": l.retrieved.Load(),
		"removed": l.removed.Load(), "delivered": l.delivered.Load(), "left_at_the_end": messages,
		"rss_start_kib": start.rss, "rss_peak_kib": peak.rss, "rss_end_kib": end.rss, "descriptors_start": start.files, "descriptors_end": end.files,
		"goroutines_idle": idle,
	})
	if out := os.Getenv("DEWEY_CHAOS_OUT"); out != "" {
		if err := os.WriteFile(filepath.Join(out, "reliability-memory.svg"), l.plot(length), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// The same with the race detector, shorter.
func TestSoakWithRaceDetector(t *testing.T) {
	clients, length := harness.Some(1000, 60), 4*time.Second
	if harness.Full() {
		length = 2 * time.Minute
	}
	l := newLoad(t, clients, harness.Options{Wrap: withRace(t)})
	l.run(length, time.Second)
	messages := l.disk()
	if lines := l.complaints(); len(lines) > 0 {
		t.Errorf("%d complaints: %q", len(lines), lines[:min(5, len(lines))])
	}
	l.Stop()
	harness.Report(t, "soak-race", map[string]any{
		"clients": clients, "seconds": int(length.Seconds()), "sessions": l.sessions.Load(), "delivered": l.delivered.Load(),
		"removed": l.removed.Load(), "left_at_the_end": messages, "races": 0,
	})
}
