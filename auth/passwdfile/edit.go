package passwdfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"dewey/auth"
	"dewey/auth/scheme"
)

// Errors of Add, SetPassword and Remove, which say more by wrapping them.
var (
	ErrUserExists = errors.New("the user exists already")
	ErrNoUser     = errors.New("no such user")
	ErrBadName    = errors.New("not a user name")
	ErrNoScheme   = errors.New("no such password scheme")
	ErrBadSecret  = errors.New("not a password that can be stored")
)

// A User is one line of a users file, without its secret.
type User struct {
	Name   string
	Scheme string // in capitals; empty for a user without a password
	Home   string // absolute, or empty
	Quota  auth.Quota
	Life   auth.Life
}

// Add appends a user. An empty scheme means DefaultScheme. A file that does not exist is made, with
// mode 0600, and its folder with 0700.
//
// ErrBadName, ErrUserExists, ErrNoScheme; ErrBadSecret for a password that is empty, over 512 octets,
// holds a line end or a NUL, or does not fit the scheme; ErrNoScheme also for a weak scheme, unless
// the options allow it; the errors of the file, if it has some: it is
// then left as it is, here and in SetPassword and Remove, but for a change that mends the last error.
//
// The file is replaced at once and durably: what is in place after a crash is the old or the new one,
// whole. All lines but the user's stay as they are, octet for octet, and so do mode and owner. A
// symbolic link is followed, and its target replaced. Those who edit with this package wait for each
// other, by a lock on the file with .lock at its end, which stays.
func Add(path, user, password, scheme string, opts Options) error {
	if what := badName(user); what != "" {
		return fmt.Errorf("%w: %s", ErrBadName, what)
	}
	if strings.Contains(user, " ") {
		return fmt.Errorf("%w: a user name with a space, which POP3's USER can't carry; one without would be right", ErrBadName)
	}
	secret, err := hash(password, scheme, opts.set())
	if err != nil {
		return err
	}
	return edit(path, true, opts.set(), func(text string) (string, error) {
		if _, n := find(text, user); n > 0 {
			return "", fmt.Errorf("%w: %q in %s", ErrUserExists, user, path)
		}
		end := "\n"
		if strings.HasSuffix(text, "\r\n") {
			end = "\r\n"
		}
		if text != "" && !strings.HasSuffix(text, "\n") {
			text += end
		}
		return text + user + ":" + secret + "::::::" + end, nil
	})
}

// SetPassword replaces a user's password field and keeps the line's other fields. The name counts as
// it is, not in lower case. An empty scheme means DefaultScheme. Errors as Add, and ErrNoUser.
func SetPassword(path, user, password, scheme string, opts Options) error {
	secret, err := hash(password, scheme, opts.set())
	if err != nil {
		return err
	}
	return edit(path, false, opts.set(), func(text string) (string, error) {
		offset, err := findOne(path, text, user)
		if err != nil {
			return "", err
		}
		line, _ := lineAt(text, offset)
		_, rest, _ := strings.Cut(line, ":")
		_, others, more := strings.Cut(rest, ":")
		changed := user + ":" + secret
		if more {
			changed += ":" + others
		}
		return text[:offset] + changed + text[offset+len(line):], nil
	})
}

// Remove deletes a user's line. ErrNoUser; else as Add.
func Remove(path, user string, opts Options) error {
	return edit(path, false, opts.set(), func(text string) (string, error) {
		offset, err := findOne(path, text, user)
		if err != nil {
			return "", err
		}
		_, next := lineAt(text, offset)
		return text[:offset] + text[next:], nil
	})
}

// List returns the users in the order of the file; none if there is no file. If the file has errors
// it returns them, and the users of the lines that are right.
func List(path string, opts Options) ([]User, error) {
	text, _, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	t, err := parse(path, text, opts.set())
	users := make([]User, 0, len(t.index))
	for offset := 0; offset < len(text); {
		line, next := lineAt(text, offset)
		if e, bad := parseLine(line); bad == nil && !skipped(line) {
			if first, found := t.index[e.name]; found && int(first) == offset {
				user := User{Name: e.name, Home: e.home, Quota: e.extra.quota, Life: e.extra.life}
				if h, bad := t.set.Parse(e.secret); bad == nil && e.secret != "" {
					user.Scheme = h.Scheme
				}
				users = append(users, user)
			}
		}
		offset = next
	}
	return users, err
}

// hash makes the password field.
func hash(password, name string, set scheme.Set) (string, error) {
	if name == "" {
		name = DefaultScheme
	}
	secret, err := set.Make(name, password)
	switch {
	case errors.Is(err, scheme.ErrPassword):
		return "", fmt.Errorf("%w: %w", ErrBadSecret, err)
	case err != nil:
		return "", fmt.Errorf("%w: %w", ErrNoScheme, err)
	}
	return secret, nil
}

// find returns where the line of a user begins, the first one, and how many there are.
func find(text, user string) (offset, n int) {
	for at := 0; at < len(text); {
		line, next := lineAt(text, at)
		if name, _, _ := strings.Cut(line, ":"); name == user && !skipped(line) {
			if n++; n == 1 {
				offset = at
			}
		}
		at = next
	}
	return offset, n
}

func findOne(path, text, user string) (int, error) {
	offset, n := find(text, user)
	switch {
	case n == 0:
		return 0, fmt.Errorf("%w: %q in %s", ErrNoUser, user, path)
	case n > 1:
		return 0, fmt.Errorf("%s: %d lines for the user %q; one would be right", path, n, user)
	}
	return offset, nil
}

// edit replaces the file's text by what change makes of it. If the new text has errors, the old one
// had them too: then those are returned and nothing is changed.
func edit(path string, create bool, set scheme.Set, change func(text string) (string, error)) error {
	target, err := follow(path)
	if err != nil {
		return err
	}
	folder := filepath.Dir(target)
	if create {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return err
		}
	}
	unlock, err := lock(target)
	if !create && errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: there is no file %s", ErrNoUser, path)
	}
	if err != nil {
		return err
	}
	defer unlock()

	text, _, err := readFile(target)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return err
	}
	if missing && !create {
		return fmt.Errorf("%w: there is no file %s", ErrNoUser, path)
	}
	_, faults := parse(path, text, set)
	changed, err := change(text)
	if err != nil {
		return errors.Join(err, faults)
	}
	if len(changed) > maxFile {
		return tooLarge(path)
	}
	if _, err := parse(path, changed, set); err != nil {
		if faults == nil {
			faults = err
		}
		return fmt.Errorf("%s is not changed, for it has errors:\n%w", path, faults)
	}
	return replace(target, changed)
}

// follow returns the file that a path leads to, which may not exist yet.
func follow(path string) (string, error) {
	for range 40 { // as many links as Linux follows
		folder, name := filepath.Split(path)
		if folder == "" {
			folder = "."
		}
		folder, err := filepath.EvalSymlinks(folder)
		if errors.Is(err, fs.ErrNotExist) {
			return path, nil
		}
		if err != nil {
			return "", err
		}
		path = filepath.Join(folder, name)
		link, err := os.Readlink(path)
		if err != nil {
			return path, nil // no link
		}
		if !filepath.IsAbs(link) {
			link = folder + string(filepath.Separator) + link // not joined: the kernel resolves .. after links
		}
		path = link
	}
	return "", &fs.PathError{Op: "open", Path: path, Err: unix.ELOOP}
}

// lock waits until nobody else edits the file.
func lock(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("%s.lock: %w", path, err)
	}
	return func() { file.Close() }, nil // which unlocks
}

// replace puts a new text in the place of a file, durably, with the mode and the owner of the old
// one. A new file gets mode 0600 and, if root makes it, the owner of its folder, so that a server
// without root's rights can read it.
func replace(path, text string) (err error) {
	folder := filepath.Dir(path)
	var like unix.Stat_t
	mode := uint32(0o600)
	switch err := unix.Stat(path, &like); {
	case err == nil:
		mode = like.Mode & 0o777
	case !errors.Is(err, unix.ENOENT):
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	default:
		if err := unix.Stat(folder, &like); err != nil {
			return &fs.PathError{Op: "stat", Path: folder, Err: err}
		}
		if os.Geteuid() != 0 {
			like.Uid, like.Gid = uint32(os.Geteuid()), uint32(os.Getegid())
		}
	}

	temp := path + ".tmp" // the lock makes it ours; one that is there was left by a crash
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			file.Close()
			os.Remove(temp)
		}
	}()
	var made unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &made); err != nil {
		return &fs.PathError{Op: "stat", Path: temp, Err: err}
	}
	if made.Uid != like.Uid || made.Gid != like.Gid {
		if err := file.Chown(int(like.Uid), int(like.Gid)); err != nil {
			return fmt.Errorf("the owner of %s can't be kept; to run as the owner or as root would be right: %w", path, err)
		}
	}
	if _, err := file.WriteString(text); err != nil {
		return err
	}
	if err := file.Chmod(fs.FileMode(mode)); err != nil { // after Chown, which clears bits
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	return syncFolder(folder)
}

func syncFolder(folder string) error {
	dir, err := os.Open(folder)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
