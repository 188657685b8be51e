// Package maildroptest is the suite that every maildrop.Store passes. It tests what package maildrop
// promises, by single rules and by random operations against a model. What a store does beyond that
// is for its own tests.
package maildroptest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"dewey/maildrop"
)

// TB is what *testing.T and *rapid.T share.
type TB interface {
	rapid.TB
	Cleanup(func())
	Context() context.Context
}

// A Maildrop is one empty maildrop under test, and what the suite may do to it.
type Maildrop struct {
	// Store opens it, and does not wait for a lock.
	Store maildrop.Store
	Owner maildrop.Owner

	// Deliver adds a message, its lines ending in LF or CRLF. A maildrop never holds two messages
	// that are the same as sent.
	Deliver func(t TB, stored []byte)
	// Expunge removes a message as somebody else than a POP3 session would. uid is empty if no
	// session has seen the message.
	Expunge func(t TB, stored []byte, uid string)

	// Disturb, unless nil, does what others may do to a maildrop without changing its messages: set
	// flags, move files, rewrite lists, forget caches.
	Disturb func(t TB)
	// Restart, unless nil, does what the death of the process would do. It is handed the Maildrop
	// that is open, or nil, and returns a new Store that knows nothing of the old one's memory.
	Restart func(t TB, open maildrop.Maildrop) maildrop.Store
	// Check, unless nil, checks the whole of what is stored. Each test ends with it.
	Check func(t TB)
}

// Run runs the suite. open makes an empty maildrop that ends with the test it is handed.
func Run(t *testing.T, open func(TB) Maildrop) {
	for _, test := range []struct {
		name string
		run  func(*subject)
	}{
		{"Empty", testEmpty},
		{"Trap03Trap06Trap07Trap08ExactOctets", testExact},
		{"NumbersOutOfRange", testNumbers},
		{"NewMailBelongsToTheNextSession", testNewMail},
		{"Gone", testGone},
		{"RemoveOnlyThose", testRemove},
		{"RemoveNothingIfANumberIsWrong", testRemoveWrong},
		{"CloseRemovesNothing", testClose},
		{"Trap23UniqueIDsStay", testUniqueIDsStay},
		{"Trap24UniqueIDsAreNotReused", testUniqueIDsNotReused},
		{"Trap33RefusedSessionReleasesNothing", testRefused},
		{"OneOfManyOpens", testManyOpens},
		{"Context", testContext},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSubject(t, open)
			test.run(s)
			s.finish()
		})
	}
	t.Run("Random", func(t *testing.T) { rapid.Check(t, func(rt *rapid.T) { random(rt, open, false) }) })
}

// Wire is the message as RFC 1939 section 3 sends it, not byte-stuffed: the plain definition, against
// which the code under test is held.
func Wire(stored []byte) []byte {
	var b []byte
	for i, c := range stored {
		if c == '\n' && (i == 0 || stored[i-1] != '\r') {
			b = append(b, '\r')
		}
		b = append(b, c)
	}
	if len(stored) > 0 && stored[len(stored)-1] != '\n' {
		b = append(b, '\r', '\n')
	}
	return b
}

// Awkward returns messages of the kinds that servers have stumbled over, no two of them the same.
func Awkward() map[string][]byte {
	return map[string][]byte{
		"empty":              {},
		"LF":                 []byte("\n"),
		"CRLF":               []byte("\r\n"),
		"CR":                 []byte("\r"),
		"dot":                []byte("."),
		"dot LF":             []byte(".\n"),
		"dot CRLF first":     []byte(".\r\nSubject: x\r\n\r\n.\r\n"),
		"LF lines":           []byte("Subject: one\n\nbody\n.\n..\n"),
		"CRLF lines":         []byte("Subject: two\r\n\r\nbody\r\n.\r\n"),
		"mixed lines":        []byte("Subject: three\r\n\nbody\r\n\n\r\n"),
		"no final line end":  []byte("Subject: four\n\nbody"),
		"ends in CR":         []byte("Subject: five\n\nbody\r"),
		"ends in dot":        []byte("Subject: six\n\n."),
		"CR CR LF":           []byte("Subject: seven\n\na\r\r\nb\rc\n"),
		"NUL and 8 bit":      []byte("Subject: eight\n\n\x00\x01\xff\xfe\x00\n\x80"),
		"header only":        []byte("Subject: nine\n"),
		"UTF-8 header":       []byte("Subject: gr\xc3\xbc\xc3\x9fe\n\nbody\n"),
		"long line":          append([]byte("Subject: ten\n\n"), bytes.Repeat([]byte("x"), 200_000)...),
		"many line ends":     append([]byte("Subject: eleven\n\n"), bytes.Repeat([]byte("\n"), 100_000)...),
		"CRLF over 64 KiB":   append([]byte("Subject: twelve\r\n\r\n"), bytes.Repeat([]byte("abcde\r\n"), 20_000)...),
		"CR at 64 KiB's end": append(bytes.Repeat([]byte("y"), 64<<10-1), "\r\nnext"...),
		"LF at 64 KiB":       append(bytes.Repeat([]byte("z"), 64<<10), "\nnext\n"...),
	}
}

// A subject is a maildrop under test beside the model of what must be in it.
type subject struct {
	t TB
	Maildrop
	live map[string]string // stored content → unique-id, empty if no session has seen it
	used map[string]string // every unique-id ever seen → its content
}

func newSubject(t TB, open func(TB) Maildrop) *subject {
	return &subject{t: t, Maildrop: open(t), live: map[string]string{}, used: map[string]string{}}
}

func (s *subject) deliver(contents ...string) {
	s.t.Helper()
	for _, c := range contents {
		s.Deliver(s.t, []byte(c))
		s.live[c] = ""
	}
}

func (s *subject) expunge(content string) {
	s.t.Helper()
	s.Expunge(s.t, []byte(content), s.live[content])
	delete(s.live, content)
}

// A view is an open session beside what it must show.
type view struct {
	s *subject
	maildrop.Maildrop
	contents []string // of message n at n-1
}

// open opens the maildrop and holds every message in it against the model.
func (s *subject) open() *view {
	s.t.Helper()
	d, err := s.Store.Open(s.t.Context(), s.Owner)
	if err != nil {
		s.t.Fatalf("Open: %v", err)
	}
	v := &view{s: s, Maildrop: d}
	scan := d.Messages()
	if len(scan) != len(s.live) {
		s.t.Errorf("%d messages in the scan, %d delivered and not removed", len(scan), len(s.live))
	}
	here := map[string]bool{}
	for i, m := range scan {
		if !legal(m.UID) {
			s.t.Errorf("message %d: unique-id %q breaks RFC 1939 section 7", i+1, m.UID)
		}
		if here[m.UID] {
			s.t.Errorf("message %d: unique-id %q twice in one scan", i+1, m.UID)
		}
		here[m.UID] = true
		content := s.identify(v, i+1)
		v.contents = append(v.contents, content)
		uid, ok := s.live[content]
		before, seen := s.used[m.UID]
		switch {
		case !ok:
			s.t.Errorf("message %d is in the scan but not in the maildrop, or twice: %.60q", i+1, content)
		case uid == "" && seen:
			s.t.Errorf("message %d: unique-id %q was that of %.60q, now it is that of %.60q", i+1, m.UID, before, content)
		case uid != "" && uid != m.UID:
			s.t.Errorf("message %d: unique-id was %q, now %q: %.60q", i+1, uid, m.UID, content)
		}
		s.live[content] = m.UID
		s.used[m.UID] = content
	}
	return v
}

// identify reads message n and finds which of those delivered it is.
func (s *subject) identify(v *view, n int) string {
	s.t.Helper()
	got := v.read(n)
	for content := range s.live {
		if bytes.Equal(Wire([]byte(content)), got) {
			return content
		}
	}
	s.t.Fatalf("message %d is none of those delivered: %d octets, %.60q", n, len(got), got)
	return ""
}

// read retrieves message n, which must be there, and checks the promises on its size.
func (v *view) read(n int) []byte {
	t := v.s.t
	t.Helper()
	m, body, err := v.Retrieve(t.Context(), n)
	if err != nil {
		t.Fatalf("Retrieve(%d): %v", n, err)
	}
	got, err := io.ReadAll(body)
	if err != nil {
		t.Errorf("reading message %d: %v", n, err)
	}
	if err := body.Close(); err != nil {
		t.Errorf("closing message %d: %v", n, err)
	}
	if m != v.Messages()[n-1] {
		t.Errorf("Retrieve(%d) returned %+v, the scan has %+v", n, m, v.Messages()[n-1])
	}
	if int64(len(got)) != m.Octets {
		t.Errorf("message %d has %d octets, %d came", n, m.Octets, len(got))
	}
	v.stuffed(n, got)
	return got
}

// stuffed checks message n once more, where the store can byte-stuff it.
func (v *view) stuffed(n int, want []byte) {
	t := v.s.t
	t.Helper()
	_, body, err := v.Retrieve(t.Context(), n)
	if err != nil {
		t.Fatalf("Retrieve(%d): %v", n, err)
	}
	defer body.Close()
	r, ok := body.(interface {
		ReadStuffed(p []byte) (n, stuffed int, err error)
	})
	if !ok {
		return
	}
	expected := bytes.ReplaceAll(append([]byte("\r\n"), want...), []byte("\r\n."), []byte("\r\n.."))[2:]
	var got []byte
	octets := 0
	for buf := make([]byte, 1000); err == nil; {
		var n, stuffed int
		n, stuffed, err = r.ReadStuffed(buf)
		got = append(got, buf[:n]...)
		octets += n - stuffed
	}
	if err != io.EOF || octets != len(want) || !bytes.Equal(got, expected) {
		t.Errorf("message %d, byte-stuffed by the store: %d octets, %v, or others than %d", n, octets, err, len(want))
	}
}

func (v *view) close() {
	v.s.t.Helper()
	if err := v.Close(); err != nil {
		v.s.t.Errorf("Close: %v", err)
	}
}

// finish is the full check that ends each test; no session is open.
func (s *subject) finish() {
	s.t.Helper()
	s.open().close()
	if s.Restart != nil {
		s.Store = s.Restart(s.t, nil)
		s.open().close()
	}
	if s.Check != nil {
		s.Check(s.t)
	}
}

// legal is RFC 1939 section 7 on unique-ids.
func legal(uid string) bool {
	return len(uid) >= 1 && len(uid) <= 70 &&
		strings.IndexFunc(uid, func(r rune) bool { return r < 0x21 || r > 0x7E }) < 0
}

func wantErr(t TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}
