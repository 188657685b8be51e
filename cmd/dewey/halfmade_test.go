package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dewey/config"
)

// Users who have no mail yet, or whose Maildirs are not whole, are no error of a night, and it makes
// nothing of theirs. Mail of a Maildir that was whole once goes as it must.
func TestNightOfHalfMadeMaildirs(t *testing.T) {
	data := t.TempDir()
	for _, sub := range []string{"home", "new/new", "cur/cur", "tmp/tmp", "nocur/new", "nocur/tmp", "notmp/new", "notmp/cur", "folder/new", "folder/cur", "folder/tmp", "folder/.Spam", "half/new", "half/cur", "half/tmp", "half/.Spam/new"} {
		if err := os.MkdirAll(filepath.Join(data, "mail", sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-100 * 24 * time.Hour)
	for _, user := range []string{"nocur", "notmp"} {
		name := filepath.Join(data, "mail", user, "new", "1.a.h")
		write(t, name, "Subject: x\n\nhi\n")
		if err := os.Chtimes(name, old, old); err != nil {
			t.Fatal(err)
		}
	}
	var users string
	for _, user := range []string{"none", "home", "new", "cur", "tmp", "nocur", "notmp", "folder", "half"} {
		users += user + ":{PLAIN}x\n"
	}
	write(t, filepath.Join(data, "users"), users)
	var out bytes.Buffer
	d := &daemon{log: slog.New(slog.NewTextHandler(&out, nil)), load: func() (*config.Config, error) {
		return config.Load("", []string{"data=" + data, "mail.retention=90d", "mail.undelete=1d", "mail.folders=Spam"})
	}}
	if err := d.prepare(); err != nil {
		t.Fatal(err)
	}
	out.Reset()
	d.night().all(t.Context(), reading{wall: time.Now()})
	for _, user := range []string{"none", "home", "tmp", "folder", "half"} {
		if strings.Contains(out.String(), "user="+user) {
			t.Errorf("%s is told of: %s", user, &out)
		}
	}
	if log := out.String(); strings.Contains(log, "ERROR") || strings.Count(log, `level=WARN msg="night's work: the Maildir is not whole"`) > 3 || // new, cur, nocur
		!strings.Contains(log, `msg="old mail removed" user=notmp messages=1 `) {
		t.Error(log)
	}
	for path, want := range map[string]int{"none": 0, "home/*": 0, "new/*": 1, "cur/*": 1, "tmp/*": 1, "nocur/new/*": 1, "notmp/new/*": 0, "half/.Spam/*": 1} {
		if found, err := filepath.Glob(filepath.Join(data, "mail", path)); err != nil || len(found) != want {
			t.Errorf("%s: %q, %v", path, found, err)
		}
	}
}
