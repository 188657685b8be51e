package maildir_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// agent delivers one message with a real delivery agent.
func (f *fixture) agent(message, pkg, program string, args ...string) {
	t := f.t
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("no %s: apt-get install %s", program, pkg)
	}
	cmd := exec.Command(path, args...)
	cmd.Stdin = strings.NewReader(message)
	cmd.Env = append(os.Environ(), "HOME="+filepath.Dir(f.root))
	cmd.Dir = filepath.Dir(f.root)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", program, err, out)
	}
}

// What procmail and maildrop deliver, and names as Postfix, Exim, getmail and Dovecot make them, are
// served in the order of the times in the names, with exact sizes, and once each.
func TestDeliveryAgents(t *testing.T) {
	f := newFixture(t)
	for _, dir := range []string{"new", "cur", "tmp"} {
		f.check(os.MkdirAll(filepath.Join(f.root, dir), 0o700))
	}
	text := "From: a@example.org\nSubject: %s\n\n.body\n"
	sent := func(who string) int64 {
		return int64(len(strings.ReplaceAll(fmt.Sprintf(text, who), "\n", "\r\n")))
	}
	var want []string
	for i, name := range []string{
		"new/%d.Vfe00I9d0049M663663.host",                   // Postfix
		"new/%d.H663663P16837.host",                         // Exim
		"new/%d.M663663P16837Q1R0123456789abcdef.host",      // getmail
		"cur/%d.M663663P16837.host,S=48,W=52:2,S",           // Dovecot
		"cur/%d.M663663P16837V000000000000FE00I1_0.host:2,", // Courier
		"new/%d.16837_1.host",                               // procmail, by hand
	} {
		who := fmt.Sprintf("agent %d", i)
		f.put(fmt.Sprintf(name, 1700000000+i), fmt.Sprintf(text, who))
		want = append(want, who)
	}
	f.agent(fmt.Sprintf(text, "procmail"), "procmail", "procmail", "-p", "DEFAULT="+f.root+"/", "LOGFILE=", "/dev/null")
	filter := filepath.Join(filepath.Dir(f.root), "filter")
	f.check(os.WriteFile(filter, []byte("to \""+f.root+"\"\n"), 0o600))
	f.agent(fmt.Sprintf(text, "maildrop"), "maildrop", "maildrop", filter)

	d := f.open()
	defer f.close(d)
	if n := len(d.Messages()); n != len(want)+2 {
		t.Fatalf("%d messages, want %d", n, len(want)+2)
	}
	seen := map[string]bool{}
	for i, m := range d.Messages() {
		got := f.read(d, i+1)
		_, rest, _ := strings.Cut(got, "Subject: ")
		who, _, _ := strings.Cut(rest, "\r\n")
		seen[who] = true
		if i < len(want) && who != want[i] {
			t.Errorf("message %d is of %s, want %s", i+1, who, want[i])
		}
		if m.Octets != sent(who) || int64(len(got)) != m.Octets {
			t.Errorf("%s: %d octets announced, %d sent, want %d", who, m.Octets, len(got), sent(who))
		}
	}
	if !seen["procmail"] || !seen["maildrop"] {
		t.Errorf("seen: %v", seen)
	}
}
