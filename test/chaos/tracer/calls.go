package tracer

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// A Kind is what an Event does.
type Kind int

// Kinds.
const (
	Make     Kind = iota // a file, at Name in Dir
	MakeDir              // a folder, the same
	Write                // Data to File, at Offset
	Truncate             // File to Offset octets
	Link                 // Name2 in Dir2 is File, too
	Rename               // Name in Dir becomes Name2 in Dir2
	Unlink               // Name in Dir, a file's or a folder's
	Sync                 // File, or the folder of that number
	Say                  // Data to a socket; it comes when the call begins, so before anybody can read it
)

func (k Kind) String() string {
	return [...]string{"make", "mkdir", "write", "truncate", "link", "rename", "unlink", "sync", "say"}[k]
}

// An Event is a call that has succeeded. Files and folders are told by their inode numbers: of all files that there are
// at a time each has its own.
type Event struct {
	Kind        Kind
	Begun       int // how many events there were when the call began
	File        uint64
	Dir, Dir2   uint64
	Name, Name2 string
	Offset      int64
	Data        []byte
}

func (e Event) String() string {
	switch e.Kind {
	case Write, Truncate, Sync:
		return fmt.Sprintf("%v %d (%d, %d octets)", e.Kind, e.File, e.Offset, len(e.Data))
	case Say:
		return fmt.Sprintf("say %.60q", e.Data)
	}
	return fmt.Sprintf("%v %d/%s %d/%s", e.Kind, e.Dir, e.Name, e.Dir2, e.Name2)
}

// A call is one that has begun.
type call struct {
	Event
	name string
	at   int // its number since Arm; 0: before that
	fd   int
	buf  uintptr // what is written
	made bool    // the file was there before
	skip bool    // it changes nothing in the folder
}

// names are the calls that change something; Go's standard library, and dewey, use no others.
var names = map[uint64]string{
	unix.SYS_OPENAT: "openat", unix.SYS_WRITE: "write", unix.SYS_PWRITE64: "pwrite64", unix.SYS_WRITEV: "writev", unix.SYS_FSYNC: "fsync",
	unix.SYS_FDATASYNC: "fdatasync", unix.SYS_RENAMEAT: "renameat", unix.SYS_RENAMEAT2: "renameat2", unix.SYS_LINKAT: "linkat",
	unix.SYS_UNLINKAT: "unlinkat", unix.SYS_MKDIRAT: "mkdirat", unix.SYS_FTRUNCATE: "ftruncate", unix.SYS_SENDTO: "sendto",
}

// strange are calls that change files too, and that a recording does not understand.
var strange = map[uint64]string{
	unix.SYS_TRUNCATE: "truncate", unix.SYS_FALLOCATE: "fallocate", unix.SYS_COPY_FILE_RANGE: "copy_file_range", unix.SYS_PWRITEV: "pwritev",
	unix.SYS_PWRITEV2: "pwritev2", unix.SYS_SYMLINKAT: "symlinkat", unix.SYS_OPENAT2: "openat2", unix.SYS_SPLICE: "splice",
}

func errnoOf(err error) error { return fmt.Errorf("tracing a call: %w", err) }

// enter is at the entry of a call. It returns nil if that changes nothing that counts.
func (r *Run) enter(pid int, i *info) *call {
	nr, args := i.data[0], i.data[1:7]
	if what, ok := strange[nr]; ok && r.opts.Record {
		r.fail(fmt.Errorf("the program uses %s, which is not understood", what))
	}
	name, ok := names[nr]
	if !ok {
		return nil
	}
	c := &call{name: name, fd: -1}
	if err := r.read(pid, c, args); err != nil {
		r.fail(fmt.Errorf("%s: %w", name, err))
	}
	if c.skip {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c.Begun = len(r.events)
	if !r.armed {
		return c
	}
	r.calls = append(r.calls, c.name)
	c.at = len(r.calls)
	if c.at == r.opts.Kill && !r.opts.After {
		r.kill(c)
		return nil
	}
	if c.Kind == Say && r.opts.Record {
		r.events = append(r.events, c.Event)
	}
	return c
}

// kill kills the program. r.mu is locked. A call whose thread is dead at its entry is not done.
func (r *Run) kill(c *call) {
	r.killed = fmt.Sprintf("%s %s", c.name, c.Name+c.Name2)
	_ = unix.Kill(r.main, unix.SIGKILL)
}

// leave is at the exit of a call.
func (r *Run) leave(pid int, c *call, result int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.at > 0 && c.at == r.opts.Kill {
		r.kill(c)
	}
	if result < 0 || !r.opts.Record || c.Kind == Say {
		return
	}
	if err := r.finish(pid, c, result); err != nil {
		r.fault = errors.Join(r.fault, fmt.Errorf("%s: %w", c.name, err))
	}
}

// finish completes the event of a call that has succeeded.
func (r *Run) finish(pid int, c *call, result int64) error {
	switch c.Kind {
	case Make:
		var st unix.Stat_t
		if err := unix.Stat(fmt.Sprintf("/proc/%d/fd/%d", pid, result), &st); err != nil {
			return errnoOf(err)
		}
		c.File = st.Ino
		if c.made {
			return nil
		}
	case MakeDir:
		var st unix.Stat_t
		if err := unix.Lstat(c.Name2, &st); err != nil {
			return errnoOf(err)
		}
		c.File, c.Name2 = st.Ino, ""
	case Write:
		if c.Offset < 0 { // where the file's position was: it has moved on
			at, err := position(pid, c.fd)
			if err != nil {
				return err
			}
			c.Offset = at - result
		}
		data, err := memory(pid, c.buf, int(result))
		if err != nil {
			return err
		}
		c.Data = data
	}
	r.events = append(r.events, c.Event)
	return nil
}

// Events are what was recorded so far. They are not to be changed.
func (r *Run) Events() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.events[:len(r.events):len(r.events)]
}

// read finds out what a call is about to do.
func (r *Run) read(pid int, c *call, args []uint64) error {
	switch c.name {
	case "openat":
		if args[2]&(unix.O_WRONLY|unix.O_RDWR|unix.O_CREAT|unix.O_TRUNC) == 0 {
			c.skip = true
			return nil
		}
		c.Kind = Make
		path, err := r.place(pid, args[0], args[1], &c.Dir, &c.Name, &c.skip)
		if err != nil || c.skip {
			return err
		}
		var st unix.Stat_t
		c.made = unix.Stat(path, &st) == nil
		if c.made && args[2]&unix.O_TRUNC != 0 && st.Size > 0 {
			return errors.New("O_TRUNC is not understood")
		}
	case "mkdirat":
		c.Kind = MakeDir
		path, err := r.place(pid, args[0], args[1], &c.Dir, &c.Name, &c.skip)
		c.Name2 = path
		return err
	case "unlinkat":
		c.Kind = Unlink
		_, err := r.place(pid, args[0], args[1], &c.Dir, &c.Name, &c.skip)
		return err
	case "renameat", "renameat2", "linkat":
		c.Kind = Rename
		path, err := r.place(pid, args[0], args[1], &c.Dir, &c.Name, &c.skip)
		if err != nil || c.skip {
			return err
		}
		if _, err := r.place(pid, args[2], args[3], &c.Dir2, &c.Name2, &c.skip); err != nil || c.skip {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err == nil {
			c.File = st.Ino
		}
		if c.name == "linkat" {
			c.Kind = Link
		}
	default:
		return r.stream(pid, c, args)
	}
	return nil
}

// stream finds out about a call on a descriptor.
func (r *Run) stream(pid int, c *call, args []uint64) error {
	c.fd = int(int32(args[0]))
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, c.fd))
	if err != nil {
		c.skip = true // not open: it will fail
		return nil
	}
	socket := strings.HasPrefix(link, "socket:")
	if c.skip = !socket && !r.below(link); c.skip {
		return nil
	}
	if socket {
		c.Kind = Say
		if c.name == "writev" {
			return errors.New("writev to a socket is not understood")
		}
		c.Data, err = memory(pid, uintptr(args[1]), int(args[2]))
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/fd/%d", pid, c.fd), &st); err != nil {
		return errnoOf(err)
	}
	c.File = st.Ino
	switch c.name {
	case "write", "pwrite64":
		c.Kind, c.buf, c.Offset = Write, uintptr(args[1]), -1
		if c.name == "pwrite64" {
			c.Offset = int64(args[3])
		}
	case "fsync", "fdatasync":
		c.Kind = Sync
	case "ftruncate":
		c.Kind, c.Offset = Truncate, int64(args[1])
	default:
		return errors.New("not understood")
	}
	return nil
}

func (r *Run) below(path string) bool {
	return strings.HasPrefix(path, r.opts.Root+"/") || path == r.opts.Root
}

// place finds the folder and the name of a path that a call names by a descriptor and a text.
func (r *Run) place(pid int, at, text uint64, dir *uint64, name *string, skip *bool) (string, error) {
	path, err := words(pid, uintptr(text))
	if err != nil {
		return "", err
	}
	if !filepath.IsAbs(path) {
		from := fmt.Sprintf("/proc/%d/cwd", pid)
		if int32(at) != unix.AT_FDCWD {
			from = fmt.Sprintf("/proc/%d/fd/%d", pid, int32(at))
		}
		base, err := os.Readlink(from)
		if err != nil {
			*skip = true
			return "", nil //nolint:nilerr // not open: the call will fail
		}
		path = filepath.Join(base, path)
	}
	if *skip = !r.below(path); *skip {
		return "", nil
	}
	*name = filepath.Base(path)
	var st unix.Stat_t
	if err := unix.Stat(filepath.Dir(path), &st); err == nil { // else the call will fail
		*dir = st.Ino
	}
	return path, nil
}

// memory reads the program's.
func memory(pid int, at uintptr, n int) ([]byte, error) {
	data := make([]byte, n)
	if n == 0 {
		return data, nil
	}
	got, err := unix.ProcessVMReadv(pid, []unix.Iovec{{Base: &data[0], Len: uint64(n)}}, []unix.RemoteIovec{{Base: at, Len: n}}, 0)
	if err == nil && got != n {
		err = errors.New("less than it writes can be read")
	}
	if err != nil {
		return nil, errnoOf(err)
	}
	return data, nil
}

// words reads a text that ends in NUL.
func words(pid int, at uintptr) (string, error) {
	var text []byte
	for len(text) <= unix.PathMax {
		n := 4096 - int(at)%4096 // to the end of the page: the next one may not be there
		some, err := memory(pid, at, n)
		if err != nil {
			return "", err
		}
		if end := bytes.IndexByte(some, 0); end >= 0 {
			return string(append(text, some[:end]...)), nil
		}
		text, at = append(text, some...), at+uintptr(n)
	}
	return "", errors.New("a path without an end")
}

// position is where a descriptor reads and writes next.
func position(pid, fd int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", pid, fd))
	if err != nil {
		return 0, errnoOf(err)
	}
	var at int64
	if _, err := fmt.Sscanf(string(text), "pos: %d", &at); err != nil {
		return 0, errnoOf(err)
	}
	return at, nil
}
