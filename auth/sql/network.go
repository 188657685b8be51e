package sqlauth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
)

// A network dials, and knows what is open: drivers leave connections behind for a while, to take leave of a server.
type network struct {
	ctx  context.Context
	stop context.CancelFunc
	mu   sync.Mutex
	open map[*tracked]bool
}

func newNetwork() *network {
	n := &network{open: make(map[*tracked]bool)}
	n.ctx, n.stop = context.WithCancel(context.Background())
	return n
}

// dial connects, until ctx or the network ends.
func (n *network) dial(ctx context.Context, kind, address string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(n.ctx, cancel)()
	conn, err := (&net.Dialer{}).DialContext(ctx, kind, address)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ctx.Err() != nil {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	t := &tracked{conn, n}
	n.open[t] = true
	return t, nil
}

// close ends the network, and cut what is open now.
func (n *network) close() {
	n.stop()
	n.cut()
}

func (n *network) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for t := range n.open {
		_ = t.Conn.Close()
	}
	clear(n.open)
}

// A tracked connection is one that a network knows of.
type tracked struct {
	net.Conn
	of *network
}

func (t *tracked) Close() error {
	t.of.mu.Lock()
	delete(t.of.open, t)
	t.of.mu.Unlock()
	return t.Conn.Close()
}

// SyscallConn lets MySQL's driver look whether the server has hung up.
func (t *tracked) SyscallConn() (syscall.RawConn, error) {
	if c, ok := t.Conn.(syscall.Conn); ok {
		return c.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// local says that a host is this machine, to which passwords may go in plain text.
func local(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().IsLoopback()
	}
	return host == "" || host[0] == '/' || strings.EqualFold(host, "localhost")
}

var errCA = errors.New("the CA has no certificate in it; PEM text would be right")

// roots are whom a certificate must come from; nil: the system's.
func roots(ca []byte) (*x509.CertPool, error) {
	if ca == nil {
		return nil, nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, errCA
	}
	return pool, nil
}

// verifying makes of a TLS configuration one that holds the certificate against the host's name.
func verifying(from *tls.Config, host string, pool *x509.CertPool) *tls.Config {
	c := from.Clone()
	if c == nil {
		c = &tls.Config{} //nolint:gosec // MinVersion is below
	}
	c.InsecureSkipVerify, c.VerifyPeerCertificate, c.VerifyConnection = false, nil, nil
	c.MinVersion, c.ServerName = max(c.MinVersion, tls.VersionTLS12), host
	if pool != nil {
		c.RootCAs = pool
	}
	return c
}
