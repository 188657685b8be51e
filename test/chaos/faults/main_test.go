package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"dewey/test/chaos/harness"
)

func TestMain(m *testing.M) {
	if os.Getenv("DEWEY_FAULTS_CHILD") != "" {
		fmt.Fprintln(os.Stderr, child())
		os.Exit(1)
	}
	harness.Main(m)
}

// maildir is a user's, if nothing else is configured.
func maildir(data, user string) string { return filepath.Join(data, "mail", user) }

// coded is a refusal that says whether to come back. RFC 3206 section 4.
var coded = regexp.MustCompile(`^-ERR \[SYS/(TEMP|PERM)\] `)

// told says whether the server logs a line after a mark, soon, with all the words in it.
func told(s *harness.Server, mark int, words ...string) bool {
	for end := time.Now().Add(3 * time.Second); ; time.Sleep(3 * time.Millisecond) {
		log := s.Log()[mark:]
		for line := range strings.Lines(log) {
			if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
				return true
			}
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// A bystander is another user of the same server, whose mail must come in full at any time.
type bystander struct {
	s     *harness.Server
	model *harness.Model
}

func newBystander(t testing.TB, s *harness.Server, data string) *bystander {
	t.Helper()
	b := &bystander{s, harness.NewModel()}
	for i := range 3 {
		key := fmt.Sprintf("bystander-%d", i)
		text := harness.Text(key, 20_000)
		b.model.Sent(key, text)
		b.model.Is(key, harness.There)
		harness.Put(t, maildir(data, "bystander"), "new", fmt.Sprintf("100%d.M1P1.h", i), text)
	}
	b.served(t, "at first")
	return b
}

// served wants all of the mail.
func (b *bystander) served(t testing.TB, when string) {
	t.Helper()
	seen, err := harness.Fetch(b.s.POP3, "bystander")
	if err != nil {
		t.Fatalf("%s: another user is not served: %v", when, err)
	}
	for _, fault := range b.model.Hold(seen) {
		t.Errorf("%s: another user: %s", when, fault)
	}
}
