package confine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Cage is what the process may still reach. It may execute nothing, in no folder.
//
// A path is the file or folder that has the name now. A file that is replaced later by another, as
// editors and programs for certificates do it, is out of reach then: name its folder (see Folders).
type Cage struct {
	Read       []string // files, and folders with all below them; what is missing, or out of reach anyhow, is left out
	Write      []string // folders, to read too, to rename between, and to remove in; they must be there
	Connect    []uint16 // the TCP ports that it may connect to
	AnyConnect bool     // it may connect to all
}

// What Landlock's versions (ABIs) brought. landlock(7).
const (
	abiRefer    = 2 // Linux 5.19: renames between folders. Without it they would all fail.
	abiTruncate = 3 // Linux 6.2
	abiConnect  = 4 // Linux 6.7: TCP
	abiIoctl    = 5 // Linux 6.10
	abiScope    = 6 // Linux 6.12: signals, abstract UNIX sockets
)

const (
	readRights  = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	writeRights = readRights | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE |
		unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_REFER |
		unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR
	otherRights = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_SYM
)

// Restrict puts the process into a cage, for good; it sets no_new_privs for that. It returns the
// version of Landlock that the kernel has; 0: none that is of use, and nothing was done. Older versions
// see less: connections from 4 on, signals to others and abstract UNIX sockets from 6 on. After an error
// the process may be caged or not.
//
// What is open stays open; binding ports, UDP, and UNIX sockets with a path are not restricted.
func Restrict(c Cage) (abi int, err error) {
	if abi = version(); abi == 0 {
		return 0, nil
	}
	if err := c.restrict(abi); err != nil {
		return abi, fmt.Errorf("landlock: %w", err)
	}
	return abi, nil
}

// version returns the kernel's version of Landlock, 0 if it has none of use.
func version() int {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 || abi < abiRefer {
		return 0
	}
	return int(abi)
}

// attributes says what a version of Landlock can be told to refuse.
func (c Cage) attributes(abi int) unix.LandlockRulesetAttr {
	rights := uint64(writeRights | otherRights)
	if abi < abiTruncate {
		rights &^= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi >= abiIoctl {
		rights |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	attr := unix.LandlockRulesetAttr{Handled_access_fs: rights}
	if abi >= abiConnect && !c.AnyConnect {
		attr.Handled_access_net = unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}
	if abi >= abiScope {
		// Before this was put right, threads of one process could not send each other signals, which
		// Go does all the time.
		errata, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_ERRATA)
		if errno == 0 && errata&0x2 != 0 {
			attr.Scoped |= unix.LANDLOCK_SCOPE_SIGNAL
		}
		if !strings.HasPrefix(os.Getenv("NOTIFY_SOCKET"), "@") { // sd_notify(3)
			attr.Scoped |= unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
		}
	}
	return attr
}

func (c Cage) restrict(abi int) error {
	attr := c.attributes(abi)
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0) //nolint:gosec // a system call takes pointers
	if errno != 0 {
		return os.NewSyscallError("landlock_create_ruleset", errno)
	}
	defer unix.Close(int(fd))
	for _, path := range c.Read {
		if err := allow(fd, path, readRights&attr.Handled_access_fs); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EACCES) {
			return err
		}
	}
	for _, path := range c.Write {
		if err := allow(fd, path, writeRights&attr.Handled_access_fs); err != nil {
			return err
		}
	}
	if attr.Handled_access_net != 0 {
		for _, port := range c.Connect {
			if err := allowConnect(fd, port); err != nil {
				return err
			}
		}
	}
	if err := onAllThreads(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	return os.NewSyscallError("landlock_restrict_self", onAllThreads(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0))
}

// allow adds a rule for a folder and all below it, or for one file.
func allow(ruleset uintptr, path string, rights uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR { // the rights of a folder are no rights of a file
		rights &= unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	rule := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, ruleset, unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0) //nolint:gosec // a system call takes pointers
	if errno != 0 {
		return &os.PathError{Op: "landlock_add_rule", Path: path, Err: errno}
	}
	return nil
}

// allowConnect adds a rule for a TCP port, struct landlock_net_port_attr.
func allowConnect(ruleset uintptr, port uint16) error {
	const ruleNetPort = 2 // LANDLOCK_RULE_NET_PORT
	rule := [2]uint64{unix.LANDLOCK_ACCESS_NET_CONNECT_TCP, uint64(port)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, ruleset, ruleNetPort, uintptr(unsafe.Pointer(&rule)), 0, 0, 0) //nolint:gosec // a system call takes pointers
	if errno != 0 {
		return fmt.Errorf("port %d: %w", port, os.NewSyscallError("landlock_add_rule", errno))
	}
	return nil
}

// Folders returns the folders that files are in, and those that they are in after all links: what a
// Cage needs so that files can be read again after they were replaced. Certbot's live/ is full of links
// into its archive/.
func Folders(files ...string) []string {
	var list []string
	for _, file := range files {
		list = append(list, filepath.Dir(file))
		if real, err := filepath.EvalSymlinks(file); err == nil {
			list = append(list, filepath.Dir(real))
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}
