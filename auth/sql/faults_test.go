package sqlauth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dewey/auth"
)

const short = 400 * time.Millisecond // a timeout

// sleeping is a query that takes its time.
var sleeping = map[string]string{
	Postgres: "SELECT secret AS password FROM users WHERE name = {user} AND pg_sleep(20) IS NOT NULL",
	MySQL:    "SELECT secret AS password FROM users WHERE name = {user} AND SLEEP(20) = 0",
}

// busy counts the queries of dewey's that run.
var busy = map[string]string{
	Postgres: "SELECT 'busy' || count(*) FROM pg_stat_activity WHERE usename = 'tester' AND state = 'active'",
	MySQL:    "SELECT CONCAT('busy', COUNT(*)) FROM information_schema.processlist WHERE user = 'tester' AND command <> 'Sleep'",
}

func (s *server) busy(t *testing.T, n int) bool {
	t.Helper()
	cmd := exec.Command(s.client[0], s.client[1:]...)
	cmd.Stdin = strings.NewReader(busy[s.kind])
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.TrimSpace(string(out)) == fmt.Sprint("busy", n)
}

func servers(t *testing.T, test func(t *testing.T, s *server)) {
	for _, s := range []*server{postgresServer, mariaServer} {
		s.start(t)
		t.Run(s.kind, func(t *testing.T) { test(t, s) })
	}
}

func recovers(t *testing.T, b *Backend) {
	t.Helper()
	eventually(t, "it works again", func() bool { _, err := login(t, b, "bob", "tanstaaf"); return err == nil })
}

func TestServerThatIsStopped(t *testing.T) {
	servers(t, func(t *testing.T, s *server) {
		b := open(t, Config{Driver: s.kind, DSN: s.dsn(), Timeout: short})
		slow := open(t, Config{Driver: s.kind, DSN: s.dsn(), Timeout: 3 * time.Second, UserQuery: sleeping[s.kind]})
		works(t, b)
		var group sync.WaitGroup
		group.Go(func() {
			start := time.Now()
			_, err := login(t, slow, "bob", "tanstaaf")
			if err == nil || errors.Is(err, auth.ErrRejected) || time.Since(start) > 5*time.Second {
				t.Errorf("stopped in mid-query: %v after %v", err, time.Since(start))
			}
		})
		eventually(t, "the query runs", func() bool { return s.busy(t, 1) })
		s.signal(t, syscall.SIGSTOP)
		defer s.signal(t, syscall.SIGCONT)
		for range 3 {
			inTime(t, b, short)
		}
		group.Wait()
		start := time.Now()
		must(t, slow.Close())
		if took := time.Since(start); took > time.Second {
			t.Errorf("Close took %v", took)
		}
		_, err := login(t, slow, "bob", "tanstaaf")
		faults(t, err)
		s.signal(t, syscall.SIGCONT)
		recovers(t, b)
	})
}

func TestServerThatDies(t *testing.T) {
	servers(t, func(t *testing.T, s *server) {
		b := open(t, Config{Driver: s.kind, DSN: s.dsn(), Timeout: 2 * time.Second})
		var group sync.WaitGroup
		for range 8 { // so that more than one connection is open
			group.Go(func() { _, _ = login(t, b, "bob", "tanstaaf") })
		}
		group.Wait()
		s.stop()
		s.launch(t)
		works(t, b) // at once: the connections of before have ended
		s.stop()
		for range 3 {
			inTime(t, b, 2*time.Second)
		}
		start := time.Now()
		_, err := login(t, b, "bob", "tanstaaf")
		faults(t, err)
		if took := time.Since(start); took > short {
			t.Errorf("with a server that is down, a login takes %v", took)
		}
		s.launch(t)
		recovers(t, b)
	})
}

func TestTableThatIsLocked(t *testing.T) {
	lock := map[string]string{
		Postgres: "\\c test\nBEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE; SELECT 'locked';\n",
		MySQL:    "USE test; LOCK TABLES users WRITE; SELECT 'locked';\n",
	}
	servers(t, func(t *testing.T, s *server) {
		b := open(t, Config{Driver: s.kind, DSN: s.dsn(), Timeout: short, Connections: 4})
		works(t, b)
		client := s.client
		if s.kind == MySQL {
			client = append(client[:len(client):len(client)], "--unbuffered")
		}
		holder := exec.Command(client[0], client[1:]...)
		in, err := holder.StdinPipe()
		must(t, err)
		out, err := holder.StdoutPipe()
		must(t, err)
		must(t, holder.Start())
		defer func() { _ = holder.Wait() }()
		defer in.Close()
		_, err = io.WriteString(in, lock[s.kind])
		must(t, err)
		_, err = io.ReadFull(out, make([]byte, len("locked")))
		must(t, err)
		for range 6 { // more than there are connections
			inTime(t, b, short)
		}
		eventually(t, "no query is left in the server", func() bool { return s.busy(t, 0) })
		must(t, in.Close())
		recovers(t, b)
	})
}

func TestNoConnectionIsFree(t *testing.T) {
	servers(t, func(t *testing.T, s *server) {
		b := open(t, Config{Driver: s.kind, DSN: s.dsn(), Timeout: 5 * time.Second, Connections: 1, UserQuery: sleeping[s.kind], RecipientQuery: userQuery})
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		group.Go(func() {
			_, err := b.CheckPassword(ctx, auth.Attempt{User: "bob", Password: "tanstaaf"})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("the client hung up: %v", err)
			}
		})
		eventually(t, "the query runs", func() bool { return s.busy(t, 1) })
		within, stop := context.WithTimeout(t.Context(), short)
		defer stop()
		_, err := b.Recipient(within, "bob")
		faults(t, err)
		cancel()
		group.Wait()
		// That a client has hung up says nothing of the server.
		if _, err := b.Recipient(t.Context(), "bob"); err != nil {
			t.Error(err)
		}
	})
}

func TestServerThatRefuses(t *testing.T) {
	servers(t, func(t *testing.T, s *server) {
		for what, dsn := range map[string]string{
			"wrong password": strings.Replace(s.dsn(), "S3cret", "S3cretX", 1),
			"wrong user":     strings.Replace(s.dsn(), "tester:", "dewdrop:", 1),
			"wrong database": strings.Replace(s.dsn(), "/test", "/post", 1),
			"wrong port":     strings.Replace(s.dsn(), fmt.Sprint(s.port), fmt.Sprint(freePort(t)), 1),
			"wrong socket":   strings.Replace(s.socketDSN(), "dewey-", "doowey-", 1),
		} {
			b := open(t, Config{Driver: s.kind, DSN: dsn})
			_, err := login(t, b, "bob", "tanstaaf")
			faults(t, err)
			_, again := login(t, b, "bob", "tanstaaf")
			faults(t, again)
			t.Logf("%s: %v", what, err)
		}
		b := open(t, Config{Driver: s.kind, DSN: s.socketDSN()})
		works(t, b)
	})
}

// A listener does to each connection what it is told, until the test's end.
func listener(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var group sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	group.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() {
				defer conn.Close()
				defer context.AfterFunc(ctx, func() { conn.Close() })()
				serve(conn)
			})
		}
	})
	t.Cleanup(func() { cancel(); l.Close(); group.Wait() })
	return l.Addr().String()
}

func TestServerThatIsNone(t *testing.T) {
	maria := func(body string) string {
		return string([]byte{byte(len(body)), 0, 0, 0}) + body
	}
	for name, says := range map[string]string{
		"silence": "", "SSH": "SSH-2.0-OpenSSH_9.2\r\n", "HTTP": "HTTP/1.1 400 Bad Request\r\n\r\n", "zeros": strings.Repeat("\x00", 5000), "ones": strings.Repeat("\xff", 5000),
		"no payload": maria(""), "one octet": maria("\n"), "an error cut": maria("\xff\x01"), "no version": maria("\n8.0.0"), "cut": maria("\n8.0.0\x00abcdabcdefgh\x00\xff\xff"),
		"postgres error": "E\x00\x00\x00\x10SFATAL\x00M\x00\x00\x00", "huge": "R\x7f\xff\xff\xff\x00\x00\x00\x00", "TLS, then nonsense": "SR\x00\x00\x00\x04", "no TLS": "N",
	} {
		for _, kind := range []string{Postgres, MySQL} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				addr := listener(t, func(conn net.Conn) {
					_, _ = io.WriteString(conn, says)
					_, _ = io.Copy(io.Discard, conn)
				})
				dsn := "postgres://dewey:S3cret@" + addr + "/mail"
				if kind == MySQL {
					dsn = "dewey:S3cret@tcp(" + addr + ")/mail"
				}
				inTime(t, open(t, Config{Driver: kind, DSN: dsn, Timeout: short}), short)
			})
		}
	}
}

// Octets that change on their way do no more than spoil an answer. Seeded, so that it is the same each time.
func TestAnswersThatAreSpoilt(t *testing.T) {
	servers(t, func(t *testing.T, s *server) {
		var mu sync.Mutex
		random := rand.New(rand.NewPCG(1, 2))
		addr := listener(t, func(conn net.Conn) {
			up, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port))
			if err != nil {
				return
			}
			defer up.Close()
			go func() { _, _ = io.Copy(up, conn); up.Close() }()
			mu.Lock()
			skip, chance := random.IntN(600), 1+random.IntN(60)
			mu.Unlock()
			buffer := make([]byte, 4096)
			for {
				n, err := up.Read(buffer)
				mu.Lock()
				for i := range buffer[:n] {
					if skip--; skip < 0 && random.IntN(chance) == 0 {
						buffer[i] = byte(random.IntN(256))
					}
				}
				mu.Unlock()
				if _, werr := conn.Write(buffer[:n]); err != nil || werr != nil {
					conn.Close()
					return
				}
			}
		})
		dsn := strings.Replace(s.dsn(), fmt.Sprintf("127.0.0.1:%d", s.port), addr, 1)
		if s.kind == Postgres {
			dsn += "?sslmode=disable"
		}
		b := open(t, Config{Driver: s.kind, DSN: dsn, Timeout: 100 * time.Millisecond, Connections: 2})
		for range 150 {
			start := time.Now()
			_, err := login(t, b, "bob", "tanstaaf")
			if took := time.Since(start); took > 3*time.Second {
				t.Fatalf("%v: %v", took, err)
			}
			if err != nil && (strings.Contains(err.Error(), "S3cret") || strings.Contains(err.Error(), "\x00")) {
				t.Fatalf("%q", err)
			}
			b.link.mu.Lock()
			b.link.err = nil // no back-off, to see more
			b.link.mu.Unlock()
		}
	})
}
