package bench_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dewey/auth"
	"dewey/bench"
	"dewey/lmtp"
	"dewey/maildrop"
	"dewey/pop3server"
	"dewey/store/mem"
)

const (
	password = "a secret"
	patience = 30 * time.Second
)

func TestMain(m *testing.M) {
	if how := os.Getenv("BENCH_TEST_BURN"); how != "" {
		burn(how)
		return
	}
	goleak.VerifyTestMain(m)
}

// keeper knows u1 to u9 by one password, for APOP too.
type keeper struct{ auth.PasswordFunc }

func (keeper) Serves(mechanism string) bool { return mechanism == "APOP" }

func (keeper) Secret(_ context.Context, user, _ string, _ netip.Addr) (auth.Secret, error) {
	return auth.Secret{Identity: auth.Identity{User: user}, Password: password}, nil
}

// A server is a real dewey over maildrops in memory.
type server struct {
	store       *mem.Store
	plain, tls  string // addresses of POP3
	lmtp        string
	certificate *x509.Certificate
}

func startServer(t *testing.T) *server {
	t.Helper()
	web := httptest.NewTLSServer(http.NotFoundHandler()) // has a certificate for 127.0.0.1
	web.Close()
	s := &server{store: mem.New(), certificate: web.Certificate()}
	quiet := slog.New(slog.DiscardHandler)
	pop := &pop3server.Server{
		Users: keeper{func(_ context.Context, a auth.Attempt) (auth.Identity, error) {
			if a.Password != password {
				return auth.Identity{}, auth.ErrRejected
			}
			return auth.Identity{User: a.User}, nil
		}},
		Maildrops: s.store, Logger: quiet, TLS: &tls.Config{Certificates: web.TLS.Certificates},
	}
	in := &lmtp.Server{
		Recipients: func(_ context.Context, address string) ([]maildrop.Owner, error) {
			name, _, _ := strings.Cut(address, "@")
			if name == "nobody" {
				return nil, lmtp.ErrUnknown
			}
			return []maildrop.Owner{{Name: name}}, nil
		},
		Mail: s.store, Logger: quiet,
	}
	var serving sync.WaitGroup
	serve := func(l net.Listener, f func(net.Listener) error) string {
		serving.Go(func() { _ = f(l) })
		return l.Addr().String()
	}
	s.plain = serve(listen(t), pop.Serve)
	s.tls = serve(listen(t), pop.ServeTLS)
	s.lmtp = serve(listen(t), in.Serve)
	t.Cleanup(func() {
		_ = pop.Close()
		_ = in.Close()
		serving.Wait()
	})
	return s
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// fill puts n messages into each of the maildrops u1 to u4, with lines that begin with dots.
func (s *server) fill(n int) (octets int64) {
	for user := 1; user <= 4; user++ {
		for i := range n {
			s.store.Deliver(fmt.Sprint("u", user), fmt.Appendf(nil, "Subject: %d\n\n.\n..two\n%s\n", i, strings.Repeat(".a line of text\n", 10*i)))
		}
		if user == 1 {
			for _, m := range s.store.Messages("u1") {
				octets += m.Octets
			}
		}
	}
	return octets
}

// options are for 4 users and 2 connections.
func (s *server) options(mode string) bench.Options {
	o := options(s.plain)
	o.TLS = mode
	if mode == bench.Implicit {
		o.Address = s.tls
	}
	if mode != bench.Plain {
		roots := x509.NewCertPool()
		roots.AddCert(s.certificate)
		o.TLSConfig = &tls.Config{ServerName: "127.0.0.1", RootCAs: roots}
	}
	return o
}

func options(address string) bench.Options {
	o := bench.Options{
		Address: address, TLS: bench.Plain, Auth: bench.AuthUser, Connections: 2, Count: 8, Timeout: patience, Depth: 5,
		Commands: []string{"LIST", "UIDL", "TOP", "RETR", "NOOP"}, Login: true, Size: 1000, PerMessage: 1, Sender: "bench@example.org",
	}
	for i := range 4 {
		o.Users = append(o.Users, bench.User{Name: fmt.Sprint("u", i+1), Password: password})
	}
	return o
}

// count finds one in a result; -1: it is not there.
func count(r *bench.Result, what string) int64 {
	for _, c := range r.Counts {
		if c.What == what {
			return c.Count
		}
	}
	return -1
}

func latency(r *bench.Result, phase string) bench.Latency {
	for _, l := range r.Latency {
		if l.Phase == phase {
			return l
		}
	}
	return bench.Latency{}
}

// A liar answers each command by its first word, or by the whole line, with what a table says. What it says ends a
// session: an answer that ends in hangup closes the connection, silence keeps it open and says nothing.
type liar map[string]string

const (
	hangup  = "\x00"
	silence = "\x01"
)

// honest is a maildrop of two messages, of 12 and 8 octets.
var honest = liar{
	"": "+OK <1@example.org>\r\n", "CAPA": "+OK\r\nUSER\r\nPIPELINING\r\n.\r\n", "USER": "+OK\r\n", "PASS": "+OK\r\n", "STLS": "+OK\r\n",
	"STAT": "+OK 2 20\r\n", "LIST": "+OK\r\n1 12\r\n2 8\r\n.\r\n", "UIDL": "+OK\r\n1 a\r\n2 b\r\n.\r\n",
	"LIST 1": "+OK 1 12\r\n", "LIST 2": "+OK 2 8\r\n", "UIDL 1": "+OK 1 a\r\n", "UIDL 2": "+OK 2 b\r\n",
	"TOP 1 0": "+OK\r\na: b\r\n\r\n.\r\n", "TOP 2 0": "+OK\r\nc: d\r\n\r\n.\r\n",
	"RETR 1": "+OK\r\na: b\r\n\r\n..x\r\n.\r\n", "RETR 2": "+OK\r\nc: d\r\n\r\n.\r\n", "DELE": "+OK\r\n", "NOOP": "+OK\r\n", "QUIT": "+OK\r\n" + hangup,

	"LHLO": "250-here\r\n250 PIPELINING\r\n", "MAIL": "250 ok\r\n", "RCPT": "250 ok\r\n", "DATA": "354 go on\r\n", ".": "250 it is there\r\n",
}

// start serves until the test ends. lies are over what is honest.
func (lies liar) start(t *testing.T) string {
	t.Helper()
	l := listen(t)
	var serving sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer context.AfterFunc(ctx, func() { c.Close() })()
				defer c.Close()
				lies.session(c)
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = l.Close()
		serving.Wait()
	})
	return l.Addr().String()
}

func (lies liar) session(c net.Conn) {
	in := bufio.NewScanner(c)
	data := false
	for line := ""; ; line = in.Text() {
		word, _, _ := strings.Cut(line, " ")
		if !data || line == "." {
			data = word == "DATA"
			answer, there := lies[line]
			for _, other := range []struct {
				table liar
				key   string
			}{{lies, word}, {honest, line}, {honest, word}} {
				if !there {
					answer, there = other.table[other.key]
				}
			}
			said, closes := strings.CutSuffix(answer, hangup)
			_, _ = io.WriteString(c, strings.TrimSuffix(said, silence))
			if closes {
				return
			}
		}
		if !in.Scan() {
			return
		}
	}
}
