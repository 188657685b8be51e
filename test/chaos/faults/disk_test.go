package faults

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"dewey/test/chaos/harness"
)

// A disk is a file system in memory that only a server sees: mounted in a mount namespace of its own, if need be in a
// user namespace. Its path seen from here is root.
type disk struct {
	t          *testing.T
	s          *harness.Server
	data, root string
}

func newDisk(t *testing.T, size string, settings []string, users ...string) *disk {
	t.Helper()
	outside, data := t.TempDir(), harness.Dir(t)
	harness.AddUsers(t, outside, users...)
	d := &disk{t: t, data: data}
	d.s = harness.Start(t, harness.Options{
		Data: data, Settings: append(settings, "users.file="+filepath.Join(outside, "users")),
		Wrap: []string{"sh", "-c", `mount -t tmpfs -o size=` + size + ` none "$0" && exec "$@"`, data},
		Prepare: func(cmd *exec.Cmd) {
			cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
			if os.Geteuid() != 0 { // where the machine lets anybody have one
				cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
				cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
				cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
			}
		},
	})
	d.root = fmt.Sprintf("/proc/%d/root%s", d.s.Pid(), data)
	return d
}

// remount changes the file system as it is in use.
func (d *disk) remount(options string) {
	d.t.Helper()
	args := []string{"-t", fmt.Sprint(d.s.Pid()), "-m", "mount", "-o", "remount," + options, d.data}
	if os.Geteuid() != 0 {
		args = append([]string{"-U", "--preserve-credentials"}, args...)
	}
	if out, err := exec.Command("nsenter", args...).CombinedOutput(); err != nil {
		d.t.Fatalf("mount: %v: %s", err, out)
	}
}

// fill takes all room that is left.
func (d *disk) fill() {
	d.t.Helper()
	f, err := os.Create(filepath.Join(d.root, "filler"))
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; size /= 2 {
		for {
			if n, err := f.Write(make([]byte, size)); err != nil || n < size {
				break
			}
		}
	}
}

// post delivers a message and notes what came of it.
func post(t testing.TB, s *harness.Server, m *harness.Model, user, key string, octets int) error {
	t.Helper()
	c, err := harness.DialLMTP(s.LMTP)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	text := harness.Text(key, octets)
	m.Sent(key, text)
	results, err := c.Deliver(text, user)
	if err == nil {
		err = results[0]
	}
	m.Took(key, err)
	if err != nil && (!harness.IsRefusal(err) || !strings.Contains(err.Error(), `"4`)) {
		t.Errorf("%s: %v, want 4xx", key, err)
	}
	return err
}

// refused wants a refusal with a code that says whether to come back.
func refused(t testing.TB, what string, err error) {
	t.Helper()
	if r, ok := err.(*harness.Refusal); !ok || !coded.MatchString(r.Reply) {
		t.Errorf("%s: %v, want -ERR with [SYS/TEMP] or [SYS/PERM]", what, err)
	}
}

// update logs in, removes the first message, and says what QUIT said.
func update(t testing.TB, s *harness.Server, m *harness.Model, user string) error {
	t.Helper()
	c, err := harness.DialPOP3(s.POP3)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Login(user); err != nil {
		return err
	}
	text, err := c.Multi("RETR 1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Do("DELE 1"); err != nil {
		t.Fatal(err)
	}
	_, err = c.Do("QUIT")
	m.Is(harness.Key(text), map[bool]harness.Fate{true: harness.Gone, false: harness.Maybe}[err == nil])
	return err
}

func hold(t testing.TB, s *harness.Server, m *harness.Model, user string) {
	t.Helper()
	seen, err := harness.Fetch(s.POP3, user)
	if err != nil {
		t.Errorf("%s: %v", user, err)
		return
	}
	for _, fault := range m.Hold(seen) {
		t.Errorf("%s: %s", user, fault)
	}
}

// No room is left: what is there is served, senders are told to come again, what can be removed makes room, and then all
// goes on.
func TestFullDisk(t *testing.T) {
	d := newDisk(t, "8m", nil, "bystander", "mrose", "ann", "keeper undelete=1d")
	other := newBystander(t, d.s, d.root)
	models := map[string]*harness.Model{}
	for _, user := range []string{"mrose", "ann", "keeper"} {
		models[user] = harness.NewModel()
	}
	figures := map[string]int{}
	for i := range 3 {
		_ = post(t, d.s, models["keeper"], "keeper", fmt.Sprintf("keep-%d", i), 1000)
	}
	hold(t, d.s, models["keeper"], "keeper")
	for user, n := "mrose", 0; figures["refused"] < 3; n++ {
		if n == 4 { // ann has mail that nobody has seen yet
			hold(t, d.s, models["mrose"], "mrose")
			user = "ann"
		}
		if err := post(t, d.s, models[user], user, fmt.Sprintf("mail-%d", n), 500_000); err != nil {
			figures["refused"]++
		} else {
			figures["delivered"]++
		}
	}
	d.fill()
	mark := len(d.s.Log())
	_ = post(t, d.s, models["mrose"], "mrose", "no-room", 100)
	if !told(d.s, mark, "no space left on device", d.data+"/mail/mrose") {
		t.Errorf("the log does not say why: %s", d.s.Log()[mark:])
	}
	other.served(t, "on a full disk")
	hold(t, d.s, models["mrose"], "mrose")
	hold(t, d.s, models["keeper"], "keeper")
	mark = len(d.s.Log())
	_, err := harness.Fetch(d.s.POP3, "ann") // there is no list, and none can be made
	refused(t, "first login on a full disk", err)
	refused(t, "removal to where it can be brought back from", update(t, d.s, models["keeper"], "keeper"))
	if !told(d.s, mark, "no space left on device", d.data+"/mail/ann") || !told(d.s, mark, "no space left on device", d.data+"/mail/keeper") {
		t.Errorf("the log does not say why: %s", d.s.Log()[mark:])
	}
	for range 3 {
		if err := update(t, d.s, models["mrose"], "mrose"); err != nil {
			t.Errorf("removal on a full disk: %v", err)
		}
	}
	for user, m := range models {
		for _, fault := range m.Verify(d.s, user) {
			t.Errorf("with room again: %s: %s", user, fault)
		}
	}
	if err := update(t, d.s, models["keeper"], "keeper"); err != nil {
		t.Error(err)
	}
	other.served(t, "at last")
	harness.Report(t, "faults-full-disk", map[string]any{"delivered": figures["delivered"], "refused": figures["refused"]})
}

// The file system is read-only: nobody is told of mail that is taken in or removed, a login is refused with a code, and
// all goes on when it can be written again. (Linux makes none read-only that has a file open for writing, as the history
// and the lock of a session are: TestInjected has what becomes of those.)
func TestReadOnlyDisk(t *testing.T) {
	d := newDisk(t, "16m", []string{"history.keep=0s"}, "mrose", "ann")
	m := harness.NewModel()
	for i := range 4 {
		if err := post(t, d.s, m, "mrose", fmt.Sprintf("mail-%d", i), 10_000); err != nil {
			t.Fatal(err)
		}
	}
	hold(t, d.s, m, "mrose")
	mark := len(d.s.Log())
	d.remount("ro")
	for _, user := range []string{"mrose", "ann"} { // who has mail, and who has no Maildir
		_, err := harness.Fetch(d.s.POP3, user)
		refused(t, "login on a read-only disk", err)
		if post(t, d.s, m, user, "refused-"+user, 100) == nil {
			t.Error("mail was taken in on a read-only disk")
		}
		if !told(d.s, mark, "read-only file system", d.data+"/mail/"+user) {
			t.Errorf("the log does not say why: %s", d.s.Log()[mark:])
		}
	}
	d.remount("rw")
	for _, user := range []string{"mrose", "ann"} {
		if user == "ann" {
			m = harness.NewModel()
		}
		for _, fault := range m.Verify(d.s, user) {
			t.Error(user, fault)
		}
	}
}
