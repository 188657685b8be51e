package mailfile_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dewey/mailfile"
)

// A file is a message, an mbox, or refused; one that is a message comes out as it is.
func FuzzRead(f *testing.F) {
	for _, seed := range []string{
		"", "\n", "Subject: x\n\nbody", "X-Y : z\r\n a\r\nFROM: b\r\n", "\r\n\nFrom a Thu Jan  1 00:00:01 1998\nx\n", ": x\nSubject: y\n",
		" Subject: x\n", "From: x", "From", "\xef\xbb\xbfSubject: x\n", "PK\x03\x04 a: b\n", strings.Repeat("x", 9000) + ": y\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := mailfile.Read("-", bytes.NewReader(text), mailfile.QuotingRD)
		if err != nil {
			if !errors.Is(err, mailfile.ErrNoMail) && !errors.Is(err, mailfile.ErrEmpty) {
				t.Fatal(err)
			}
			return
		}
		for {
			it, err := s.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				if !errors.Is(err, mailfile.ErrNoMbox) {
					t.Fatal(err)
				}
				return
			}
			body, err := io.ReadAll(it.Body)
			if err != nil || s.Kind == mailfile.KindMessage && !bytes.Equal(body, text) {
				t.Fatalf("%q is %q, %v", text, body, err)
			}
		}
		_ = s.Notes()
		if done, _ := s.Progress(); done != int64(len(text)) {
			t.Fatalf("%d octets read, of %d", done, len(text))
		}
	})
}

// Whatever the files of a Maildir are called, each message comes once, and nothing outside of it.
func FuzzMaildirNames(f *testing.F) {
	f.Add("1.a:2,S", "1.a")
	f.Add("99999999999999999999.x", "-1.x,S=1:2,")
	f.Add(".hidden", ":2,S")
	f.Add("\xff", "a\nb")
	f.Fuzz(func(t *testing.T, one, two string) {
		root := t.TempDir()
		for i, name := range []string{one, two} {
			sub := filepath.Join(root, []string{"new", "cur"}[i])
			if err := os.Mkdir(sub, 0o700); err != nil {
				t.Fatal(err)
			}
			if name == "" || name == "." || name == ".." || len(name) > 255 || strings.ContainsAny(name, "/\x00") {
				continue // no file is called so
			}
			if err := os.WriteFile(filepath.Join(sub, name), []byte("Subject: "+name+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s, err := mailfile.Open(root, mailfile.QuotingRD)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		seen := 0
		for {
			it, err := s.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(it.Body)
			if seen++; err != nil || string(body) != "Subject: "+filepath.Base(it.Name)+"\n" {
				t.Fatalf("%q: %q, %v", it.Name, body, err)
			}
		}
		if seen > 2 {
			t.Fatalf("%d messages", seen)
		}
	})
}
