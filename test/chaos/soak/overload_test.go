package soak

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dewey/test/chaos/harness"
)

const (
	// places is login.max_connections: beyond it newcomers are told at once.
	places = 300
	// mostWait is how long a newcomer may wait for what becomes of it.
	mostWait = 30 * time.Second
	// soon is how long after an overload service may be slow, and normal is how long a poll takes then.
	soon, normal = 10 * time.Second, time.Second
)

// At four times the sessions that the machine can do: those who are inside finish what they have begun, newcomers get in or
// get -ERR [SYS/TEMP], at once or after a time that is bounded, and seconds after it has ended service is as it was.
func TestOverload(t *testing.T) {
	const users, insiders = 2000, 20
	l := newLoad(t, users, harness.Options{Settings: []string{fmt.Sprint("login.max_connections=", places), "login.max_per_user=2000"}})
	for _, u := range l.users {
		harness.Put(t, l.data+"/mail/"+u.name, "new", "1.a", harness.Text(u.name, 2000))
	}
	var inside []*harness.POP3
	for i := range insiders {
		c, err := harness.DialPOP3(l.POP3)
		if err == nil {
			err = c.Login(l.users[i].name)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(4 * harness.Patience))
		inside = append(inside, c)
	}
	rest := l.users[insiders:]

	// How many sessions a second there can be: as many clients as make it busy, one session after the other.
	measured, length := 2*time.Second, 4*time.Second
	if harness.Full() {
		measured, length = 10*time.Second, 60*time.Second
	}
	var did atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for i := range 32 {
		wg.Go(func() {
			for n := i; time.Since(start) < measured; n += 32 {
				if _, err := l.newcomer(rest[n%len(rest)]); err != nil {
					t.Error(err)
				}
				did.Add(1)
			}
		})
	}
	wg.Wait()
	rate := float64(did.Load()) / time.Since(start).Seconds()

	// Four times that, whether they are served or not; those inside go on meanwhile, and finish.
	offered := 4 * rate
	over := make(chan struct{})
	var slowest atomic.Int64
	for i, c := range inside {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-over:
					if _, err := c.Do("DELE 1"); err != nil {
						t.Errorf("inside: %v", err)
					}
					if _, err := c.Do("QUIT"); err != nil {
						t.Errorf("inside: %v", err)
					}
					return
				default:
				}
				began := time.Now()
				if text, err := c.Multi("RETR 1"); err != nil || harness.Key(text) != l.users[i].name {
					t.Errorf("inside, command %d: %v", n, err)
					return
				}
				slowest.Store(max(slowest.Load(), int64(time.Since(began))))
			}
		})
	}
	var served, told, longest, skipped, arrived atomic.Int64
	open := make(chan bool, 6000) // of this process's descriptors
	var visitors sync.WaitGroup
	begin := time.Now()
	for tick := time.NewTicker(5 * time.Millisecond); time.Since(begin) < length; <-tick.C {
		for float64(arrived.Load()+skipped.Load()) < offered*time.Since(begin).Seconds() {
			select {
			case open <- true:
			default:
				skipped.Add(1)
				continue
			}
			u := rest[int(arrived.Add(1))%len(rest)]
			visitors.Go(func() {
				defer func() { <-open }()
				began := time.Now()
				in, err := l.newcomer(u)
				if err != nil {
					t.Errorf("a newcomer, after %v: %v", time.Since(began), err)
				}
				if in {
					served.Add(1)
				} else {
					told.Add(1)
				}
				longest.Store(max(longest.Load(), int64(time.Since(began))))
			})
		}
	}
	took := time.Since(begin)
	visitors.Wait()
	close(over)
	wg.Wait()
	ended := time.Now()
	var back time.Duration
	harness.Await(t, "service as it was", func() bool {
		began := time.Now()
		in, err := l.newcomer(rest[0])
		back = time.Since(ended)
		return in && err == nil && time.Since(began) < normal
	})
	if back > soon {
		t.Errorf("service was normal %v after the overload, want %v at most", back, soon)
	}
	if d := time.Duration(longest.Load()); d > mostWait {
		t.Errorf("a newcomer waited %v", d)
	}
	for i := range insiders {
		if seen, err := harness.Fetch(l.POP3, l.users[i].name); err != nil || len(seen) != 0 {
			t.Errorf("%s removed all, and has %d messages, %v", l.users[i].name, len(seen), err)
		}
	}
	if lines := l.complaints(); len(lines) > 0 {
		t.Errorf("%d complaints: %q", len(lines), lines[:min(5, len(lines))])
	}
	l.Stop()
	harness.Report(t, "overload", map[string]any{
		"sessions_each_second_before": int(rate), "offered_each_second": int(float64(arrived.Load()) / took.Seconds()), "seconds": int(took.Seconds()), "inside": insiders,
		"newcomers": arrived.Load(), "served": served.Load(), "told_to_come_again": told.Load(), "not_tried": skipped.Load(),
		"longest_newcomer_ms": longest.Load() / 1e6, "longest_inside_ms": slowest.Load() / 1e6, "normal_after_ms": back.Milliseconds(),
	})
}

// newcomer is one whole session of few round trips; false if it was told to come again.
func (l *load) newcomer(u *user) (in bool, err error) {
	conn, err := net.DialTimeout("tcp", l.POP3, mostWait)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(mostWait))
	c := &harness.POP3{Conn: conn, In: bufio.NewReader(conn)}
	greeting, err := c.In.ReadString('\n')
	if strings.HasPrefix(greeting, "-ERR [SYS/TEMP] ") {
		return false, nil
	}
	if err != nil || !strings.HasPrefix(greeting, "+OK") {
		return false, fmt.Errorf("greeting %q, %w", greeting, err)
	}
	if err := c.Login(u.name); err != nil {
		if busy(err) { // the same user, in another session
			return false, nil
		}
		return false, err
	}
	if _, err := c.Multi("UIDL"); err != nil {
		return false, err
	}
	if _, err := c.Multi("RETR 1"); err != nil {
		return false, err
	}
	_, err = c.Do("QUIT")
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("no reply to QUIT: %w", err)
	}
	return err == nil, err
}
