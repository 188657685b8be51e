package clients

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
)

var (
	peerFlag = flag.String("peer", "dewey", "the server to test with: dewey, or dovecot as a control")
	buildDir string
)

func TestMain(m *testing.M) {
	flag.Parse()
	dir, err := os.MkdirTemp("", "dewey")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	buildDir = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// TestClients runs every scenario with every client.
func TestClients(t *testing.T) {
	if testing.Short() {
		t.Skip("starts programs; -short")
	}
	start := map[string]peer{"dewey": startDewey, "dovecot": startDovecot}[*peerFlag]
	if start == nil {
		t.Fatalf("no peer %q", *peerFlag)
	}
	for _, p := range programs {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			p.mustExist(t)
			t.Run("keep", func(t *testing.T) { p.testKeep(t, start(t)) })
			t.Run("delete", func(t *testing.T) { p.testDelete(t, start(t), p.messages()) })
			t.Run("delete many", func(t *testing.T) { p.testDelete(t, start(t), manyMessages()) })
			t.Run("refused", func(t *testing.T) { p.testRefused(t, start(t)) })
		})
	}
}

// messages is the awkward ones, but for those that cannot work with this client or with the control.
func (p *program) messages() []message {
	return slices.DeleteFunc(awkwardMessages(), func(m message) bool {
		return slices.Contains(p.avoids, m.name) || *peerFlag == "dovecot" &&
			(bytes.HasPrefix(m.stored, []byte(".")) || // trap 1: the first octet is not byte-stuffed
				!bytes.HasSuffix(m.stored, []byte("\n"))) // trap 3: LIST does not count the line end that is added
	})
}

// testKeep fetches the awkward messages and leaves them on the server; the second run fetches
// nothing; mail that comes later is fetched alone.
func (p *program) testKeep(t *testing.T, s *server) {
	messages := p.messages()
	s.deliver(t, 0, messages)
	a := newAccount(t, s, password)
	a.keep = true

	p.mustSucceed(t, a, 0)
	p.compare(t, p.received(t, a), messages)
	if n := s.remaining(t); n != len(messages) {
		t.Errorf("%d messages left on the server, want all %d", n, len(messages))
	}

	p.mustSucceed(t, a, p.quiet)
	if again := p.received(t, a); len(again) != 0 {
		t.Errorf("the second run fetched %d messages, want none", len(again))
	}

	later := []message{mail("later", "Came between two runs.\n")}
	s.deliver(t, len(messages), later)
	p.mustSucceed(t, a, 0)
	p.compare(t, p.received(t, a), later)
}

// testDelete fetches messages and deletes them.
func (p *program) testDelete(t *testing.T, s *server, messages []message) {
	s.deliver(t, 0, messages)
	a := newAccount(t, s, password)

	p.mustSucceed(t, a, 0)
	p.compare(t, p.received(t, a), messages)
	if n := s.remaining(t); n != 0 {
		t.Errorf("%d messages left in the maildrop, want none", n)
	}

	p.mustSucceed(t, a, p.quiet)
	if again := p.received(t, a); len(again) != 0 {
		t.Errorf("fetched %d messages from an empty maildrop", len(again))
	}
}

// testRefused logs in with a wrong password, and with the right one while the maildrop is busy: the
// client says so, nothing is fetched, nothing is lost, and it all works afterwards.
func (p *program) testRefused(t *testing.T, s *server) {
	messages := []message{mail("one", "One.\n"), mail("two", "Two.\n")}
	s.deliver(t, 0, messages)

	a := newAccount(t, s, "wrong")
	p.mustFail(t, a, p.rejected)

	a = newAccount(t, s, password)
	leave := s.occupy(t)
	p.mustFail(t, a, p.busy)
	if n := s.remaining(t); n != len(messages) {
		t.Errorf("%d messages left on the server, want all %d", n, len(messages))
	}
	leave()

	p.mustSucceed(t, a, 0)
	p.compare(t, p.received(t, a), messages)
}

func (p *program) mustExist(t *testing.T) {
	t.Helper()
	a := newAccount(t, nil, "")
	o := a.command(t, nil, p.version[0], p.version[1:]...)
	if o.exit != 0 {
		t.Fatalf("%s does not run: install Debian's package %s (make test does)\n%s", p.name, p.pkg, o.text())
	}
	first, _, _ := strings.Cut(strings.TrimSpace(o.stdout+o.stderr), "\n")
	t.Logf("%s: %s", p.name, first)
}

func (p *program) mustSucceed(t *testing.T, a *account, exit int) {
	t.Helper()
	a.clear(t)
	o := p.run(t, a)
	if o.exit != exit {
		t.Fatalf("exit code %d, want %d\n%s", o.exit, exit, o.text())
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(o.text())
		}
	})
}

func (p *program) mustFail(t *testing.T, a *account, want ending) {
	t.Helper()
	a.clear(t)
	o := p.run(t, a)
	if o.exit != want.exit {
		t.Errorf("exit code %d, want %d\n%s", o.exit, want.exit, o.text())
	}
	if !want.text.MatchString(o.text()) {
		t.Errorf("says nothing like %q\n%s", want.text, o.text())
	}
	if got := p.received(t, a); len(got) != 0 {
		t.Errorf("fetched %d messages", len(got))
	}
}

// received reads what the client has stored: the files in out, or in the Maildir that out is.
func (p *program) received(t *testing.T, a *account) [][]byte {
	t.Helper()
	var paths []string
	for _, pattern := range []string{"*", "new/*", "cur/*"} {
		found, err := filepath.Glob(filepath.Join(a.out(), pattern))
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, found...)
	}
	sort.Strings(paths)
	var messages [][]byte
	for _, path := range paths {
		if info, err := os.Stat(path); err != nil {
			t.Fatal(err)
		} else if info.IsDir() || strings.HasPrefix(info.Name(), ".") {
			continue // a client's own notes
		}
		message, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if p.arrived != nil {
			message = p.arrived(message)
		}
		messages = append(messages, message)
	}
	return messages
}

// compare checks that exactly the wanted messages were received, each as the client keeps it. The
// order is not compared: a client names its files as it likes.
func (p *program) compare(t *testing.T, got [][]byte, want []message) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("received %d messages, want %d", len(got), len(want))
	}
	var missing []message
	damaged := 0
	for _, m := range want {
		if slices.Contains(p.damages, m.name) {
			damaged++
			continue
		}
		m.stored = p.kept(m)
		found := false
		for i, message := range got {
			if bytes.Equal(message, m.stored) {
				got = append(got[:i:i], got[i+1:]...)
				found = true
				break
			}
		}
		if !found {
			missing = append(missing, m)
		}
	}
	const most = 5 // reports
	if len(missing) == 0 && len(got) == damaged {
		return
	}
	for _, m := range missing[:min(most, len(missing))] {
		t.Errorf("message %q (%d octets) did not arrive as it is:\n want %s", m.name, len(m.stored), excerpt(m.stored))
	}
	for _, message := range got[:min(most, len(got))] {
		t.Errorf("received instead (%d octets):\n  got %s", len(message), excerpt(message))
	}
}

// kept is what is left of a message when the client has it.
func (p *program) kept(m message) []byte {
	wire := onTheWire(m.stored)
	for _, change := range p.changes {
		wire = change(wire)
	}
	return wire
}

func excerpt(message []byte) string {
	const most = 400
	if len(message) <= 2*most {
		return fmt.Sprintf("%q", message)
	}
	return fmt.Sprintf("%q ... %q", message[:most], message[len(message)-most:])
}
