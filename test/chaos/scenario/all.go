package scenario

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"dewey/test/chaos/harness"
)

// All are the scenarios.
func All() []Scenario {
	return []Scenario{
		{
			Name:  "first delivery", // for which the Maildir is made
			Users: []string{"mrose"},
			Act:   func(e *Env) error { return e.deliver([]string{"mrose"}, []string{"mrose"}, 0, 0, 100_000) },
		},
		{
			Name:    "delivery",
			Users:   []string{"mrose"},
			Prepare: func(e *Env) { e.put("mrose", "", "old", 3); e.served(nil, e.see("mrose")) },
			Act:     func(e *Env) error { return e.deliver([]string{"mrose"}, []string{"mrose"}, 0, 0, 100_000, 0) },
		},
		{
			Name:     "delivery in chunks to an alias of two",
			Users:    []string{"mrose", "ann"},
			Settings: []string{"recipients.aliases={data}/aliases"},
			Prepare: func(e *Env) {
				e.write("aliases", "info: mrose, ann\n")
				e.put("mrose", "", "old", 3)
			},
			Act: func(e *Env) error {
				return e.deliver([]string{"info"}, []string{"mrose", "ann"}, 30_000, 70_000, 1000)
			},
		},
		{
			Name:    "update",
			Users:   []string{"mrose"},
			Prepare: func(e *Env) { e.put("mrose", "", "m", 100); e.served(nil, e.see("mrose")) },
			Act:     func(e *Env) error { return e.remove(e.POP3, "mrose", odd) },
		},
		{
			Name:    "large update", // answered when the list says so, and finished after that
			Users:   []string{"mrose"},
			Prepare: func(e *Env) { e.put("mrose", "", "m", 600); e.served(nil, e.see("mrose")) },
			Act:     manyGo,
		},
		{
			Name:    "update with undelete",
			Users:   []string{"mrose undelete=1d"},
			Prepare: func(e *Env) { e.put("mrose", "", "m", 100); e.served(nil, e.see("mrose")) },
			Act:     func(e *Env) error { return e.remove(e.POP3, "mrose", odd) },
			Restore: true,
		},
		{
			Name:  "update of two folders with undelete",
			Users: []string{"mrose undelete=1d folders=Spam"},
			Prepare: func(e *Env) {
				e.put("mrose", "", "m", 20)
				e.put("mrose", ".Spam", "spam", 20)
				e.served(nil, e.see("mrose"))
			},
			Act:     func(e *Env) error { return e.remove(e.POP3, "mrose", odd) },
			Restore: true,
		},
		{
			Name:    "update that keeps",
			Users:   []string{"mrose deletion=keep"},
			Prepare: func(e *Env) { e.put("mrose", "", "m", 10); e.served(nil, e.see("mrose")) },
			Act:     func(e *Env) error { return e.remove(e.POP3, "mrose", odd) },
		},
		{
			Name:    "first sight",
			Users:   []string{"mrose"},
			Prepare: func(e *Env) { e.put("mrose", "", "m", 30) },
			Act:     func(e *Env) error { return e.session("mrose") },
		},
		{
			Name:  "new mail on the list",
			Users: []string{"mrose"},
			Prepare: func(e *Env) {
				e.put("mrose", "", "m", 10)
				e.served(nil, e.see("mrose"))
				e.put("mrose", "", "new", 5)
			},
			Act: func(e *Env) error { return e.session("mrose") },
		},
		{
			Name:    "list of version 1 written anew, and again",
			Users:   []string{"mrose"},
			Prepare: version1,
			Act: func(e *Env) error {
				return errors.Join(e.session("mrose"), e.remove(e.POP3, "mrose", func(key string) bool { return key == "m001" }))
			},
		},
		{
			Name:    "user add",
			Users:   []string{"mrose", "ann"},
			Command: []string{"user", "add", "bob", "--scheme", "plain"},
			Stdin:   harness.Password + "\n",
			Faults:  users,
		},
		{
			Name:  "restore",
			Users: []string{"mrose undelete=1d"},
			Prepare: func(e *Env) {
				e.put("mrose", "", "m", 20)
				e.served(nil, func(s *harness.Server) error {
					return errors.Join(e.see("mrose")(s), e.remove(s.POP3, "mrose", odd))
				})
				for _, key := range e.Models["mrose"].Keys(harness.Gone) {
					e.Models["mrose"].Is(key, harness.Maybe)
				}
			},
			Command: []string{"mail", "restore", "mrose", "--all"},
			Act: func(e *Env) error {
				for _, key := range e.Models["mrose"].Keys(harness.Maybe) {
					e.Models["mrose"].Is(key, harness.There)
				}
				e.mark(false)
				return nil
			},
			Restore: true,
		},
		{
			Name:    "repair",
			Users:   []string{"mrose"},
			Prepare: broken,
			Command: []string{"check", "--repair", "mrose"},
			After:   []string{"check", "--repair"},
			Atomic:  true, // a message gets a base name of its own
		},
		{
			Name:     "the night's retention",
			Users:    []string{"mrose"},
			Settings: []string{"mail.retention=30d", "mail.sweep_at=03:30"},
			Env:      dusk,
			Prepare:  old,
			Act: func(e *Env) error {
				m := e.Models["mrose"]
				for end := time.Now().Add(5 * e.Dusk); !strings.Contains(e.text(e.TB), "night's work done"); {
					switch {
					case !e.alive():
						return io.EOF
					case time.Now().After(end):
						return ErrLate
					}
					time.Sleep(time.Millisecond) // between two looks; nothing depends on its length
				}
				for _, key := range m.Keys(harness.Maybe) {
					m.Is(key, harness.Gone)
				}
				e.mark(false) // it is said in the log, and to nobody else
				return nil
			},
		},
	}
}

// manyGo removes so many that their files are unlinked after the answer, and waits for that.
func manyGo(e *Env) error {
	if err := e.remove(e.POP3, "mrose", func(key string) bool { return key[len(key)-1] != '0' }); err != nil {
		return err
	}
	for end := time.Now().Add(time.Minute); ; {
		list, err := os.ReadFile(filepath.Join(e.Maildir("mrose"), "dovecot-uidlist"))
		switch {
		case err != nil:
			return err
		case !strings.Contains(string(list), " R"):
			return nil
		case !e.alive():
			return io.EOF
		case time.Now().After(end):
			return errors.New("removed messages are not unlinked")
		}
		time.Sleep(time.Millisecond) // between two looks; nothing depends on its length
	}
}

// ErrLate says that the server was started too late for what was to happen at a time: to try again with a later Dusk
// would be right.
var ErrLate = errors.New("the night does not come")

func (e *Env) write(name, text string) {
	e.Helper()
	path := filepath.Join(e.Data, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		e.Fatal(err)
	}
}

// session fetches all, and from then on the unique-ids count.
func (e *Env) session(user string) error {
	c, err := e.login(user)
	if err != nil {
		return err
	}
	defer c.Close()
	seen, err := c.Fetch()
	if err != nil {
		return err
	}
	for _, fault := range e.Models[user].Hold(seen) {
		e.Error(fault)
	}
	e.mark(true)
	_, err = c.Do("QUIT")
	return err
}

// version1 has a list of Dovecot's oldest version, from which the unique-ids follow: uid and validity in hexadecimal.
func version1(e *Env) {
	const validity = 1_600_000_000
	var list strings.Builder
	fmt.Fprintf(&list, "1 %d 100\n", validity)
	var seen []harness.Seen
	for i, key := range e.put("mrose", "", "m", 12) {
		fmt.Fprintf(&list, "%d 17000%05d.%s.host\n", i+7, i, key)
		seen = append(seen, harness.Seen{UID: fmt.Sprintf("%08x%08x", i+7, validity), Text: harness.Text(key, i*30)})
	}
	e.write("mail/mrose/dovecot-uidlist", list.String())
	for _, fault := range e.Models["mrose"].Hold(seen) {
		e.Error(fault)
	}
}

// broken has a list out of order, with a line twice and a torn one; a Maildir without tmp/; a second name, two messages
// with one base name, and what others have left. The unique-ids are those that the list has all the same.
func broken(e *Env) {
	const validity = 1_600_000_000
	var lines []string
	var seen []harness.Seen
	for i, key := range e.put("mrose", "", "m", 12) {
		lines = append(lines, fmt.Sprintf("%d :17000%05d.%s.host\n", i+1, i, key))
		seen = append(seen, harness.Seen{UID: fmt.Sprintf("%08x%08x", i+1, validity), Text: harness.Text(key, i*30)})
	}
	lines[3], lines[4] = lines[4], lines[3]
	lines = append(lines, lines[11], "13 :1700")
	e.write("mail/mrose/dovecot-uidlist", fmt.Sprintf("3 V%d N13 G0123456789abcdef0123456789abcdef\n", validity)+strings.Join(lines, ""))
	e.write("mail/mrose/dewey-uidvalidity", fmt.Sprint(validity))
	e.write("mail/mrose/dovecot-uidlist.tmp", "left")
	m := e.Models["mrose"]
	for _, fault := range m.Hold(seen) {
		e.Error(fault)
	}
	twin := harness.Text("twin", 0)
	m.Sent("twin", twin)
	m.Is("twin", harness.There)
	e.write("mail/mrose/cur/1700000000.m000.host:2,R", strings.ReplaceAll(twin, "\r\n", "\n"))
	dir := e.Maildir("mrose")
	if err := errors.Join(
		os.Link(filepath.Join(dir, "new/1700000002.m002.host"), filepath.Join(dir, "cur/1700000002.m002.host:2,")),
		os.Remove(filepath.Join(dir, "tmp")),
	); err != nil {
		e.Fatal(err)
	}
}

// users finds the users file as it was or with the new user, whole, and with him if he was acknowledged.
func users(e *Env) (faults []string) {
	code, out, stderr := harness.Run(e.TB, e.Data, "", "user", "list")
	names := map[string]bool{}
	for _, f := range strings.Fields(out) {
		names[f] = true
	}
	if code != 0 || !names["mrose"] || !names["ann"] || e.Done && !names["bob"] {
		faults = append(faults, fmt.Sprintf("acknowledged: %v; exit code %d\n%s%s", e.Done, code, out, stderr))
	}
	code, _, stderr = harness.Run(e.TB, e.Data, harness.Password+"\n", "user", "add", "eve", "--scheme", "plain")
	if code != 0 {
		faults = append(faults, "nobody can be added: "+stderr)
	}
	return faults
}

// old has messages past their retention, every second one, and a night a day ago.
func old(e *Env) {
	keys := e.put("mrose", "", "m", 40)
	e.served(nil, e.see("mrose"))
	for i, key := range keys {
		if !odd(key) {
			continue
		}
		e.Models["mrose"].Is(key, harness.Maybe)
		at := time.Now().AddDate(0, 0, -60)
		name := filepath.Join(e.Maildir("mrose"), "cur", fmt.Sprintf("17000%05d.%s.host:2,S", i, key))
		if err := os.Chtimes(name, at, at); err != nil {
			e.Fatal(err)
		}
	}
	e.write("swept", "dewey swept 2\n"+time.Now().AddDate(0, 0, -1).UTC().Format(time.RFC3339)+"\n0\n")
}

// dusk is a time zone in which it is half past three soon: tzfile(5), version 1, one type of time.
func dusk(e *Env) []string {
	now := time.Now().Add(e.Dusk).UTC()
	offset := 3*3600 + 30*60 - (now.Hour()*3600 + now.Minute()*60 + now.Second())
	if offset < -43200 {
		offset += 86400
	}
	zone := append([]byte("TZif"), make([]byte, 16)...)
	for _, n := range []uint32{0, 0, 0, 0, 1, 4} { // ttisutcnt, ttisstdcnt, leapcnt, timecnt, typecnt, charcnt
		zone = binary.BigEndian.AppendUint32(zone, n)
	}
	zone = binary.BigEndian.AppendUint32(zone, uint32(int32(offset)))
	zone = append(zone, 0, 0)
	zone = append(zone, "XXX\x00"...)
	e.write("zone", string(zone))
	return []string{"TZ=" + filepath.Join(e.Data, "zone")}
}
