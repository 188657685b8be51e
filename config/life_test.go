package config

import (
	"bytes"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dewey/maildrop"
)

func TestLife(t *testing.T) {
	c, err := load(t, `
[mail]
retention = "90d"
sweep_at = "23:59"
undelete = "1d12h"
deletion = "keep"
window = "30d"
window_messages = 1_000
recent = "0s"
folders = ["Spam", "Lists/dewey", "Entwürfe", "Deleted Items", "É", "é"]
folder_delimiter = "+"
`)
	if err != nil {
		t.Fatal(err)
	}
	want := Mail{
		Retention: 90 * day, SweepAt: 24*time.Hour - time.Minute, Undelete: 36 * time.Hour, Deletion: maildrop.DeletionKeep, Window: 30 * day,
		WindowMessages: 1000, Folders: []string{"Spam", "Lists/dewey", "Entwürfe", "Deleted Items", "É", "é"}, FolderDelimiter: "+",
	}
	if diff := cmp.Diff(want, c.Mail); diff != "" {
		t.Error(diff)
	}
}

// What is at the edge is taken, means what it says, and comes back as it was.
func TestLifeValues(t *testing.T) {
	hundred := make([]string, 100)
	for i := range hundred {
		hundred[i] = "f" + strconv.Itoa(i)
	}
	long := strings.Repeat("f", 200)
	for set, change := range map[string]func(*Mail){
		"mail.retention=0":                           func(m *Mail) { m.Retention = 0 },
		"mail.retention=1d":                          func(m *Mail) { m.Retention = day },
		"mail.retention=24h":                         func(m *Mail) { m.Retention = day },
		"mail.retention=36500d":                      func(m *Mail) { m.Retention = 36500 * day },
		"mail.sweep_at=00:00":                        func(m *Mail) { m.SweepAt = 0 },
		"mail.sweep_at=07:05":                        func(m *Mail) { m.SweepAt = 7*time.Hour + 5*time.Minute },
		"mail.undelete=3650d":                        func(m *Mail) { m.Undelete = 3650 * day },
		"mail.undelete=90m":                          func(m *Mail) { m.Undelete = 90 * time.Minute },
		"mail.deletion=remove":                       func(m *Mail) { m.Deletion = maildrop.DeletionRemove },
		"mail.deletion=retrieved":                    func(m *Mail) { m.Deletion = maildrop.DeletionRetrieved },
		"mail.window=36500d":                         func(m *Mail) { m.Window = 36500 * day },
		"mail.window=0s":                             func(m *Mail) { m.Window = 0 },
		"mail.window_messages=10000000":              func(m *Mail) { m.WindowMessages = 10_000_000 },
		"mail.recent=36500d":                         func(m *Mail) { m.Recent = 36500 * day },
		"mail.folders=":                              func(m *Mail) { m.Folders = []string{} }, // not nil, which would say nothing
		"mail.folders=[]":                            func(m *Mail) { m.Folders = []string{} },
		"mail.folders=Spam, Lists/dewey":             func(m *Mail) { m.Folders = []string{"Spam", "Lists/dewey"} },
		`mail.folders=["a,b", "INBOX/x"]`:            func(m *Mail) { m.Folders = []string{"a,b", "INBOX/x"} },
		"mail.folders=" + long:                       func(m *Mail) { m.Folders = []string{long} },
		"mail.folders=" + strings.Join(hundred, ","): func(m *Mail) { m.Folders = hundred },
		"mail.folder_delimiter=":                     func(m *Mail) { m.FolderDelimiter = "" },
		`mail.folder_delimiter="`:                    func(m *Mail) { m.FolderDelimiter = `"` },
	} {
		c, err := Load("", []string{set})
		if err != nil {
			t.Errorf("%s: %v", set, err)
			continue
		}
		want := defaults().Mail
		change(&want)
		if diff := cmp.Diff(want, c.Mail); diff != "" {
			t.Errorf("%s: %s", set, diff)
		}
		var out bytes.Buffer
		if err := c.Print(&out); err != nil {
			t.Fatal(err)
		}
		again, err := load(t, out.String())
		if err != nil || len(Changed(c, again)) > 0 {
			t.Errorf("%s comes back otherwise: %v", set, err)
		}
	}
	if _, err := Load("", []string{"mail.folders=one more," + strings.Join(hundred, ",")}); err == nil || !strings.Contains(err.Error(), "lists 101 folders; list at most 100") {
		t.Error(err)
	}
}

// Each octet that can part a name from a folder, and no other.
func TestFolderDelimiters(t *testing.T) {
	for c := range 256 {
		visible := c > 0x20 && c < 0x7f
		named := strings.ContainsRune("@:/.-_", rune(c)) || '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
		got, err := Load("", []string{"mail.folder_delimiter=" + string([]byte{byte(c)})})
		if (err == nil) != (visible && !named) {
			t.Errorf("%#x: %v", c, err)
		}
		if err == nil && got.Mail.FolderDelimiter != string(rune(c)) {
			t.Errorf("%#x: %q", c, got.Mail.FolderDelimiter)
		}
	}
}
