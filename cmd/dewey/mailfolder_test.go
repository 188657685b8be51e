package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// count is how many messages lie in a folder of mrose; "" is his own Maildir.
func (p *post) count(folder string) int {
	p.t.Helper()
	found, err := filepath.Glob(filepath.Join(p.data, "mail", "mrose", folder, "[nc]e*", "*.h*"))
	if err != nil {
		p.t.Fatal(err)
	}
	return len(found)
}

// The commands work on the user's own mail, or with --folder on that of one folder; the unique-ids are those of the
// sessions that see it.
func TestMailOfFolders(t *testing.T) {
	p := newPost(t, "mrose:{PLAIN}tanstaaf\n", "mail.folders = ['Spam']\nmail.folder_delimiter = '+'\nmail.undelete = '1d'\n")
	for i, s := range []string{"one", "two", "three"} {
		for _, folder := range []string{"", ".Spam", ".Lists.dewey"} {
			p.mail("mrose", folder, s+folder, time.Duration(100-i)*time.Hour)
		}
	}
	all, spam, list := uids(p.listing("mrose", "UIDL")), uids(p.listing("mrose+Spam", "UIDL")), uids(p.listing("mrose+Lists/dewey", "UIDL"))
	if len(all) != 6 || !slices.Equal(all[3:], spam) || len(list) != 3 {
		t.Fatalf("%q, %q, %q", all, spam, list)
	}
	for _, test := range []struct {
		flag string
		uids []string
		mark string
	}{{"", all[:3], ""}, {"--folder=Spam", spam, ".Spam"}, {"--folder=Lists/dewey", list, ".Lists.dewey"}, {"--folder=INBOX", all[:3], ""}} {
		args := []string{"mail", "list", "mrose"}
		if test.flag != "" {
			args = append(args, test.flag)
		}
		var listed []string
		for _, line := range strings.Split(p.command(0, args...), "\n")[1:4] {
			listed = append(listed, strings.Fields(line)[1])
		}
		args[1] = "show"
		if !slices.Equal(listed, test.uids) || !strings.Contains(p.command(0, append(args, listed[1])...), "Subject: two"+test.mark+"\n") {
			t.Errorf("%s: %q, want %q", test.flag, listed, test.uids)
		}
	}
	if out := p.command(0, "mail", "list", "mrose", "--folder", "Spam", "--json"); strings.Count(out, `"folder":"Spam"`) != 3 {
		t.Error(out)
	}
	for _, test := range []struct{ want, args string }{
		{"no such message with the unique-id", "remove mrose " + spam[0]},
		{"no such message with the unique-id", "remove mrose --folder Spam " + all[0]},
		{"is neither a unique-id nor a number", "show mrose " + spam[0]},
		{`no such folder`, "remove mrose --folder None --all --yes"},
		{`no such folder`, "list mrose --folder None"},
		{`no such folder`, "restore mrose --folder None --all"},
		{"--folder needs a name", "remove mrose --folder= --all --yes"},
		{`Remove 3 messages (98 octets) of mrose, folder "Lists/dewey"? Say so`, "remove mrose --folder Lists/dewey --all"},
	} {
		if out := p.command(1, append([]string{"mail"}, strings.Fields(test.args)...)...); !strings.Contains(out, test.want) {
			t.Errorf("%s: %s, want %q", test.args, out, test.want)
		}
	}
	if own, spam, lists := p.count(""), p.count(".Spam"), p.count(".Lists.dewey"); own != 3 || spam != 3 || lists != 3 {
		t.Errorf("%d %d %d", own, spam, lists)
	}
	if out := p.command(0, "mail", "remove", "mrose", "--all", "--yes"); lastLine(out) != "removed 3 messages of mrose" || p.count("") != 0 || p.count(".Spam") != 3 {
		t.Error(out)
	}
	p.command(0, "mail", "remove", "mrose", "--folder", "Spam", spam[0])
	if out := p.command(0, "mail", "remove", "mrose", "--folder", "Lists/dewey", "--older-than", "98h30m", "--yes"); lastLine(out) != `removed 2 messages of mrose, folder "Lists/dewey"` {
		t.Error(out)
	}
	p.sees("mrose+Lists/dewey", list[2:])
	p.sees("mrose", spam[1:])
	// By its name what is of one folder is brought back; without, what is of any, listed in mail.folders or not.
	if out := p.command(0, "mail", "list", "mrose", "--removed"); !strings.HasPrefix(lastLine(out), "6 messages") {
		t.Error(out)
	}
	if out := p.command(0, "mail", "list", "mrose", "--removed", "--folder", "Lists/dewey"); lastLine(out) != "2 messages, 64 octets" {
		t.Error(out)
	}
	if out := p.command(0, "mail", "restore", "mrose", "--folder", "Lists/dewey", list[0]); lastLine(out) != `restored 1 message of mrose, folder "Lists/dewey"` {
		t.Error(out)
	}
	if out := p.command(0, "mail", "restore", "mrose", "--all"); lastLine(out) != "restored 5 messages of mrose" {
		t.Error(out)
	}
	p.sees("mrose", all)
	p.sees("mrose+Lists/dewey", list)
}

// dewey mail remove removes what sessions only hide, and what they would only hide; for good, or until it is brought
// back, and the question says which.
func TestMailRemoveOfKept(t *testing.T) {
	for undelete, question := range map[string]string{"": " of mrose for good? Say so", "mail.undelete = '1d'\n": " of mrose? Say so"} {
		p := newPost(t, "mrose:{PLAIN}tanstaaf\n", "mail.deletion = 'keep'\n"+undelete)
		for i, s := range []string{"one", "two", "three"} {
			p.mail("mrose", "", s, time.Duration(100-i)*time.Hour)
		}
		ids := uids(p.listing("mrose", "UIDL", "DELE 1"))
		p.sees("mrose", ids[1:])
		if out := p.command(1, "mail", "remove", "mrose", "--all"); !strings.Contains(out, "Remove 3 messages (") || !strings.Contains(out, question) {
			t.Errorf("%s: %s, want %q", undelete, out, question)
		}
		if p.count("") != 3 {
			t.Error("it did not wait for the answer")
		}
		p.command(0, "mail", "remove", "mrose", ids[0], ids[1])
		if n := p.count(""); n != 1 {
			t.Errorf("%d are left", n)
		}
		p.sees("recent:mrose", ids[2:])
		code, want := 1, "nothing of mrose can be brought back"
		if undelete != "" {
			code, want = 0, "restored 2 messages of mrose"
		}
		if out := p.command(code, "mail", "restore", "mrose", "--all"); !strings.Contains(out, want) {
			t.Error(out)
		}
	}
}
