package bench

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// TLS modes and ways to log in.
const (
	Plain    = "plain"
	STLS     = "stls" // RFC 2595
	Implicit = "tls"  // RFC 8314

	AuthUser  = "user"  // USER and PASS
	AuthAPOP  = "apop"  // RFC 1939 section 7
	AuthPlain = "plain" // AUTH PLAIN with an initial response, RFC 5034
)

// A User is who logs in. To deliver, the name is the recipient's address.
type User struct{ Name, Password string }

// Options say what load goes where.
type Options struct {
	Address string // an IP address and a port, or unix: and a path; nothing is looked up
	Remote  bool   // the address may be another machine's

	TLS       string      // Plain, STLS or Implicit
	TLSConfig *tls.Config // nil if Plain
	Resume    bool        // go on with a TLS session of the same connection slot, if the server gives tickets

	Auth  string
	Users []User // each has one session at a time; RFC 1939 section 4

	Sources     []netip.Addr  // where connections come from, in turns; none: the system chooses
	Connections int           // at the same time; for idle, that are held
	Count       int64         // sessions, or messages to deliver, in all; 0: until Duration
	Duration    time.Duration // no session begins later; for idle, how long they are held
	Warmup      time.Duration // load of the same kind before anything is measured
	Rate        float64       // sessions, or messages to deliver, a second; 0: as fast as replies come
	Timeout     time.Duration // for a reply, and for the next octets of a long one
	KeepGoing   bool          // faults are counted and do not end the run

	Messages int      // fetch and pipeline: of each maildrop the first so many; 0: all
	Depth    int      // pipeline and update: commands sent before their replies are read
	Commands []string // pipeline: for each message, of LIST, UIDL, TOP, RETR and NOOP
	Login    bool     // idle: connections log in

	Size          int    // deliver: octets of a message, its header section with it
	PerMessage    int    // deliver: recipients of a message
	PerConnection int    // deliver: messages of a connection; 0: any number
	Sender        string // deliver: of MAIL FROM; may be empty

	Watch Watch          // the server's processes
	Live  func(Progress) // called twice a second; may be nil
}

// maxDepth bounds the commands of a batch: their lines must fit into the socket's buffers while nothing is read.
const maxDepth = 1000

// check finds what can't be run, before anything is sent.
func (o *Options) check(w *workload) error {
	if _, _, err := o.target(); err != nil {
		return err
	}
	switch {
	case o.Connections < 1:
		return errors.New("the number of connections must be at least 1")
	case o.Count < 0 || o.Duration < 0 || o.Rate < 0 || o.Rate > 1e6 || o.Messages < 0 || o.PerConnection < 0:
		return errors.New("a number is negative, or a rate above 1000000")
	case o.Count == 0 && o.Duration == 0:
		return errors.New("nothing says how long to run; give a number of sessions or a duration")
	case o.Timeout <= 0:
		return errors.New("the timeout must be more than 0s")
	case w.batches && (o.Depth < 1 || o.Depth > maxDepth):
		return fmt.Errorf("the depth must be from 1 to %d", maxDepth)
	case len(o.Users) == 0 && (w.lmtp || w.name != "idle" || o.Login):
		return errors.New("there is no user")
	case !w.lmtp && (w.name != "idle" || o.Login) && o.Connections > len(o.Users):
		return fmt.Errorf("%d connections need as many users, not %d: a maildrop has one session at a time", o.Connections, len(o.Users))
	}
	for _, u := range o.Users {
		if u.Name == "" || strings.ContainsAny(u.Name+u.Password, "\r\n\x00") || w.lmtp && strings.ContainsAny(u.Name, "<> ") {
			return fmt.Errorf("%q can't be sent as a user's name or with its password", u.Name)
		}
	}
	for _, c := range o.Commands {
		if !slices.Contains([]string{"LIST", "UIDL", "TOP", "RETR", "NOOP"}, c) {
			return fmt.Errorf("%q can't be pipelined; of LIST, UIDL, TOP, RETR and NOOP name some", c)
		}
	}
	if w.lmtp && (o.PerMessage < 1 || o.PerMessage > len(o.Users) || o.Size < minSize || o.Size > maxSize) {
		return fmt.Errorf("a message has from 1 recipient to all, here %d, and from %d to %d octets", len(o.Users), minSize, maxSize)
	}
	return o.room()
}

// target says what to dial.
func (o *Options) target() (network, address string, err error) {
	if path, ok := strings.CutPrefix(o.Address, "unix:"); ok {
		if path == "" || len(path) > 107 {
			return "", "", errors.New("unix: needs a path of 1 to 107 octets")
		}
		return "unix", path, nil
	}
	if o.Address == "" {
		return "", "", errors.New("no address: load goes only where it is told to, such as 127.0.0.1:110")
	}
	at, err := netip.ParseAddrPort(o.Address)
	switch {
	case err != nil:
		return "", "", fmt.Errorf("%q is no IP address with a port, such as 127.0.0.1:110 or [::1]:995; names are not looked up, so that load goes nowhere by chance", o.Address)
	case at.Port() == 0 || at.Addr().IsUnspecified() || at.Addr().IsMulticast():
		return "", "", fmt.Errorf("%s is no address that a server has", at)
	case !at.Addr().Unmap().IsLoopback() && !o.Remote:
		return "", "", fmt.Errorf("%s is not of this machine's loopback; if whoever runs that server agrees to the load, say --remote", at)
	}
	return "tcp", at.String(), nil
}

// room says if the system has too few descriptors or ports for so many connections.
func (o *Options) room() error {
	const others = 32
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("getrlimit: %w", err)
	}
	if uint64(o.Connections)+others > limit.Cur {
		return fmt.Errorf("%d connections need %d descriptors, and this process may have %d; raise the hard limit (ulimit -Hn, LimitNOFILE=)",
			o.Connections, o.Connections+others, limit.Cur)
	}
	if strings.HasPrefix(o.Address, "unix:") {
		return nil
	}
	var low, high int
	if data, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err != nil {
		return nil //nolint:nilerr // not known: the system says itself when there are none
	} else if _, err := fmt.Sscan(string(data), &low, &high); err != nil {
		return nil //nolint:nilerr // the same
	}
	if ports := (high - low + 1) * max(len(o.Sources), 1); o.Connections > ports {
		return fmt.Errorf("%d connections need as many ports, and there are %d for %d source addresses; give more sources, such as 127.0.0.2-127.0.0.20",
			o.Connections, ports, max(len(o.Sources), 1))
	}
	return nil
}

// ParseSources reads addresses and ranges of them, 127.0.0.2-127.0.0.20, with commas between: 65,536 at most.
func ParseSources(text string) ([]netip.Addr, error) {
	var list []netip.Addr
	for part := range strings.SplitSeq(text, ",") {
		from, to, isRange := strings.Cut(part, "-")
		first, err := netip.ParseAddr(from)
		last := first
		if err == nil && isRange {
			last, err = netip.ParseAddr(to)
		}
		if err != nil || first.BitLen() != last.BitLen() || last.Less(first) {
			return nil, fmt.Errorf("%q is no source address or range of them, such as 127.0.0.2-127.0.0.20", part)
		}
		for at := first; at.IsValid() && !last.Less(at); at = at.Next() {
			if len(list) == 1<<16 {
				return nil, errors.New("more than 65536 source addresses")
			}
			list = append(list, at)
		}
	}
	return list, nil
}

// dialer returns what dials from a source address.
func (o *Options) dialer(n uint64) *net.Dialer {
	d := &net.Dialer{Timeout: o.Timeout}
	if len(o.Sources) > 0 {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(o.Sources[n%uint64(len(o.Sources))], 0))
		// The port is chosen at connect and not at bind: it need be free for this peer alone. ip(7).
		d.Control = func(_, _ string, c syscall.RawConn) error {
			const bindAddressNoPort = 24
			var failed error
			err := c.Control(func(fd uintptr) {
				failed = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, bindAddressNoPort, 1)
			})
			return errors.Join(err, failed)
		}
	}
	return d
}
