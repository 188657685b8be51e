package maildir_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dewey/maildrop"
	"dewey/store/maildir"
)

// doveadm does something as an IMAP session of Dovecot's would, and returns what it prints.
func (d *dovecot) doveadm(args ...string) string {
	d.t.Helper()
	d.own()
	cmd := exec.Command("doveadm", append([]string{"-c", d.conf}, args...)...)
	cmd.Env = []string{"USER=mrose", "HOME=" + filepath.Dir(d.root), "PATH=" + os.Getenv("PATH")}
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Run(); err != nil || badLog.Match(log.Bytes()) {
		d.t.Fatalf("doveadm %q: %v\n%s%s", args, err, out.String(), log.String())
	}
	return out.String()
}

// uids are those of the messages that an IMAP client sees.
func (d *dovecot) uids() []string {
	d.t.Helper()
	var all []string
	for line := range strings.Lines(d.doveadm("-f", "tab", "fetch", "uid", "mailbox", "INBOX", "all")) {
		if line = strings.TrimSpace(line); line != "uid" {
			all = append(all, line)
		}
	}
	return all
}

func ids(rows []row) []string {
	var all []string
	for _, r := range rows {
		all = append(all, r.uid)
	}
	return all
}

// Dovecot keeps the mark of a hidden message, also when it writes the list anew and when flags change, shows the
// message still, and all unique-ids stay.
func TestDovecotKeepsTheMark(t *testing.T) {
	d := withDovecot(t)
	d.owner.Life.Deletion = maildrop.DeletionKeep
	for i := range 5 {
		d.deliver(fmt.Sprintf("Subject: %d\n", i))
	}
	all := ids(d.session())
	d.own()
	d.remove(2, 4)
	seen := []string{all[0], all[2], all[4]}
	d.wantIDs("dewey", d.ids(), seen)
	d.wantIDs("Dovecot", ids(d.session()), all)
	d.wantIDs("IMAP", d.uids(), []string{"1", "2", "3", "4", "5"})
	d.doveadm("flags", "add", `\Flagged`, "mailbox", "INBOX", "uid", "2")
	d.doveadm("expunge", "mailbox", "INBOX", "uid", "1")
	d.wantIDs("IMAP", d.uids(), []string{"2", "3", "4", "5"})
	all, seen = all[1:], seen[1:]
	d.deliver("Subject: more\n")
	d.wantIDs("Dovecot", ids(d.session())[:4], all)
	list := d.list()
	if len(list.Records) != 5 || strings.Count(d.get("dovecot-uidlist"), " D") != 2 {
		t.Errorf("Dovecot has not written the list anew, or lost a mark:\n%s", d.get("dovecot-uidlist"))
	}
	for _, restart := range []bool{false, true} {
		if restart {
			d.restart()
		}
		d.wantIDs("dewey", d.ids()[:2], seen)
	}
	d.own()
	d.wantIDs("restored", d.restore(among(all)), []string{all[0], all[2]})
	d.wantIDs("dewey", d.ids()[:4], all)
	d.wantIDs("Dovecot", ids(d.session())[:4], all)
}

// among chooses messages by their unique-ids.
func among(ids []string) func(maildir.Removed) bool {
	return func(r maildir.Removed) bool { return slices.Contains(ids, r.UID) }
}

// What is brought back has its old unique-id with Dovecot too, also what Dovecot itself had numbered and what has a
// unique-id from elsewhere; IMAP sees a new uid, above all that were. dewey-removed/ is no folder of Dovecot's.
func TestDovecotSeesRestored(t *testing.T) {
	d := withDovecot(t)
	d.owner.Life.Undelete = fortnight
	for i, base := range []string{"1.a", "2.b", "3.c", "4.d,S=11,W=12"} {
		d.put("cur/"+base+":2,S", fmt.Sprintf("Subject: %d\n", i))
	}
	d.put("dovecot-uidlist", "3 V1795400728 N9 Ga4f7d52518a4036bc527000083ecc375\n2 Pa/b:c,d :1.a\n3 P :2.b\n4 Gguid :3.c\n")
	if os.Getuid() == 0 {
		d.check(os.Chown(filepath.Join(d.root, "dovecot-uidlist"), 65534, 65534))
	}
	d.deliver("Subject: in new\n")
	before := d.session()
	highest := 0
	for round := range 3 {
		d.own()
		d.remove(1, 2, 4, 5)
		d.wantIDs("removed, Dovecot", ids(d.session()), []string{before[2].uid})
		if round == 1 {
			d.restart()
		}
		d.wantIDs("restored", d.restore(all), []string{before[0].uid, before[1].uid, before[3].uid, before[4].uid})
		rows := d.session()
		d.same(fmt.Sprint("round ", round), d.dewey(), rows)
		want := []row{before[2], before[0], before[1], before[3], before[4]}
		if !slices.Equal(rows, want) {
			t.Errorf("round %d: Dovecot says %v, want %v", round, rows, want)
		}
		uids := d.uids()
		low, high := 0, 0
		_, err := fmt.Sscan(uids[1]+" "+uids[4], &low, &high)
		if d.check(err); len(uids) != 5 || low <= highest || high != low+3 {
			t.Errorf("round %d: IMAP has the uids %q, those that are back must be above %d", round, uids, highest)
		}
		highest = high
		if got := d.doveadm("mailbox", "list"); strings.Contains(got, "dewey") {
			t.Errorf("round %d: Dovecot's folders are %q", round, got)
		}
		if round < 2 { // the same order again
			d.own()
			d.remove(1)
			d.wantIDs("restored", d.restore(all), []string{before[2].uid})
			before = d.session()
			highest++
		}
	}
	if st, err := os.Stat(filepath.Join(d.root, "dewey-removed", "list")); err != nil || os.Getuid() == 0 && ownerOf(st) != 65534 {
		t.Errorf("the list of removed messages belongs to %d, %v", ownerOf(st), err)
	}
	d.fsck()
}

// Dovecot keeps what the list says of messages that are gone, while their files are yet to be unlinked, and uids and
// unique-ids of all others; what it moves meanwhile goes too.
func TestDovecotDuringLargeRemoval(t *testing.T) {
	d := withDovecot(t)
	t.Cleanup(func() { d.finish() })
	d.store.SetLarge(3)
	for i := range 8 {
		d.deliver(fmt.Sprintf("Subject: %d\n", i))
	}
	all := ids(d.session())
	d.own()
	m := d.open()
	release := d.hold(0)
	d.check(m.Remove(t.Context(), []int{1, 2, 3, 4, 5}))
	d.close(m)
	d.doveadm("flags", "add", `\Flagged`, "mailbox", "INBOX", "uid", "3,7")
	d.doveadm("expunge", "mailbox", "INBOX", "uid", "6")
	d.deliver("Subject: more\n")
	d.uids()
	if list := d.get("dovecot-uidlist"); strings.Count(list, " R") < 4 {
		t.Errorf("Dovecot has lost a mark:\n%s", list)
	}
	d.own()
	got := d.ids()
	d.wantIDs("dewey", got[:2], all[6:])
	release()
	d.finish()
	d.wantIDs("dewey, after it", d.ids(), got)
	d.wantIDs("Dovecot", ids(d.session()), got)
	d.wantIDs("IMAP", d.uids(), []string{"7", "8", "9"})
	d.own()
	d.fsck()
}
