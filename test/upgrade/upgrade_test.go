package upgrade

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"dewey/test/chaos/harness"
)

// An older dewey, this one, the older again and this one work on the same data: mail, sizes, unique-ids, users, passwords,
// history, certificate and what can be brought back are the same to all of them.
func TestOldNewOldNew(t *testing.T) {
	for _, n := range harness.Spread(len(versions), 2) {
		old := versions[n-1]
		t.Run(old.what, func(t *testing.T) {
			in := &install{t, harness.Dir(t)}
			program := old.build(t)
			harness.AddUsers(t, in.data, "mrose undelete=14d retention=90d something=new", "keeper deletion=keep")
			mrose, keeper := harness.NewModel(), harness.NewModel()
			var fingerprint, loginKey string
			var away, awayKeys []string // what can be brought back, by unique-id and as the model knows it
			sessions := 0
			for step, run := range []string{program, harness.Binary(), program, harness.Binary()} {
				s := in.start(run)
				knows := run != program || old.undelete
				post(t, s, mrose, "mrose", step)
				post(t, s, keeper, "keeper", step)
				name := fmt.Sprintf("by-hand-%d", step)
				text := harness.Text(name, 3000)
				mrose.Sent(name, text)
				mrose.Is(name, harness.There)
				harness.Put(t, in.data+"/mail/mrose", "cur", fmt.Sprintf("%d.M1P1.h:2,S", 1000+step), text)
				for _, fault := range mrose.Verify(s, "mrose") {
					t.Errorf("step %d: %s", step, fault)
				}
				if knows { // one that does not shows what was kept; the next does not
					for _, fault := range keeper.Verify(s, "keeper") {
						t.Errorf("step %d: keeper: %s", step, fault)
					}
				}
				if knows && len(away) > 0 {
					listed := in.must(run, "", "mail", "list", "mrose", "--removed")
					for _, id := range away {
						if !strings.Contains(listed, id) {
							t.Errorf("step %d: %s can't be brought back: %s", step, id, listed)
						}
					}
					in.must(run, "", append([]string{"mail", "restore", "mrose"}, away...)...)
					for _, key := range awayKeys {
						mrose.Is(key, harness.There)
					}
					away, awayKeys = nil, nil
					for _, fault := range mrose.Verify(s, "mrose") {
						t.Errorf("step %d: restored: %s", step, fault)
					}
				}
				key, id := removeOne(t, s, mrose, "mrose", step)
				if knows {
					away, awayKeys = append(away, id), append(awayKeys, key)
					removeOne(t, s, keeper, "keeper", step)
				}
				user := fmt.Sprintf("user%d", step)
				in.must(run, harness.Password+"\n", "user", "add", user)
				for n := range step + 1 { // of each version before, too
					s.Await("a user who was added", func() bool { _, err := harness.Fetch(s.POP3, fmt.Sprintf("user%d", n)); return err == nil })
				}
				if text := in.read("users"); !strings.Contains(text, ":undelete=14d retention=90d something=new\n") {
					t.Errorf("step %d: fields of the users file are gone: %s", step, text)
				}
				if sum := certificate(s); sum == "" || fingerprint != "" && sum != fingerprint {
					t.Errorf("step %d: certificate %q, was %q", step, sum, fingerprint)
				} else {
					fingerprint = sum
				}
				if k := in.read("login-key"); loginKey != "" && k != loginKey {
					t.Errorf("step %d: another login-key", step)
				} else {
					loginKey = k
				}
				s.Stop()
				rows := strings.Count(in.must(run, "", "mail", "history", "mrose"), "\n")
				if rows <= sessions {
					t.Errorf("step %d: %d rows of history, %d before", step, rows, sessions)
				}
				sessions = rows
			}
			if problems, _ := harness.Check(t, in.data, "--sizes"); len(problems) > 0 {
				t.Error(problems)
			}
			harness.Report(t, "upgrade-"+old.commit[:7], map[string]any{"messages": len(mrose.Keys(harness.There)), "history": sessions})
		})
	}
}

// post delivers a message.
func post(t *testing.T, s *harness.Server, m *harness.Model, user string, step int) {
	t.Helper()
	c, err := harness.DialLMTP(s.LMTP)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	key := fmt.Sprintf("removed-%s-%d", user, step)
	text := harness.Text(key, 5000)
	m.Sent(key, text)
	results, err := c.Deliver(text, user)
	if err != nil || results[0] != nil {
		t.Fatal(results, err)
	}
	m.Is(key, harness.There)
}

// removeOne removes what post has delivered in this step, and returns its key and unique-id.
func removeOne(t *testing.T, s *harness.Server, m *harness.Model, user string, step int) (key, id string) {
	t.Helper()
	c, err := harness.DialPOP3(s.POP3)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Login(user); err != nil {
		t.Fatal(err)
	}
	all, err := c.Fetch()
	if err != nil {
		t.Fatal(err)
	}
	key = fmt.Sprintf("removed-%s-%d", user, step)
	n := slices.IndexFunc(all, func(one harness.Seen) bool { return harness.Key(one.Text) == key })
	if n < 0 {
		t.Fatalf("%s is not there", key)
	}
	if _, err = c.Do(fmt.Sprintf("DELE %d", all[n].Number)); err == nil {
		_, err = c.Do("QUIT")
	}
	if err != nil {
		t.Fatal(err)
	}
	m.Is(key, harness.Gone)
	return key, all[n].UID
}

// Files of a version that does not exist yet are refused or passed over, the log names them, and not an octet of them
// changes.
func TestNewerFiles(t *testing.T) {
	in := &install{t, harness.Dir(t)}
	harness.AddUsers(t, in.data, "list", "removed undelete=14d", "keys", "witness", "plain")
	s := in.start(harness.Binary())
	for _, user := range []string{"list", "removed", "keys", "witness", "plain"} {
		for i := range 3 {
			harness.Put(t, in.data+"/mail/"+user, "new", fmt.Sprintf("%d.M1P1.h", 1000+i), harness.Text(fmt.Sprint(user, i), 100))
		}
		if seen, err := harness.Fetch(s.POP3, user); err != nil || len(seen) != 3 {
			t.Fatal(user, err)
		}
	}
	before := map[string]string{}
	newer := func(name string, change func(string) string) {
		t.Helper()
		before[name] = change(in.read(name))
		in.write(name, before[name])
	}
	newer("mail/list/dovecot-uidlist", func(s string) string { return "4" + s[1:] + "another section\n" })
	in.write("mail/removed/dewey-removed/list", "")
	newer("mail/removed/dewey-removed/list", func(string) string { return "dewey-removed 2\n1 2 3\n" })
	s.Stop()
	s = in.start(harness.Binary())
	mark := len(s.Log())
	_, err := harness.Fetch(s.POP3, "list")
	if err == nil || !strings.Contains(err.Error(), "[SYS/PERM]") {
		t.Errorf("a list of version 4: %v", err)
	}
	c, err := harness.DialPOP3(s.POP3)
	if err == nil {
		defer c.Close()
		err = c.Login("removed")
	}
	if err == nil {
		_, err = c.Fetch()
	}
	if err == nil {
		_, err = c.Do("DELE 1")
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Do("QUIT"); err == nil || !strings.Contains(err.Error(), "[SYS/") {
		t.Errorf("dewey-removed of version 2: %v", err)
	}
	if seen, err := harness.Fetch(s.POP3, "removed"); err != nil || len(seen) != 3 {
		t.Errorf("dewey-removed of version 2: %d messages, %v", len(seen), err)
	}
	for _, words := range []string{"mail/list/dovecot-uidlist", "neither version 3 nor 1", `is of another dewey: version \"2\", this one knows 1`} {
		if !strings.Contains(s.Log()[mark:], words) {
			t.Errorf("no %q in %s", words, s.Log()[mark:])
		}
	}
	for name, text := range before {
		if got := in.read(name); got != text {
			t.Errorf("%s has changed: %q, was %q", name, got, text)
		}
	}
	// What may be passed over stays when the file is written anew.
	list := in.read("mail/keys/dovecot-uidlist")
	in.write("mail/keys/dovecot-uidlist", strings.Replace(strings.Replace(list, "\n", " Xheader\n", 1), " :1001", " Zkey :1001", 1))
	m := harness.NewModel()
	for i := range 3 {
		m.Sent(fmt.Sprint("keys", i), harness.Text(fmt.Sprint("keys", i), 100))
	}
	seen, err := harness.Fetch(s.POP3, "keys")
	if err != nil || len(m.Hold(seen)) > 0 {
		t.Error(err)
	}
	k, err := harness.DialPOP3(s.POP3)
	if err == nil {
		defer k.Close()
		err = k.Login("keys")
	}
	if err == nil {
		_, err = k.Do("DELE 1")
	}
	if err == nil {
		_, err = k.Do("QUIT")
	}
	if after := in.read("mail/keys/dovecot-uidlist"); err != nil || !strings.Contains(after, " Xheader\n") || !strings.Contains(after, " Zkey ") || strings.Contains(after, ":1000.") {
		t.Errorf("%v: the list is now %s", err, after)
	}
	in.write("mail/witness/dewey-uidvalidity", in.read("mail/witness/dewey-uidvalidity")+" 4 more\n")
	if _, err := harness.Fetch(s.POP3, "witness"); err != nil {
		t.Errorf("a dewey-uidvalidity with more in it: %v", err)
	}
	s.Stop()
	in.write("login-key", strings.Repeat("k", 64))
	if code, out := in.run(harness.Binary(), "", "serve", "--set", "pop3.listen=127.0.0.1:0"); code == 0 || !strings.Contains(out, "has 64 octets, not 32") || in.read("login-key") != strings.Repeat("k", 64) {
		t.Errorf("a login-key of another length: %d, %s", code, out)
	}
}
