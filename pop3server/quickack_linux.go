package pop3server

import (
	"io"
	"net"
	"syscall"
)

// A promptReader reads from a connection and acknowledges half a line at once. Some clients, Tcl's
// for one, send a command and its line end in two packets; with a delayed acknowledgement the second
// would wait 40 ms for it, each time. tcp(7), TCP_QUICKACK.
type promptReader struct {
	io.Reader
	conn net.Conn // whose octets they are
}

func (r *promptReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if n > 0 && p[n-1] != '\n' {
		r.acknowledge()
	}
	return n, err
}

func (r *promptReader) acknowledge() {
	c, ok := r.conn.(syscall.Conn)
	if !ok {
		return
	}
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { // at worst the client waits
			_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1)
		})
	}
}
