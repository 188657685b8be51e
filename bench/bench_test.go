package bench_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dewey/bench"
	"dewey/maildrop"
)

// Each workload does what it says, and counts it, however TLS comes about and however one logs in.
func TestWorkloads(t *testing.T) {
	for _, mode := range []string{bench.Plain, bench.STLS, bench.Implicit} {
		for _, how := range []string{bench.AuthUser, bench.AuthAPOP, bench.AuthPlain} {
			for name, unit := range map[string]string{"poll": "sessions", "open": "sessions", "fetch": "messages", "pipeline": "commands", "update": "messages", "idle": "connections"} {
				t.Run(mode+"/"+how+"/"+name, func(t *testing.T) {
					t.Parallel()
					const each = 7
					s := startServer(t)
					octets := s.fill(each)
					o := s.options(mode)
					o.Auth = how
					want := map[string]int64{"sessions": 8, "messages": 8 * each}
					switch name {
					case "fetch":
						want["octets"] = 8 * octets
					case "pipeline":
						want["octets"], want["commands"] = 8*octets, 8*each*5
					case "update":
						want["sessions"], want["messages"], want["octets"] = 4, 4*each, 4*octets
					case "idle":
						o.Duration, o.Count = time.Millisecond, 0
						want = map[string]int64{"connections": 2, "sessions": 2}
					}
					r, err := bench.Run(t.Context(), name, o)
					if err != nil {
						t.Fatal(err)
					}
					for what, n := range want {
						if got := count(r, what); got != n {
							t.Errorf("%d %s, want %d", got, what, n)
						}
					}
					if r.Counts[0].What != unit || r.Counts[0].PerSecond <= 0 {
						t.Errorf("%+v", r.Counts[0])
					}
					for _, l := range r.Latency {
						if l.Count < 2 || l.P50 <= 0 || l.P50 > l.P90 || l.P90 > l.P99 || l.P99 > l.P999 || l.P999 > l.Max || l.Mean > l.Max {
							t.Errorf("%+v", l)
						}
					}
					if mode != bench.Plain && (len(r.Agreed) != 1 || r.Agreed[0].Version != "TLS 1.3" || r.Agreed[0].Resumed) {
						t.Errorf("%+v", r.Agreed)
					}
					left := each
					if name == "update" {
						left = 0
					}
					for _, u := range o.Users {
						if n := len(s.store.Messages(u.Name)); n != left {
							t.Errorf("%s has %d messages left, want %d", u.Name, n, left)
						}
					}
				})
			}
		}
	}
}

// Tickets are used if that was asked for: all but the first session of each of two slots.
func TestResume(t *testing.T) {
	s := startServer(t)
	o := s.options(bench.Implicit)
	o.Resume = true
	o.TLSConfig.CurvePreferences = []tls.CurveID{tls.CurveP256}
	r, err := bench.Run(t.Context(), "poll", o)
	if err != nil {
		t.Fatal(err)
	}
	resumed := int64(0)
	for _, a := range r.Agreed {
		if a.Curve != "CurveP256" {
			t.Errorf("%+v", a)
		}
		if a.Resumed {
			resumed += a.Count
		}
	}
	if resumed < 6 {
		t.Errorf("%d of 8 resumed", resumed)
	}
}

// What is delivered is what was sent: the size, the dots, and a Message-ID of its own.
func TestDeliver(t *testing.T) {
	s := startServer(t)
	for _, size := range []int{400, 401, 477, 478, 479, 480, 1000, 20000} {
		o := options(s.lmtp)
		o.Size, o.PerMessage, o.PerConnection = size, 2, 3
		r, err := bench.Run(t.Context(), "deliver", o)
		if err != nil {
			t.Fatal(err)
		}
		if count(r, "deliveries") != 16 || count(r, "messages") != 8 || count(r, "octets") != 16*int64(size) {
			t.Errorf("%+v", r.Counts)
		}
	}
	ids := map[string]bool{}
	for i := range 4 {
		user := fmt.Sprint("u", i+1)
		for n, m := range s.store.Messages(user) {
			text := readMessage(t, s, user, n+1)
			_, own, _ := strings.Cut(text, "\r\nDate: ") // behind the server's trace
			want := []int64{400, 401, 477, 478, 479, 480, 1000, 20000}[n/4]
			if got := int64(len("Date: " + own)); got != want {
				t.Errorf("%s: message %d has %d octets, want %d (%d with the trace)", user, n+1, got, want, m.Octets)
			}
			_, id, _ := strings.Cut(text, "\r\nMessage-ID: ")
			id, _, _ = strings.Cut(id, "\r\n")
			ids[id] = true
			if want == 20000 && !strings.Contains(text, "\r\n.oad") {
				t.Error("no line begins with a dot")
			}
		}
	}
	if len(ids) != 8*8 {
		t.Errorf("%d different Message-IDs, want 64", len(ids))
	}
}

func TestDeliverToUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err == nil {
			liar{"": "220 here\r\n", "QUIT": "221 bye\r\n" + hangup}.session(c)
			c.Close()
		}
	}()
	o := options("unix:" + path)
	o.Connections = 1
	r, err := bench.Run(t.Context(), "deliver", o)
	l.Close()
	<-done
	if err != nil || count(r, "deliveries") != 8 {
		t.Errorf("%+v, %v", r, err)
	}
}

// With a rate, latencies count from when a session was due: a server that stops for a while is not let off with one
// slow session. Without, it is one.
func TestRate(t *testing.T) {
	const stop = 400 * time.Millisecond
	for _, rate := range []float64{0, 200} {
		l := listen(t)
		done := make(chan struct{})
		go func() { // one session after the other
			defer close(done)
			for n := 0; ; n++ {
				c, err := l.Accept()
				if err != nil {
					return
				}
				if n == 20 {
					<-time.After(stop) // what is measured
				}
				liar{}.session(c)
				c.Close()
			}
		}()
		o := options(l.Addr().String())
		o.Connections, o.Count, o.Rate = 1, 120, rate
		r, err := bench.Run(t.Context(), "poll", o)
		l.Close()
		<-done
		if err != nil {
			t.Fatal(err)
		}
		took := latency(r, "session")
		if took.Count != 120 || took.Max < 400 {
			t.Errorf("rate %g: %+v", rate, took)
		}
		// At 200 a second, 80 are due while it stops: more than a tenth waits at least half of it.
		if rate > 0 && (took.P90 < 200 || r.Elapsed < 119/rate) {
			t.Errorf("the stop is hidden: %+v in %g s", took, r.Elapsed)
		}
		if rate == 0 && took.P90 > 200 {
			t.Errorf("one stop is all there is: %+v", took)
		}
	}
}

// When its context ends so does a run, with what was measured and no error; nothing is left behind (goleak).
func TestInterrupted(t *testing.T) {
	for _, name := range []string{"poll", "fetch", "pipeline", "idle"} {
		s := startServer(t)
		s.fill(3)
		ctx, cancel := context.WithCancel(t.Context())
		o := s.options(bench.Plain)
		o.Count, o.Duration = 0, time.Hour
		o.Live = func(p bench.Progress) {
			if p.Units > 0 && p.Unit != "" && p.Elapsed > 0 {
				cancel()
			}
		}
		r, err := bench.Run(ctx, name, o)
		if err != nil || !r.Interrupted || r.Errors != 0 || r.Counts[0].Count == 0 {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

// A duration ends a run though the maildrop goes on, and a session that was cut short does not count as one.
func TestDurationEndsWithinASession(t *testing.T) {
	s := startServer(t)
	for range 20000 {
		s.store.Deliver("u1", []byte("a: b\n\nc\n"))
	}
	o := s.options(bench.Plain)
	o.Users, o.Connections, o.Count, o.Duration = o.Users[:1], 1, 0, 50*time.Millisecond
	r, err := bench.Run(t.Context(), "fetch", o)
	if err != nil || r.Interrupted || count(r, "messages") == 20000 || count(r, "sessions") > 0 || latency(r, "session").Count > 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

// readMessage reads what RETR would send.
func readMessage(t *testing.T, s *server, user string, n int) string {
	t.Helper()
	m, err := s.store.Open(t.Context(), maildrop.Owner{Name: user})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	_, body, err := m.Retrieve(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	text, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
