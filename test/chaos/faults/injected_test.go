package faults

import (
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"dewey/test/chaos/harness"
)

// A scene is one user's maildrop, of whose calls one is to fail.
type scene struct {
	t     testing.TB
	s     *harness.Server
	user  string
	root  string
	model *harness.Model
	pop   *harness.POP3
	lmtp  *harness.LMTP
	shown []harness.Seen // by the login under the fault
	keys  []string
}

// put puts a message of that key into new/.
func (c *scene) put(key string) {
	text := harness.Text(key, 9000)
	c.model.Sent(key, text)
	c.model.Is(key, harness.There)
	c.keys = append(c.keys, key)
	harness.Put(c.t, c.root, "new", fmt.Sprintf("%d.M1P1.h", 1000+len(c.keys)), text)
}

func (c *scene) check(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatalf("%s: %v", c.user, err)
	}
}

// seen has the list made, and what it says known.
func (c *scene) seen() {
	c.t.Helper()
	all, err := harness.Fetch(c.s.POP3, c.user)
	c.check(err)
	if faults := c.model.Hold(all); len(faults) > 0 {
		c.t.Fatal(faults)
	}
}

func (c *scene) dial() (err error) {
	c.pop, err = harness.DialPOP3(c.s.POP3)
	return err
}

func (c *scene) close() {
	if c.pop != nil {
		_ = c.pop.Close()
	}
	if c.lmtp != nil {
		_ = c.lmtp.Close()
	}
}

// An operation is what meets the fault: what is done before, and what then.
type operation struct {
	name   string
	extra  string // of the user
	before func(*scene)
	act    func(*scene) error
}

func deliver(c *scene) error {
	text := harness.Text("delivered", 40_000)
	c.model.Sent("delivered", text)
	results, err := c.lmtp.Deliver(text, c.user)
	if err == nil {
		err = results[0]
	}
	c.model.Took("delivered", err)
	return err
}

func login(c *scene) (err error) {
	if err = c.pop.Login(c.user); err == nil {
		if c.shown, err = c.pop.Listing(); err == nil {
			_, err = c.pop.Do("QUIT")
		}
	}
	return err
}

func quit(c *scene) error {
	_, err := c.pop.Do("QUIT")
	fate := harness.Maybe
	if err == nil {
		fate = harness.Gone
	}
	c.model.Is("old-0", fate)
	c.model.Is("old-1", fate)
	return err
}

func dialLMTP(c *scene) {
	var err error
	c.lmtp, err = harness.DialLMTP(c.s.LMTP)
	c.check(err)
}

func olds(c *scene) {
	for i := range 3 {
		c.put(fmt.Sprintf("old-%d", i))
	}
}

// marked is a session that has marked two messages of three.
func marked(c *scene) {
	olds(c)
	c.seen()
	c.check(c.dial())
	c.check(c.pop.Login(c.user))
	for _, command := range []string{"DELE 1", "DELE 2"} {
		_, err := c.pop.Do(command)
		c.check(err)
	}
}

var operations = []operation{
	{"deliver", "", func(c *scene) { olds(c); c.seen(); dialLMTP(c) }, deliver},
	{"deliver to none", "", dialLMTP, deliver},
	{"first login", "", func(c *scene) { olds(c); c.check(c.dial()) }, login},
	{"next login", "", func(c *scene) { olds(c); c.seen(); c.put("new"); c.check(c.dial()) }, login},
	{"retrieve", "", func(c *scene) { olds(c); c.seen(); c.check(c.dial()); c.check(c.pop.Login(c.user)) }, func(c *scene) error {
		text, err := c.pop.Multi("RETR 1")
		if err == nil && harness.Key(text) != "old-0" || err == nil && text != harness.Text("old-0", 9000) {
			c.t.Errorf("%s: RETR has ended well, with %d octets: %.100q", c.user, len(text), text)
		}
		return err
	}},
	{"update", "", marked, quit},
	{"update undelete", "undelete=1d", marked, quit},
	{"update keep", "deletion=keep", marked, quit},
}

// Each call by which a maildrop is read or written fails, once or from then on: the client gets a clear -ERR with a code,
// or 4xx, or the connection ends within a message, and the log says where and why. Nobody else notices. After the fault
// all is there, once and whole, under its unique-id; what was removed with +OK is not.
func TestInjected(t *testing.T) {
	data := harness.Dir(t)
	each := map[bool]int{true: 1 << 20, false: 3}[harness.Full()] // of the calls of one kind
	users := []string{"bystander"}
	const most = 6000
	for i := range most {
		users = append(users, fmt.Sprintf("u%d %s", i, operations[i%len(operations)].extra))
	}
	harness.AddUsers(t, data, users...)
	in := &injector{}
	s := harness.Start(t, harness.Options{Data: data, Settings: []string{"login.mechanisms=PLAIN"}, Prepare: func(cmd *exec.Cmd) { in.prepare(t, cmd) }})
	other := newBystander(t, s, data)
	figures := map[string]int{"faults": 0, "refused": 0, "cut off": 0, "hidden": 0, "not noticed": 0}
	met := map[string]bool{}
	turn := make([]int, len(operations))
	for k, op := range operations {
		next := func(t testing.TB) *scene {
			user := fmt.Sprintf("u%d", k+len(operations)*turn[k])
			turn[k]++
			c := &scene{t: t, s: s, user: user, root: maildir(data, user), model: harness.NewModel()}
			op.before(c)
			return c
		}
		t.Run(op.name, func(t *testing.T) {
			c := next(t)
			in.watch(c.root)
			err := op.act(c)
			seen, _ := in.disarm()
			c.close()
			if c.check(err); len(seen) < 3 {
				t.Fatalf("only %d calls were seen: %v", len(seen), seen)
			}
			counts := map[string]int{}
			for _, m := range seen {
				counts[m.call]++
			}
			for _, call := range calls {
				errnos := []unix.Errno{unix.EIO}
				if call.writes {
					errnos = append(errnos, unix.ENOSPC)
				}
				for _, n := range harness.Spread(counts[call.name], min(each, counts[call.name])) {
					for i, errno := range errnos {
						for _, onward := range []bool{false, true} {
							if !harness.Full() && onward != ((i+n)%2 > 0) {
								continue
							}
							c := next(t)
							mark := len(s.Log())
							in.arm(c.root, call.name, n, onward, errno)
							err := op.act(c)
							if onward {
								other.served(t, fmt.Sprint(op.name, " while ", call.name, " fails"))
							}
							_, hit := in.disarm()
							what := fmt.Sprintf("%s, %s %d (onward %v): %v", call.name, op.name, n, onward, hit)
							if len(hit) == 0 {
								c.close()
								continue // the calls of one kind are not always as many
							}
							figures["faults"]++
							met[op.name+" "+call.name+" "+strings.TrimPrefix(hit[0].path, c.root)] = true
							figures[c.outcome(what, err, errno, mark)]++
							c.after(what, err)
						}
					}
				}
			}
		})
	}
	if problems, _ := harness.Check(t, data); len(problems) > 0 {
		t.Error(problems)
	}
	s.Stop()
	<-in.done
	if figures["faults"] < 120 || figures["refused"] < 30 || figures["hidden"] == 0 || figures["cut off"] == 0 {
		t.Error("the test tests little")
	}
	report := map[string]any{"different calls": len(met)}
	for name, n := range figures {
		report[name] = n
	}
	harness.Report(t, "faults-injected", report)
}

// outcome says what the client was told, which has to be clear.
func (c *scene) outcome(what string, err error, errno unix.Errno, mark int) string {
	c.t.Helper()
	var refusal *harness.Refusal
	switch {
	case err == nil && len(c.shown) < len(c.keys) && c.shown != nil:
		c.told(what, mark, errno)
		return "hidden"
	case err == nil:
		return "not noticed"
	case errors.As(err, &refusal):
		if !coded.MatchString(refusal.Reply) && !strings.HasPrefix(refusal.Reply, "4") {
			c.t.Errorf("%s: %v", what, err)
		}
		c.told(what, mark, errno)
		return "refused"
	default:
		if !strings.Contains(what, "retrieve") {
			c.t.Errorf("%s: the connection has ended: %v", what, err)
		}
		c.told(what, mark, errno)
		return "cut off"
	}
}

// told wants the log to name what failed, and the error.
func (c *scene) told(what string, mark int, errno unix.Errno) {
	c.t.Helper()
	if !told(c.s, mark, c.root, errno.Error()) {
		c.t.Errorf("%s: the log does not name both %q and %q:\n%s", what, c.root, errno, c.s.Log()[mark:])
	}
}

// after wants the same session to go on, if it can, and the next one to find all.
func (c *scene) after(what string, err error) {
	c.t.Helper()
	var refusal *harness.Refusal
	if c.pop != nil && errors.As(err, &refusal) {
		switch {
		case strings.HasPrefix(refusal.Command, "RETR"):
			if text, err := c.pop.Multi("RETR 1"); err != nil || text != harness.Text("old-0", 9000) {
				c.t.Errorf("%s: RETR again: %v", what, err)
			}
		case strings.HasPrefix(refusal.Command, "PASS"):
			if err := c.pop.Login(c.user); err != nil {
				c.t.Errorf("%s: login again: %v", what, err)
			} else if _, err := c.pop.Do("QUIT"); err != nil {
				c.t.Errorf("%s: QUIT: %v", what, err)
			}
		}
	}
	c.close()
	for _, fault := range c.model.Verify(c.s, c.user) {
		c.t.Errorf("%s (%v): %s", what, err, fault)
	}
	ids, err := harness.Fetch(c.s.POP3, c.user)
	if err != nil {
		c.t.Errorf("%s: %v", what, err)
	}
	for _, m := range c.shown {
		if !slices.ContainsFunc(ids, func(n harness.Seen) bool { return n.UID == m.UID }) {
			c.t.Errorf("%s: the unique-id %s was shown, and is there no more", what, m.UID)
		}
	}
}
