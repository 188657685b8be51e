package message_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"dewey/maildrop/maildroptest"
	"dewey/maildrop/message"
)

// kept is the plain definition of how a Maildir keeps what comes in.
func kept(in []byte) []byte {
	var b []byte
	for i, c := range in {
		if c == '\r' && i+1 < len(in) && in[i+1] == '\n' && (i == 0 || in[i-1] != '\r') {
			continue
		}
		b = append(b, c)
	}
	return b
}

// What is kept has LF line ends and every other octet, wherever the pieces are cut.
func TestWriter(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	for _, c := range []struct{ name, in, kept string }{
		{"empty", "", ""},
		{"CRLF", "a\r\n\r\nb\r\n", "a\n\nb\n"},
		{"LF stays", "a\n\nb\n", "a\n\nb\n"},
		{"mixed", "a\n\r\nb\r\n\n", "a\n\nb\n\n"},
		{"only CRLFs", "\r\n\r\n\r\n", "\n\n\n"},
		{"CR CR LF stays", "a\r\r\nb\r\n", "a\r\r\nb\n"},
		{"CR CR CR LF stays", "\r\r\r\n\r\n", "\r\r\r\n\n"},
		{"a lone CR stays", "a\rb\r\n\rc", "a\rb\n\rc"},
		{"ends in CR", "a\r", "a\r"},
		{"ends in CR CR", "a\r\r", "a\r\r"},
		{"CR alone", "\r", "\r"},
		{"no last line end", "a\r\nb", "a\nb"},
		{"NUL and 8 bit", "\x00\xff\r\n\x00\r\x00\n", "\x00\xff\n\x00\r\x00\n"},
		{"dots", ".\r\n..\r\n.", ".\n..\n."},
		{"a long line", long + "\r\n" + long, long + "\n" + long},
		{"CR at a piece's end", long[:32<<10-1] + "\r\nx", long[:32<<10-1] + "\nx"},
		{"LF at a piece's end", long[:32<<10] + "\r\r\nx", long[:32<<10] + "\r\r\nx"},
	} {
		for _, size := range []int{1, 2, 3, 7, 1 << 15, 1 << 30} {
			if size < 7 && len(c.in) > 100<<10 {
				continue
			}
			var out bytes.Buffer
			w := message.NewWriter(&out)
			for in := c.in; in != ""; in = in[min(size, len(in)):] {
				if n, err := w.Write([]byte(in[:min(size, len(in))])); err != nil || n != min(size, len(in)) {
					t.Fatalf("%s: Write: %d, %v", c.name, n, err)
				}
			}
			got, err := w.Close()
			if err != nil || out.String() != c.kept {
				t.Errorf("%s in pieces of %d: %.80q, %v; want %.80q", c.name, size, out.String(), err, c.kept)
			}
			if want, _ := message.Measure(strings.NewReader(c.kept)); got != want {
				t.Errorf("%s in pieces of %d: sizes %+v, want %+v", c.name, size, got, want)
			}
		}
	}
}

// Any octets, cut anywhere: what is kept follows the definition, and what is sent for it is what would be
// sent for what came in. RFC 1939 section 11.
func TestWriterRandom(t *testing.T) {
	octet := rapid.OneOf(rapid.SampledFrom([]byte("\r\n\r\n.a\x00")), rapid.Byte())
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.SliceOfN(octet, 0, 200).Draw(t, "message")
		if rapid.Bool().Draw(t, "large") {
			in = append(bytes.Repeat([]byte("y"), 32<<10-rapid.IntRange(0, 50).Draw(t, "short of a piece")), in...)
		}
		var out bytes.Buffer
		w := message.NewWriter(&out)
		for rest := in; len(rest) > 0; {
			n := rapid.IntRange(0, min(len(rest), 64)).Draw(t, "cut")
			if len(rest) > 1000 {
				n = 1000
			}
			if _, err := w.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		got, err := w.Close()
		if err != nil || !bytes.Equal(out.Bytes(), kept(in)) {
			t.Fatalf("%q was kept as %q, %v", in, out.Bytes(), err)
		}
		if want, _ := message.Measure(bytes.NewReader(kept(in))); got != want {
			t.Fatalf("%q: sizes %+v, want %+v", in, got, want)
		}
		sent, err := io.ReadAll(message.NewReader(&out))
		if err != nil || !bytes.Equal(sent, maildroptest.Wire(in)) {
			t.Fatalf("%q comes out as %q, %v", in, sent, err)
		}
	})
}

// Trap 9: sizes above 4 GiB.
func TestTrap09WriterCounts(t *testing.T) {
	w := message.NewWriter(io.Discard)
	_, _ = w.Write([]byte("\r\n")) // no header section
	piece := []byte(strings.Repeat("x", 16<<20-2) + "\r\n")
	const pieces = 260
	for range pieces {
		if _, err := w.Write(piece); err != nil {
			t.Fatal(err)
		}
	}
	want := message.Sizes{Stored: 1 + pieces*(16<<20-1), CRLF: 2 + pieces*16<<20}
	if got, err := w.Close(); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
}

// An error stays: nothing that comes later makes a message of what is cut.
func TestWriterError(t *testing.T) {
	fault := errors.New("fault")
	w := message.NewWriter(failing{fault})
	_, _ = w.Write(make([]byte, 1<<20))
	if n, err := w.Write([]byte("x")); n != 0 || !errors.Is(err, fault) {
		t.Errorf("Write: %d, %v", n, err)
	}
	if sizes, err := w.Close(); sizes != (message.Sizes{}) || !errors.Is(err, fault) {
		t.Errorf("Close: %+v, %v", sizes, err)
	}
	w.Discard()

	for _, end := range []func(*message.Writer){(*message.Writer).Discard, func(w *message.Writer) { _, _ = w.Close() }} {
		var out bytes.Buffer
		w := message.NewWriter(&out)
		_, _ = w.Write([]byte("kept\r\n"))
		end(w)
		length := out.Len()
		w.Discard()
		if n, err := w.Write([]byte("late")); n != 0 || err == nil {
			t.Errorf("Write after the end: %d, %v", n, err)
		}
		if _, err := w.Close(); err == nil {
			t.Error("Close after the end has no error")
		}
		if out.Len() != length {
			t.Errorf("written after the end: %q", out.String())
		}
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func BenchmarkWriter(b *testing.B) {
	in := []byte("Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("x", 72)+"\r\n", 1000))
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		w := message.NewWriter(io.Discard)
		_, _ = w.Write(in)
		_, _ = w.Close()
	}
}
