package harness

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// keyed finds the key of a message.
var keyed = regexp.MustCompile(`(?m)^X-Chaos: (\S+)\r$`)

// Text is a message with that key, which nothing else has, and some octets, CRLF line ends and its last line end. Each
// line of it is another one, so that what is cut, doubled or mixed up is seen.
func Text(key string, octets int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "From: Ann <ann@example.com>\r\nTo: mrose@example.org\r\nMessage-ID: <%s@example.com>\r\nSubject: %s\r\nX-Chaos: %s\r\n\r\n", key, key, key)
	for n := 1; b.Len() < octets; n++ {
		fmt.Fprintf(&b, "%s, line %d\r\n..\r\n", key, n)
	}
	fmt.Fprintf(&b, "end of %s\r\n", key)
	return b.String()
}

// A Fate is what has to be true of a message.
type Fate int

// Fates. A message that a Model knows nothing of may not be there.
const (
	Gone  Fate = iota // not there, never again: removed with +OK, or refused
	Maybe             // nothing was said: there once and whole, or not at all
	There             // acknowledged: there exactly once, and whole
)

func (f Fate) String() string { return [...]string{"gone", "in doubt", "there"}[f] }

// A Model is what must be true of one maildrop, by what the server has acknowledged. Several goroutines may use it.
type Model struct {
	mu     sync.Mutex
	texts  map[string]string
	fates  map[string]Fate
	ids    map[string]string // unique-id of a message, once it was seen
	owners map[string]string // message of a unique-id, of all that were ever seen
}

// NewModel is one of an empty maildrop.
func NewModel() *Model {
	return &Model{texts: map[string]string{}, fates: map[string]Fate{}, ids: map[string]string{}, owners: map[string]string{}}
}

// Clone is a copy.
func (m *Model) Clone() *Model {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &Model{texts: maps.Clone(m.texts), fates: maps.Clone(m.fates), ids: maps.Clone(m.ids), owners: maps.Clone(m.owners)}
}

// Sent says that a message is on its way, as it is sent: it is in doubt. The server may put trace fields before it.
func (m *Model) Sent(key, text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.texts[key], m.fates[key] = text, Maybe
}

// Is says what was acknowledged of a message, or that it is in doubt from now on.
func (m *Model) Is(key string, f Fate) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fates[key] = f
}

// Took notes what one recipient's result says of a message.
func (m *Model) Took(key string, result error) {
	switch {
	case result == nil:
		m.Is(key, There)
	case IsRefusal(result):
		m.Is(key, Gone)
	}
}

// IsRefusal says that the server has said no.
func IsRefusal(err error) bool {
	_, ok := err.(*Refusal)
	return ok
}

// Keys are the messages with one of the fates, in order.
func (m *Model) Keys(fates ...Fate) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var keys []string
	for key, f := range m.fates {
		if slices.Contains(fates, f) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// Of is the message that has a unique-id, as far as it was seen; empty if nothing has it.
func (m *Model) Of(uid string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.owners[uid]
}

// Key is the key of a text that was retrieved; empty if it has none.
func Key(text string) string {
	if found := keyed.FindStringSubmatch(text); found != nil {
		return found[1]
	}
	return ""
}

// Hold holds what a client has fetched against the model, and returns all that is wrong. What was in doubt and is there
// counts as acknowledged from now on, and what is not there as gone; unique-ids are remembered.
func (m *Model) Hold(seen []Seen) (faults []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	times := map[string]int{}
	for _, s := range seen {
		key := Key(s.Text)
		fate, known := m.fates[key]
		times[key]++
		switch {
		case !known:
			fault("message %d (%s): nobody has sent it: %.200q", s.Number, s.UID, s.Text)
			continue
		case times[key] == 2:
			fault("%s: there twice", key)
		case fate == Gone:
			fault("%s (%s): back, after it was gone", key, s.UID)
		}
		if before, ok := strings.CutSuffix(s.Text, m.texts[key]); !ok || before != "" && !traces.MatchString(before) {
			fault("%s: %d octets, not as it was sent: %.200q", key, len(s.Text), s.Text)
		}
		if id, ok := m.ids[key]; ok && id != s.UID {
			fault("%s: its unique-id was %s, is %s", key, id, s.UID)
		}
		if owner, ok := m.owners[s.UID]; ok && owner != key {
			fault("%s has the unique-id %s, which was that of %s", key, s.UID, owner)
		}
		m.ids[key], m.owners[s.UID] = s.UID, key
	}
	for key, fate := range m.fates {
		switch {
		case fate == There && times[key] == 0:
			fault("%s: acknowledged, and not there", key)
		case fate == Maybe && times[key] == 0:
			m.fates[key] = Gone
		case fate == Maybe:
			m.fates[key] = There
		}
	}
	slices.Sort(faults)
	return faults
}

// traces are the fields that a server puts before a message.
var traces = regexp.MustCompile(`^(?:(?:Return-Path|Delivered-To|Received): [^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*)+$`)

// A Problem is one that `dewey check` tells of.
type Problem struct {
	User, Kind, Severity, Maildir, File, What string
	Line                                      int
	Repaired                                  bool
}

func (p Problem) String() string {
	return fmt.Sprintf("%s: %s: %s/%s:%d: %s: %s", p.Severity, p.User, p.Maildir, p.File, p.Line, p.Kind, p.What)
}

// Check runs `dewey check --json`, with more flags, users or settings, on the data folder. It returns all but the notes,
// and a count of each kind, notes too.
func Check(tb testing.TB, data string, args ...string) (problems []Problem, kinds map[string]int) {
	tb.Helper()
	return CheckIn(tb, nil, data, args...)
}

// CheckIn is Check, with what runs the program.
func CheckIn(tb testing.TB, wrap []string, data string, args ...string) (problems []Problem, kinds map[string]int) {
	tb.Helper()
	code, stdout, stderr := RunIn(tb, wrap, data, "", append([]string{"check", "--json"}, args...)...)
	var report struct{ Problems []Problem }
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || code > 1 {
		tb.Fatalf("dewey check: exit code %d, %v\n%s%s", code, err, stdout, stderr)
	}
	kinds = map[string]int{}
	for _, p := range report.Problems {
		kinds[p.Kind]++
		if p.Severity != "note" {
			problems = append(problems, p)
		}
	}
	if code != 0 && len(problems) == 0 {
		tb.Errorf("dewey check: exit code %d: %s", code, stderr)
	}
	return problems, kinds
}

// Verify logs in twice, fetches all, and holds it against the model; then it delivers a message, which must come beside
// the others. It returns all that is wrong.
func (m *Model) Verify(s *Server, user string) (faults []string) {
	see := func() {
		seen, err := Fetch(s.POP3, user)
		if err != nil {
			faults = append(faults, fmt.Sprintf("%s can't fetch: %v", user, err))
			return
		}
		faults = append(faults, m.Hold(seen)...)
	}
	see()
	see()
	if s.LMTP == "" || len(faults) > 0 {
		return faults
	}
	m.mu.Lock()
	key := fmt.Sprintf("after-%d", len(m.fates))
	m.mu.Unlock()
	text := Text(key, 0)
	c, err := DialLMTP(s.LMTP)
	if err == nil {
		defer c.Close()
		m.Sent(key, text)
		var results []error
		if results, err = c.Deliver(text, user); err == nil {
			err = results[0]
		}
	}
	if err != nil {
		return append(faults, fmt.Sprintf("%s gets no mail afterwards: %v", user, err))
	}
	m.Is(key, There)
	see()
	return faults
}
