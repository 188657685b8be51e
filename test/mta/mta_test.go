package mta

import (
	"os"
	"strings"
	"syscall"
	"testing"
)

// A way is one in which a page brings mail to dewey.
type way struct {
	server  *server
	heading string
	user    string // mrose's name at dewey
	maildir string
	owner   int    // of the messages' files
	refused bool   // an unknown recipient is refused at RCPT
	stopped string // while dewey is stopped, mail waits, and this is the reply to RCPT; empty: dewey is not asked
}

const (
	virtualMaildir = "/var/vmail/example.org/mrose"
	address        = "mrose@example.org"
)

var ways = map[string]way{
	"postfix/unix":    {postfix, "LMTP over a UNIX socket", address, virtualMaildir, vmailUser, true, "450"},
	"postfix/mailbox": {postfix, "LMTP, users without a domain", "mrose", "/var/vmail/mrose", vmailUser, true, "450"},
	"postfix/tcp":     {postfix, "LMTP over TCP", address, virtualMaildir, vmailUser, true, "450"},
	"postfix/pipe":    {postfix, "A pipe", address, virtualMaildir, vmailUser, false, ""},
	"postfix/own":     {postfix, "Postfix's own delivery", address, virtualMaildir, vmailUser, true, ""},
	"postfix/home":    {postfix, "Into each user's home", "mrose", "/home/mrose/Maildir", mroseUser, true, ""},
	"exim/unix":       {exim, "LMTP over a UNIX socket", address, virtualMaildir, vmailUser, true, "250"},
	"exim/tcp":        {exim, "LMTP over TCP", address, virtualMaildir, vmailUser, true, "250"},
	"exim/pipe":       {exim, "A pipe", address, virtualMaildir, vmailUser, false, ""},
	"exim/own":        {exim, "Exim's own delivery", address, virtualMaildir, vmailUser, true, ""},
	"exim/home":       {exim, "Into each user's home", "mrose", "/home/mrose/Maildir", mroseUser, true, ""},
}

// TestPages runs each configuration of the pages.
func TestPages(t *testing.T) {
	for name, w := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newServed(t, w.server, w.heading)
			d := m.serve()
			w.testDelivery(m, d)
			w.testUnknown(m, d)
			d.stop()
			w.testStopped(m)
		})
	}
}

// testDelivery sends awkward messages; each arrives as it is, in the Maildir that the page names.
func (w *way) testDelivery(m *machine, d *dewey) {
	messages := awkwardMessages()
	for _, message := range messages {
		m.send(message.text, address)
	}
	await(m.t, "all in the Maildir", func() bool { return len(m.maildir(w.maildir)) >= len(messages) })
	for _, file := range m.maildir(w.maildir) {
		info, err := os.Lstat(file)
		m.check(err)
		if owner := int(info.Sys().(*syscall.Stat_t).Uid); owner != w.owner || info.Mode()&0o077 != 0 {
			m.t.Errorf("%s is user %d's, mode %v; want %d, and nobody else to read it", file, owner, info.Mode(), w.owner)
		}
	}
	compare(m.t, d.await(w.user, w.maildir, len(messages)), messages)
}

// testUnknown sends to nobody: strangers are refused, or all gets back to the sender.
func (w *way) testUnknown(m *machine, d *dewey) {
	if reply := m.recipient(address); !strings.HasPrefix(reply, "250 ") {
		m.t.Errorf("RCPT %s: %s", address, reply)
	}
	if reply := m.recipient("nobody.knows@example.org"); strings.HasPrefix(reply, "550") != w.refused {
		m.t.Errorf("RCPT for an unknown recipient: %s", reply)
	}
	m.send(mail("for nobody", "Is there anybody?\n").text, "nobody.knows@example.org")
	bounce := string(d.await(w.user, w.maildir, 1)[0])
	const noSuchUser = "5.1.1" // RFC 3463 section 3.2
	if !strings.Contains(bounce, noSuchUser) || !strings.Contains(bounce, "nobody.knows@example.org") {
		m.t.Errorf("the bounce says no %s:\n%s", noSuchUser, bounce)
	}
	if !strings.HasPrefix(bounce, "Return-Path: <>\r\n") && !strings.HasPrefix(bounce, "Return-path: <>\r\n") {
		m.t.Errorf("the bounce has another sender than <>:\n%s", bounce)
	}
	if log := w.server.log(m); !strings.Contains(log, noSuchUser) {
		m.t.Errorf("the log says no %s", noSuchUser)
	}
}

// testStopped sends while dewey is stopped: the mail waits in the queue, and comes when dewey is back and
// the queue is flushed; or it comes at once, where dewey is not asked.
func (w *way) testStopped(m *machine) {
	late := mail("while dewey is stopped", "Later.\n")
	m.send(late.text, address)
	if w.stopped != "" {
		w.mustWait(m)
		if reply := m.recipient("not.seen.before@example.org"); !strings.HasPrefix(reply, w.stopped) {
			m.t.Errorf("RCPT while dewey is stopped: %s", reply)
		}
	} else {
		await(m.t, "delivered", func() bool { return len(m.maildir(w.maildir)) == 1 })
	}
	d := m.serve()
	w.flush(m)
	compare(m.t, d.await(w.user, w.maildir, 1), []message{late})

	if w.heading != "A pipe" {
		return
	}
	// dewey deliver can't read its configuration, which is no reason for a bounce.
	const file, away = "/etc/dewey/dewey.toml", "/etc/dewey/away.toml"
	m.check(os.Rename(m.path(file), m.path(away)))
	m.send(late.text, address)
	w.mustWait(m)
	m.check(os.Rename(m.path(away), m.path(file)))
	w.flush(m)
	compare(m.t, d.await(w.user, w.maildir, 1), []message{late})
}

// mustWait waits until a message has been tried, and then is still in the queue.
func (w *way) mustWait(m *machine) {
	m.t.Helper()
	await(m.t, "deferred", func() bool {
		log := w.server.log(m)
		return strings.Contains(log, "status=deferred") || strings.Contains(log, " == "+address)
	})
	if queue := w.server.queue(m); !strings.Contains(queue, address) {
		m.t.Errorf("not in the queue:\n%s", queue)
	}
	if n := len(m.maildir(w.maildir)); n != 0 {
		m.t.Errorf("%d messages in the Maildir", n)
	}
}

// flush has all that waits tried, until nothing is left: the server passes over a message with which a process of
// its own is still busy.
func (w *way) flush(m *machine) {
	m.t.Helper()
	await(m.t, "an empty queue", func() bool {
		if !strings.Contains(w.server.queue(m), address) {
			return true
		}
		m.run(rootUser, nil, w.server.flush[0], w.server.flush[1:]...)
		return false
	})
}

// Each configuration of a page is run.
func TestSections(t *testing.T) {
	for _, s := range []*server{postfix, exim} {
		run := make(map[string]bool)
		for _, w := range ways {
			run[w.heading] = run[w.heading] || w.server == s
		}
		found := 0
		for heading, section := range readPage(t, s.page) {
			if len(section.files) == 0 {
				continue
			}
			found++
			if !run[heading] {
				t.Errorf("%s: no test runs %q", s.page, heading)
			}
		}
		if found < 5 {
			t.Errorf("%s has %d configurations", s.page, found)
		}
	}
}
