package lmtp_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"dewey/lmtp"
)

// stuffed is a message as DATA sends it: a dot before each that begins a line, and a line begins after CRLF. What
// does not end in CRLF can't be sent by DATA. RFC 5321 sections 4.1.1.4 and 4.5.2.
func stuffed(message string) string {
	s := strings.ReplaceAll("\r\n"+message, "\r\n.", "\r\n..")
	return s[2:] + ".\r\n"
}

// apart is a message as it follows our trace: one that begins with a blank would go on with our last field. RFC 5322
// section 2.2.3.
func apart(message string) string {
	if message != "" && strings.ContainsAny(message[:1], " \t") {
		return "\r\n" + message
	}
	return message
}

// Trap 10: the octets of a message come through as they are, by DATA and by BDAT. No sequence but CRLF.CRLF
// ends one: what others take for an end is content.
func TestTrap10Octets(t *testing.T) {
	b := newBench(t, listen(t, "unix"), nil)
	n := 0
	check := func(message string, chunks []int, writes []int) error {
		n++
		name := fmt.Sprintf("data%d", n)
		in := "LHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<" + name + ">\r\nDATA\r\n" + stuffed(message) + "MAIL FROM:<a@b>\r\nRCPT TO:<b" + name + ">\r\n"
		rest := message
		for _, size := range chunks {
			size = min(size, len(rest))
			in += fmt.Sprintf("BDAT %d\r\n%s", size, rest[:size])
			rest = rest[size:]
		}
		in += fmt.Sprintf("BDAT %d LAST\r\n%sQUIT\r\n", len(rest), rest)
		c := b.dial(t)
		defer c.Close()
		go func() {
			for _, size := range writes {
				size = min(size, len(in))
				_, _ = io.WriteString(c, in[:size])
				in = in[size:]
			}
			_, _ = io.WriteString(c, in)
		}()
		out, err := io.ReadAll(c)
		if want := "220 250 250 250 354 250 250 250" + strings.Repeat(" 250", len(chunks)) + " 250 221"; err != nil || codes(string(out)) != want {
			return fmt.Errorf("%q, %v", out, err)
		}
		for _, owner := range []string{name, "b" + name} {
			if got := b.box.got(owner); len(got) != 1 || content(t, got[0]) != apart(message) {
				return fmt.Errorf("%s: got %.200q, want %.200q\n%s", owner, got, message, out)
			}
		}
		return nil
	}
	for _, m := range []string{
		"", "\r\n", ".\r\n", "..\r\n", "a\n.\nQUIT\r\n", "a\n.\r\nQUIT\r\n", "a\r.\r\nQUIT\r\n", "a\r\n.\nQUIT\r\n", "a\r\n.\rQUIT\r\n", "\n.\r\n\r\n",
		"\r\r\n.\r\n", "x\r\r\n", ".\r\r\n", ".\rX\r\n", "\r\n.\r.\r\n", " x\r\n", "\tx: y\r\n\r\n", "\x00\r\n", "\xff\xfe\r\n", strings.Repeat("x", 1<<20) + "\r\n",
		strings.Repeat("x", 16<<10-1) + "\r\n.\r\n", strings.Repeat("x", 16<<10-2) + "\r\n.\r\n", strings.Repeat("x", 16<<10) + "\r\n.x\r\n",
		strings.Repeat("\r", 40000) + "\r\n", strings.Repeat(".\r\n", 40000), strings.Repeat(".", 70000) + "\r\n",
	} {
		if err := check(m, []int{1, 2}, nil); err != nil {
			t.Errorf("%.60q: %v", m, err)
		}
	}
	octet := rapid.Map(rapid.OneOf(rapid.SampledFrom([]byte("\r\n.\r\n.\x00a")), rapid.Byte()), func(c byte) byte { return c })
	rapid.Check(t, func(t *rapid.T) {
		message := string(rapid.SliceOfN(octet, 0, 200).Draw(t, "message")) + "\r\n"
		if pad := rapid.IntRange(0, 3).Draw(t, "pad"); pad == 0 {
			message = strings.Repeat("y", 16<<10-rapid.IntRange(0, 220).Draw(t, "less")) + message
		}
		chunks := rapid.SliceOfN(rapid.IntRange(0, 90), 0, 4).Draw(t, "chunks")
		writes := rapid.SliceOfN(rapid.IntRange(1, 120), 0, 6).Draw(t, "writes")
		if err := check(message, chunks, writes); err != nil {
			t.Fatal(err)
		}
	})
}

// Trap 53, and what else go-smtp's server does: a message that the client's end cuts is none, and what follows
// one that came too slowly, or a chunk whose size is absurd, is no command (trap53-timeout.txt, bdat-refused.txt).
func TestTrap53Cut(t *testing.T) {
	const env = "LHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<ann@d>\r\n"
	b := newBench(t, listen(t, "tcp"), nil)
	for _, c := range []struct{ in, want string }{
		{env + "BDAT 100 LAST\r\nonly this", "220 250 250 250"},
		{env + "BDAT 5000000000 LAST\r\nNOOP\r\n", "220 250 250 250"},
		{env + "BDAT 99999999999999999999 LAST\r\nNOOP\r\n", "220 250 250 250"},
		{env + "BDAT 0x5 LAST\r\nNOOP\r\n", "220 250 250 250 501"},
		{env + "BDAT -1 LAST\r\nNOOP\r\n", "220 250 250 250 501"},
		{env + "BDAT\r\nNOOP\r\n", "220 250 250 250 501"},
		{env + "BDAT 5\r\n12345", "220 250 250 250 250"},
		{env + "BDAT 5\r\n12345BDAT", "220 250 250 250 250"},
		{env + "DATA\r\n", "220 250 250 250 354"},
		{env + "DATA\r\nx\r\n", "220 250 250 250 354"},
		{env + "DATA\r\nx\r\n.", "220 250 250 250 354"},
		{env + "DATA\r\nx\r\n.\r", "220 250 250 250 354"},
		{env + "DATA\r\nx\n.\n", "220 250 250 250 354"},
		{env + "DATA", "220 250 250 250"},
		{env, "220 250 250 250"},
	} {
		if out := b.ask(t, c.in); codes(out) != c.want {
			t.Errorf("%q: %q, want the codes %s", c.in, out, c.want)
		}
	}
	b.end()
	if len(b.box.mail) > 0 {
		t.Errorf("%q", b.box.mail)
	}
}

// Trap 36: neither a command without end, nor a message of 200 MB in one line, nor one of many, costs memory.
func TestTrap36Memory(t *testing.T) {
	size := int64(200_000_000)
	if testing.Short() {
		size /= 10
	}
	b := newBench(t, listen(t, "unix"), func(s *lmtp.Server) { s.Settings.MaxSize = 1 << 30 })
	b.box.drop = true
	line := bytes.Repeat([]byte("x"), 1<<20)
	lines := bytes.Repeat([]byte("a line of a message that is as long as lines are in most of them, or so\r\n"), 1<<14)
	send := func(c net.Conn, block []byte, n int64) {
		for n > 0 {
			p := block[:min(n, int64(len(block)))]
			if _, err := c.Write(p); err != nil {
				t.Error(err)
				return
			}
			n -= int64(len(p))
		}
	}
	for name, f := range map[string]func(net.Conn){
		"command": func(c net.Conn) { send(c, line, size/10) },
		"one line": func(c net.Conn) {
			fmt.Fprint(c, "LHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<ann@d>\r\nRCPT TO:<bob@d>\r\nDATA\r\n")
			send(c, line, size)
			fmt.Fprint(c, "\r\n.\r\n")
		},
		"lines": func(c net.Conn) {
			fmt.Fprint(c, "LHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<ann@d>\r\nRCPT TO:<bob@d>\r\nDATA\r\n")
			send(c, lines, size/10/int64(len(lines))*int64(len(lines)))
			fmt.Fprint(c, ".\r\n")
		},
		"chunk": func(c net.Conn) {
			fmt.Fprintf(c, "LHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<ann@d>\r\nRCPT TO:<bob@d>\r\nBDAT %d LAST\r\n", size/10)
			send(c, line, size/10)
		},
	} {
		c := b.dial(t)
		runtime.GC()
		var before, now runtime.MemStats
		runtime.ReadMemStats(&before)
		var peak atomic.Uint64
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				peak.Store(max(peak.Load(), m.HeapAlloc))
				select {
				case <-stop:
					return
				case <-time.After(10 * time.Millisecond):
				}
			}
		}()
		began := time.Now()
		go func() { f(c); fmt.Fprint(c, "\r\nQUIT\r\n") }()
		out, err := io.ReadAll(c)
		took := time.Since(began)
		close(stop)
		<-stopped
		runtime.ReadMemStats(&now)
		if err != nil || !strings.HasSuffix(codes(string(out)), "221") {
			t.Errorf("%s: %q, %v", name, out, err)
		}
		allocated, grown := now.TotalAlloc-before.TotalAlloc, int64(peak.Load())-int64(before.HeapAlloc)
		t.Logf("%s: %v, %d octets allocated in all, heap at most %d larger", name, took, allocated, grown)
		if allocated > 4<<20 {
			t.Errorf("%s: %d octets allocated", name, allocated)
		}
	}
	if n := b.box.octets["ann"]; int64(n) < size+size/10 {
		t.Errorf("ann has %d octets", n)
	}
}
