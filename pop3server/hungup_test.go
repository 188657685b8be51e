package pop3server_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"

	"dewey/auth"
	"dewey/pop3server"
)

// A client that hangs up while its login waits, for its turn or for a backend, gives its place among the
// connections free: or an address that guesses would keep all others out that are behind it. What would have come
// of the try is not found out.
func TestHungUpWhileLoginWaits(t *testing.T) {
	asked := make(chan struct{})
	b := newBench(t, newShelf(), func(s *pop3server.Server) {
		s.Settings.MaxPerAddress = 1
		s.Users = auth.PasswordFunc(func(ctx context.Context, _ auth.Attempt) (auth.Identity, error) {
			close(asked)
			<-ctx.Done() // a backend that takes its time
			return auth.Identity{}, context.Cause(ctx)
		})
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = b.srv.Serve(l) }() // ends with the bench
	dial := func() (net.Conn, string) {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		greeting, _ := bufio.NewReader(c).ReadString('\n')
		return c, greeting
	}
	c, _ := dial()
	_, _ = io.WriteString(c, "USER a\r\nPASS b\r\n")
	<-asked
	_ = c.Close()
	for { // within a second or so; the test's own time limit ends it otherwise
		c, greeting := dial()
		_ = c.Close()
		if strings.HasPrefix(greeting, "+OK") {
			break
		}
	}
	b.end()
	if log := b.log.String(); !strings.Contains(log, "hung up while its login waited") || strings.Contains(log, "ERROR") {
		t.Error(log)
	}
}

// Exchanges that stop before their proof keep nobody waiting who comes from the same address: there is nothing in them
// to wait for.
func TestHangingExchangesHoldNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, _ := throttled(t, nil)
		for range 50 {
			v := b.visit(t, remote)
			_ = v.line(t)
			client := &scramClient{hash: sha256.New, gs2: "n,,", user: "tim", password: "x"}
			if got := v.say(t, "AUTH SCRAM-SHA-256 "+b64(client.gs2+client.bare())); !strings.HasPrefix(got, "+ ") {
				t.Fatal(got)
			}
		}
		if d := b.try(t, remote, "user", "pencil", "+OK"); d != 0 {
			t.Errorf("a login from there waits %v", d)
		}
		b.end()
	})
}
