package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"

	"dewey/config"
)

// keepAlive finds a dead peer in about a minute: its session holds the lock of a maildrop.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3}

// inherited gives it to a socket that listens: its connections have it from there, without four system calls each.
// socket(7); tcp(7).
func inherited(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		for _, option := range [][3]int{
			{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(keepAlive.Idle.Seconds())},
			{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(keepAlive.Interval.Seconds())},
			{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepAlive.Count},
		} {
			_ = unix.SetsockoptInt(int(fd), option[0], option[1], option[2]) // at worst a peer is found dead later
		}
	})
}

// A door is a key whose addresses are served, each in the same way.
type door struct {
	key    string // of the configuration
	socket string // the name by which systemd passes sockets for it
	listen func(*config.Config) []string
	serve  func(*daemon, net.Listener) error
}

var doors = []door{
	{"pop3.listen", "pop3", func(c *config.Config) []string { return c.POP3.Listen }, func(d *daemon, l net.Listener) error { return d.server.Serve(l) }},
	{"pop3s.listen", "pop3s", func(c *config.Config) []string { return c.POP3S.Listen }, func(d *daemon, l net.Listener) error { return d.server.ServeTLS(l) }},
	{"lmtp.listen", "lmtp", func(c *config.Config) []string { return c.LMTP.Listen }, func(d *daemon, l net.Listener) error { return d.lmtp.Serve(l) }},
}

// A spot is an address of a door. Those that systemd passed have their real address.
type spot struct{ key, address string }

// listen binds one address of a key; rights are for UNIX sockets.
func listen(key, address string, rights socketRights) (net.Listener, error) {
	if path, ok := strings.CutPrefix(address, config.UnixPrefix); ok {
		l, err := listenUnix(path, rights)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, unixError(address, err))
		}
		return l, nil
	}
	lc := net.ListenConfig{KeepAlive: -1, Control: inherited}
	lc.SetMultipathTCP(false) // trap 52
	l, err := lc.Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, listenError(address, err))
	}
	return l, nil
}

// listenAll binds every spot, or none.
func listenAll(spots []spot, c *config.Config) (map[spot]net.Listener, error) {
	bound := make(map[spot]net.Listener, len(spots))
	rights, err := rightsOf(c)
	if err != nil {
		return nil, err
	}
	for _, s := range spots {
		l, err := listen(s.key, s.address, rights)
		if err != nil {
			closeAll(bound)
			return nil, err
		}
		bound[s] = l
	}
	return bound, nil
}

// rebind makes UNIX sockets again that somebody has removed, or put something else in their place: nobody can connect
// to the old ones.
func (d *daemon) rebind(c *config.Config) {
	for s, l := range d.bound {
		old, is := l.(*unixListener)
		if !is || old.there() {
			continue
		}
		rights, err := rightsOf(c)
		var fresh net.Listener
		if err == nil {
			fresh, err = listen(s.key, s.address, rights)
		}
		if err != nil {
			d.log.Error("the socket was removed and can't be made again: put right what the error says and reload, or restart dewey", "key", s.key, "address", s.address, "error", err)
			continue
		}
		d.log.Warn("the socket was removed; it is made again", "key", s.key, "address", s.address)
		d.bound[s] = fresh
		d.serve(s, fresh)
		_ = old.Close() // its file is gone
	}
}

func closeAll(bound map[spot]net.Listener) {
	for _, l := range bound {
		_ = l.Close()
	}
}

// listenError says in one line why an address can't be bound, and what would help.
func listenError(address string, err error) error {
	why := err
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		why = errno
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s is busy (%w); stop the program that listens there, or choose another address", address, why)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s may not be bound (%w); choose a port from 1024 up, or let systemd bind it (dewey.socket)", address, why)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s is no address of this machine (%w)", address, why)
	}
	return fmt.Errorf("cannot listen on %s: %w", address, why)
}

// activated returns the listening sockets that systemd passed, if it did. Each must have the
// FileDescriptorName of a door: a socket of another name would be served as what it is not, or not at all.
func activated() (map[spot]net.Listener, error) {
	passed := make(map[spot]net.Listener)
	var errs []error
	for _, f := range activation.Files(true) {
		s, l, err := fromSystemd(f)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		passed[s] = l
	}
	if len(errs) > 0 {
		closeAll(passed)
		return nil, errors.Join(errs...)
	}
	return passed, nil
}

// fromSystemd makes a listener of a passed descriptor, and closes that.
func fromSystemd(f *os.File) (spot, net.Listener, error) {
	defer f.Close()
	i := slices.IndexFunc(doors, func(d door) bool { return d.socket == f.Name() })
	switch {
	case i < 0:
		return spot{}, nil, fmt.Errorf("socket activation: a socket has the name %q; write FileDescriptorName=pop3, pop3s or lmtp into its unit", f.Name())
	}
	if on, err := unix.GetsockoptInt(int(f.Fd()), unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || on == 0 {
		return spot{}, nil, fmt.Errorf("socket activation: descriptor %s is no listening stream socket; write ListenStream= and Accept=no", f.Name())
	}
	l, err := net.FileListener(f)
	if err != nil {
		return spot{}, nil, fmt.Errorf("socket activation: %s: %w", f.Name(), err)
	}
	return spot{doors[i].key, l.Addr().String()}, keptAlive{l}, nil
}

// keptAlive gives connections of a listener that net did not make what listen gives its own.
type keptAlive struct{ net.Listener }

func (l keptAlive) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if tcp, ok := c.(*net.TCPConn); ok && err == nil {
		_ = tcp.SetKeepAliveConfig(keepAlive) // at worst the peer is found dead later
	}
	return c, err //nolint:wrapcheck // the server tells a closed listener by the error itself
}
