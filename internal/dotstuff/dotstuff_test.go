package dotstuff

import (
	"bytes"
	"strings"
	"testing"
)

// inPieces feeds text to step in pieces of the given size.
func inPieces(text string, size int, step func(piece []byte)) {
	for len(text) > 0 {
		n := min(size, len(text))
		step([]byte(text[:n]))
		text = text[n:]
	}
}

// Line ends become CRLF and nothing else changes, at whatever octet the pieces are cut; the count is
// that of what is sent. RFC 1939 section 11; traps 3, 6, 7 and 10.
func TestLineEnds(t *testing.T) {
	for _, c := range []struct {
		name, stored, sent string
		added              int64
	}{
		{"empty", "", "", 0},
		{"LF", "a\nb\n", "a\r\nb\r\n", 0},
		{"CRLF stays", "a\r\nb\r\n", "a\r\nb\r\n", 0},
		{"mixed", "a\nb\r\nc\n", "a\r\nb\r\nc\r\n", 0},
		{"no last line end", "a\nb", "a\r\nb", 2},
		{"a lone CR stays", "a\rb\n", "a\rb\r\n", 0},
		{"CR CR LF stays", "a\r\r\n", "a\r\r\n", 0},
		{"LF CR", "a\n\rb", "a\r\n\rb", 2},
		{"ends in CR", "a\r", "a\r", 2},
		{"only LFs", "\n\n\n", "\r\n\r\n\r\n", 0},
		{"NUL and 8-bit", "\x00\xff\n\x00", "\x00\xff\r\n\x00", 2},
	} {
		for size := 1; size <= len(c.stored)+1; size++ {
			var convert, count LineEnds
			var got []byte
			var n int64
			inPieces(c.stored, size, func(p []byte) {
				got = convert.Append(got, p)
				n += count.Count(p)
			})
			if string(got) != c.sent {
				t.Errorf("%s in pieces of %d: %q, want %q", c.name, size, got, c.sent)
			}
			if n != int64(len(c.sent)) {
				t.Errorf("%s in pieces of %d: counted %d, want %d", c.name, size, n, len(c.sent))
			}
			if convert.Added() != c.added || count.Added() != c.added {
				t.Errorf("%s: added %d and %d, want %d", c.name, convert.Added(), count.Added(), c.added)
			}
		}
	}
}

// Trap 1: the first octet of a message is byte-stuffed as that of any other line. Trap 4: nor is it
// lost where two pieces meet.
func TestTrap01Trap04Stuffer(t *testing.T) {
	for _, c := range []struct{ message, sent string }{
		{"", ""},
		{".\r\n", "..\r\n"},
		{"..\r\n", "...\r\n"},
		{".a\r\n.b\r\n", "..a\r\n..b\r\n"},
		{"a.\r\n", "a.\r\n"},
		{"a\r\n.\r\n\r\n.\r\n", "a\r\n..\r\n\r\n..\r\n"},
		{"a\r.\r\n", "a\r.\r\n"},
	} {
		for size := 1; size <= len(c.message)+1; size++ {
			var s Stuffer
			var got []byte
			inPieces(c.message, size, func(p []byte) { got = s.Append(got, p) })
			if string(got) != c.sent {
				t.Errorf("%q in pieces of %d: %q, want %q", c.message, size, got, c.sent)
			}
		}
	}
}

// What a client gets back after taking the byte-stuffing away is the stored message with CRLF line
// ends, whatever its octets and wherever the pieces are cut.
func FuzzRoundTrip(f *testing.F) {
	for _, m := range []string{"", ".", ".\r\n", "a\n.\nb", "..\n", "\r\n.\r\n", "\x00\xff\r.\n", "\n\n.", strings.Repeat(".\n", 9)} {
		f.Add([]byte(m), uint8(3))
	}
	f.Fuzz(func(t *testing.T, stored []byte, cut uint8) {
		size := int(cut)%17 + 1
		var ends, count LineEnds
		var stuff Stuffer
		var crlf, wire []byte
		var n int64
		inPieces(string(stored), size, func(p []byte) {
			piece := ends.Append(nil, p)
			n += count.Count(p)
			crlf = append(crlf, piece...)
			wire = stuff.Append(wire, piece)
		})
		if ends.Added() > 0 {
			crlf = append(crlf, '\r', '\n')
			wire = stuff.Append(wire, []byte("\r\n"))
		}
		if n+count.Added() != int64(len(crlf)) {
			t.Fatalf("counted %d octets of %d", n+count.Added(), len(crlf))
		}
		got, ok := Unstuff(append(wire, ".\r\n"...))
		if !ok || !bytes.Equal(got, crlf) {
			t.Fatalf("stored %q came back as %q (whole: %v)", stored, got, ok)
		}
		// The same said another way: without the CRs before LFs, sent and stored are alike.
		want := strings.ReplaceAll(string(stored), "\r\n", "\n")
		if want != "" && !strings.HasSuffix(want, "\n") {
			want += "\n"
		}
		if got := strings.ReplaceAll(string(crlf), "\r\n", "\n"); got != want {
			t.Fatalf("stored %q was sent as %q", stored, crlf)
		}
		if bare := strings.Count(string(crlf), "\n") - strings.Count(string(crlf), "\r\n"); bare != 0 {
			t.Fatalf("%d bare LFs in %q", bare, crlf)
		}
	})
}

func BenchmarkAppendLF(b *testing.B) {
	src := []byte(strings.Repeat(strings.Repeat("x", 72)+"\n", 500))
	dst := make([]byte, 0, 2*len(src))
	b.SetBytes(int64(len(src)))
	b.ReportAllocs()
	for b.Loop() {
		var e LineEnds
		dst = e.Append(dst[:0], src)
	}
}

func BenchmarkStuff(b *testing.B) {
	src := []byte(strings.Repeat(strings.Repeat("x", 72)+"\r\n", 500))
	dst := make([]byte, 0, 2*len(src))
	b.SetBytes(int64(len(src)))
	b.ReportAllocs()
	for b.Loop() {
		var s Stuffer
		dst = s.Append(dst[:0], src)
	}
}

// In place the octets are those that Append makes.
func FuzzInPlace(f *testing.F) {
	f.Add([]byte(".a\r\n.b\r\nc\r\n"), 3, 2)
	f.Add([]byte("\r\n.\r\n."), 4, 1)
	f.Add(bytes.Repeat([]byte(".a\r\n"), mostInPlace+1), 8, 1000)
	f.Add(append(bytes.Repeat([]byte("."), 100), "\r\n.\r\n"...), 0, 9)
	f.Fuzz(func(t *testing.T, src []byte, cut, room int) {
		if cut < 0 || cut > len(src) || room < 0 || room > 1<<16 {
			return
		}
		var appended, in Stuffer
		want, got := []byte("x"), append(make([]byte, 0, 1+2*len(src)+room), 'x')
		for _, piece := range [][]byte{src[:cut], src[cut:]} {
			want = appended.Append(want, piece)
			at := len(got)
			got = append(got, piece...)
			full := got[:len(got):min(cap(got), len(got)+room)]
			if b, ok := in.InPlace(full, at); ok {
				got = append(got[:at], b[at:]...)
			} else {
				got = in.Append(got[:at], bytes.Clone(piece))
			}
		}
		if !bytes.Equal(got, want) || in != appended {
			t.Errorf("%q in place, want %q", got, want)
		}
	})
}

// The next line with a dot is found wherever it is among others.
func TestNextDotLine(t *testing.T) {
	for size := range 40 {
		for _, fill := range []string{"x", "\n", ".", "\r", "\x0b", "/", "\x8a", "\xae"} {
			for at := 1; at < size; at++ {
				text := strings.Repeat(fill, size)
				text = text[:at-1] + "\n." + text[at+1:]
				want := strings.Index(text, "\n.") + 1
				if got := nextDotLine([]byte(text)); got != want {
					t.Fatalf("%q: %d, want %d", text, got, want)
				}
			}
			if got := nextDotLine(bytes.Repeat([]byte(fill), size)); got != size {
				t.Errorf("%d times %q: %d", size, fill, got)
			}
		}
	}
}
