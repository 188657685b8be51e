package attacks

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dewey/test/chaos/harness"
)

// Connections that say nothing: an address has its bound, and is told; beyond the bound of all that have not logged in
// the oldest go, and whoever comes gets in.
func TestSilentConnections(t *testing.T) {
	t.Parallel()
	x := besiege(t, "login.max_unauthenticated=300")
	var held []*harness.POP3
	told := 0
	for i := range harness.Some(5000, 600) {
		from := fmt.Sprintf("127.0.2.%d", i/120+1)
		c, err := x.pop3(from, x.POP3)
		switch {
		case err == nil:
			x.open = append(x.open, c)
			held = append(held, c)
		case harness.IsRefusal(err) && strings.Contains(err.Error(), "-ERR [SYS/TEMP]"):
			told++
		default:
			t.Fatal(i, err)
		}
	}
	harness.Await(t, "the oldest to be dropped", func() bool { return x.descriptors() <= x.files+8+300 })
	if _, err := held[0].In.ReadByte(); err != io.EOF && !isReset(err) {
		t.Errorf("the oldest: %v", err)
	}
	if _, err := held[len(held)-1].Do("CAPA"); err != nil {
		t.Errorf("the youngest: %v", err)
	}
	x.figures["held"], x.figures["told"] = len(held), told
	if told == 0 {
		t.Error("no address was told that it has too many")
	}
	x.end(32, 2*told+2*len(held))
}

func isReset(err error) bool { return strings.Contains(fmt.Sprint(err), "connection reset") }

// Silence at each stage at which the server waits for somebody: in the handshake of TLS, after STLS, inside TLS, in an
// exchange, with half a line said, with half a message; and LMTP's bound.
func TestHalfOpen(t *testing.T) {
	t.Parallel()
	x := besiege(t)
	for i := range harness.Some(100, 20) {
		from := fmt.Sprintf("127.0.3.%d", i+1)
		for to, said := range map[string][]string{
			x.POP3S: {"", "\x16\x03\x01\x02\x00\x01"},
			x.POP3:  {"STLS\r\n", "STLS\r\n\x16\x03\x01", "AUTH PLAIN\r\n", "USER mro", "USER mrose\r\nPASS", "STLS\r\n\x80\x2e\x01"},
			x.LMTP:  {"LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<mrose>\r\nDATA\r\nSubject:", "LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<mrose>\r\nBDAT 1000000 LAST\r\nx", "LH"},
		} {
			for _, text := range said {
				c, err := x.dial(from, to)
				if err == nil {
					x.open = append(x.open, c)
					_, err = io.WriteString(c, text)
				}
				if err != nil && !isReset(err) && !strings.Contains(err.Error(), "broken pipe") { // LMTP has 100 places
					t.Fatal(err)
				}
			}
		}
	}
	x.figures["held"] = len(x.open)
	x.end(64, 3*len(x.open))
}

// Many connections one after the other, and as many at once as an address may have, each ended in another way. Whoever
// polls from elsewhere does not notice, and nothing is left.
func TestManyConnections(t *testing.T) {
	t.Parallel()
	x := besiege(t)
	n := harness.Some(100_000, 4000)
	start := time.Now()
	work := make(chan int)
	const at = 120 // once: more than an address may have
	results := make(chan [2]int)
	for range at {
		go func() {
			var sum [2]int
			for i := range work {
				kind, err := x.visit(i)
				if err != nil {
					t.Error(err)
				} else {
					sum[kind]++
				}
			}
			results <- sum
		}()
	}
	for i := range n {
		work <- i
	}
	close(work)
	var sum [2]int
	for range at {
		s := <-results
		sum[0], sum[1] = sum[0]+s[0], sum[1]+s[1]
	}
	x.figures["connections"], x.figures["greeted"], x.figures["told"] = n, sum[0], sum[1]
	x.figures["each_second"] = int(float64(n) / time.Since(start).Seconds())
	x.end(48, 2*n)
}

// visit connects, and leaves in one of five ways. It returns 0 if it was greeted or did not look, 1 if it was told that
// there are too many.
func (x *siege) visit(i int) (int, error) {
	c, err := x.dial("127.0.0.1", x.POP3)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	tcp := c.(*net.TCPConn)
	_ = tcp.SetLinger(0) // no TIME_WAIT, or the ports of the address would be used up
	switch i % 5 {
	case 0: // at once
		return 0, nil
	case 1: // in the middle of a line
		_, _ = io.WriteString(c, "USER mro")
		return 0, nil
	case 2: // with replies that nobody reads
		_, _ = io.WriteString(c, strings.Repeat("CAPA\r\n", 10))
		return 0, nil
	case 3: // with all said
		_ = tcp.CloseWrite()
	default:
		_, _ = io.WriteString(c, "QUIT\r\n")
	}
	text, err := io.ReadAll(c)
	switch {
	case strings.HasPrefix(string(text), "+OK"):
		return 0, nil
	case strings.HasPrefix(string(text), "-ERR [SYS/TEMP]"):
		return 1, nil
	case isReset(err):
		return 0, nil
	}
	return 0, fmt.Errorf("%q, %w", text, err)
}

// A client that vanishes without a word (its machine has lost power) keeps neither its maildrop nor a descriptor for much
// longer than a minute: the kernel asks (tcp(7), SO_KEEPALIVE).
func TestVanished(t *testing.T) {
	t.Parallel()
	x := besiege(t)
	x.put("mrose", "1.a", harness.Text("mine", 0))
	in := x.in()
	if _, err := in.Do("DELE 1"); err != nil {
		t.Fatal(err)
	}
	clients := []*harness.POP3{in}
	for range 20 {
		clients = append(clients, x.must(x.POP3))
	}
	for _, c := range clients {
		vanish(t, c.Conn.(*net.TCPConn))
	}
	start := time.Now()
	var again *harness.POP3
	x.Await("the maildrop of a client that has vanished", func() bool { // 2 s for each try: see the store's lock
		if time.Since(start) > harness.Patience-5*time.Second {
			t.Fatal("the maildrop is still held")
		}
		c, err := x.pop3("127.0.0.5", x.POP3)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Login("mrose"); err != nil {
			_ = c.Close()
			return false
		}
		again = c
		return true
	})
	x.figures["free_after_s"] = int(time.Since(start).Seconds())
	seen, err := again.Fetch()
	if err != nil || len(seen) != 1 {
		t.Errorf("%d messages, %v: nothing may be removed without QUIT", len(seen), err)
	}
	_ = again.Close()
	x.open = nil // they are gone
	x.end(24, 60)
}

// vanish closes a socket so that the other end is told nothing: neither FIN nor RST is sent, as after a power cut. Where
// the kernel does not let us (TCP_REPAIR is root's), what comes next is as near: packets that nobody answers can't be had.
func vanish(t *testing.T, c *net.TCPConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		// What came is acknowledged first, or the other end would send it again, and find at once that nobody is here.
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1)
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, 1)
	})
	if err == nil && failed == syscall.EPERM && os.Getuid() != 0 {
		_ = c.SetLinger(0)
	} else if err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}
