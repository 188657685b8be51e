//go:build !linux

package pop3server

import "net"

// A promptReader is of use on Linux alone.
type promptReader struct{ net.Conn }
