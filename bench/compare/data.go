package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// How the files of messages are named.
const (
	bare  = iota // the name says nothing of sizes
	named        // S= and W=, as Dovecot and dewey deliver
	mixed        // every second one
)

// letter writes a message of size octets with LF line ends, some of whose lines begin with dots.
func letter(n, size int) []byte {
	b := bytes.NewBuffer(make([]byte, 0, size+80))
	fmt.Fprintf(b, "Return-Path: <ann@example.com>\nReceived: from mail.example.com by mail.example.org; Mon, 2 Feb 2026 10:00:00 +0000\n"+
		"From: Ann <ann@example.com>\nTo: mrose@example.org\nSubject: report %d\nDate: Mon, 2 Feb 2026 10:00:00 +0000\n"+
		"Message-ID: <%d.%d@mail.example.com>\nMIME-Version: 1.0\nContent-Type: text/plain; charset=us-ascii\n\n", n, n, size)
	const text = "It was measured, and it was found to be so; nobody had asked before."
	for line := 0; b.Len() < size; line++ {
		switch line % 20 {
		case 7:
			b.WriteString("." + text + "\n")
		case 13:
			b.WriteString(".\n")
		default:
			b.WriteString(text + "\n")
		}
	}
	b.Truncate(size - 1)
	b.WriteByte('\n')
	return b.Bytes()
}

// fileName is that of message n, which a client has seen.
func fileName(n int, content []byte, naming int) string {
	name := fmt.Sprintf("%d.M%06dP%d.mail", 1_770_000_000+n, n%1_000_000, 1000+n)
	if naming == named || naming == mixed && n%2 == 0 {
		name += fmt.Sprintf(",S=%d,W=%d", len(content), len(content)+bytes.Count(content, []byte("\n")))
	}
	return name + ":2,S"
}

// makeMaildir fills a Maildir. One that is there stays as it is.
func (e *environment) makeMaildir(path string, messages, size, naming int) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	return e.fillMaildir(path, func(cur string) error {
		for n := range messages {
			content := letter(n, size)
			file := filepath.Join(cur, fileName(n, content, naming))
			if err := os.WriteFile(file, content, 0o600); err != nil {
				return fmt.Errorf("mail: %w", err)
			}
			if err := e.give(file); err != nil {
				return err
			}
		}
		return nil
	})
}

// linkMaildir makes a Maildir of links to the files of another one: as new to a server as a copy, and sooner made.
func (e *environment) linkMaildir(path, from string) error {
	entries, err := os.ReadDir(filepath.Join(from, "cur"))
	if err != nil {
		return fmt.Errorf("mail: %w", err)
	}
	return e.fillMaildir(path, func(cur string) error {
		for _, entry := range entries {
			if err := os.Link(filepath.Join(from, "cur", entry.Name()), filepath.Join(cur, entry.Name())); err != nil {
				return fmt.Errorf("mail: %w", err)
			}
		}
		return nil
	})
}

// fillMaildir makes a Maildir that was last changed an hour ago.
func (e *environment) fillMaildir(path string, fill func(cur string) error) error {
	var err error
	for _, sub := range []string{"", "cur", "new", "tmp"} {
		sub = filepath.Join(path, sub)
		err = errors.Join(err, os.Mkdir(sub, 0o700), e.give(sub))
	}
	if err != nil {
		return fmt.Errorf("a Maildir: %w", err)
	}
	if err := fill(filepath.Join(path, "cur")); err != nil {
		return err
	}
	past := time.Now().Add(-time.Hour)
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.Chtimes(filepath.Join(path, sub), past, past); err != nil {
			return fmt.Errorf("a Maildir: %w", err)
		}
	}
	return nil
}

func (e *environment) give(path string) error {
	if e.owner == os.Getuid() {
		return nil
	}
	return os.Chown(path, e.owner, e.owner) //nolint:wrapcheck // names it
}

// users makes maildrops by a pattern, all alike.
func (e *environment) makeUsers(s *server, pattern string, users, messages, size, naming int) error {
	for n := 1; n <= users; n++ {
		if err := e.makeMaildir(filepath.Join(s.mail, numbered(pattern, n)), messages, size, naming); err != nil {
			return err
		}
	}
	return nil
}

// master returns a Maildir of the large size that no server sees, to make links of.
func (e *environment) master(s *server, naming int) (string, error) {
	path := filepath.Join(s.dir, fmt.Sprint("master", naming))
	return path, e.makeMaildir(path, e.scale.Large, 2000, naming)
}

// linkLarge makes a large maildrop; it is there once.
func (e *environment) linkLarge(s *server, user string, naming int) error {
	path := filepath.Join(s.mail, user)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	from, err := e.master(s, naming)
	if err != nil {
		return err
	}
	return e.linkMaildir(path, from)
}

func numbered(pattern string, n int) string { return strings.ReplaceAll(pattern, "%d", fmt.Sprint(n)) }

// settle has the disk write what was made, so that no server pays for it.
func settle() { syscall.Sync() }
