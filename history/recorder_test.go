package history

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dewey/maildrop"
	"dewey/pop3server"
	"dewey/store/mem"
)

const letter = "Subject: dinner\n\nCome at seven.\n" // 35 octets as sent

// What each session did is there once it has ended.
func TestSessions(t *testing.T) {
	for name, c := range map[string]struct {
		faulty faulty
		do     func(t *testing.T, c *client)
		want   string // with 1, 2, 3 for the unique-ids
	}{
		"whole": {do: func(t *testing.T, c *client) {
			c.fetch(t, 1)
			c.fetch(t, 3)
			c.say(t, "QUIT")
		}, want: "fetched 1 35; fetched 3 35; quit 2/70 0 0 0"},
		"removed": {do: func(t *testing.T, c *client) {
			c.fetch(t, 2)
			c.say(t, "DELE 2")
			c.say(t, "DELE 1")
			c.say(t, "QUIT")
		}, want: "fetched 2 35; removed 1 35; removed 2 35; quit 1/35 0 2 0"},
		"not removed by a fault": {faulty: faulty{remove: true}, do: func(t *testing.T, c *client) {
			c.say(t, "DELE 1")
			c.say(t, "DELE 2")
			c.say(t, "QUIT")
		}, want: "kept 1 35; kept 2 35; quit 0/0 0 0 2"},
		"no QUIT": {do: func(t *testing.T, c *client) {
			c.fetch(t, 1)
			c.say(t, "DELE 1")
		}, want: "fetched 1 35; EOF 1/35 0 0 0"},
		"cut off": {faulty: faulty{read: true}, do: func(t *testing.T, c *client) {
			if c.fetch(t, 1) != -1 {
				t.Error("not cut off")
			}
		}, want: "cut 1 35; response cut short 0/0 1 0 0"},
		"hung up in a message": {do: func(t *testing.T, c *client) {
			c.say(t, "RETR 1") // no more is read; the whole was handed to the connection all the same
		}, want: "fetched 1 35; EOF 1/35 0 0 0"},
		"nothing": {do: func(t *testing.T, c *client) { c.say(t, "QUIT") }},
		"not all": {do: func(t *testing.T, c *client) {
			c.say(t, "TOP 1 0")
			for range 3 {
				c.line(t)
			}
			c.say(t, "QUIT")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				rec, log, stop := recorder(Options{Dir: dir, Keep: month})
				c.faulty.Store = mem.New()
				var uids []string
				for range 3 {
					uids = append(uids, c.faulty.Deliver("mrose", []byte(letter)))
				}
				h := newHouse(t, c.faulty, rec.Hooks(pop3server.Hooks{}))
				began := time.Now()
				client := h.login(t, "mrose")
				time.Sleep(time.Second)
				c.do(t, client)
				_ = client.Close()
				synctest.Wait()
				stop()
				got := read(t, dir, Query{User: "mrose"})
				want := c.want
				for i, uid := range uids {
					want = strings.ReplaceAll(want, fmt.Sprintf(" %d 35;", i+1), " "+uid+" 35;")
				}
				if g := line(got); g != want {
					t.Fatalf("got  %s\nwant %s", g, want)
				}
				lines := 0
				if want != "" {
					lines = 1
					who := got[0].Who
					if !who.Login.Equal(began) || who.From.String() != "192.0.2.1:1024" || who.Method != "PASS" || who.TLS || who.Session != 1 || who.By != "" {
						t.Errorf("%+v", who)
					}
					if at := got[0].Messages[0].At; at != time.Second {
						t.Errorf("a second after login is %v", at)
					}
				}
				if log.count(`msg="handed out" session=1 remote=192.0.2.1:1024 user=mrose `) != lines || log.count("\n") != lines {
					t.Errorf("the log: %s", log.text.String())
				}
				_ = h.srv.Close()
			})
		})
	}
}

// Whose hooks were there before are called too, and without history they are all there is.
func TestHooksOfOthers(t *testing.T) {
	var got []string
	add := func(s string) { got = append(got, s) }
	others := pop3server.Hooks{
		Connected: func(pop3server.Session) { add("connected") },
		LoggedIn:  func(pop3server.Session, int, int64) { add("in") },
		Retrieved: func(pop3server.Session, int, maildrop.Message, error) { add("retrieved") },
		Updated:   func(pop3server.Session, []maildrop.Message, error) { add("updated") },
		Closed:    func(pop3server.Session, pop3server.End) { add("closed") },
	}
	for _, keep := range []time.Duration{month, 0} {
		got = nil
		r := New(Options{Dir: t.TempDir(), Keep: keep, Logger: slog.New(slog.DiscardHandler)})
		h, s := r.Hooks(others), someone(1, "mrose")
		h.Connected(s)
		h.LoggedIn(s, 1, 1)
		h.Retrieved(s, 1, maildrop.Message{}, nil)
		h.Updated(s, []maildrop.Message{{}}, nil)
		h.Closed(s, pop3server.End{})
		if g := strings.Join(got, " "); g != "connected in retrieved updated closed" {
			t.Errorf("%v: %s", keep, g)
		}
		if n := len(r.queue.waiting); (n > 0) != (keep > 0) {
			t.Errorf("%v: %d octets wait", keep, n)
		}
	}
}

// A session of many messages is written as it goes on, in pieces that its lines hold together, and is found
// before it ends. The log has one line, a short one.
func TestLongSession(t *testing.T) {
	const messages = 8000
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r, log, stop := recorder(Options{Dir: dir, Keep: month})
		h, s := r.Hooks(pop3server.Hooks{}), someone(7, "mrose")
		s.By, s.TLS = "chief", true
		h.LoggedIn(s, messages, 0)
		var all []maildrop.Message
		for i := range messages {
			m := maildrop.Message{UID: fmt.Sprintf("uid%d", i), Octets: int64(i), Surrogate: int64(i%2) * 7}
			all = append(all, m)
			h.Retrieved(s, i+1, m, nil)
			if n := inMemory(r, 7); n > 2*pieceSize {
				t.Fatalf("%d octets in memory", n)
			}
		}
		time.Sleep(settle)
		synctest.Wait()
		before := sessions(t, dir, Query{User: "mrose"})
		if len(before) != 1 || before[0].Ended || before[0].End.Fetched != messages || before[0].By != "chief" || !before[0].TLS {
			t.Errorf("%+v", before)
		}
		if n := inMemory(r, 7); n > 0 || len(r.dirty) > 0 {
			t.Errorf("%d octets are still in memory", n)
		}
		h.Updated(s, all, nil)
		h.Closed(s, pop3server.End{Retrieved: messages, Octets: 4711, Removed: messages})
		stop()
		pieces := read(t, dir, Query{User: "mrose"})
		n := map[Kind]int{}
		for i, p := range pieces {
			for _, m := range p.Messages {
				if want := fmt.Sprintf("uid%d", n[m.Kind]); m.UID != want {
					t.Fatalf("piece %d: %s, want %s", i, m.UID, want)
				}
				n[m.Kind]++
			}
			if (p.End != nil) != (i == len(pieces)-1) {
				t.Errorf("piece %d of %d: %+v", i, len(pieces), p.End)
			}
		}
		if n[Fetched] != messages || n[Removed] != messages || len(pieces) < 50 {
			t.Errorf("%v in %d pieces", n, len(pieces))
		}
		after := sessions(t, dir, Query{User: "mrose"})
		if want := (End{At: settle, Why: "quit", Fetched: messages, Octets: 4711, Removed: messages}); len(after) != 1 || !after[0].Ended || after[0].End != want {
			t.Errorf("%+v", after)
		}
		if log.count(`fetched="uid0 uid1 uid2 uid3 uid4 uid5 uid6 uid7 and 7992 more" removed="uid0 `) != 1 || log.count("\n") != 1 {
			t.Errorf("the log: %s", log.text.String())
		}
		of := read(t, dir, Query{User: "mrose", UID: "uid77"})
		if g := line(of); g != "fetched uid77 7; removed uid77 7; " {
			t.Error(g)
		}
	})
}

// Each day has a file of its own; those that are too old go, at start and while the server runs.
func TestRotation(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"1999-12-28.jsonl": versionLine, "1999-12-29.jsonl": versionLine, "notes.txt": "mine", "1999-12-01": "mine", "1999-13-01.jsonl": "mine",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "1999-12-02.jsonl"), 0o700); err != nil {
		t.Fatal(err)
	}
	files := func() string {
		var names []string
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			info, err := e.Info()
			if err != nil {
				t.Fatal(err)
			}
			if e.Type().IsRegular() && strings.HasPrefix(e.Name(), "2") && info.Mode() != 0o600 {
				t.Errorf("%s: %v", e.Name(), info.Mode())
			}
			names = append(names, e.Name())
		}
		return strings.Join(names, " ")
	}
	const mine = "1999-12-01 1999-12-02.jsonl 1999-12-29.jsonl 1999-13-01.jsonl"
	synctest.Test(t, func(t *testing.T) { // begins at 2000-01-01 00:00 UTC
		r, _, stop := recorder(Options{Dir: dir, Keep: 2*24*time.Hour + time.Minute})
		h := r.Hooks(pop3server.Hooks{})
		synctest.Wait()
		if got := files(); got != mine+" notes.txt" {
			t.Error(got)
		}
		session := func(id uint64) {
			s := someone(id, "mrose")
			h.LoggedIn(s, 1, 1)
			h.Retrieved(s, 1, maildrop.Message{UID: "uid", Octets: 1}, nil)
			h.Closed(s, pop3server.End{})
			synctest.Wait()
		}
		session(1)
		time.Sleep(24*time.Hour - time.Second)
		session(2)
		time.Sleep(time.Second)
		session(3)
		if got := files(); got != strings.Replace(mine, "1999-12-29.jsonl ", "", 1)+" 2000-01-01.jsonl 2000-01-02.jsonl notes.txt" {
			t.Error(got)
		}
		if got := sessions(t, dir, Query{User: "mrose"}); len(got) != 3 || got[2].Session != 3 {
			t.Errorf("%+v", got)
		}
		day := time.Date(2000, 1, 2, 0, 0, 0, 0, time.UTC)
		if got := sessions(t, dir, Query{User: "mrose", Since: day}); len(got) != 1 || got[0].Session != 3 {
			t.Errorf("%+v", got)
		}
		if got := sessions(t, dir, Query{User: "mrose", Until: day}); len(got) != 2 || got[1].Session != 2 {
			t.Errorf("%+v", got)
		}
		time.Sleep(48*time.Hour + time.Minute) // the first has ended so long ago, within the hour
		if got := sessions(t, dir, Query{User: "mrose"}); len(got) != 3 {
			t.Errorf("%+v", got)
		}
		time.Sleep(time.Hour)
		if got := sessions(t, dir, Query{User: "mrose"}); len(got) != 1 || got[0].Session != 3 {
			t.Errorf("%+v", got)
		}
		stop()
	})
	run(New(Options{Dir: dir, Logger: slog.New(slog.DiscardHandler)}))()
	if got := files(); got != "1999-12-01 1999-12-02.jsonl 1999-13-01.jsonl notes.txt" {
		t.Error(got)
	}
}

// Many sessions write at once, and none is lost or mixed with another; who reads meanwhile sees whole ones.
func TestManyAtOnce(t *testing.T) {
	const writers, each, messages = 8, 15, 150
	dir := t.TempDir()
	r, log, stop := recorder(Options{Dir: dir, Keep: month})
	h := r.Hooks(pop3server.Hooks{})
	var all, reading sync.WaitGroup
	done := make(chan struct{})
	for i := range writers {
		user := fmt.Sprintf("user%d", i)
		all.Go(func() {
			for j := range each {
				s := someone(uint64(1000*i+j), user)
				h.LoggedIn(s, messages, 0)
				for k := range messages {
					h.Retrieved(s, k+1, maildrop.Message{UID: fmt.Sprintf("%d-%d-%d", i, j, k), Octets: 1}, nil)
				}
				h.Closed(s, pop3server.End{Retrieved: messages, Octets: messages})
			}
		})
	}
	reading.Go(func() {
		for {
			for s, err := range (Query{User: "user3"}).Sessions(dir) {
				if err != nil || s.Ended && s.End.Fetched != messages || !s.Ended && s.End.Fetched > messages {
					t.Errorf("%+v, %v", s, err)
				}
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	all.Wait()
	close(done)
	reading.Wait()
	stop()
	for i := range writers {
		n := 0
		for _, p := range read(t, dir, Query{User: fmt.Sprintf("user%d", i)}) {
			for _, m := range p.Messages {
				if want := fmt.Sprintf("%d-%d-", i, p.Session-uint64(1000*i)); !strings.HasPrefix(m.UID, want) {
					t.Fatalf("%s in session %d", m.UID, p.Session)
				}
				n++
			}
		}
		if n != each*messages {
			t.Errorf("user%d: %d messages", i, n)
		}
	}
	if log.count("lost") > 0 {
		t.Error(log.text.String())
	}
}

// inMemory returns the octets that a session keeps.
func inMemory(r *Recorder, id uint64) int {
	o := r.find(id)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.piece == nil {
		return 0
	}
	return cap(*o.piece)
}
