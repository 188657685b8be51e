package popwire

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"dewey/internal/dotstuff"
	"dewey/maildrop/message"
	"dewey/pop3"
)

// Lines end in CRLF or LF, have 255 octets at most, and a longer one is reported once. RFC 2449 section 4.
func TestReadLine(t *testing.T) {
	x := func(n int) string { return strings.Repeat("x", n) }
	const long, eof, cut = "!long", "!eof", "!cut"
	for _, c := range []struct {
		name, in string
		want     []string
	}{
		{"none", "", []string{eof}},
		{"two", "STAT\r\nQUIT\r\n", []string{"STAT", "QUIT", eof}},
		{"LF alone", "STAT\nQUIT\n", []string{"STAT", "QUIT", eof}},
		{"empty", "\r\n\n", []string{"", "", eof}},
		{"a CR elsewhere stays", "a\rb\r\r\n", []string{"a\rb\r", eof}},
		{"NUL stays", "a\x00b\r\n", []string{"a\x00b", eof}},
		{"no end", "QUIT", []string{cut}},
		{"CR and no LF", "QUIT\r", []string{cut}},
		{"the longest", x(253) + "\r\nQUIT\r\n", []string{x(253), "QUIT", eof}},
		{"the longest with LF", x(254) + "\nQUIT\r\n", []string{x(254), "QUIT", eof}},
		{"one octet more", x(254) + "\r\nQUIT\r\n", []string{long, "QUIT", eof}},
		{"one more with LF", x(255) + "\nQUIT\r\n", []string{long, "QUIT", eof}},
		{"much longer", x(100000) + "\r\nQUIT\r\n", []string{long, "QUIT", eof}},
		{"two long ones", x(600) + "\n" + x(1024) + "\nQUIT\n", []string{long, long, "QUIT", eof}},
		{"long and no end", x(1000), []string{cut}},
		{"AUTH may be long", "auth " + x(MaxResponse-5) + "\r\nQUIT\r\n", []string{"auth " + x(MaxResponse-5), "QUIT", eof}}, // trap 39
		{"AUTH and one octet more", "AUTH " + x(MaxResponse-4) + "\r\nQUIT\r\n", []string{long, "QUIT", eof}},
		{"AUTH and no end", "AUTH " + x(1000), []string{cut}},
		{"much too long AUTH", "AUTH " + x(1<<20) + "\r\nQUIT\r\n", []string{long, "QUIT", eof}},
		{"AUTHENTIC", "AUTHENTIC " + x(300) + "\r\nQUIT\r\n", []string{long, "QUIT", eof}},
		{"the buffer's size", x(511) + "\n" + x(512) + "\nQUIT\n", []string{long, long, "QUIT", eof}},
	} {
		for name, r := range map[string]io.Reader{
			"whole": strings.NewReader(c.in), "octets": iotest.OneByteReader(strings.NewReader(c.in)),
			"with EOF": iotest.DataErrReader(strings.NewReader(c.in)),
		} {
			lr := NewReader(r)
			for i, want := range c.want {
				got, err := lr.ReadLine()
				switch {
				case errors.Is(err, ErrLongLine):
					got = long
				case err == io.EOF:
					got = eof
				case err == io.ErrUnexpectedEOF:
					got = cut
				case err != nil:
					t.Fatal(err)
				}
				if got != want {
					t.Errorf("%s, %s, line %d: %.60q, want %.60q", c.name, name, i+1, got, want)
					break
				}
			}
		}
	}
}

// A response in a SASL exchange may have 64 KiB, in base64. RFC 5034 section 4.
func TestTrap39Response(t *testing.T) {
	token := base64.StdEncoding.EncodeToString(make([]byte, 64<<10))
	r := NewReader(strings.NewReader(token + "\r\n\r\n*\n" + strings.Repeat("x", MaxResponse+1) + "\r\nQUIT\r\n"))
	for _, want := range []string{token, "", "*"} {
		if got, err := r.ReadResponse(); got != want || err != nil {
			t.Fatalf("%d octets, %v; want %d", len(got), err, len(want))
		}
	}
	if _, err := r.ReadResponse(); !errors.Is(err, ErrLongLine) {
		t.Error(err)
	}
	if got, err := r.ReadLine(); got != "QUIT" || err != nil {
		t.Error(got, err)
	}
}

// An empty challenge is "+ " and nothing else. RFC 5034 section 4.
func TestTrap40Challenge(t *testing.T) {
	var out bytes.Buffer
	w := NewWriter(&out)
	long := bytes.Repeat([]byte("y"), 64<<10)
	for _, c := range [][]byte{{}, nil, []byte("<1@h>"), long} {
		_ = w.Challenge(c)
	}
	_ = w.OK("")
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if want := "+ \r\n+ \r\n+ PDFAaD4=\r\n+ " + base64.StdEncoding.EncodeToString(long) + "\r\n+OK\r\n"; out.String() != want {
		t.Errorf("%.80q", out.String())
	}
}

// Trap 36: a line without end costs no memory.
func TestTrap36EndlessLine(t *testing.T) {
	r := NewReader(io.LimitReader(endless{}, 64<<20))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := r.ReadLine(); err != io.ErrUnexpectedEOF {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 64<<10 {
		t.Errorf("64 MiB of line took %d octets of memory", n)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// A read error is handed on and stays.
func TestReadError(t *testing.T) {
	fault := errors.New("fault")
	r := NewReader(io.MultiReader(strings.NewReader("STAT\r\nQU"), iotest.ErrReader(fault)))
	if l, err := r.ReadLine(); l != "STAT" || err != nil {
		t.Fatal(l, err)
	}
	for range 2 {
		if _, err := r.ReadLine(); !errors.Is(err, fault) {
			t.Fatal(err)
		}
	}
}

// Whatever comes in, in whatever pieces: the lines are those between LFs, each at most as long as it may
// be, and nothing is lost or read twice.
func FuzzReadLine(f *testing.F) {
	f.Add([]byte("USER mrose\r\nPASS a b\r\nQUIT\r\n"), uint8(0))
	f.Add([]byte(strings.Repeat("x", 300)+"\nQUIT\n"), uint8(3))
	f.Add([]byte("\r\n\n\x00\n\r"), uint8(1))
	f.Add([]byte(strings.Repeat("y", 511)+"\n"), uint8(200))
	f.Add([]byte("AUTH PLAIN "+strings.Repeat("A", 900)+"\r\nQUIT\r\n"), uint8(255))
	f.Fuzz(func(t *testing.T, in []byte, size uint8) {
		r := NewReader(chopped{bytes.NewReader(in), int(size) + 1})
		for rest := in; ; {
			buffered := r.Buffered()
			got, err := r.ReadLine()
			line, tail, found := bytes.Cut(rest, []byte("\n"))
			switch {
			case !found && len(rest) == 0:
				if err != io.EOF {
					t.Fatalf("at the end: %q, %v", got, err)
				}
				return
			case !found:
				if err != io.ErrUnexpectedEOF {
					t.Fatalf("inside a line: %q, %v", got, err)
				}
				return
			case len(line)+1 > commandLimit(line):
				if !errors.Is(err, ErrLongLine) {
					t.Fatalf("a line of %d octets: %q, %v", len(line), got, err)
				}
			case err != nil || got != string(bytes.TrimSuffix(line, []byte("\r"))):
				t.Fatalf("%q, %v, want %q (buffered: %v)", got, err, line, buffered)
			}
			rest = tail
		}
	})
}

type chopped struct {
	r    io.Reader
	size int
}

func (p chopped) Read(b []byte) (int, error) { return p.r.Read(b[:min(len(b), p.size)]) }

// A status line has 512 octets at most, ends at a whole character, and has no control octets. RFC 1939
// section 3, RFC 2449 section 8.
func TestStatus(t *testing.T) {
	for _, c := range []struct {
		ok         bool
		code       pop3.Code
		text, want string
	}{
		{true, "", "", "+OK\r\n"},
		{true, "", "2 320", "+OK 2 320\r\n"},
		{false, "", "no such message", "-ERR no such message\r\n"},
		{false, pop3.CodeSysTemp, "later", "-ERR [SYS/TEMP] later\r\n"},
		{false, pop3.CodeAuth, "", "-ERR [AUTH]\r\n"},
		{true, "", "a\r\nb\x00c\x7f", "+OK a??b?c?\r\n"},
		{true, "", strings.Repeat("x", 600), "+OK " + strings.Repeat("x", 506) + "\r\n"},
		{true, "", "x" + strings.Repeat("ü", 300), "+OK x" + strings.Repeat("ü", 252) + "\r\n"},
	} {
		var out bytes.Buffer
		w := NewWriter(&out)
		if c.ok {
			_ = w.OK(c.text)
		} else {
			_ = w.Err(c.code, c.text)
		}
		if out.Len() != 0 {
			t.Error("written before Flush")
		}
		if err := w.Flush(); err != nil || out.String() != c.want {
			t.Errorf("%q, %v, want %q", out.String(), err, c.want)
		}
	}
}

func TestLines(t *testing.T) {
	var out bytes.Buffer
	w := NewWriter(&out)
	_ = w.OK("")
	_ = w.Line(".hidden")
	_ = w.Number(1, 1<<33)
	_ = w.UID(100000, "...")
	_ = w.End()
	_ = w.Flush()
	if want := "+OK\r\n..hidden\r\n1 8589934592\r\n100000 ...\r\n.\r\n"; out.String() != want {
		t.Errorf("%q", out.String())
	}
}

// A message arrives whole or the error says that it did not. Trap 2.
func TestTrap02Message(t *testing.T) {
	fault := errors.New("fault")
	for _, c := range []struct {
		name   string
		r      io.Reader
		octets int64
		cut    bool
	}{
		{"whole", strings.NewReader("a\r\n.b\r\n"), 7, false},
		{"any size", strings.NewReader("a\r\n.b\r\n"), -1, false},
		{"empty", strings.NewReader(""), 0, false},
		{"short", strings.NewReader("a\r\n"), 7, true},
		{"long", strings.NewReader("a\r\n.b\r\n"), 3, true},
		{"no last line end", strings.NewReader("a"), 1, true},
		{"fault", io.MultiReader(strings.NewReader("a\r\n"), iotest.ErrReader(fault)), 7, true},
		{"stuck", stuck{}, 7, true},
		{"stuffed by the reader", message.NewReader(strings.NewReader("a\n.b\n")), 7, false},
		{"stuffed by the reader, short", message.NewReader(strings.NewReader("a\n.\n.")), 11, true},
		{"stuffed by the reader, long", message.NewReader(strings.NewReader("a\n.b\n")), 6, true},
		{"stuffed by the reader, a fault", message.NewReader(io.MultiReader(strings.NewReader(".\n"), iotest.ErrReader(fault))), 3, true},
	} {
		var out bytes.Buffer
		w := NewWriter(&out)
		err := w.Message(c.r, c.octets)
		var cut *ReadError
		if errors.As(err, &cut) != c.cut {
			t.Errorf("%s: %v", c.name, err)
		}
		if !c.cut {
			_ = w.End()
			_ = w.Flush()
			if _, whole := dotstuff.Unstuff(out.Bytes()); !whole {
				t.Errorf("%s: %q", c.name, out.String())
			}
		}
	}
}

type stuck struct{}

func (stuck) Read([]byte) (int, error) { return 0, nil }

// After a failed write nothing more is written, and that is no fault of the message.
func TestWriteError(t *testing.T) {
	w := NewWriter(failing{})
	err := w.Message(io.LimitReader(lines{}, 1<<20), 1<<20)
	var cut *ReadError
	if err == nil || errors.As(err, &cut) {
		t.Error(err)
	}
	if w.OK("") == nil || w.Flush() == nil || w.End() == nil {
		t.Error("goes on after an error")
	}
}

type lines struct{}

func (lines) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '\n'
	}
	return len(p), nil
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func BenchmarkReadLine(b *testing.B) {
	b.ReportAllocs()
	in := strings.NewReader("")
	r := NewReader(in)
	for b.Loop() {
		in.Reset("LIST 1\r\n")
		r.err = nil
		if _, err := r.ReadLine(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkScanListing(b *testing.B) {
	b.ReportAllocs()
	w := NewWriter(io.Discard)
	for b.Loop() {
		for n := range 1000 {
			_ = w.Number(n+1, 20480)
		}
		_ = w.Flush()
	}
}

// A message of nothing but short lines that are all byte-stuffed, and one in which few are, arrive as they are.
func TestTrap01MessageInPlace(t *testing.T) {
	for _, unit := range []string{".\r\n", "..\r\n", "\r\n", ".", "a line without end ", strings.Repeat("x", 75) + "\r\n.\r\n"} {
		for _, size := range []int{1, 3, 700, 16 << 10, 64 << 10, 300_000} {
			want := strings.Repeat(unit, size/len(unit)+1)
			if !strings.HasSuffix(want, "\r\n") {
				want += "\r\n"
			}
			for _, r := range []io.Reader{message.NewReader(strings.NewReader(want)), strings.NewReader(want), iotest.OneByteReader(strings.NewReader(want)), iotest.DataErrReader(strings.NewReader(want))} {
				var out bytes.Buffer
				w := NewWriter(&out)
				if err := errors.Join(w.OK(""), w.Message(r, int64(len(want))), w.End(), w.Flush()); err != nil {
					t.Fatalf("%d octets of %q: %v", size, unit, err)
				}
				got, ok := dotstuff.Unstuff(bytes.TrimPrefix(out.Bytes(), []byte("+OK\r\n")))
				if string(got) != want || !ok {
					t.Errorf("%d octets of %q arrive as %d, ended: %v", size, unit, len(got), ok)
				}
			}
		}
	}
}

// writes counts them.
type writes struct{ n int }

func (w *writes) Write(p []byte) (int, error) {
	w.n++
	return len(p), nil
}

// A message that fits with its last line into what a buffer holds goes out in one write (trap 5).
func TestTrap05OneWrite(t *testing.T) {
	for size := 100; size <= 60_000; size += 97 {
		message := strings.Repeat("x", size-2) + "\r\n"
		var count writes
		w := NewWriter(&count)
		if err := errors.Join(w.OK(""), w.Message(strings.NewReader(message), int64(size)), w.End(), w.Flush()); err != nil || count.n != 1 {
			t.Fatalf("a message of %d octets: %d writes, %v", size, count.n, err)
		}
	}
}

func BenchmarkMessage(b *testing.B) {
	for _, size := range []int{2000, 20_000, 5_000_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			message := []byte(strings.Repeat(strings.Repeat("x", 73)+"\r\n", size/75))
			w := NewWriter(io.Discard)
			r := bytes.NewReader(nil)
			b.SetBytes(int64(len(message)))
			b.ReportAllocs()
			for b.Loop() {
				r.Reset(message)
				if err := errors.Join(w.Message(r, int64(len(message))), w.End(), w.Flush()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
