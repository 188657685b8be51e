package pop3server

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"dewey/auth"
	"dewey/maildrop"
)

// A QUIT that comes when Close has decided and has not aborted its session yet removes nothing.
func TestQuitAfterClose(t *testing.T) {
	drop := &oneMessage{}
	srv := &Server{
		Users: auth.PasswordFunc(func(_ context.Context, a auth.Attempt) (auth.Identity, error) {
			return auth.Identity{User: a.User}, nil
		}),
		Maildrops: drop,
	}
	if err := srv.start(); err != nil {
		t.Fatal(err)
	}
	srv.sessions = make(map[*session]struct{})
	here, there := net.Pipe()
	served := make(chan struct{})
	go func() { defer close(served); srv.serve(context.Background(), there, false) }()
	in := bufio.NewReader(here)
	_, _ = in.ReadString('\n')
	for _, command := range []string{"USER a", "PASS b", "DELE 1"} {
		_, _ = io.WriteString(here, command+"\r\n")
		if line, err := in.ReadString('\n'); !strings.HasPrefix(line, "+OK") {
			t.Fatalf("%s: %q, %v", command, line, err)
		}
	}
	srv.mu.Lock()
	srv.closed = true
	srv.mu.Unlock()
	_, _ = io.WriteString(here, "QUIT\r\n")
	_ = here.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) // for the reply that must not come
	if b, err := in.ReadByte(); err == nil {
		t.Errorf("a reply that begins with %q", b)
	}
	_ = srv.Close()
	<-served
	if drop.removed {
		t.Error("removed")
	}
}

type oneMessage struct{ removed bool }

func (o *oneMessage) Open(context.Context, maildrop.Owner) (maildrop.Maildrop, error) { return o, nil }

func (o *oneMessage) Messages() []maildrop.Message {
	return []maildrop.Message{{UID: "a", Octets: 2}}
}

func (o *oneMessage) Retrieve(context.Context, int) (maildrop.Message, io.ReadCloser, error) {
	return o.Messages()[0], io.NopCloser(strings.NewReader("\r\n")), nil
}
func (o *oneMessage) Remove(context.Context, []int) error { o.removed = true; return nil }
func (o *oneMessage) Close() error                        { return nil }
