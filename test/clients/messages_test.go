package clients

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A message is one file as it lies in the maildrop.
type message struct {
	name   string
	stored []byte
}

// onTheWire is the reference: what a message must look like after the byte-stuffing is taken away.
// A bare LF becomes CRLF, and a last line that has no end gets one. It is written here a second time,
// and octet by octet, so that the tests do not ask dewey what dewey should do.
func onTheWire(stored []byte) []byte {
	var wire []byte
	for i, c := range stored {
		if c == '\n' && (i == 0 || stored[i-1] != '\r') {
			wire = append(wire, '\r')
		}
		wire = append(wire, c)
	}
	if len(wire) > 0 && wire[len(wire)-1] != '\n' {
		wire = append(wire, '\r', '\n')
	}
	return wire
}

const header = "From: Hedda <hedda@example.org>\nTo: mrose@example.com\nSubject: %s\n" +
	"Date: Mon, 02 Mar 2026 09:30:00 +0100\nMessage-ID: <%s@example.org>\n"

func mail(name, body string) message {
	id := strings.ReplaceAll(name, " ", "-")
	return message{name, []byte(fmt.Sprintf(header, name, id) + "\n" + body)}
}

// awkwardMessages is what goes wrong in practice; see the list of traps that the project keeps.
func awkwardMessages() []message {
	eightBit := make([]byte, 0, 256*3)
	for c := range 256 {
		if c != 0 && c != '\r' && c != '\n' {
			eightBit = append(eightBit, byte(c), '=', ' ')
		}
	}
	var big bytes.Buffer
	for i := 0; big.Len() < 3<<19; i++ {
		fmt.Fprintf(&big, "%s line %d of a message of more than a mebibyte\n", strings.Repeat(".", i%4), i)
	}
	crlf := func(m message) message {
		m.stored = bytes.ReplaceAll(m.stored, []byte("\n"), []byte("\r\n"))
		return m
	}
	return []message{
		mail("plain", "Nothing special.\n"),
		{"first octet is a dot", []byte(".X-Odd: yes\n" + fmt.Sprintf(header, "dot", "dot") + "\nA dot before all else.\n")},
		{"starts with a dot line", []byte(".\r\nSubject: looks like the end\r\n\r\nIt is not.\r\n")},
		mail("body is a dot line", ".\n"),
		mail("dot lines", ".\n..\n...\n....\n.\n\n.\nend\n"),
		mail("lines of dots", strings.Repeat(strings.Repeat(".", 77)+"\n", 50)),
		mail("dots before words", ".a\n..b\n. c\n.\td\n"),
		mail("body begins with a dot", ".signature follows\n"),
		mail("no line end at the end", "The last line has no end"),
		mail("ends in a dot", "Stop\n."),
		mail("ends in empty lines", "Gap\n\n\n\n"),
		mail("empty body", ""),
		{"no octets", nil},
		{"header only", []byte(fmt.Sprintf(header, "header only", "header-only"))},
		crlf(mail("stored with CRLF", "Made elsewhere.\n.\n..\nend\n")),
		crlf(mail("stored with CRLF, no end", "Made elsewhere.\nno end")),
		mail("mixed line ends", "one\ntwo\r\nthree\n.\r\n.\nfour\r\n"),
		mail("NUL octets", "a\x00b\n\x00\n\x00\x00.\nend\x00\n"),
		mail("8-bit octets", string(eightBit)+"\n"),
		mail("UTF-8 body", "Grüße aus Köln — ½ Preis, 日本\n"),
		mail("a long line", strings.Repeat("0123456789", 20_000)+"\nafter it\n"),
		mail("a long line of dots", strings.Repeat(".", 70_000)+"\nafter it\n"),
		mail("lone CRs", "a\rb\n\rc\nd\r\r\ne\r.\rf\n"),
		mail("From line in the body", "Look:\n\nFrom hedda to all\n>From here\nend\n"),
		mail("more than a mebibyte", big.String()),
		mail("last", "That is all.\n"),
	}
}

// manyMessages is more than any client asks for in one go (Emacs sends a hundred commands at a time).
func manyMessages() []message {
	many := make([]message, 250)
	for i := range many {
		many[i] = mail(fmt.Sprintf("number %d", i+1), strings.Repeat(fmt.Sprintf("%d\n", i+1), 1+i%40))
	}
	return many
}

// deliver writes the messages to the Maildir's new folder, in the order of their names, after as many
// others as before says.
func (s *server) deliver(t *testing.T, before int, messages []message) {
	t.Helper()
	makeMaildir(t, s.maildir)
	for i, m := range messages {
		name := fmt.Sprintf("%d.M%dP1.example", 1_772_000_000+before+i, i)
		if err := os.WriteFile(filepath.Join(s.maildir, "new", name), m.stored, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if s.owner == 0 {
		return
	}
	err := filepath.WalkDir(s.maildir, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Chown(path, s.owner, s.owner))
	})
	if err != nil {
		t.Fatal(err)
	}
}

func makeMaildir(t *testing.T, maildir string) {
	t.Helper()
	for _, dir := range []string{"tmp", "new", "cur"} {
		if err := os.MkdirAll(filepath.Join(maildir, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

// empty takes all messages away.
func (s *server) empty(t *testing.T) {
	t.Helper()
	for _, dir := range []string{"new", "cur"} {
		if err := os.RemoveAll(filepath.Join(s.maildir, dir)); err != nil {
			t.Fatal(err)
		}
	}
}

// remaining counts the messages in the Maildir.
func (s *server) remaining(t *testing.T) int {
	t.Helper()
	n := 0
	for _, dir := range []string{"new", "cur"} {
		entries, err := os.ReadDir(filepath.Join(s.maildir, dir))
		if err != nil {
			t.Fatal(err)
		}
		n += len(entries)
	}
	return n
}
