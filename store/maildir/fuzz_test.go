package maildir_test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dewey/maildrop"
	"dewey/store/maildir"
)

// Whatever is in a Maildir's own files, and whatever its messages' files are called: no panic, unique-ids are legal and
// no two alike, each message is as long as its scan listing says, looking changes nothing, and neither a repair nor a
// restore loses a message.
func FuzzMaildirFiles(f *testing.F) {
	const list = "3 V1795400728 N3 G0123456789abcdef0123456789abcdef\n1 E4 :1.a\n2 :2.b,S=13\n"
	const removed = "dewey-removed 1\n1795400728 x new i1 S5 E1 :1.c\n"
	for _, seed := range [][5]string{
		{list, "1795400728", removed, "1.a", "2.b,S=13"},
		{"", "", "", "1.a:2,S", "1.a"},
		{"1 1795400728 3\n1 1.a\n", "7", "dewey-removed 2\n", "1.a,S=99999999999999999999,W=-1:2,", "2,S="},
		{list + "2 :3.d\n1 Pi1 :4.e", "x", removed + removed + "1795400728 x new", ":2,S", "\xff\xfe :x"},
		{"3 V1 N4294967295\n4294967294 D0 U7 :1.a\n", "1\n", "dewey-removed 1\n9223372036854775807 x cur i1 :a\n", "1.a", "1.a:2,"},
		{"3 V1 N9 T\n1 Pi1 :a\n2 Pi1 :b\n", "", removed, "a", "b"},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3], seed[4])
	}
	f.Fuzz(func(t *testing.T, list, witness, removed, one, two string) {
		x := newFixture(t)
		x.owner.Life.Undelete = fortnight
		for name, text := range map[string]string{"dovecot-uidlist": list, "dewey-uidvalidity": witness, "dewey-removed/list": removed} {
			if text != "" {
				x.put(name, text)
			}
		}
		x.put("dewey-removed/x", "Subject: x\n")
		for i, name := range []string{one, two} {
			if name == "" || name == "." || name == ".." || len(name) > 255 || strings.ContainsAny(name, "/\x00") {
				continue // no file is called so
			}
			x.put([]string{"new/", "cur/"}[i]+name, "Subject: 1\n\n"[:12-i])
		}
		tree := x.tree()
		if _, err := x.store.Check(t.Context(), x.owner, maildir.CheckOptions{Sizes: true}); err != nil || x.tree() != tree {
			t.Fatalf("looking changed something, or failed: %v", err)
		}
		files := x.messageFiles()
		x.serveAll(t)
		_, _ = x.store.Removed(t.Context(), x.owner)
		x.restart()
		if _, err := x.store.Check(t.Context(), x.owner, maildir.CheckOptions{Sizes: true, Repair: true}); err != nil {
			t.Fatal(err)
		}
		x.serveAll(t)
		back, err := x.store.Restore(t.Context(), x.owner, all)
		x.serveAll(t)
		for _, r := range back {
			if !r.Kept { // or its file was there all the time
				files++
			}
		}
		if now := x.messageFiles(); now != files {
			t.Fatalf("%d messages, want %d; %+v came back, %v", now, files, back, err)
		}
	})
}

// messageFiles counts the files in new/ and cur/.
func (f *fixture) messageFiles() int {
	n := 0
	for _, sub := range []string{"new", "cur"} {
		entries, _ := os.ReadDir(filepath.Join(f.root, sub))
		n += len(entries)
	}
	return n
}

// serveAll opens the Maildir, which may be refused, and reads all that it has.
func (f *fixture) serveAll(t *testing.T) {
	t.Helper()
	f.restart()
	d, err := f.store.Open(t.Context(), f.owner)
	if err != nil {
		return
	}
	defer f.close(d)
	seen := map[string]bool{}
	for i, m := range d.Messages() {
		if !maildrop.ValidUID(m.UID) || seen[m.UID] {
			t.Fatalf("message %d has the unique-id %q, seen before: %v", i+1, m.UID, seen[m.UID])
		}
		seen[m.UID] = true
		m, body, err := d.Retrieve(t.Context(), i+1)
		if err != nil {
			continue
		}
		n, err := io.Copy(io.Discard, body)
		_ = body.Close()
		if err != nil || n != m.Octets {
			t.Fatalf("message %d: %d octets, announced %d, %v", i+1, n, m.Octets, err)
		}
	}
}
