package attacks

import (
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"dewey/test/chaos/harness"
)

// insecure is a client's configuration: the certificate is one that dewey has made.
func insecure() *tls.Config { return &tls.Config{InsecureSkipVerify: true} } //nolint:gosec // whose it is does not matter here

// Junk where a handshake should be ends the connection soon, with a line in the log; also records of the most octets, of
// none, of kinds that there are not, and what older protocols and other ones say.
func TestTLSJunk(t *testing.T) {
	t.Parallel()
	x := besiege(t)
	r := rand.New(rand.NewPCG(1, 2))
	random := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return string(b)
	}
	hello := "\x16\x03\x01"
	kinds := []func() string{
		func() string { return random(1 + r.IntN(1000)) },
		func() string { return hello + "\xff\xff" + random(1<<16) },
		func() string { return hello + "\x40\x00\x01\x00\xff\xff" + strings.Repeat("\x00", 1<<14) }, // a hello of 64 KiB, in records
		func() string { return strings.Repeat(hello+"\x00\x00", 5000) },
		func() string { return "\x18\x03\x02\x00\x03\x01\x40\x00" + random(100) }, // heartbeat
		func() string { return strings.Repeat("\x15\x03\x03\x00\x02\x01\x00", 5000) },
		func() string { return "\x80\x2e\x01\x00\x02" + random(44) }, // SSLv2
		func() string { return "GET / HTTP/1.1\r\nHost: x\r\n\r\n" },
		func() string {
			return hello + "\x00\x31\x01\x00\x00\x2d\x03\x03" + random(32) + "\x00\x00\x02\x00\x00\x01\x00"
		},
		func() string { return "USER mrose\r\nPASS " + harness.Password + "\r\n" },
	}
	n := harness.Some(5000, 300)
	for i := range n {
		to, before := x.POP3S, ""
		if i%2 == 1 {
			to, before = x.POP3, "STLS\r\n"
		}
		c, err := x.dial(fmt.Sprintf("127.0.4.%d", i%50+1), to)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(harness.Patience))
		junk := kinds[i/2%len(kinds)]()
		go func() { _, _ = io.WriteString(c, before+junk); _ = c.(interface{ CloseWrite() error }).CloseWrite() }()
		out, _ := io.ReadAll(c) // ends, by whatever
		if s := string(out); strings.Contains(s, "+OK") && (before == "" || strings.Count(s, "+OK") > 2) {
			t.Errorf("%.40q is answered: %q", junk, s)
		}
		_ = c.Close()
	}
	x.figures["connections"] = n
	x.end(48, 3*n)
}

// After a handshake: records of no octets, alerts, and what is no record at all, end the one session.
func TestTLSJunkInside(t *testing.T) {
	t.Parallel()
	x := besiege(t)
	n := harness.Some(500, 60)
	for i := range n {
		raw, err := x.dial(fmt.Sprintf("127.0.4.%d", i%50+1), x.POP3S)
		if err != nil {
			t.Fatal(err)
		}
		c := tls.Client(raw, insecure())
		if err := c.Handshake(); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, "CAPA\r\n")
		go func() {
			_, _ = io.WriteString(raw, []string{
				strings.Repeat("\x17\x03\x03\x00\x00", 2000), strings.Repeat("\x17\x03\x03\x00\x10"+strings.Repeat("x", 16), 100),
				"QUIT\r\n", strings.Repeat("\x14\x03\x03\x00\x01\x01", 2000), "\x16\x03\x03\x00\x04\x00\x00\x00\x00",
			}[i%5])
		}()
		out, _ := io.ReadAll(c)
		if strings.Contains(string(out), "bye") {
			t.Errorf("%d: what is not of TLS is taken for a command: %q", i, out)
		}
		_ = raw.Close()
	}
	x.figures["connections"] = n
	x.end(48, 3*n)
}

// Commands that were put behind STLS in plain are not there inside TLS, and what was said before is forgotten. RFC 2595
// section 4; trap 30.
func TestSTLSInjection(t *testing.T) {
	t.Parallel()
	x := besiege(t)
	for _, injected := range []string{
		"USER mrose\r\nPASS " + harness.Password + "\r\nSTAT\r\n", "CAPA\r\n", strings.Repeat("NOOP\r\n", 5000), "USER mrose\r", "\r\n", "AUTH PLAIN\r\n",
	} {
		raw := x.must(x.POP3)
		if _, err := raw.Do("USER mrose"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(raw, "STLS\r\n"+injected); err != nil {
			t.Fatal(err)
		}
		if l, err := raw.In.ReadString('\n'); !strings.HasPrefix(l, "+OK") {
			t.Fatal(l, err)
		}
		inside := tls.Client(raw.Conn, insecure())
		if err := inside.Handshake(); err != nil {
			continue // the octets were taken for a handshake's, and that is as good
		}
		c := &harness.POP3{Conn: inside}
		_, err := io.WriteString(c, "PASS "+harness.Password+"\r\nSTAT\r\nQUIT\r\n")
		out, _ := io.ReadAll(inside)
		if lines := strings.Split(string(out), "\r\n"); err != nil || len(lines) != 4 || !strings.HasPrefix(lines[0], "-ERR") || !strings.HasPrefix(lines[1], "-ERR") || lines[2] != "+OK bye" {
			t.Errorf("behind %.30q: %q, %v", injected, out, err)
		}
	}
	x.end(24, 40)
}
