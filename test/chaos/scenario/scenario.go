package scenario

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"dewey/test/chaos/harness"
	"dewey/test/chaos/tracer"
)

// A Scenario is one thing that dewey does.
type Scenario struct {
	Name     string
	Users    []string // as harness.AddUsers takes them
	Settings []string
	Command  []string // what does it; else a server does
	Stdin    string
	Env      func(e *Env) []string // of the process that does it
	Prepare  func(e *Env)          // what was there before
	Act      func(e *Env) error    // a client's part; the error is that of a connection that broke, or a fault
	Restore  bool                  // what was removed can be brought back
	Atomic   bool                  // it counts on a rename to another folder being one step on the disk
	After    []string              // the command that an administrator gives after a cut
	Faults   func(e *Env) []string // more that could be wrong after one
}

// An Env is a data folder, what must be true of the maildrops in it, and the server.
type Env struct {
	testing.TB
	Data   string
	Models map[string]*harness.Model
	Done   bool // the command has ended well

	POP3, LMTP string
	Trace      *tracer.Run
	Dusk       time.Duration // from the server's start to the night
	log        string        // the process's

	// Before is called right before the process is started.
	Before func(e *Env)
	// Mark is called after each change of what must be true, with true if the server has just said so, with false before
	// a command that makes something doubtful.
	Mark func(e *Env, said bool)
}

// Maildir is a user's.
func (e *Env) Maildir(user string) string { return filepath.Join(e.Data, "mail", user) }

func (e *Env) mark(said bool) {
	if e.Mark != nil {
		e.Mark(e, said)
	}
}

// New makes a data folder and what was there before.
func (s *Scenario) New(tb testing.TB) *Env {
	tb.Helper()
	e := &Env{TB: tb, Data: harness.Dir(tb), Models: map[string]*harness.Model{}}
	harness.AddUsers(tb, e.Data, s.Users...)
	for _, u := range s.Users {
		e.Models[Name(u)] = harness.NewModel()
	}
	if s.Prepare != nil {
		s.Prepare(e)
	}
	return e
}

// Name is a user's, of what harness.AddUsers takes.
func Name(user string) string {
	name, _, _ := strings.Cut(user, " ")
	return name
}

// Copy is another one like it, with a folder of its own.
func (e *Env) Copy(tb testing.TB) *Env {
	tb.Helper()
	to := &Env{TB: tb, Data: harness.Dir(tb), Models: map[string]*harness.Model{}}
	for user, m := range e.Models {
		to.Models[user] = m.Clone()
	}
	links := map[uint64]string{}
	err := filepath.WalkDir(e.Data, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(to.Data, strings.TrimPrefix(path, e.Data))
		st, err := d.Info()
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return os.MkdirAll(target, st.Mode().Perm())
		case !st.Mode().IsRegular():
			return nil
		}
		id := st.Sys().(*syscall.Stat_t).Ino
		if first := links[id]; first != "" {
			return os.Link(first, target)
		}
		links[id] = target
		text, err := os.ReadFile(path)
		return errors.Join(err, os.WriteFile(target, text, st.Mode().Perm()), os.Chtimes(target, st.ModTime(), st.ModTime()))
	})
	if err != nil {
		tb.Fatal(err)
	}
	return to
}

// Options are those of a server for it.
func (s *Scenario) Options(e *Env) harness.Options {
	return harness.Options{Data: e.Data, Settings: append([]string{"history.keep=0s"}, s.Settings...)}
}

// Arguments are those of the process that does it.
func (s *Scenario) Arguments(e *Env) []string {
	if s.Command == nil {
		o := s.Options(e)
		return o.Arguments()
	}
	args := slices.Clone(s.Command)
	for _, set := range append([]string{"data=" + e.Data}, s.Settings...) {
		args = append(args, "--set", set)
	}
	return args
}

// served lets a client do something before it all, of which all is acknowledged.
func (e *Env) served(settings []string, f func(s *harness.Server) error) {
	e.Helper()
	s := harness.Start(e.TB, harness.Options{Data: e.Data, Settings: append([]string{"history.keep=0s"}, settings...)})
	if err := f(s); err != nil {
		e.Fatal(err)
	}
	s.Stop()
}

// put puts messages there, as others deliver them: half of them to cur.
func (e *Env) put(user, folder, prefix string, n int) (keys []string) {
	e.Helper()
	for i := range n {
		key := fmt.Sprintf("%s%03d", prefix, i)
		name, sub := fmt.Sprintf("17000%05d.%s.host", i, key), "new"
		if i%2 == 1 {
			name, sub = name+":2,S", "cur"
		}
		text := harness.Text(key, i*30)
		harness.Put(e.TB, filepath.Join(e.Maildir(user), folder), sub, name, text)
		e.Models[user].Sent(key, text)
		e.Models[user].Is(key, harness.There)
		keys = append(keys, key)
	}
	return keys
}

// see fetches all, so that all unique-ids are known.
func (e *Env) see(user string) func(*harness.Server) error {
	return func(s *harness.Server) error {
		seen, err := harness.Fetch(s.POP3, user)
		if err != nil {
			return err
		}
		for _, fault := range e.Models[user].Hold(seen) {
			e.Errorf("before it all: %s", fault)
		}
		return nil
	}
}

// login begins a session.
func (e *Env) login(user string) (*harness.POP3, error) {
	c, err := harness.DialPOP3(e.POP3)
	if err != nil {
		return nil, err
	}
	if err := c.Login(user); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// remove marks those messages that which chooses of their keys, and says QUIT. With keep they come back by a restore.
func (e *Env) remove(address, user string, which func(key string) bool) error {
	e.POP3 = address
	c, err := e.login(user)
	if err != nil {
		return err
	}
	defer c.Close()
	seen, err := c.Listing()
	if err != nil {
		return err
	}
	m := e.Models[user]
	var marked []string
	for i := range seen {
		key := m.Of(seen[i].UID)
		if !which(key) {
			continue
		}
		if _, err := c.Do(fmt.Sprintf("DELE %d", seen[i].Number)); err != nil {
			return err
		}
		marked = append(marked, key)
	}
	if len(marked) == 0 {
		return errors.New("nothing to remove")
	}
	for _, key := range marked {
		m.Is(key, harness.Maybe)
	}
	e.mark(false)
	if _, err := c.Do("QUIT"); err != nil {
		return err
	}
	for _, key := range marked {
		m.Is(key, harness.Gone)
	}
	e.mark(true)
	return nil
}

// odd chooses every second message.
func odd(key string) bool { return key[len(key)-1]%2 == 1 }

// deliver delivers messages of those sizes.
func (e *Env) deliver(to []string, users []string, chunk int, sizes ...int) error {
	c, err := harness.DialLMTP(e.LMTP)
	if err != nil {
		return err
	}
	defer c.Close()
	for i, size := range sizes {
		key := fmt.Sprintf("lmtp-%d", i)
		text := harness.Text(key, size)
		for _, u := range users {
			e.Models[u].Sent(key, text)
		}
		e.mark(false)
		var results []error
		if chunk > 0 {
			results, err = c.Chunks(text, chunk, to...)
		} else {
			results, err = c.Deliver(text, to...)
		}
		if err != nil {
			return err
		}
		for n, result := range results {
			taken := users[n : n+1]
			if len(to) < len(users) { // an alias
				taken = users
			}
			for _, u := range taken {
				e.Models[u].Took(key, result)
			}
			if result != nil {
				return result
			}
		}
		e.mark(true)
	}
	return nil
}

// Hold holds what a client sees against the models, with all that is to be done after a cut. The server is one that
// was started anew; fresh says under which name it knows a user, and wrap is what commands are run by. It returns all that
// is wrong.
func (s *Scenario) Hold(tb testing.TB, data string, models map[string]*harness.Model, server *harness.Server, fresh func(user string) string, wrap ...string) (faults []string) {
	for user, m := range models {
		for _, fault := range s.hold(tb, data, m, server, fresh(user), wrap) {
			faults = append(faults, user+": "+fault)
		}
	}
	return faults
}

// Recover does what an administrator does after a cut, perhaps with what wraps the program.
func (s *Scenario) Recover(tb testing.TB, data string, wrap ...string) (faults []string) {
	tb.Helper()
	if s.After == nil {
		return nil
	}
	if code, out, stderr := harness.RunIn(tb, wrap, data, "", s.withSettings(s.After...)...); code != 0 {
		faults = append(faults, fmt.Sprintf("%s: exit code %d\n%s%s", s.After, code, out, stderr))
	}
	return faults
}

func (s *Scenario) hold(tb testing.TB, data string, m *harness.Model, server *harness.Server, user string, wrap []string) []string {
	before := m.Keys(harness.There, harness.Maybe, harness.Gone)
	if faults := m.Verify(server, user); len(faults) > 0 || !s.Restore {
		return faults
	}
	// All that was ever acknowledged is there after a restore, under its unique-id.
	code, _, stderr := harness.RunIn(tb, wrap, data, "", s.withSettings("mail", "restore", user, "--all")...)
	if code != 0 && !strings.Contains(stderr, "can be brought back") {
		return []string{"restore: " + stderr}
	}
	for _, key := range before {
		m.Is(key, harness.There)
	}
	seen, err := harness.Fetch(server.POP3, user)
	if err != nil {
		return []string{"after a restore: " + err.Error()}
	}
	faults := m.Hold(seen)
	for i := range faults {
		faults[i] = "after a restore: " + faults[i]
	}
	return faults
}

func (s *Scenario) withSettings(args ...string) []string {
	args = slices.Clone(args)
	for _, set := range s.Settings {
		args = append(args, "--set", set)
	}
	return args
}

// Flags are the settings, for `dewey check`.
func (s *Scenario) Flags() []string { return s.withSettings() }
