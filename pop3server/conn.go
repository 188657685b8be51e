package pop3server

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// conn is a connection whose writes may take as long as they like while they make progress, and end
// with os.ErrDeadlineExceeded when they have made none for the timeout. It lies under TLS, not above:
// a TLS connection is of no use after a write that timed out.
type conn struct {
	net.Conn          // perhaps what Server.Wrap made of it
	accepted net.Conn // as it was accepted
	timeout  time.Duration
	until    time.Time // when a write ends at the latest, if it is set
	served   []byte    // of the certificate that TLS served: see endPoint
	records  *[]byte   // of TLS, that go out together; nil: they go out one by one
}

// Close may be called by any goroutine.
func (c *conn) Close() error { return c.accepted.Close() }

// looks is how often in the timeout a write looks whether it has made progress: when exactly it did,
// the connection does not say.
const looks = 8

func (c *conn) Write(p []byte) (int, error) {
	if c.records != nil && len(*c.records)+len(p) <= cap(*c.records) {
		*c.records = append(*c.records, p...)
		return len(p), nil
	}
	if err := c.flush(); err != nil {
		return 0, err
	}
	return c.write(p)
}

func (c *conn) write(p []byte) (int, error) {
	total := 0
	for moved := time.Now(); ; {
		deadline := time.Now().Add(c.timeout / looks)
		last := !c.until.IsZero() && !deadline.Before(c.until)
		if last {
			deadline = c.until
		}
		if err := c.SetWriteDeadline(deadline); err != nil {
			return total, err
		}
		n, err := c.Conn.Write(p[total:])
		total += n
		if !errors.Is(err, os.ErrDeadlineExceeded) || total == len(p) || last {
			return total, err
		}
		if n > 0 {
			moved = time.Now()
		} else if time.Since(moved) >= c.timeout {
			return total, err
		}
	}
}

// flush writes the records that were gathered.
func (c *conn) flush() error {
	if c.records == nil || len(*c.records) == 0 {
		return nil
	}
	records := *c.records
	*c.records = records[:0]
	_, err := c.write(records)
	return err
}

// A recordWriter writes to a TLS connection. TLS makes a write of each record; here those of one Write go out together.
type recordWriter struct {
	tls  *tls.Conn
	conn *conn // under tls
}

// Four records of 16 KiB, and what TLS adds to them.
var records = sync.Pool{New: func() any { b := make([]byte, 0, 65<<10); return &b }}

func (w *recordWriter) Write(p []byte) (int, error) {
	w.conn.records = records.Get().(*[]byte)
	n, err := w.tls.Write(p)
	if e := w.conn.flush(); err == nil && e != nil {
		n, err = 0, e
	}
	records.Put(w.conn.records)
	w.conn.records = nil
	return n, err //nolint:wrapcheck // as the connection's
}

// addrPort is the address and port of an end of a connection; the zero AddrPort if it has none.
func addrPort(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	if t, ok := a.(*net.TCPAddr); ok {
		ap = t.AddrPort()
	} else if a != nil {
		ap, _ = netip.ParseAddrPort(a.String())
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// isLocal says that the other end is on this machine: at a loopback address, a unix socket or a pipe.
func isLocal(a net.Addr) bool {
	if remote := addrPort(a).Addr(); remote.IsValid() {
		return remote.IsLoopback()
	}
	return a != nil && (a.Network() == "unix" || a.Network() == "pipe")
}
