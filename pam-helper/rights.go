package main

/*
#define _GNU_SOURCE
#include <errno.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static int no_cores(void) {
	struct rlimit none = {0, 0};
	return setrlimit(RLIMIT_CORE, &none) ? errno : 0;
}
static int close_others(void) {
	return syscall(SYS_close_range, 4U, ~0U, CLOSE_RANGE_CLOEXEC) ? errno : 0;
}
static int no_network(void) { return unshare(CLONE_NEWNET) ? errno : 0; }

// What PAM's modules do: read what is root's alone, keep counts in files of others, become the user who is asked for,
// end what they started, tell the kernel's audit.
static int drop_capabilities(void) {
	static const unsigned long long kept = 1ULL << CAP_CHOWN | 1ULL << CAP_DAC_OVERRIDE | 1ULL << CAP_DAC_READ_SEARCH |
		1ULL << CAP_FOWNER | 1ULL << CAP_FSETID | 1ULL << CAP_KILL | 1ULL << CAP_SETGID | 1ULL << CAP_SETUID | 1ULL << CAP_AUDIT_WRITE;
	for (int c = 0; c < 64 && prctl(PR_CAPBSET_READ, c, 0, 0, 0) >= 0; c++)
		if (!(kept >> c & 1) && prctl(PR_CAPBSET_DROP, c, 0, 0, 0))
			return errno;
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ? errno : 0;
}
static int own_process(int reaper) {
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
		return errno;
	return reaper && prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) ? errno : 0;
}
// until_closed waits until the other end of a connection is closed, or this one is shut down.
static void until_closed(int fd) {
	struct pollfd p = {.fd = fd, .events = POLLRDHUP};
	while (poll(&p, 1, -1) < 0 && errno == EINTR) {
	}
}
*/
import "C"

import (
	"fmt"
	"os"
	"syscall"
)

// giveUp takes from this thread, and from what it becomes, all that PAM's modules have no need of. Who is not root has
// little to give.
func giveUp(network bool) (warnings []string, err error) {
	syscall.Umask(0o077)
	if err := os.Chdir("/"); err != nil {
		return nil, err
	}
	for _, step := range []struct {
		what string
		do   func() C.int
	}{
		{"turn core dumps off", func() C.int { return C.no_cores() }},
		{"close descriptors", func() C.int { return C.close_others() }},
	} {
		if n := step.do(); n != 0 {
			return nil, fmt.Errorf("%s: %w", step.what, syscall.Errno(n))
		}
	}
	if os.Geteuid() != 0 {
		return []string{"not root: pam_unix and others will know no password but that of this process's own user"}, nil
	}
	if !network {
		if n := C.no_network(); n != 0 {
			warnings = append(warnings, fmt.Sprintf("the network could not be given up, and modules may use it: %v", syscall.Errno(n)))
		}
	}
	if n := C.drop_capabilities(); n != 0 {
		return nil, fmt.Errorf("give up capabilities: %w", syscall.Errno(n))
	}
	return warnings, nil
}

// ownProcess keeps others of the same user from reading this process's memory. A reaper gets what its workers leave.
func ownProcess(reaper bool) error {
	n := C.int(0)
	if reaper {
		n = 1
	}
	if n = C.own_process(n); n != 0 {
		return fmt.Errorf("prctl: %w", syscall.Errno(n))
	}
	return nil
}

func untilClosed(fd int) { C.until_closed(C.int(fd)) }
