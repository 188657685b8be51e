package others

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dewey/test/chaos/harness"
)

// Everybody at once: mail comes by dewey's LMTP, by procmail and by IMAP's APPEND; dewey's POP3, Dovecot's IMAP and mutt
// fetch it, flag it, move it from new/ to cur/ and remove it. Each message that was acknowledged and that nobody has removed
// is there, once and whole, for everybody who looks; none that was removed comes back; unique-ids stay; nobody hangs.
//
// Dovecot and mutt do not go together: "if one process modifies the maildir (eg. a rename() to change a message's flag),
// another process in the middle of listing files at the same time could skip a file" (Dovecot's manual, Maildir, Locking).
// Dovecot locks out its own processes, and takes what mutt has renamed meanwhile for expunged; when it finds it again it
// gives it another uid, in the list that dewey shares. So where both are at work unique-ids change, but by Dovecot alone.
func TestAtOnce(t *testing.T) {
	for name, with := range map[string]struct{ imap, mutt bool }{
		"dovecot": {imap: true}, "mutt": {mutt: true}, "all": {true, true},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			p.skips = with.imap && with.mutt
			n := harness.Some(3000, 200)
			const eachSession = 10 // messages that come for each session that has ended, so that there is always both
			turns := make(chan bool, n)
			for range eachSession {
				turns <- true
			}
			var left atomic.Int64
			left.Store(int64(n))
			var delivering, using sync.WaitGroup
			deliver := func(what string, do func(text string) error) {
				delivering.Go(func() {
					for left.Add(-1) >= 0 {
						<-turns
						key, text := p.next()
						if err := do(text); err != nil {
							p.t.Errorf("%s: %s: %v", what, key, err) // nothing here is full
							continue
						}
						p.model.Is(key, harness.There)
						p.did(what, 1)
					}
				})
			}
			over := make(chan struct{})
			users := uint64(0)
			use := func(do func(*rand.Rand) error) {
				users++
				r := rand.New(rand.NewPCG(users, 4))
				using.Go(func() {
					for {
						select {
						case <-over:
							return
						default:
						}
						if err := do(r); err != nil {
							p.t.Error(err)
						}
						for range eachSession {
							select {
							case turns <- true:
							default: // enough for all
							}
						}
					}
				})
			}
			deliver("lmtp", p.byLMTP)
			deliver("lmtp", p.byLMTP)
			deliver("procmail", p.byProcmail)
			use(p.pop3Session)
			use(p.pop3Session)
			if with.imap {
				deliver("append", p.byAppend)
				use(p.imapSession)
				use(p.imapSession)
			}
			if with.mutt {
				use(p.muttSession)
			}
			delivering.Wait()
			close(over)
			using.Wait()
			if with.mutt && p.figures()["mutt_sessions"] == nil { // it was in one that waits all the time
				if err := p.muttSession(rand.New(rand.NewPCG(users+1, 4))); err != nil || p.figures()["mutt_sessions"] == nil {
					t.Errorf("no session of mutt came to its end: %v", err)
				}
			}
			p.last(name)
		})
	}
}

func (p *place) byLMTP(text string) error {
	c, err := harness.DialLMTP(p.LMTP)
	if err != nil {
		return err
	}
	defer c.Close()
	results, err := c.Deliver(text, "mrose")
	if err != nil {
		return err
	}
	return results[0]
}

func (p *place) byProcmail(text string) error {
	return p.run(strings.ReplaceAll(text, "\r\n", "\n"), nil, "/usr/bin/procmail", "-p", "DEFAULT="+p.maildir+"/", "LOGFILE=", "/dev/null")
}

func (p *place) byAppend(text string) error {
	c, err := p.imap()
	if err != nil {
		return err
	}
	return errors.Join(c.append(text), c.close())
}

// inUse says that another session has the maildrop, which is no fault.
func inUse(err error) bool {
	return harness.IsRefusal(err) && strings.Contains(err.Error(), "-ERR [IN-USE]")
}

// pop3Session fetches all, and removes a little.
func (p *place) pop3Session(r *rand.Rand) error {
	start := time.Now()
	err := p.pop3(r)
	if took := time.Since(start); took > patience {
		err = errors.Join(err, fmt.Errorf("POP3: a session took %v", took))
	}
	return err
}

func (p *place) pop3(r *rand.Rand) error {
	b := p.before()
	c, err := harness.DialPOP3(p.POP3)
	if err != nil {
		return err
	}
	defer c.Close()
	switch err := c.Login("mrose"); {
	case inUse(err):
		p.did("pop3_in_use", 1)
		return nil
	case err != nil && p.skips && strings.Contains(err.Error(), "[SYS/TEMP]") && strings.Contains(p.Log(), "ALARM: login refused"):
		p.did("alarms", 1) // of what Dovecot has done to more than a few messages; it names what to remove to accept that
		err = os.Remove(filepath.Join(p.maildir, "dewey-uidvalidity"))
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		return err
	case err != nil:
		return fmt.Errorf("POP3: login: %w", err)
	}
	seen, err := p.fetch(c)
	if err != nil {
		return fmt.Errorf("POP3: %w", err)
	}
	keys := map[string]bool{}
	for _, m := range seen {
		if m.Text == "" {
			continue // removed by somebody else meanwhile, and it may be
		}
		key := harness.Key(m.Text)
		if keys[key] {
			p.t.Errorf("POP3: %s is there twice", key)
		}
		keys[key] = true
		p.id("POP3", key, m.UID)
	}
	p.saw("POP3", keys, b)
	p.did("pop3_sessions", 1)
	p.did("pop3_retrieved", len(keys))
	chosen := map[string]bool{}
	for _, key := range p.some(r, byPOP3, 8) {
		chosen[key] = true
	}
	var marked []string
	for _, m := range seen {
		if key := harness.Key(m.Text); chosen[key] {
			if _, err := c.Do(fmt.Sprintf("DELE %d", m.Number)); err != nil {
				return err
			}
			marked = append(marked, key)
			p.model.Is(key, harness.Maybe)
		}
	}
	if _, err = c.Do("QUIT"); err != nil {
		return fmt.Errorf("POP3: QUIT: %w", err)
	}
	for _, key := range marked {
		p.model.Is(key, harness.Gone)
	}
	p.did("pop3_removed", len(marked))
	return nil
}

// fetch is Fetch for a maildrop in which others remove: a message that is gone has no text.
func (p *place) fetch(c *harness.POP3) ([]harness.Seen, error) {
	all, err := c.Listing()
	for i := range all {
		m := &all[i]
		m.Text, err = c.Multi(fmt.Sprintf("RETR %d", m.Number))
		switch {
		case !harness.IsRefusal(err):
		case strings.Contains(err.Error(), "message is gone"):
			p.did("pop3_gone_meanwhile", 1)
			err = nil
		case strings.Contains(err.Error(), "[SYS/TEMP]"): // not to be found, and the folders never rest: it may be gone
			p.did("pop3_try_again", 1)
			err = nil
		}
		if err != nil {
			return nil, err
		}
		if m.Text != "" && int64(len(m.Text)) != m.Octets {
			return nil, fmt.Errorf("RETR %d: %d octets, LIST said %d", m.Number, len(m.Text), m.Octets)
		}
	}
	return all, err
}

var flags = []string{`\Seen`, `\Answered`, `\Flagged`, `\Draft`, `(\Seen \Flagged)`, "$Junk"}

// imapSession looks at all, flags some, and removes a little.
func (p *place) imapSession(r *rand.Rand) (err error) {
	b := p.before()
	c, err := p.imap()
	if err != nil {
		return fmt.Errorf("IMAP: %w", err)
	}
	defer func() { err = errors.Join(err, c.close()) }()
	uids, err := c.keys()
	if err != nil {
		return fmt.Errorf("IMAP: %w", err)
	}
	keys := map[string]bool{}
	for key := range uids {
		keys[key] = true
	}
	if !p.skips {
		p.saw("IMAP", keys, b)
	}
	p.did("imap_sessions", 1)
	n := 0
	for _, uid := range uids {
		if n++; n > 10 {
			break
		}
		command := fmt.Sprintf("UID STORE %d %sFLAGS %s", uid, []string{"+", "-", ""}[r.IntN(3)], flags[r.IntN(len(flags))])
		if _, err := c.do(command); err != nil {
			return fmt.Errorf("IMAP: %w", err)
		}
		p.did("imap_flagged", 1)
	}
	for _, key := range p.some(r, byIMAP, 8) {
		uid, here := uids[key]
		if !here {
			continue // it came later
		}
		p.model.Is(key, harness.Maybe)
		_, err := c.do(fmt.Sprintf(`UID STORE %d +FLAGS \Deleted`, uid))
		if err == nil {
			_, err = c.do(fmt.Sprintf("UID EXPUNGE %d", uid))
		}
		var still []string
		if err == nil {
			still, err = c.do(fmt.Sprintf("UID FETCH %d (UID)", uid))
		}
		if err != nil {
			return fmt.Errorf("IMAP: %w", err)
		}
		if strings.Contains(strings.Join(still, "\n"), fmt.Sprintf("UID %d", uid)) { // another has taken the flag away meanwhile
			p.model.Is(key, harness.There)
			continue
		}
		p.model.Is(key, harness.Gone)
		p.did("imap_removed", 1)
	}
	return nil
}

const muttrc = `set mbox_type=Maildir quit=yes delete=yes move=no mark_old=yes sleep_time=0 wait_key=no sort=mailbox-order header_cache="" beep=no
`

// muttSession opens the Maildir in mutt, at a terminal that script(1) provides, and presses keys: some messages get flags,
// one is removed, and what is new becomes old, in cur/. It does not quit while the mailbox changes under it; then it tries
// again, and leaves in the end.
func (p *place) muttSession(r *rand.Rand) error {
	rc := filepath.Join(p.data, "muttrc")
	if err := os.WriteFile(rc, []byte(muttrc+"set folder="+p.data+"\n"), 0o644); err != nil {
		return err
	}
	keys := fmt.Sprintf("<tag-pattern>~s -%d$<enter><tag-prefix-cond><set-flag>%s<end-cond><untag-pattern>~A<enter>", r.IntN(removers), []string{"!", "N", "r"}[r.IntN(3)])
	removed := p.some(r, byMutt, 4)
	for _, key := range removed {
		p.model.Is(key, harness.Maybe)                   // until somebody looks
		keys += "<delete-pattern>~s " + key + "$<enter>" // without "^", which would be Ctrl; no other key ends in this one
	}
	open := fmt.Sprintf(`mutt -n -F %s -f %s -e 'push "%s<sync-mailbox>%s"'`, rc, p.maildir, keys, strings.Repeat("<quit>", 5)+"<exit>")
	// New mail at the wrong moment makes it forget keys, and then it waits for more.
	switch err := p.runFor(patience/3, "", []string{"TERM=xterm"}, "/usr/bin/script", "-qec", open, "/dev/null"); {
	case errors.Is(err, context.DeadlineExceeded):
		p.did("mutt_waits", 1)
		return nil
	case err != nil:
		return err
	}
	for _, key := range removed {
		if p.file(key) == "" {
			p.model.Is(key, harness.Gone)
			p.did("mutt_removed", 1)
		}
	}
	p.did("mutt_sessions", 1)
	return nil
}

// file finds a message's file, by its subject; empty if there is none.
func (p *place) file(key string) string {
	for _, sub := range []string{"new", "cur", "new"} { // it may move
		entries, err := os.ReadDir(filepath.Join(p.maildir, sub))
		if err != nil {
			p.t.Error(err)
		}
		for _, e := range entries {
			path := filepath.Join(p.maildir, sub, e.Name())
			f, err := os.Open(path)
			if err != nil {
				continue
			}
			head := make([]byte, 1000)
			n, _ := f.Read(head)
			_ = f.Close()
			if strings.Contains(string(head[:n]), "\nX-Chaos: "+key+"\n") || strings.Contains(string(head[:n]), "\nX-Chaos: "+key+"\r\n") {
				return path
			}
		}
	}
	return ""
}

var complaint = regexp.MustCompile(`(?m)^.*(Error|Panic|Fatal|Broken|Corrupt).*$`)

// last looks at all when everybody has gone home: dewey, Dovecot and the file system agree.
func (p *place) last(name string) {
	t := p.t
	seen, err := harness.Fetch(p.POP3, "mrose")
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range p.model.Hold(seen) { // it knows no unique-ids from before
		t.Error(fault)
	}
	for _, m := range seen {
		p.id("at the end", harness.Key(m.Text), m.UID)
	}
	c, err := p.imap()
	if err != nil {
		t.Fatal(err)
	}
	uids, err := c.keys()
	if err := errors.Join(err, c.close()); err != nil {
		t.Fatal(err)
	}
	if len(uids) != len(seen) {
		t.Errorf("IMAP has %d messages, POP3 %d", len(uids), len(seen))
	}
	for _, m := range seen {
		key := harness.Key(m.Text)
		if uid, ok := uids[key]; !ok || !strings.HasPrefix(m.UID, fmt.Sprintf("%08x", uid)) {
			t.Errorf("%s has the unique-id %s, and in IMAP the uid %d (%v)", key, m.UID, uid, ok)
		}
	}
	p.Stop()
	problems, kinds := harness.Check(t, p.data, "--sizes")
	if len(problems) > 0 {
		t.Errorf("dewey check: %v", problems)
	}
	for _, line := range complaint.FindAllString(p.log.String(), 10) {
		t.Errorf("Dovecot: %s", line)
	}
	for s := bufio.NewScanner(strings.NewReader(p.Log())); s.Scan(); {
		l := s.Text()
		expected := strings.Contains(l, "message moves all the time") || p.skips && strings.Contains(l, "unique-ids would change")
		if strings.Contains(l, "level=ERROR") && !expected || strings.Contains(l, "panic") {
			t.Errorf("dewey: %s", l)
		}
	}
	figures := p.figures()
	figures["messages"], figures["left"], figures["unique_ids"], figures["check"] = p.count, len(seen), len(p.ids), kinds
	figures["lost"] = 0
	if t.Failed() {
		delete(figures, "lost")
	}
	harness.Report(t, "others-"+name, figures)
}
