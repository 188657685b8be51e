package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// keepAlive finds a dead peer in about a minute: its session holds the lock of a maildrop.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3}

// listen binds one address of a key.
func listen(key, address string) (net.Listener, error) {
	lc := net.ListenConfig{KeepAliveConfig: keepAlive}
	lc.SetMultipathTCP(false) // trap 52
	l, err := lc.Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, listenError(address, err))
	}
	return l, nil
}

// listenAll binds every address of a key, or none.
func listenAll(key string, addresses []string) (map[string]net.Listener, error) {
	bound := make(map[string]net.Listener, len(addresses))
	for _, address := range addresses {
		l, err := listen(key, address)
		if err != nil {
			for _, l := range bound {
				_ = l.Close()
			}
			return nil, err
		}
		bound[address] = l
	}
	return bound, nil
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

// activated returns the listening sockets that systemd passed for POP3, if it did. Each must have
// FileDescriptorName=pop3: a socket of another name would be served as what it is not, or not at all.
func activated() ([]net.Listener, error) {
	var listeners []net.Listener
	var errs []error
	for _, f := range activation.Files(true) {
		l, err := fromSystemd(f)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		listeners = append(listeners, l)
	}
	if len(errs) > 0 {
		for _, l := range listeners {
			_ = l.Close()
		}
		return nil, errors.Join(errs...)
	}
	return listeners, nil
}

// fromSystemd makes a listener of a passed descriptor, and closes that.
func fromSystemd(f *os.File) (net.Listener, error) {
	defer f.Close()
	switch f.Name() {
	case "pop3":
	case "pop3s", "lmtp":
		return nil, fmt.Errorf("socket activation: %s is not served by this version; take its socket away", f.Name())
	default:
		return nil, fmt.Errorf("socket activation: a socket has the name %q; write FileDescriptorName=pop3 into its unit", f.Name())
	}
	if on, err := unix.GetsockoptInt(int(f.Fd()), unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || on == 0 {
		return nil, fmt.Errorf("socket activation: descriptor %s is no listening stream socket; write ListenStream= and Accept=no", f.Name())
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("socket activation: %s: %w", f.Name(), err)
	}
	return keptAlive{l}, nil
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
