package pop3server_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"dewey/pop3server"
)

// writes counts the writes that go out.
type writes struct {
	net.Conn
	n *atomic.Int64
}

func (w writes) Write(p []byte) (int, error) {
	w.n.Add(1)
	return w.Conn.Write(p) //nolint:wrapcheck // a net.Conn's
}

// The TLS records of a response that fits into the buffer go out in one write, and what needs more of them comes whole.
func TestRecordsGoOutTogether(t *testing.T) {
	for _, c := range []struct {
		octets, most int
	}{{40, 1}, {60_000, 1}, {1_000_000, 40}} {
		t.Run(fmt.Sprint(c.octets), func(t *testing.T) {
			text := strings.Repeat(strings.Repeat("x", 38)+"\r\n", c.octets/40)
			var n atomic.Int64
			b := newBench(t, newShelf(text), func(s *pop3server.Server) {
				withTLS(s)
				s.Wrap = func(_ context.Context, c net.Conn) (net.Conn, error) { return writes{c, &n}, nil }
			})
			v := atOnce(t, b.serveTLS(t))
			v.ask(t, "USER mrose", "+OK")
			v.ask(t, "PASS tanstaaf", fmt.Sprintf("+OK 1 message (%d octets)", c.octets))
			before := n.Load()
			v.ask(t, "RETR 1", fmt.Sprintf("+OK %d octets", c.octets))
			var got strings.Builder
			for line := v.line(t); line != "."; line = v.line(t) {
				got.WriteString(line + "\r\n")
			}
			if got.String() != text {
				t.Error("the message is another one")
			}
			if made := n.Load() - before; made > int64(c.most) {
				t.Errorf("%d writes, more than %d", made, c.most)
			}
		})
	}
}
