package pop3server_test

import (
	"context"
	"net"
)

// wrapSecured is a Wrap of a proxy that has TLS with the client.
func wrapSecured(_ context.Context, c net.Conn) (net.Conn, error) { return secured{c, true}, nil }

type secured struct {
	net.Conn
	yes bool
}

func (s secured) Secured() bool { return s.yes }
