package mailfile_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"dewey/mailfile"
)

// put writes a file, with a time if it isn't zero.
func put(t *testing.T, path, text string, at time.Time) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if !at.IsZero() {
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// items reads a source to its end.
func items(t *testing.T, s *mailfile.Source) []string {
	t.Helper()
	var all []string
	for {
		it, err := s.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(it.Body)
		if err != nil {
			t.Fatal(err)
		}
		at := "-"
		if !it.At.IsZero() {
			at = fmt.Sprint(it.At.Unix())
		}
		all = append(all, it.Name+"|"+at+"|"+string(text))
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	return all
}

func open(t *testing.T, path string, kind mailfile.Kind) *mailfile.Source {
	t.Helper()
	s, err := mailfile.Open(path, mailfile.QuotingRD)
	if err != nil {
		t.Fatal(err)
	}
	if s.Kind != kind {
		t.Errorf("%s is a %v", path, s.Kind)
	}
	return s
}

func TestOpen(t *testing.T) {
	dir, at := t.TempDir(), time.Unix(1e9, 0)
	eml := put(t, filepath.Join(dir, "x.eml"), "Subject : x\n\nFrom here\n>From x\n", at)
	s := open(t, eml, mailfile.KindMessage)
	if got, want := items(t, s), []string{eml + "|1000000000|Subject : x\n\nFrom here\n>From x\n"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if done, all := s.Progress(); done != all || all == 0 {
		t.Errorf("%d of %d", done, all)
	}
	box := put(t, filepath.Join(dir, "box"), "\r\nFrom a Thu Jan  1 00:00:01 1998\n\n>From x\n\nFrom me\nno end", at)
	s = open(t, box, mailfile.KindMbox)
	if got, want := items(t, s), []string{"message 1|883612801|\nFrom x\n\nFrom me\nno end"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if notes := strings.Join(s.Notes(), "; "); !strings.Contains(notes, "no end") || !strings.Contains(notes, "1 lines") {
		t.Errorf("notes %q", notes)
	}
	if got := items(t, open(t, put(t, filepath.Join(dir, "empty"), "", at), mailfile.KindMbox)); got != nil {
		t.Errorf("%q", got)
	}
	for path, want := range map[string]error{
		filepath.Join(dir, "none"): os.ErrNotExist,
		dir:                        mailfile.ErrNoMaildir,
		put(t, filepath.Join(dir, "text"), "no mail: x", at):      mailfile.ErrNoMail,
		put(t, filepath.Join(dir, "image"), "\x89PNG\r\n:", at):   mailfile.ErrNoMail,
		put(t, filepath.Join(dir, "lines"), "\n\n", at):           mailfile.ErrNoMail,
		put(t, filepath.Join(dir, "utf8"), "\xef\xbb\xbfA:", at):  mailfile.ErrNoMail,
		put(t, filepath.Join(dir, "colon"), ": x\nA: b\n\n", at):  mailfile.ErrNoMail,
		put(t, filepath.Join(dir, "users"), "a:b\nc:d\n", at):     mailfile.ErrNoMail,
		put(t, filepath.Join(dir, "space"), " A: b\nc d\n", at):   mailfile.ErrNoMail,
		put(t, filepath.Join(dir, "gzip"), "\x1f\x8b\x08xx:", at): mailfile.ErrNoMail,
	} {
		if _, err := mailfile.Open(path, mailfile.QuotingRD); !errors.Is(err, want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestRead(t *testing.T) {
	s, err := mailfile.Read("standard input", strings.NewReader("X: y\n z\nTO: b\n"), mailfile.QuotingRD)
	if err != nil {
		t.Fatal(err)
	}
	if got := items(t, s); !slices.Equal(got, []string{"standard input|-|X: y\n z\nTO: b\n"}) {
		t.Errorf("%q", got)
	}
	if _, err := mailfile.Read("standard input", bytes.NewReader(nil), mailfile.QuotingRD); !errors.Is(err, mailfile.ErrEmpty) {
		t.Error(err)
	}
}

// A Maildir is read in the order of its names, by whoever's flags, while others use it.
func TestMaildir(t *testing.T) {
	dir := t.TempDir()
	at := func(n int64) time.Time { return time.Unix(n, 0) }
	put(t, filepath.Join(dir, "cur", "1000000002.M000010P1.h:2,S"), "A: 2\n", at(1000000002))
	put(t, filepath.Join(dir, "cur", "1000000002.M000009P1.h,S=5:2,"), "A: 1\n", at(900000000)) // put there by IMAP
	put(t, filepath.Join(dir, "new", "1000000003.M000009P1.h"), "A: 3\n", at(1700000000))       // copied
	put(t, filepath.Join(dir, "new", "1000000004.h"), "A: 4\n", time.Time{})
	put(t, filepath.Join(dir, "new", "1000000005.h"), "A: 5\n", at(1000000005))
	put(t, filepath.Join(dir, "new", "odd"), "A: 6\n", at(5))
	put(t, filepath.Join(dir, "new", ".hidden"), "A: no\n", at(5))
	put(t, filepath.Join(dir, "tmp", "1000000001.x"), "A: no\n", at(5))
	put(t, filepath.Join(dir, ".Sent", "cur", "1000000001.x"), "A: no\n", at(5))
	for _, err := range []error{
		os.Mkdir(filepath.Join(dir, "new", "1000000001.folder"), 0o700),
		os.Symlink(filepath.Join(dir, "tmp", "1000000001.x"), filepath.Join(dir, "cur", "1000000001.link")),
		syscall.Mkfifo(filepath.Join(dir, "cur", "1000000001.pipe"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, dir, mailfile.KindMaildir)
	for _, err := range []error{ // somebody reads one and removes another
		os.Rename(filepath.Join(dir, "new", "1000000003.M000009P1.h"), filepath.Join(dir, "cur", "1000000003.M000009P1.h:2,S")),
		os.Remove(filepath.Join(dir, "new", "1000000004.h")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		"new/odd|5|A: 6\n",
		"cur/1000000002.M000009P1.h,S=5:2,|900000000|A: 1\n",
		"cur/1000000002.M000010P1.h:2,S|1000000002|A: 2\n",
		"new/1000000003.M000009P1.h|1000000003|A: 3\n",
		"new/1000000005.h|1000000005|A: 5\n",
	}
	if got := items(t, s); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if notes := strings.Join(s.Notes(), "; "); !strings.Contains(notes, "1 messages were removed") || !strings.Contains(notes, ".Sent") {
		t.Errorf("notes %q", notes)
	}
	if done, all := s.Progress(); done != all || all == 0 {
		t.Errorf("%d of %d", done, all)
	}
}
