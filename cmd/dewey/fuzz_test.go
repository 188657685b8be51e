package main

import (
	"bufio"
	"bytes"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What is taken for the record of the last night is written as it was read.
func FuzzSwept(f *testing.F) {
	for _, seed := range []string{
		"dewey swept 1\n2026-11-23T03:30:00Z\n", "dewey swept 2\n2026-11-23T03:30:00Z\n0\n",
		"dewey swept 2\n2026-11-23T03:30:00+01:00\n7 since 2026-11-22T03:30:00Z\n", "dewey swept 2\n\n-1\n", "dewey swept 3\n", "",
	} {
		f.Add(seed)
	}
	name := filepath.Join(f.TempDir(), "swept")
	f.Fuzz(func(t *testing.T, text string) {
		s, ok := parseSwept(text)
		if !ok {
			return
		}
		if y := s.at.UTC().Year(); y < 0 || y > 9999 || s.since.UTC().Year() > 9999 || s.since.UTC().Year() < 0 {
			return // no server's
		}
		if err := writeSwept(name, s); err != nil {
			t.Fatal(err)
		}
		again, err := readSwept(name)
		if err != nil || again.at.Unix() != s.at.Unix() || again.wary != s.wary || s.wary > 0 && again.since.Unix() != s.since.Unix() {
			t.Fatalf("%q: %+v, then %+v, %v", text, s, again, err)
		}
	})
}

// A spoken is a connection to somebody who has said all before he listens.
type spoken struct {
	net.Conn
	in  *bytes.Reader
	out bytes.Buffer
}

func (s *spoken) Read(p []byte) (int, error)  { return s.in.Read(p) }
func (s *spoken) Write(p []byte) (int, error) { return s.out.Write(p) }
func (s *spoken) SetDeadline(time.Time) error { return nil }

// Whatever a server says, mail counts as delivered only if each recipient's own reply said so.
func FuzzReplies(f *testing.F) {
	const greeting = "220 mx\r\n250-mx\r\n250 CHUNKING\r\n250 ok\r\n"
	for _, seed := range []string{
		"", greeting + "250 a\r\n250 b\r\n250 2.0.0 delivered\r\n452 4.2.2 full\r\n221 bye\r\n", greeting + "550 5.1.1 no\r\n250 b\r\n250 delivered\r\n",
		"220-a\r\n220-b\n220\r\n250 mx\r\n", "999999999999\r\n", "22x\r\n", "-50 x\r\n", "+250 x\r\n", strings.Repeat("250-x\r\n", 200), strings.Repeat("x", 9000),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		c := &mailClient{conn: &spoken{in: bytes.NewReader(said)}}
		c.in = bufio.NewReader(c.conn)
		to := []string{"mrose", "bob"}
		err := c.begin("mx", "ann@example.org", to)
		if err == nil {
			err = c.deliver(to, strings.NewReader("Subject: x\r\n\r\ny\r\n"))
		}
		if code := errorCode(err); err != nil && (code <= 0 || code > 78) {
			t.Fatalf("%d, %v", code, err)
		}
		if err != nil {
			return
		}
		finals := 0 // that begin with a 2 and end a reply: greeting, LHLO, MAIL, two for RCPT, two for the message
		for line := range strings.Lines(string(said)) {
			if line[0] == '2' && (len(line) < 4 || line[3] != '-') && finals < 7 {
				finals++
			}
		}
		if finals < 7 {
			t.Fatalf("delivered, by %d replies: %q", finals, said)
		}
	})
}

// What is read from a command line of dewey history is a time that makes sense, or an error in one line.
func FuzzTime(f *testing.F) {
	for _, seed := range []string{"", "2d", "12h", "2026-11-23", "2026-11-23T15:04:05Z", "2026-11-23T15:04", "-1h", "9999999999999d", "192.0.2.0/24", "::ffff:192.0.2.1%x"} {
		f.Add(seed)
	}
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		at, err := parseTime(text, now, 1)
		if err != nil && (!at.IsZero() || strings.ContainsAny(err.Error(), "\n\r\x00")) {
			t.Fatalf("%v, %q", at, err)
		}
		if p, err := parsePrefix(text); err == nil && (!p.IsValid() || p.Addr().Is4In6() || p.Addr().Zone() != "") && !strings.Contains(text, "/") {
			t.Fatalf("%q is %v", text, p)
		}
	})
}

// A name is taken apart into what makes it up again, and neither part is empty.
func FuzzCutFolder(f *testing.F) {
	for _, name := range []string{"mrose+Spam", "mrose+Spam@example.org", "+", "a+", "+b", "a++b", "a@b+c", "a+b@c+d", "@", "a@+", "\xff+\x00"} {
		f.Add(name, "+")
	}
	f.Add("a--b", "--")
	f.Add("x", "")
	f.Fuzz(func(t *testing.T, name, delimiter string) {
		user, folder, found := cutFolder(name, delimiter)
		again := user + delimiter + folder // or before the domain
		if i := strings.LastIndex(user, "@"); i >= 0 && again != name {
			again = user[:i] + delimiter + folder + user[i:]
		}
		switch {
		case !found && (user != name || folder != ""), found && (user == "" || folder == "" || delimiter == "" || again != name):
			t.Fatalf("%q at %q: %q, %q", name, delimiter, user, folder)
		}
	})
}

// The first line of standard input is the password, whole, or an error.
func FuzzFirstLine(f *testing.F) {
	for _, seed := range []string{"", "\n", "a secret\r\n", " a \nb", "\r", strings.Repeat("x", maxLine+1), strings.Repeat("x", maxLine-1) + "\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		line, err := firstLine(strings.NewReader(text))
		if err == nil && (!strings.HasPrefix(text, line) || strings.Contains(line, "\n") || len(line) > maxLine) {
			t.Fatalf("%q of %q", line, text)
		}
	})
}
