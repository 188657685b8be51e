package confine

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/user"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// What LookUp and Become fail with, beside the system's errors.
var (
	ErrUnknown = errors.New("is not in /etc/passwd or /etc/group")
	ErrRoot    = errors.New("is root's")
	ErrNotRoot = errors.New("only root can become another")
	ErrKept    = errors.New("rights of root are left")
)

// A Who is whom a process can become. The zero Who is nobody, and an error everywhere.
type Who struct {
	Name     string // for messages
	UID, GID int    // never 0
	Groups   []int  // all of them, GID too; never 0
}

// LookUp finds a user and a group, each by its name or its number; an empty group means the user's own.
// The supplementary groups are the user's. A number that no user has needs a group. It returns
// ErrUnknown, and ErrRoot if the user or one of the groups has the number 0.
//
// Without cgo it knows /etc/passwd and /etc/group alone, no directory such as LDAP.
func LookUp(name, group string) (Who, error) {
	who, err := lookUpUser(name, group != "")
	if err != nil {
		return Who{}, fmt.Errorf("user %q: %w", name, err)
	}
	if group != "" {
		own := who.GID
		if who.GID, err = lookUpGroup(group); err != nil {
			return Who{}, fmt.Errorf("group %q: %w", group, err)
		}
		who.Groups = slices.DeleteFunc(who.Groups, func(g int) bool { return g == own })
	}
	if !slices.Contains(who.Groups, who.GID) {
		who.Groups = append(who.Groups, who.GID)
	}
	slices.Sort(who.Groups)
	if who.GID == 0 || slices.Contains(who.Groups, 0) {
		return Who{}, fmt.Errorf("user %q: a group %w", name, ErrRoot)
	}
	return who, nil
}

func lookUpUser(name string, hasGroup bool) (Who, error) {
	u, err := user.Lookup(name)
	n, isNumber := id(name)
	if isNumber && unknown(err) {
		u, err = user.LookupId(name)
	}
	who := Who{Name: name, UID: n}
	switch {
	case err == nil:
		if who, err = fromPasswd(u); err != nil {
			return Who{}, err
		}
	case !unknown(err):
		return Who{}, err //nolint:wrapcheck // LookUp does
	case !isNumber || !hasGroup:
		return Who{}, ErrUnknown
	}
	if who.UID == 0 {
		return Who{}, ErrRoot
	}
	return who, nil
}

func fromPasswd(u *user.User) (Who, error) {
	uid, uidOK := id(u.Uid)
	gid, gidOK := id(u.Gid)
	if !uidOK || !gidOK {
		return Who{}, fmt.Errorf("has the numbers %q and %q: %w", u.Uid, u.Gid, strconv.ErrRange)
	}
	who := Who{Name: u.Username, UID: uid, GID: gid}
	list, err := u.GroupIds()
	if err != nil {
		return Who{}, fmt.Errorf("read its groups: %w", err)
	}
	for _, s := range list {
		g, ok := id(s)
		if !ok {
			return Who{}, fmt.Errorf("is in group %q: %w", s, strconv.ErrRange)
		}
		who.Groups = append(who.Groups, g)
	}
	return who, nil
}

func lookUpGroup(name string) (int, error) {
	g, err := user.LookupGroup(name)
	if n, isNumber := id(name); isNumber && unknown(err) {
		return n, nil
	}
	if unknown(err) {
		return 0, ErrUnknown
	}
	if err != nil {
		return 0, err //nolint:wrapcheck // LookUp does
	}
	n, ok := id(g.Gid)
	if !ok {
		return 0, fmt.Errorf("has the number %q: %w", g.Gid, strconv.ErrRange)
	}
	return n, nil
}

// unknown tells whether there is no such user or group, or no file that would know.
func unknown(err error) bool {
	var u user.UnknownUserError
	var i user.UnknownUserIdError
	var g user.UnknownGroupError
	return errors.As(err, &u) || errors.As(err, &i) || errors.As(err, &g) || errors.Is(err, fs.ErrNotExist)
}

// id reads a number. The last one, -1 to the kernel, means "leave it as it is" there: setresuid(2).
func id(s string) (int, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return int(n), err == nil && n != math.MaxUint32
}

// Become makes the process w's, for good, and seals it. Only root can; others get ErrNotRoot and are
// left as they were. After any other error nothing is certain: the process must end.
func (w Who) Become() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("become %s: %w", w.Name, ErrNotRoot)
	}
	if err := w.become(); err != nil {
		return fmt.Errorf("become %s: %w", w.Name, err)
	}
	return nil
}

func (w Who) become() error {
	if w.UID <= 0 || w.GID <= 0 || slices.Contains(w.Groups, 0) {
		return ErrRoot
	}
	// Package syscall changes all threads. The user comes last: only root may change the rest.
	if err := syscall.Setgroups(w.Groups); err != nil {
		return fmt.Errorf("setgroups: %w", err)
	}
	if err := syscall.Setresgid(w.GID, w.GID, w.GID); err != nil {
		return fmt.Errorf("setresgid: %w", err)
	}
	if err := syscall.Setresuid(w.UID, w.UID, w.UID); err != nil {
		return fmt.Errorf("setresuid: %w", err)
	}
	if err := w.verify(); err != nil {
		return err
	}
	return Seal()
}

// verify asks the kernel who the process is now, and tries to go back.
func (w Who) verify() error {
	if got := ids(unix.Getresuid()); got != ids(w.UID, w.UID, w.UID) {
		return fmt.Errorf("%w: its user numbers are %v", ErrKept, got)
	}
	if got := ids(unix.Getresgid()); got != ids(w.GID, w.GID, w.GID) {
		return fmt.Errorf("%w: its group numbers are %v", ErrKept, got)
	}
	groups, err := unix.Getgroups()
	if err != nil {
		return fmt.Errorf("getgroups: %w", err)
	}
	if slices.Contains(groups, 0) {
		return fmt.Errorf("%w: a group", ErrKept)
	}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &caps[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	if caps[0].Permitted|caps[0].Effective|caps[1].Permitted|caps[1].Effective != 0 {
		return fmt.Errorf("%w: capabilities", ErrKept)
	}
	if syscall.Setresuid(0, 0, 0) == nil || syscall.Setresgid(0, 0, 0) == nil || syscall.Setgroups([]int{0}) == nil {
		return fmt.Errorf("%w: it can go back", ErrKept)
	}
	return nil
}

func ids(real, effective, saved int) [3]int { return [3]int{real, effective, saved} }
