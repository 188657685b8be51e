package faults

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dewey/test/chaos/harness"
)

// only is the path of a user's one message.
func only(t testing.TB, data, user string) string {
	t.Helper()
	names, _ := filepath.Glob(maildir(data, user) + "/*/1000.M1P1.h*")
	if len(names) != 1 {
		t.Fatal(names)
	}
	return names[0]
}

// shrink cuts a file in the middle; grow adds to it.
func shrink(t testing.TB, name string) {
	t.Helper()
	st, err := os.Stat(name)
	if err == nil {
		err = os.Truncate(name, st.Size()/2)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func grow(t testing.TB, name string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(f, "more\nand more\n"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// stored is what RETR has to send of a file as it is now.
func stored(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	s := strings.ReplaceAll(string(text), "\n", "\r\n")
	if !strings.HasSuffix(s, "\n") {
		s += "\r\n"
	}
	return s
}

// A message's file changes between login and RETR: the client gets all that is there now, with the right size, or a
// clear -ERR; the unique-id stays.
func TestFilesThatChange(t *testing.T) {
	data := harness.Dir(t)
	in := &injector{}
	ways := []string{"shrinks", "grows", "vanishes", "is unreadable", "can't be read", "becomes a folder", "new/ vanishes", "the Maildir vanishes"}
	users := []string{"bystander"}
	for i := range ways {
		users = append(users, fmt.Sprintf("u%d", i))
	}
	harness.AddUsers(t, data, users...)
	s := harness.Start(t, harness.Options{Data: data, Prepare: func(cmd *exec.Cmd) { in.prepare(t, cmd) }})
	other := newBystander(t, s, data)
	for i, way := range ways {
		t.Run(way, func(t *testing.T) {
			user := fmt.Sprintf("u%d", i)
			root := maildir(data, user)
			text := harness.Text(user, 30_000)
			harness.Put(t, root, "new", "1000.M1P1.h", text)
			first, err := harness.Fetch(s.POP3, user)
			if err != nil || len(first) != 1 {
				t.Fatal(err, first)
			}
			c, err := harness.DialPOP3(s.POP3)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.Login(user); err != nil {
				t.Fatal(err)
			}
			name := only(t, data, user)
			aside := filepath.Join(t.TempDir(), "aside")
			rename := func(from, to string) {
				t.Helper()
				if out, err := exec.Command("mv", from, to).CombinedOutput(); err != nil {
					t.Fatalf("%s", out)
				}
			}
			back := func() {}
			want := []string{"no such file or directory", root}
			mark := len(s.Log())
			switch way {
			case "shrinks":
				shrink(t, name)
			case "grows":
				grow(t, name)
			case "vanishes":
				rename(name, aside)
				back = func() { rename(aside, name) }
			case "is unreadable":
				in.arm(name, "openat", 1, true, unix.EACCES)
				want = []string{"permission denied", name}
			case "can't be read":
				in.arm(name, "read", 1, true, unix.EIO)
				want = []string{"input/output error", name}
			case "becomes a folder":
				rename(name, aside)
				if err := os.Mkdir(name, 0o700); err != nil {
					t.Fatal(err)
				}
				back = func() { _ = os.Remove(name); rename(aside, name) }
				want = []string{"not a regular file", name}
			case "new/ vanishes":
				rename(root+"/new", aside)
				back = func() { rename(aside, root+"/new") }
			case "the Maildir vanishes":
				rename(root, aside)
				back = func() { rename(aside, root) }
			}
			got, err := c.Multi("RETR 1")
			changed := i < 2
			switch {
			case changed:
				if err != nil || got != stored(t, name) {
					t.Errorf("RETR: %d octets, %v; want %d", len(got), err, len(stored(t, name)))
				}
				if octets, err := c.Do("LIST 1"); err != nil || octets != fmt.Sprintf("1 %d", len(got)) {
					t.Errorf("LIST: %q, %v", octets, err)
				}
				want = []string{name}
			case way == "vanishes":
				if r := (*harness.Refusal)(nil); !errors.As(err, &r) || r.Reply != "-ERR message is gone" {
					t.Errorf("RETR: %v", err)
				}
				want = nil
			case way == "can't be read" && !harness.IsRefusal(err) && err != nil: // +OK was on its way
			default:
				refused(t, "RETR", err)
			}
			if want != nil && !told(s, mark, want...) {
				t.Errorf("the log does not say %q: %s", want, s.Log()[mark:])
			}
			other.served(t, way)
			if way == "new/ vanishes" || way == "the Maildir vanishes" {
				_ = c.Close()
				_, err := harness.Fetch(s.POP3, user)
				if r, ok := err.(*harness.Refusal); !ok || !coded.MatchString(r.Reply) && !strings.Contains(r.Reply, "[IN-USE]") {
					t.Errorf("login when %s: %v", way, err)
				}
			}
			in.disarm()
			back()
			_ = c.Close()
			var last []harness.Seen
			s.Await("the next session", func() bool { last, err = harness.Fetch(s.POP3, user); return err == nil })
			if len(last) != 1 || last[0].UID != first[0].UID || last[0].Text != stored(t, name) {
				t.Errorf("later there is %d messages, want %s", len(last), first[0].UID)
			}
		})
	}
}

// The file of a large message changes while it is sent to a slow reader: the client gets all that was announced, as it
// was, and the dot, or the connection ends without one.
func TestFilesThatChangeMeanwhile(t *testing.T) {
	data := harness.Dir(t)
	octets := 12 << 20 // more than the buffers of a connection hold
	if harness.Full() {
		octets = 50 << 20
	}
	ways := []string{"shrinks", "grows", "vanishes", "can't be read", "the Maildir vanishes"}
	users := []string{"bystander"}
	for i := range ways {
		users = append(users, fmt.Sprintf("u%d", i))
	}
	harness.AddUsers(t, data, users...)
	in := &injector{}
	s := harness.Start(t, harness.Options{Data: data, Prepare: func(cmd *exec.Cmd) { in.prepare(t, cmd) }})
	other := newBystander(t, s, data)
	figures := map[string]any{}
	for i, way := range ways {
		t.Run(way, func(t *testing.T) {
			user := fmt.Sprintf("u%d", i)
			root := maildir(data, user)
			text := harness.Text(user, octets)
			harness.Put(t, root, "new", "1000.M1P1.h", text)
			defer os.RemoveAll(root)
			c, err := harness.DialPOP3(s.POP3)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.Login(user); err != nil {
				t.Fatal(err)
			}
			ids, err := c.Multi("UIDL")
			if err != nil {
				t.Fatal(err)
			}
			name, aside := only(t, data, user), filepath.Join(harness.Dir(t), "aside")
			announced, err := c.Do("RETR 1")
			if err != nil || !strings.HasPrefix(announced, fmt.Sprint(len(text))) {
				t.Fatalf("%q, %v; want %d", announced, err, len(text))
			}
			start := make([]byte, 1<<20)
			if _, err := io.ReadFull(c.In, start); err != nil {
				t.Fatal(err)
			}
			mark := len(s.Log())
			cut, at := true, name
			switch way {
			case "shrinks":
				shrink(t, name)
			case "grows":
				grow(t, name)
				cut = false
			case "vanishes":
				if err := os.Rename(name, aside); err != nil {
					t.Fatal(err)
				}
				cut = false
			case "can't be read":
				in.arm(name, "read", 1, true, unix.EIO)
			case "the Maildir vanishes":
				if err := os.Rename(root, aside); err != nil {
					t.Fatal(err)
				}
				cut, at = false, ""
			}
			other.served(t, way)
			rest, err := slowly(c.In)
			in.disarm()
			got := strings.ReplaceAll(string(start)+rest, "\r\n..", "\r\n.")
			whole := strings.HasSuffix(got, "\r\n.\r\n")
			lines := got[:strings.LastIndex(strings.TrimSuffix(got, "\r\n"), "\r\n")] // the last one may be cut
			if err != nil && err != io.EOF || whole == cut || whole && got != text+".\r\n" || !strings.HasPrefix(text, lines) {
				t.Errorf("%d octets of %d came, ended by a dot: %v, %v", len(got), len(text), whole, err)
			}
			if cut && !told(s, mark, at) {
				t.Errorf("the log does not name %s: %s", at, s.Log()[mark:])
			}
			figures[way] = fmt.Sprintf("whole: %v, octets: %d", whole, len(got))
			_ = c.Close()
			switch way {
			case "vanishes":
				err = os.Rename(aside, name)
			case "the Maildir vanishes":
				err = os.Rename(aside, root)
			default:
				err = nil
			}
			if err != nil {
				t.Fatal(err)
			}
			var last []harness.Seen
			s.Await("the next session", func() bool { last, err = harness.Fetch(s.POP3, user); return err == nil })
			if len(last) != 1 || "1 "+last[0].UID+"\r\n" != ids || last[0].Text != stored(t, name) {
				t.Errorf("later: %d messages, want %q", len(last), ids)
			}
		})
	}
	harness.Report(t, "faults-files", figures)
}

// slowly reads a multi-line response up to its dot or the end of the connection, with pauses at first.
func slowly(in *bufio.Reader) (string, error) {
	var b strings.Builder
	for i := 0; ; i++ {
		l, err := in.ReadString('\n')
		b.WriteString(l)
		if l == ".\r\n" || err != nil {
			return b.String(), err
		}
		if i%1000 == 0 && i < 100_000 {
			time.Sleep(time.Millisecond) // the reader's slowness itself
		}
	}
}
