package pop3server_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"testing"

	"dewey/auth"
	"dewey/maildrop"
	"dewey/pop3server"
)

// What an idle session takes at most, in octets of heap and stack, its client's socket in this process counted; and
// how often a poll allocates, its client included. The race detector's own needs come on top: slack.
const (
	idlePlain  = 9 << 10
	idleTLS    = 17 << 10
	pollAllocs = 130
)

// anyone lets everybody in, and has the session's stack grow for it.
type anyone struct{}

func (anyone) CheckPassword(_ context.Context, a auth.Attempt) (auth.Identity, error) {
	return auth.Identity{User: a.User[deep(10):]}, nil
}

// deep is 0.
func deep(calls int) byte {
	var frame [1 << 10]byte
	if calls == 0 {
		return frame[calls]
	}
	return deep(calls-1) + frame[calls]
}

// still is a maildrop.Store of maildrops that are one and the same.
type still struct{ maildrop.Maildrop }

func (s still) Open(context.Context, maildrop.Owner) (maildrop.Maildrop, error) { return s, nil }
func (still) Messages() []maildrop.Message                                      { return []maildrop.Message{{UID: "1", Octets: 40_000}} }
func (still) Close() error                                                      { return nil }
func (still) Retrieve(context.Context, int) (maildrop.Message, io.ReadCloser, error) {
	return maildrop.Message{UID: "1", Octets: 40_000}, io.NopCloser(strings.NewReader(strings.Repeat(strings.Repeat("x", 78)+"\r\n", 500))), nil
}

// idleServer serves still on a loopback address, and says where.
func idleServer(t testing.TB, implicit bool) string {
	t.Helper()
	srv := &pop3server.Server{Users: anyone{}, Maildrops: still{}, TLS: serverTLS(), Logger: slog.New(slog.DiscardHandler)}
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error)
	go func() {
		if implicit {
			served <- srv.ServeTLS(l)
		} else {
			served <- srv.Serve(l)
		}
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-served
	})
	return l.Addr().String()
}

// converse sends commands, each when the one before was answered, and reads multi-line responses to their end.
func converse(t testing.TB, c net.Conn, commands ...string) {
	t.Helper()
	in := bufio.NewReaderSize(c, 512)
	for _, command := range append([]string{""}, commands...) {
		if command != "" {
			if _, err := io.WriteString(c, command+"\r\n"); err != nil {
				t.Fatal(err)
			}
		}
		line, err := in.ReadString('\n')
		if err != nil || line[0] != '+' {
			t.Fatalf("%s: %q, %v", command, line, err)
		}
		for multi := strings.HasPrefix(command, "CAPA") || strings.HasPrefix(command, "UIDL") || strings.HasPrefix(command, "RETR"); multi; {
			line, err := in.ReadSlice('\n')
			if err != nil {
				t.Fatal(err)
			}
			multi = string(line) != ".\r\n"
		}
	}
}

func TestIdleSession(t *testing.T) {
	for _, implicit := range []bool{false, true} {
		t.Run(fmt.Sprint("TLS ", implicit), func(t *testing.T) {
			address, limit := idleServer(t, implicit), int64(idlePlain)
			if implicit {
				limit = idleTLS
			}
			const sessions = 200
			taken := func() int64 {
				var m runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&m)
				return int64(m.HeapAlloc + m.StackInuse)
			}
			var held []net.Conn
			connect := func(i int) {
				c, err := net.Dial("tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				held = append(held, c)
				if implicit {
					c = tls.Client(c, clientTLS())
				}
				converse(t, c, "CAPA", fmt.Sprint("USER ", i), "PASS x", "STAT", "UIDL", "RETR 1")
			}
			t.Cleanup(func() {
				for _, c := range held {
					_ = c.Close()
				}
			})
			for i := range 5 { // what is made once
				connect(i)
			}
			taken()
			before := taken()
			for i := range sessions {
				connect(i)
			}
			var each int64
			for range 10 { // each collection halves stacks that are too large
				if each = (taken() - before) / sessions; each <= slack*limit {
					return
				}
			}
			t.Errorf("an idle session takes %d octets, more than %d", each, slack*limit)
		})
	}
}

// A poll that finds nothing new allocates no more often than is stated.
func TestPollAllocates(t *testing.T) {
	address := idleServer(t, false)
	allocs := testing.AllocsPerRun(300, func() {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		converse(t, c, "CAPA", "USER x", "PASS x", "STAT", "UIDL", "QUIT")
	})
	if allocs > slack*pollAllocs {
		t.Errorf("a poll allocates %v times, more than %d", allocs, slack*pollAllocs)
	}
}
