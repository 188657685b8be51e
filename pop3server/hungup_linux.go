package pop3server

import (
	"encoding/binary"
	"net"
	"syscall"
)

// hungUp says that the client has closed its side, or that the connection broke, as far as can be told
// without reading. tcp(7), TCP_INFO.
func hungUp(c net.Conn) bool {
	const established = 1
	sc, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	state := [4]byte{established}
	_ = raw.Control(func(fd uintptr) { // of a closed one the next read tells
		if n, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_INFO); err == nil {
			binary.NativeEndian.PutUint32(state[:], uint32(n)) //nolint:gosec // its first octet is the state
		}
	})
	return state[0] != established
}
