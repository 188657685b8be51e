package maildir_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dewey/maildrop/maildroptest"
)

const dovecotPOP3 = "/usr/lib/dovecot/pop3"

// A dovecot is a real Dovecot's POP3 server on a fixture's Maildir, one process a session.
type dovecot struct {
	*fixture
	conf    string
	unended map[string]bool // messages, as sent, that are stored without a final line end
}

// withDovecot returns a fixture whose Maildir belongs to somebody that Dovecot agrees to serve.
func withDovecot(t *testing.T) *dovecot {
	if !exists(dovecotPOP3) {
		t.Fatalf("no %s: apt-get install dovecot-pop3d", dovecotPOP3)
	}
	d := &dovecot{fixture: newFixture(t), unended: map[string]bool{}}
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		uid, gid = 65534, 65534
	}
	parent := filepath.Dir(filepath.Dir(d.root))
	d.check(os.Chmod(parent, 0o755))
	for _, dir := range []string{"new", "cur", "tmp"} {
		d.check(os.MkdirAll(filepath.Join(d.root, dir), 0o700))
	}
	d.conf = filepath.Join(parent, "dovecot.conf")
	conf := fmt.Sprintf(`protocols = pop3
base_dir = %[1]s/run
log_path = /dev/stderr
ssl = no
first_valid_uid = 1
first_valid_gid = 0
mail_uid = %[2]d
mail_gid = %[3]d
mail_location = maildir:%[4]s
`, parent, uid, gid, d.root)
	d.check(os.WriteFile(d.conf, []byte(conf), 0o644))
	d.own()
	return d
}

// own gives all that the test has made to the Maildir's owner. What dewey has made must be his already.
func (d *dovecot) own() {
	d.t.Helper()
	if os.Getuid() != 0 {
		return
	}
	d.check(filepath.WalkDir(filepath.Dir(d.root), func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := filepath.Base(path); strings.HasPrefix(name, "dewey") || strings.HasPrefix(name, "dovecot") {
			return nil
		}
		return os.Lchown(path, 65534, 65534)
	}))
}

// A row is what UIDL and LIST say of one message.
type row struct {
	uid    string
	octets string
}

var badLog = regexp.MustCompile(`Error|Warning|Panic|Fatal|Broken|Corrupt`)

// session runs commands and returns what UIDL and LIST said before them.
func (d *dovecot) session(commands ...string) []row {
	d.t.Helper()
	d.own()
	return d.run(commands...)
}

func (d *dovecot) run(commands ...string) []row {
	d.t.Helper()
	cmd := exec.Command(dovecotPOP3, "-c", d.conf)
	cmd.Env = []string{"USER=mrose", "HOME=" + filepath.Dir(d.root), "PATH=" + os.Getenv("PATH")}
	cmd.Stdin = strings.NewReader("UIDL\r\nLIST\r\n" + strings.Join(append(commands, "QUIT"), "\r\n") + "\r\n")
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Run(); err != nil {
		d.t.Fatalf("%s: %v\n%s%s", dovecotPOP3, err, out.String(), log.String())
	}
	if badLog.Match(log.Bytes()) {
		d.t.Errorf("Dovecot complains: %s\nthe list:\n%s", log.String(), d.get("dovecot-uidlist"))
	}
	var rows []row
	parts := strings.SplitN(out.String(), "\r\n.\r\n", 3)
	if len(parts) < 3 {
		d.t.Fatalf("Dovecot said %q, and logged %s", out.String(), log.String())
	}
	for _, line := range strings.Split(parts[0], "\r\n")[1:] {
		rows = append(rows, row{uid: strings.Fields(line)[1]})
	}
	for i, line := range strings.Split(parts[1], "\r\n")[1:] {
		rows[i].octets = strings.Fields(line)[1]
	}
	return rows
}

// dewey opens the Maildir with a new Store or the old one, removes some messages, and returns what
// UIDL and Dovecot's LIST would say.
func (d *dovecot) dewey(remove ...int) []row {
	d.t.Helper()
	d.own()
	m := d.open()
	var rows []row
	for i, msg := range m.Messages() {
		content := d.read(m, i+1)
		octets := msg.Octets
		if d.unended[content] {
			octets -= 2 // Dovecot does not count the line end that RETR adds
		}
		rows = append(rows, row{msg.UID, fmt.Sprint(octets)})
	}
	d.check(m.Remove(d.t.Context(), remove))
	d.close(m)
	return rows
}

func (d *dovecot) same(what string, dewey, dovecot []row) {
	d.t.Helper()
	if diff := cmp.Diff(dovecot, dewey, cmp.AllowUnexported(row{})); diff != "" {
		d.t.Fatalf("%s: dewey (+) differs from Dovecot (-):\n%s\nthe list:\n%s\nlog:\n%s", what, diff, d.get("dovecot-uidlist"), d.log)
	}
}

// deliverSome delivers a message under a name that some delivery agent might give it.
func (d *dovecot) deliverSome(r *rand.Rand) {
	d.t.Helper()
	d.serial++
	end := []string{"\n", "\r\n"}[r.IntN(2)]
	content := fmt.Sprintf("Subject: %d%s%s", d.serial, end, end) + strings.Repeat("line"+end, r.IntN(5)) + []string{"", "no end"}[r.IntN(2)]
	wire := maildroptest.Wire([]byte(content))
	virtual := len(wire)
	if !strings.HasSuffix(content, "\n") {
		virtual -= 2
		d.unended[string(wire)] = true
	}
	base := []string{
		fmt.Sprintf("%d.M%dP%d.host", 1700000000+r.IntN(20), r.IntN(1_000_000), d.serial),
		fmt.Sprintf("%d.%d_%d.host", 1700000000+r.IntN(20), d.serial, r.IntN(1000)),
		fmt.Sprintf("%d.P%dQ%d.host", 1700000000+r.IntN(20), r.IntN(1000), d.serial),
		fmt.Sprintf("%d.V802I%xM%d.host", 1700000000+r.IntN(20), d.serial, r.IntN(1_000_000)),
		fmt.Sprintf("msg-%d-%d", r.IntN(1000), d.serial),
	}[r.IntN(5)]
	base += []string{"", fmt.Sprintf(",S=%d", len(content)), fmt.Sprintf(",S=%d,W=%d", len(content), virtual)}[r.IntN(3)]
	d.put([]string{"new/" + base, "cur/" + base + ":2,", "cur/" + base + ":2,RS", "cur/" + base}[r.IntN(4)], content)
}

func (d *dovecot) bases() []string {
	var bases []string
	for _, dir := range []string{"new", "cur"} {
		entries, err := os.ReadDir(filepath.Join(d.root, dir))
		d.check(err)
		for _, e := range entries {
			base, _, _ := strings.Cut(e.Name(), ":")
			bases = append(bases, base)
		}
	}
	slices.Sort(bases)
	return bases
}

// dewey and a real Dovecot take turns on one Maildir: the same unique-ids in the same order, and the
// same sizes, across all that can happen in between. Dovecot finds nothing wrong with dewey's list.
func TestDovecotTakesTurns(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 1))
			d := withDovecot(t)
			if seed%2 == 0 { // Dovecot was there first
				d.deliverSome(r)
				d.session()
			}
			for step := range 40 {
				for range r.IntN(4) {
					d.deliverSome(r)
				}
				bases := d.bases()
				for range r.IntN(3) {
					if len(bases) > 0 {
						d.flag(bases[r.IntN(len(bases))], []string{"", "S", "FRS", "T"}[r.IntN(4)])
					}
				}
				if len(bases) > 0 && r.IntN(4) == 0 {
					d.check(os.Remove(d.find(bases[r.IntN(len(bases))])))
				}
				var kill []int
				var dele []string
				for n := range len(d.bases()) {
					if r.IntN(4) == 0 || r.IntN(10) == step%10 {
						kill = append(kill, n+1)
						dele = append(dele, fmt.Sprint("DELE ", n+1))
					}
				}
				if r.IntN(3) == 0 {
					d.restart()
				}
				switch what := fmt.Sprint("step ", step); r.IntN(4) {
				case 0:
					first := d.dewey()
					d.same(what+", dewey first", first, d.session(dele...))
				case 1:
					first := d.session()
					d.same(what+", Dovecot first", d.dewey(kill...), first)
				case 2:
					d.session(dele...)
				case 3:
					d.dewey(kill...)
				}
			}
			first := d.dewey()
			d.same("in the end", first, d.session("RETR 1"))
			d.same("and again", d.dewey(), d.session())
		})
	}
}

// Keys that Dovecot does not know survive it, both when it adds records and when it writes the list
// anew; and Dovecot's header keys survive dewey.
func TestDovecotKeepsKeys(t *testing.T) {
	d := withDovecot(t)
	for i := range 4 {
		d.deliver(fmt.Sprintf("Subject: %d\n\nno end", i))
	}
	d.dewey()
	before := d.list()
	for _, r := range before.Records {
		if added, _ := r.Get('E'); added != "2" {
			t.Errorf("record %+v has no E2", r)
		}
	}
	d.deliver("Subject: more\n")
	d.session("DELE 1", "DELE 2")
	d.session() // writes the list anew
	after := d.list()
	if len(after.Records) != 3 {
		t.Fatalf("Dovecot has not written the list anew:\n%s", d.get("dovecot-uidlist"))
	}
	if diff := cmp.Diff(before.Records[2:], after.Records[:2]); diff != "" {
		t.Error(diff)
	}
	if after.GUID != before.GUID || after.Validity != before.Validity {
		t.Errorf("Dovecot has changed the header: %+v", after)
	}
}

// P and O, as migrations leave them: the order and the unique-ids are Dovecot's.
func TestDovecotOrderAndUniqueIDs(t *testing.T) {
	d := withDovecot(t)
	for i, base := range []string{"1.a", "2.b", "3.c", "4.d", "5.e"} {
		d.put("cur/"+base+":2,S", fmt.Sprintf("Subject: %d\n", i))
	}
	d.put("dovecot-uidlist", `3 V1795400728 N9 Ga4f7d52518a4036bc527000083ecc375 Xkept
2 PCUSTOM O2 :1.a
3 P :2.b
4 Gguid O10 :3.c
6 O1 :4.d
`)
	if os.Getuid() == 0 {
		d.check(os.Chown(filepath.Join(d.root, "dovecot-uidlist"), 65534, 65534))
	}
	first := d.dewey()
	d.same("order", first, d.session())
	var ids []string
	for _, r := range first {
		ids = append(ids, r.uid)
	}
	if want := []string{"000000066b03a418", "CUSTOM", "000000046b03a418", "2.b", "000000096b03a418"}; !slices.Equal(ids, want) {
		t.Errorf("unique-ids %q, want %q", ids, want)
	}
	if l := d.list(); l.Extra != "Xkept" || l.GUID != "a4f7d52518a4036bc527000083ecc375" {
		t.Errorf("header %+v", l)
	}
}

// Files without a record are numbered in the order in which Dovecot numbers them.
func TestDovecotNumbersAlike(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for range 5 {
		theirs, ours := withDovecot(t), withDovecot(t)
		for _, name := range []string{"00017.a", "17.b", "x", "0", "5.M1.h", "5.M1P9.h", "5.M", "5.xM12.h", "6.P1.M7.h"} {
			theirs.put("new/"+name, "Subject: "+name+"\n")
		}
		for i := range 60 {
			// In one second all names have microseconds, or none: Dovecot's order is not one otherwise.
			sec := 1700000000 + r.IntN(20)
			name := fmt.Sprintf("%d.%d_%d.host", sec, r.IntN(1000), i)
			if sec%2 == 0 {
				name = fmt.Sprintf("%d.V802I%xM%dP%d.host,S=7", sec, i, r.IntN(1_000_000), i)
			}
			theirs.put([]string{"new/" + name, "cur/" + name + ":2,S"}[r.IntN(2)], "Sub: x\n")
		}
		for _, dir := range []string{"new", "cur"} {
			entries, err := os.ReadDir(filepath.Join(theirs.root, dir))
			ours.check(err)
			for _, e := range entries {
				ours.put(dir+"/"+e.Name(), theirs.get(dir+"/"+e.Name()))
			}
		}
		theirs.session()
		ours.dewey()
		var a, b []string
		for _, rec := range theirs.list().Records {
			a = append(a, rec.Base)
		}
		for _, rec := range ours.list().Records {
			b = append(b, rec.Base)
		}
		if diff := cmp.Diff(a, b); diff != "" {
			t.Errorf("dewey (+) numbers otherwise than Dovecot (-):\n%s", diff)
		}
	}
}
