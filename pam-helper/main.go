// dewey-pam asks PAM for dewey, which has no C library. It is three processes in one program: the first gives up
// rights, and becomes the second, which starts the third ones, the workers. A worker has one conversation with PAM after
// the other; it may crash or hang, and the second process sees to it that it is gone then, with all that it has started.
// No password passes through the second one: it hands each connection to a worker.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// What is in the place of the first argument in the second and third process.
const (
	sealedArg = "sealed"
	workerArg = "worker"
)

// options are those of the command line. None of them comes from a client, nor can dewey change them later.
type options struct {
	service   string // PAM's, a file in /etc/pam.d
	confdir   string // in place of /etc/pam.d; empty: that one
	system    bool   // only users whom getpwnam(3) knows are users
	minUID    uint
	processes int
	network   bool
	fd        bool // connections come through descriptor 3
	listen    string
	allow     string
}

func main() {
	runtime.LockOSThread() // rights are a thread's; a worker ends when the thread does that started it
	args := os.Args[1:]
	stage := ""
	if len(args) > 0 && (args[0] == sealedArg || args[0] == workerArg) {
		stage, args = args[0], args[1:]
	}
	o, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		switch stage {
		case workerArg:
			err = work(o)
		case sealedArg:
			err = supervise(o)
		default:
			err = seal(o)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "dewey-pam:", err)
		os.Exit(1)
	}
}

func parse(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("dewey-pam", flag.ContinueOnError)
	f.StringVar(&o.service, "service", "dewey", "PAM's service, a file in /etc/pam.d")
	f.StringVar(&o.confdir, "confdir", "", "folder of services in place of /etc/pam.d")
	f.BoolVar(&o.system, "system", false, "only users that getpwnam(3) knows are users")
	f.UintVar(&o.minUID, "min-uid", 1000, "users of the system with lower numbers are none")
	f.IntVar(&o.processes, "processes", 2, "conversations at the same time")
	f.BoolVar(&o.network, "network", false, "let PAM's modules use the network")
	f.BoolVar(&o.fd, "fd", false, "connections come through descriptor 3 (dewey starts it so)")
	f.StringVar(&o.listen, "listen", "", "a UNIX socket to listen on, as a service of its own")
	f.StringVar(&o.allow, "allow", "", "with -listen: whose programs may ask, names or numbers, with commas")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if f.NArg() > 0 {
		bad("unknown argument %q", f.Arg(0))
	}
	if o.service == "" || strings.ContainsAny(o.service, "/\x00") || strings.HasPrefix(o.service, ".") {
		bad("-service %q is no name of a file in /etc/pam.d; dewey would be right", o.service)
	}
	if o.confdir != "" && !filepath.IsAbs(o.confdir) {
		bad("-confdir %q is not absolute", o.confdir)
	}
	if o.processes < 1 || o.processes > 256 {
		bad("-processes %d is not 1 to 256", o.processes)
	}
	if o.fd == (o.listen != "") {
		bad("say -listen PATH -allow USER; dewey itself says -fd")
	}
	if o.listen != "" && !filepath.IsAbs(o.listen) {
		bad("-listen %q is not absolute", o.listen)
	}
	if (o.listen != "") != (o.allow != "") {
		bad("-listen needs -allow, and -allow needs -listen: whose programs may ask, such as -allow dewey")
	}
	return o, errors.Join(errs...)
}

// args are what parse reads.
func (o options) args() []string {
	list := []string{
		"-service=" + o.service, "-confdir=" + o.confdir, "-system=" + strconv.FormatBool(o.system), "-min-uid=" + strconv.FormatUint(uint64(o.minUID), 10),
		"-processes=" + strconv.Itoa(o.processes), "-network=" + strconv.FormatBool(o.network), "-fd=" + strconv.FormatBool(o.fd),
	}
	if o.listen != "" {
		list = append(list, "-listen="+o.listen, "-allow="+o.allow)
	}
	return list
}

// environment is all that modules get of one.
var environment = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "GOTRACEBACK=none"}

// seal gives up rights and becomes the second process: what a thread has given up is so given up by all.
func seal(o options) error {
	warnings, err := giveUp(o.network)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		fmt.Fprintln(os.Stderr, "dewey-pam:", w)
	}
	if err := syscall.Exec("/proc/self/exe", append([]string{"dewey-pam", sealedArg}, o.args()...), environment); err != nil { //nolint:gosec // itself
		return fmt.Errorf("start /proc/self/exe again: %w", err)
	}
	return io.ErrUnexpectedEOF
}
