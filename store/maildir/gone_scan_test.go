package maildir_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// New mail that another program renames whenever the list, which somebody writes all the time, is about to be read is not
// taken for removed: it is in the session's scan.
func TestNewMailRenamedDuringScans(t *testing.T) {
	f := newFixture(t)
	f.deliver("Subject: old\n")
	f.ids()
	const base = "1700000000.a.host,S=17000000,W=17000000" // a size that is believed, so that no login looks whether it is there
	f.put("new/"+base, "Subject: new\n")
	list := filepath.Join(f.root, "dovecot-uidlist")
	flags, read := "", 0
	f.store.SetTrace(func(op, _ string) {
		if op != "readlist" {
			return
		}
		read++
		flags += "S"
		text, err := os.ReadFile(list)
		f.check(errors.Join(err, os.WriteFile(list+"~", text, 0o600), os.Rename(list+"~", list)))
		f.flag(base, flags)
	})
	d := f.open()
	f.store.SetTrace(nil)
	if n := len(d.Messages()); n != 2 || read < 2 {
		t.Errorf("%d messages after %d looks at the list", n, read)
	}
	f.close(d)
	if got := f.ids(); len(got) != 2 {
		t.Errorf("the next login has %v", got)
	}
}
