package proxyheader

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"
)

// timeout is how long a header may take. A proxy sends it at once; the specification asks for three
// seconds at least.
const timeout = 10 * time.Second

var (
	// ErrNoHeader says that a connection from a proxy does not begin with a header.
	ErrNoHeader = errors.New("no PROXY header")
	// ErrHeader says that a connection from a proxy begins with a header that can't be used.
	ErrHeader = errors.New("bad PROXY header")
)

// Proxies are the networks whose connections begin with a header. An IPv4 network is written as one:
// ::ffff:192.0.2.0/120 holds nobody.
type Proxies []netip.Prefix

// Wrap returns a connection as its client would have made it. It waits for the network: call it on the
// connection's own goroutine, before anything is sent or read.
//
// A connection from elsewhere than p is returned as it is, and so is one that the proxy made for itself,
// such as a health check (LOCAL in version 2, UNKNOWN in version 1). Any other becomes a *Conn. Not an
// octet behind the header is read, and no deadline is left.
//
// The header must be whole within ten seconds, and in 4 KiB. The error wraps ErrNoHeader or ErrHeader,
// and what ended the wait: io.EOF, os.ErrDeadlineExceeded, ctx's cause. It holds nothing that was
// received. The caller then closes c without a word.
func (p Proxies) Wrap(ctx context.Context, c net.Conn) (net.Conn, error) {
	if !p.contain(c.RemoteAddr()) {
		return c, nil
	}
	if err := c.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoHeader, err)
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		_ = c.SetReadDeadline(time.Unix(1, 0)) // fails if c is closed; then nothing waits
	})
	raw, err := read(c)
	if !stop() {
		<-interrupted
		return nil, fmt.Errorf("%w: %w", ErrNoHeader, context.Cause(ctx))
	}
	if err != nil {
		return nil, err
	}
	h, err := parse(raw)
	if err != nil {
		return nil, err
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHeader, err)
	}
	if h.local {
		return c, nil
	}
	return &Conn{
		Conn:    c,
		remote:  net.TCPAddrFromAddrPort(h.source),
		local:   net.TCPAddrFromAddrPort(h.destination),
		secured: h.secured,
	}, nil
}

// contain says whether an address is in one of the networks.
func (p Proxies) contain(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return false
	}
	ip := t.AddrPort().Addr().Unmap().WithZone("") // no prefix contains an address with a zone
	return slices.ContainsFunc(p, func(network netip.Prefix) bool { return network.Contains(ip) })
}

// A Conn is a connection of a proxy's, with the addresses of the client's.
type Conn struct {
	net.Conn
	remote, local net.Addr
	secured       bool
}

// RemoteAddr returns the client's address.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// LocalAddr returns the address that the client connected to: the proxy's.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// Proxy returns the address of the proxy. What the client sent came over a network from there, also if
// RemoteAddr is a loopback address: then it is the proxy's own loopback.
func (c *Conn) Proxy() net.Addr { return c.Conn.RemoteAddr() }

// Secured says that the client came to the proxy over TLS, if the proxy tells. Of the way from the proxy
// to here it says nothing.
func (c *Conn) Secured() bool { return c.secured }

// CloseWrite closes the sending side, or fails with errors.ErrUnsupported.
func (c *Conn) CloseWrite() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return half.CloseWrite() //nolint:wrapcheck // nothing to add
}

// SyscallConn gives access to the socket, or fails with errors.ErrUnsupported.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	raw, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return raw.SyscallConn() //nolint:wrapcheck // nothing to add
}
