package maildir_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"dewey/maildrop"
)

// admin runs doveadm for the Maildir's owner.
func (d *dovecot) admin(input string, args ...string) {
	d.t.Helper()
	d.own()
	cmd := exec.Command("doveadm", append([]string{"-c", d.conf}, args...)...)
	cmd.Env = []string{"USER=mrose", "HOME=" + filepath.Dir(d.root), "PATH=" + os.Getenv("PATH")}
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil || badLog.Match(out) {
		d.t.Fatalf("doveadm %q: %v\n%s", args, err, out)
	}
}

// at is the same Dovecot with a folder for its inbox, which its POP3 server serves.
func (d *dovecot) at(disk string) *dovecot {
	d.t.Helper()
	folder := *d.fixture
	folder.root = filepath.Join(d.root, disk)
	conf, err := os.ReadFile(d.conf)
	d.check(err)
	at := &dovecot{fixture: &folder, conf: fmt.Sprint(d.conf, disk), unended: d.unended}
	d.check(os.WriteFile(at.conf, []byte(strings.Replace(string(conf), "maildir:"+d.root, "maildir:"+folder.root, 1)), 0o644))
	return at
}

// rows are what UIDL and LIST would say.
func (d *dovecot) rows(owner maildrop.Owner, remove ...int) (rows []row) {
	d.t.Helper()
	d.own()
	m, err := d.store.Open(d.t.Context(), owner)
	d.check(err)
	for i, msg := range m.Messages() {
		d.read(m, i+1)
		rows = append(rows, row{msg.UID, fmt.Sprint(msg.Octets)})
	}
	d.check(m.Remove(d.t.Context(), remove))
	d.close(m)
	return rows
}

// Dovecot makes folders and delivers to them; dewey serves them under the unique-ids that Dovecot gives them, and the
// other way round, while both remove and add.
func TestDovecotFolders(t *testing.T) {
	for layout, suffix := range map[string]string{"modified UTF-7": "", "UTF-8": ":UTF-8"} {
		t.Run(layout, func(t *testing.T) {
			d := withDovecot(t)
			conf, err := os.ReadFile(d.conf)
			d.check(err)
			d.check(os.WriteFile(d.conf, []byte(strings.TrimSpace(string(conf))+suffix+"\nnamespace inbox {\n inbox = yes\n separator = /\n}\n"), 0o644))
			disks := map[string]string{"Spam": ".Spam", "Lists/dewey": ".Lists.dewey", "Entwürfe/日本語": ".Entw&APw-rfe.&ZeVnLIqe-", "R&D": ".R&-D"}
			if suffix != "" {
				disks["Entwürfe/日本語"], disks["R&D"] = ".Entwürfe.日本語", ".R&D"
			}
			names := []string{"Spam", "Lists/dewey", "Entwürfe/日本語", "R&D"}
			all := including(names...)
			serial := 0
			save := func(mailbox string) {
				serial++
				d.admin(fmt.Sprintf("Subject: %d\n\nin %s\n", serial, mailbox), "save", "-m", mailbox)
			}
			d.admin("", append([]string{"mailbox", "create"}, names...)...)
			save("INBOX")
			for _, name := range names {
				save(name)
			}
			for step := range 4 {
				var want []row
				for i, name := range append([]string{"INBOX"}, names...) {
					var theirs, ours []row
					if step%2 == 0 { // who gives new mail its unique-ids
						ours = d.rows(viewing(name, names...))
						theirs = d.at(disks[name]).run()
					} else {
						theirs = d.at(disks[name]).run()
						ours = d.rows(viewing(name, names...))
					}
					d.same(fmt.Sprint(name, ", step ", step), ours, theirs)
					messages := 1 + step
					if i == 2 && step > 0 {
						messages-- // see below
					}
					if len(ours) != messages {
						t.Errorf("%s, step %d: %v, want %d messages", name, step, ours, messages)
					}
					want = append(want, ours...)
				}
				d.same(fmt.Sprint("all, step ", step), d.rows(all), want)
				d.restart()
				d.same(fmt.Sprint("all again, step ", step), d.rows(all), want)
				if step == 0 { // of Lists/dewey's, which others have the uid of
					d.rows(all, 3)
					d.same("all but one", d.rows(all), append(want[:2:2], want[3:]...))
				}
				for _, name := range append([]string{"INBOX"}, names...) {
					save(name)
				}
			}
			// Dovecot takes a folder away, and dewey's files with it.
			before := d.rows(all)
			d.admin("", "mailbox", "delete", "Spam")
			if exists(filepath.Join(d.root, ".Spam")) {
				t.Error(".Spam is still there")
			}
			d.same("without Spam", d.rows(all), append(before[:5:5], before[10:]...))
		})
	}
}
