package history

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"dewey/maildrop"
	"dewey/pop3server"
)

// A record comes back as it was written, whatever is in it.
func TestRoundTrip(t *testing.T) {
	for _, user := range []string{"mrose", `a"b\c`, "bücher@example.org", "caf\xe9", "x\n\x7f\t", "{\"user\":\"mrose\","} {
		for _, from := range []netip.AddrPort{{}, netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("[fe80::1%eth0]:2")} {
			who := Who{Session: 1 << 63, Login: time.Date(2026, 11, 23, 1, 2, 3, 4e6, time.UTC), From: from, Method: "SCRAM-SHA-256", TLS: true, By: "chief", User: user}
			b := appendWho(nil, &who)
			in := []Message{{Fetched, `u"\id`, 1 << 40, 5 * time.Second, ""}, {Cut, "~", 0, 0, "a\r\nb"}}
			for i := range in {
				b = appendMessage(b, &in[i])
			}
			end := End{time.Hour, "EOF\n", 1, 2, 3, 4, 5}
			b = appendEnd(b, &end)
			if bytes.Count(b, []byte("\n")) != 1 {
				t.Errorf("%q", b)
			}
			got, err := parseRecord(b)
			if err != nil || got.Who != who || *got.End != end || len(got.Messages) != 2 || got.Messages[0] != in[0] || got.Messages[1] != in[1] {
				t.Errorf("%+v, %v of %s", got, err, b)
			}
			found := 0
			if err := (Query{User: user}).scan(bytes.NewReader(b), func(Record) bool { found++; return true }); err != nil || found != 1 {
				t.Errorf("%q: %d, %v", user, found, err)
			}
		}
	}
}

func TestQuery(t *testing.T) {
	dir := t.TempDir()
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	text := []byte(versionLine)
	for i, from := range []string{"192.0.2.1:1", "[::ffff:192.0.2.2]:1", "[2001:db8::7]:1"} {
		who := Who{Session: uint64(i), Login: now.Add(time.Duration(i) * time.Hour), From: netip.MustParseAddrPort(from), User: "mrose"}
		text = appendWho(text, &who)
		text = appendMessage(text, &Message{Kind: Fetched, UID: fmt.Sprintf("uid%d", i), Octets: 5})
		text = appendMessage(text, &Message{Kind: Removed, UID: "uid", Octets: 5})
		text = appendEnd(text, &End{At: 10 * time.Minute, Fetched: 1, Octets: 5, Removed: 1})
	}
	other := Who{Login: now, User: "mrosemary"}
	text = appendEnd(appendWho(text, &other), &End{})
	if err := os.WriteFile(filepath.Join(dir, "2026-11-23.jsonl"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, q := range map[string]Query{
		"0 1 2":   {},
		"1 2":     {Since: now.Add(11 * time.Minute)},
		"0 1 2 ":  {Since: now.Add(10 * time.Minute)},
		"0":       {Until: now.Add(time.Hour)},
		"0 ":      {From: netip.MustParsePrefix("192.0.2.1/32")},
		"0 1":     {From: netip.MustParsePrefix("192.0.2.0/24")},
		"2":       {From: netip.MustParsePrefix("2001:db8::/32")},
		"1":       {UID: "uid1"},
		"0 1 2  ": {UID: "uid"},
		"":        {UID: "uid3"},
		" ":       {Since: now.Add(24 * time.Hour)},
	} {
		q.User = "mrose"
		var got []string
		for _, r := range read(t, dir, q) {
			got = append(got, fmt.Sprint(r.Session))
			if q.UID != "" && len(r.Messages) != 1 {
				t.Errorf("%+v: %+v", q, r)
			}
		}
		if g := strings.Join(got, " "); g != strings.TrimSpace(want) {
			t.Errorf("%+v: got %s, want %s", q, g, want)
		}
	}
	for r, err := range (Query{User: "mrose"}).Records(dir) {
		if err != nil || r.Session != 0 {
			t.Error(r, err)
		}
		break
	}
	for s, err := range (Query{User: "mrose"}).Sessions(dir) {
		if err != nil || s.Session != 0 {
			t.Error(s, err)
		}
		break
	}
	if got := read(t, filepath.Join(dir, "none"), Query{User: "mrose"}); got != nil {
		t.Errorf("%+v", got)
	}
}

// A file of a later version is told of, and the others are read.
func TestNewerFile(t *testing.T) {
	dir := t.TempDir()
	who := Who{Login: time.Unix(946684800, 0), User: "mrose"}
	whole := string(appendEnd(appendWho([]byte(versionLine), &who), &End{Why: "quit"}))
	for name, text := range map[string]string{"2000-01-01": whole, "2000-01-02": strings.Replace(whole, "1", "2", 1), "2000-01-03": whole} {
		if err := os.WriteFile(filepath.Join(dir, name+suffix), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, err := range (Query{User: "mrose"}).Sessions(dir) {
		got = append(got, fmt.Sprint(err))
	}
	if len(got) != 3 || got[0] != "<nil>" || !strings.Contains(got[1], "2000-01-02.jsonl: written by a newer dewey") || got[2] != "<nil>" {
		t.Errorf("%q", got)
	}
}

// Sessions without an end are bounded, and those that end make room.
func TestManyWithoutEnd(t *testing.T) {
	dir := t.TempDir()
	text := []byte(versionLine)
	for i := range uint64(3 * maxOpen) {
		who := Who{Session: i, Login: time.Unix(946684800, 0), User: "mrose"}
		text = appendWho(text, &who)
		text = appendEnd(appendMessage(text, &Message{Kind: Fetched, UID: "uid"}), nil)
		if i < 2*maxOpen {
			text = appendEnd(appendWho(text, &who), &End{Why: "quit"})
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "2000-01-01.jsonl"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	ended, open := 0, 0
	for _, s := range sessions(t, dir, Query{User: "mrose"}) {
		if s.Ended {
			ended++
		} else {
			open++
		}
	}
	if ended != 2*maxOpen || open != maxOpen {
		t.Errorf("%d ended, %d open", ended, open)
	}
}

// The reader takes any file; what it finds can be written and is found again.
func FuzzReader(f *testing.F) {
	who := Who{Session: 7, Login: time.Unix(946684800, 0), From: netip.MustParseAddrPort("192.0.2.1:1024"), Method: "PASS", User: "mrose"}
	b := appendWho([]byte(versionLine), &who)
	b = appendMessage(b, &Message{Fetched, "uid1", 120, time.Second, ""})
	b = appendMessage(b, &Message{Cut, "uid2", 120, time.Second, "EOF"})
	f.Add(appendEnd(bytes.Clone(b), nil), "mrose", "")
	f.Add(appendEnd(b, &End{time.Hour, "quit", 1, 2, 3, 4, 5}), "mrose", "uid2")
	f.Add([]byte(`{"dewey_history":2}`+"\n"), "", "")
	f.Add([]byte("\n{\"user_hex\":\"e9\",\"login\":\"2026-11-23T00:00:00Z\"}\n{"), "\xe9", "")
	f.Fuzz(func(t *testing.T, data []byte, user, uid string) {
		q := Query{User: user, UID: uid}
		_ = q.scan(bytes.NewReader(data), func(r Record) bool {
			if r.User != user {
				t.Fatalf("%q, not %q", r.User, user)
			}
			if y := r.Login.UTC().Year(); y < 0 || y > 9999 {
				return true // no server's
			}
			b := appendWho(nil, &r.Who)
			for i := range r.Messages {
				if !utf8.ValidString(r.Messages[i].UID) {
					t.Fatalf("%q", r.Messages[i].UID)
				}
				b = appendMessage(b, &r.Messages[i])
			}
			b = appendEnd(b, r.End)
			again := 0
			if err := q.scan(bytes.NewReader(b), func(r2 Record) bool {
				again++
				if len(r2.Messages) != len(r.Messages) || (r2.End == nil) != (r.End == nil) {
					t.Fatalf("%+v is %+v", r, r2)
				}
				return true
			}); len(b) <= maxLine && (err != nil || again != 1) {
				t.Fatalf("%d times, %v: %s", again, err, b)
			}
			return true
		})
	})
}

// The cost for a session of ten messages that are fetched and removed, of one message, and of a poll.
func BenchmarkHooks(b *testing.B) {
	for name, messages := range map[string]int{"poll": 0, "ten": 10} {
		b.Run(name, func(b *testing.B) {
			h, stop := benchHooks(b)
			mail := make([]maildrop.Message, messages)
			for i := range mail {
				mail[i] = maildrop.Message{UID: fmt.Sprintf("%08x6740a1b2", i), Octets: 4711}
			}
			b.ReportAllocs()
			for i := range b.N {
				s := someone(uint64(i), "mrose")
				h.LoggedIn(s, messages, 0)
				for i, m := range mail {
					h.Retrieved(s, i+1, m, nil)
				}
				if messages > 0 {
					h.Updated(s, mail, nil)
				}
				h.Closed(s, pop3server.End{Retrieved: messages})
			}
			b.StopTimer()
			stop()
		})
	}
	b.Run("message", func(b *testing.B) {
		h, stop := benchHooks(b)
		s := someone(1, "mrose")
		h.LoggedIn(s, b.N, 0)
		b.ReportAllocs()
		for i := range b.N {
			h.Retrieved(s, i+1, maildrop.Message{UID: "000012346740a1b2", Octets: 4711}, nil)
		}
		b.StopTimer()
		h.Closed(s, pop3server.End{})
		stop()
	})
}

func benchHooks(b *testing.B) (pop3server.Hooks, func()) {
	r, _, stop := recorder(Options{Dir: b.TempDir(), Keep: month})
	return r.Hooks(pop3server.Hooks{}), stop
}

// The cost of looking for one user among many.
func BenchmarkRead(b *testing.B) {
	dir := b.TempDir()
	text := []byte(versionLine)
	for i := range 100_000 {
		who := Who{Session: uint64(i), Login: time.Unix(946684800, 0), From: netip.MustParseAddrPort("192.0.2.1:1"), Method: "PASS", User: fmt.Sprintf("user%d", i%1000)}
		text = appendWho(text, &who)
		for range 3 {
			text = appendMessage(text, &Message{Kind: Fetched, UID: "000012346740a1b2", Octets: 4711})
		}
		text = appendEnd(text, &End{Why: "quit"})
	}
	if err := os.WriteFile(filepath.Join(dir, "2000-01-01.jsonl"), text, 0o600); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if n := len(sessions(b, dir, Query{User: "user77"})); n != 100 {
			b.Fatal(n)
		}
	}
}
