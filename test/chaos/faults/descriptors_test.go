package faults

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"dewey/test/chaos/harness"
)

// No file descriptor is left: open sessions get -ERR with a code or what they ask for, senders 4xx; and when there are
// some again all goes on, in the same sessions too.
func TestNoDescriptors(t *testing.T) {
	data := harness.Dir(t)
	harness.AddUsers(t, data, "bystander", "mrose", "ann", "bob")
	s := harness.Start(t, harness.Options{Data: data})
	other := newBystander(t, s, data)
	m := harness.NewModel()
	for i := range 3 {
		if err := post(t, s, m, "mrose", fmt.Sprintf("mail-%d", i), 10_000); err != nil {
			t.Fatal(err)
		}
	}
	hold(t, s, m, "mrose")
	dial := func() *harness.POP3 {
		c, err := harness.DialPOP3(s.POP3)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	in, before := dial(), dial()
	if err := in.Login("mrose"); err != nil {
		t.Fatal(err)
	}
	sender, err := harness.DialLMTP(s.LMTP)
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close()
	var limit unix.Rlimit
	if err := unix.Prlimit(s.Pid(), unix.RLIMIT_NOFILE, nil, &limit); err != nil {
		t.Fatal(err)
	}
	// From the lowest number that is free on, so that none can be opened.
	free := uint64(0)
	for {
		if _, err := os.Lstat(fmt.Sprintf("/proc/%d/fd/%d", s.Pid(), free)); err != nil {
			break
		}
		free++
	}
	mark := len(s.Log())
	if err := unix.Prlimit(s.Pid(), unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: free, Max: limit.Max}, nil); err != nil {
		t.Fatal(err)
	}
	_, err = in.Multi("RETR 1")
	refused(t, "RETR without descriptors", err)
	refused(t, "login without descriptors", before.Login("bob"))
	text := harness.Text("late", 10_000)
	m.Sent("late", text)
	results, err := sender.Deliver(text, "mrose")
	if err == nil {
		err = results[0]
	}
	if m.Took("late", err); !harness.IsRefusal(err) {
		t.Errorf("delivery without descriptors: %v", err)
	}
	if _, err := in.Multi("UIDL"); err != nil {
		t.Errorf("UIDL needs no descriptor: %v", err)
	}
	if !told(s, mark, "too many open files", maildir(data, "mrose")) || !told(s, mark, "too many open files", maildir(data, "bob")) {
		t.Errorf("the log does not say why: %s", s.Log()[mark:])
	}
	late := make(chan error, 1)
	go func() { // waits until it can be accepted
		_, err := harness.Fetch(s.POP3, "ann")
		late <- err
	}()
	s.Await("a connection that can't be accepted", func() bool { return told(s, mark, "accept") })
	if err := unix.Prlimit(s.Pid(), unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		t.Fatal(err)
	}
	if err := <-late; err != nil {
		t.Errorf("a client that came meanwhile: %v", err)
	}
	if text, err := in.Multi("RETR 1"); err != nil || len(text) < 10_000 {
		t.Errorf("the same session, later: %v", err)
	}
	if err := before.Login("bob"); err != nil {
		t.Errorf("the same connection, later: %v", err)
	}
	if _, err := in.Do("QUIT"); err != nil {
		t.Error(err)
	}
	other.served(t, "later")
	for _, fault := range m.Verify(s, "mrose") {
		t.Error(fault)
	}
}
