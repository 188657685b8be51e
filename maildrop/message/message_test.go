package message_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"dewey/internal/dotstuff"
	"dewey/maildrop/message"
)

// The sizes of a stored message are those of what is sent, whatever its line ends. RFC 1939 section 11.
func TestMeasureAndRead(t *testing.T) {
	big := strings.Repeat(strings.Repeat("y", 70)+"\n", 5000)
	for _, c := range []struct {
		name, stored string
		want         message.Sizes
		sent         string
	}{
		{"empty", "", message.Sizes{}, ""},
		{"LF", "a\n\nb\n", message.Sizes{Stored: 5, CRLF: 8}, "a\r\n\r\nb\r\n"},
		{"CRLF", "a\r\n\r\nb\r\n", message.Sizes{Stored: 8, CRLF: 8}, "a\r\n\r\nb\r\n"},
		{"no last line end", "a\n\nb", message.Sizes{Stored: 4, CRLF: 6, Added: 2}, "a\r\n\r\nb\r\n"},
		{"ends in CR", "a\n\r", message.Sizes{Stored: 3, CRLF: 4, Added: 2}, "a\r\n\r\r\n"},
		{"only LFs", "\n\n\n\n", message.Sizes{Stored: 4, CRLF: 8}, "\r\n\r\n\r\n\r\n"},
		{"only LFs, then no end", "\n\n\nx", message.Sizes{Stored: 4, CRLF: 7, Added: 2}, "\r\n\r\n\r\nx\r\n"},
		{"large", "a\n\n" + big, message.Sizes{Stored: int64(3 + len(big)), CRLF: int64(3 + 2 + len(big) + 5000)}, "a\r\n\r\n" + strings.ReplaceAll(big, "\n", "\r\n")},
	} {
		for name, wrap := range map[string]func(io.Reader) io.Reader{
			"whole": func(r io.Reader) io.Reader { return r }, "octets": iotest.OneByteReader, "with EOF": iotest.DataErrReader, "halves": iotest.HalfReader,
		} {
			got, err := message.Measure(wrap(strings.NewReader(c.stored)))
			if err != nil || got != c.want {
				t.Errorf("%s, %s: %+v, %v, want %+v", c.name, name, got, err, c.want)
			}
			if got.Octets() != int64(len(c.sent)) {
				t.Errorf("%s: %d octets, want %d", c.name, got.Octets(), len(c.sent))
			}
			sent, err := io.ReadAll(message.NewReader(wrap(strings.NewReader(c.stored))))
			if err != nil || string(sent) != c.sent {
				t.Errorf("%s, %s: sent %.80q, %v", c.name, name, sent, err)
			}
			if err := iotest.TestReader(message.NewReader(wrap(strings.NewReader(c.stored))), []byte(c.sent)); err != nil {
				t.Errorf("%s, %s: %v", c.name, name, err)
			}
			for _, size := range []int{1, 2, 3, 15, 16, 17, 31} {
				var out bytes.Buffer
				r := message.NewReader(wrap(strings.NewReader(c.stored)))
				buf := make([]byte, size)
				for {
					n, err := r.Read(buf)
					out.Write(buf[:n])
					if err != nil {
						break
					}
				}
				if out.String() != c.sent {
					t.Fatalf("%s, %s, reads of %d: %.80q", c.name, name, size, out.String())
				}
			}
		}
	}
}

// A read error comes through, and no line end is made up before it (trap 2).
func TestTrap02ReadError(t *testing.T) {
	fault := errors.New("fault")
	r := func() io.Reader { return io.MultiReader(strings.NewReader("a\nb"), iotest.ErrReader(fault)) }
	if _, err := message.Measure(r()); !errors.Is(err, fault) {
		t.Error(err)
	}
	if got, err := io.ReadAll(message.NewReader(r())); !errors.Is(err, fault) || string(got) != "a\r\nb" {
		t.Errorf("%q, %v", got, err)
	}
}

// A message whose header section has UTF-8 has a surrogate, of exactly the size that Measure says; one
// in ASCII, or in another charset, has none. RFC 6856 section 2.1.
func TestSurrogate(t *testing.T) {
	long := strings.Repeat("X-Long: "+strings.Repeat("y", 60)+"\n", 1+message.MaxHeader/69)
	for _, c := range []struct {
		name, stored string
		want         int64 // 1: some
	}{
		{"ASCII", "Subject: a\n\nGrüße\n", 0},
		{"UTF-8", "Subject: Grüße\n\nGrüße\n", 1},
		{"UTF-8 in CRLF", "Subject: Grüße\r\n\r\nGrüße\r\n", 1},
		{"header alone", "Subject: Grüße\n", 1},
		{"header alone without end", "Subject: Grüße", 1},
		{"UTF-8 after an empty header", "\nSubject: Grüße\n\n", 0},
		{"Latin-1", "Subject: Gr\xfc\xdfe\n\nb\n", 0},
		{"UTF-8 and Latin-1", "Subject: Grüße\nX: \xfc\n\nb\n", 0},
		{"long, ASCII", long + "\nGrüße\n", 0},
		{"long, UTF-8", long + "Subject: Grüße\n\nb\n", 1},
		{"long, UTF-8, no end", long + "Subject: Grüße", 1},
		{"long as sent only", strings.Repeat("a:\n", message.MaxHeader/4) + "Subject: Grüße\n\nGrüße\n", 1},
		{"as long as may be", strings.Repeat("a:\n", (message.MaxHeader-17)/4) + "Subject: Grüße\n\nGrüße\n", 1},
		{"long, Latin-1", long + "Subject: \xfc\n\nb\n", 0},
		{"long, UTF-8 after it", long + "\n" + strings.Repeat("ü", 100000), 0},
		{"long, all UTF-8", "X: " + strings.Repeat("ü", 300000) + "\n\n\xfc\n", 1},
	} {
		for name, wrap := range map[string]func(io.Reader) io.Reader{
			"whole": func(r io.Reader) io.Reader { return r }, "with EOF": iotest.DataErrReader, "halves": iotest.HalfReader,
			"pieces": func(r io.Reader) io.Reader { return odd{r} },
		} {
			got, err := message.Measure(wrap(strings.NewReader(c.stored)))
			if err != nil {
				t.Fatal(err)
			}
			if (c.want == 1) != (got.Surrogate > 0) || c.want != 1 && got.Surrogate != c.want {
				t.Errorf("%s, %s: %d", c.name, name, got.Surrogate)
				continue
			}
			if c.want != 1 {
				continue
			}
			r, err := message.NewSurrogate(message.NewReader(wrap(strings.NewReader(c.stored))))
			if err != nil {
				t.Fatal(err)
			}
			sent, err := io.ReadAll(r)
			if err != nil || int64(len(sent)) != got.Surrogate {
				t.Errorf("%s, %s: %d octets, %v, want %d", c.name, name, len(sent), err, got.Surrogate)
			}
			head, body, _ := bytes.Cut(sent, []byte("\r\n\r\n"))
			if i := bytes.IndexFunc(head, func(r rune) bool { return r > 127 }); i >= 0 {
				t.Errorf("%s: header %q", c.name, head)
			}
			_, stored, _ := strings.Cut(c.stored, "\n\n")
			if strings.Contains(c.stored, "\n\n") && string(body) != strings.ReplaceAll(stored, "\n", "\r\n") {
				t.Errorf("%s: body %q", c.name, body)
			}
		}
	}
}

// odd reads in pieces of 61 octets.
type odd struct{ r io.Reader }

func (o odd) Read(p []byte) (int, error) { return o.r.Read(p[:min(len(p), 61)]) }

// At the limit of what is rewritten, Measure and NewSurrogate agree, wherever the pieces end.
func TestSurrogateAtTheLimit(t *testing.T) {
	for _, eol := range []string{"\n", "\r\n"} {
		for octets := message.MaxHeader - 4; octets <= message.MaxHeader+4; octets++ {
			head := "Subject: Grüße" + eol + "X: "
			head += strings.Repeat("x", octets-len(head)-len(eol)) + eol
			for _, rest := range []string{"", eol, eol + "bödy" + eol, "\r"} {
				stored := head + rest
				for cut := octets - 3; cut <= min(octets+3, len(stored)); cut++ {
					pieces := io.MultiReader(strings.NewReader(stored[:cut]), iotest.OneByteReader(strings.NewReader(stored[cut:])))
					sizes, err := message.Measure(pieces)
					if err != nil {
						t.Fatal(err)
					}
					r, err := message.NewSurrogate(message.NewReader(strings.NewReader(stored)))
					if err != nil {
						t.Fatal(err)
					}
					if n, err := io.Copy(io.Discard, r); err != nil || n != sizes.Surrogate {
						t.Fatalf("%d octets, lines end in %q, then %q, cut at %d: %d sent, %v, announced %d", octets, eol, rest, cut, n, err, sizes.Surrogate)
					}
				}
			}
		}
	}
}

// Whatever is stored, the sizes that Measure tells are those of what NewReader and NewSurrogate yield.
func FuzzMeasure(f *testing.F) {
	f.Add([]byte("Subject: Grüße\n\nb"), uint8(1))
	f.Add([]byte("\r\n\r\n.\r\n"), uint8(2))
	f.Add([]byte("a\r\r\n\xff\x00\n"), uint8(60))
	f.Fuzz(func(t *testing.T, stored []byte, size uint8) {
		in := func() io.Reader { return small{bytes.NewReader(stored), int(size) + 1} }
		sizes, err := message.Measure(in())
		if err != nil {
			t.Fatal(err)
		}
		sent, err := io.ReadAll(message.NewReader(in()))
		if err != nil || int64(len(sent)) != sizes.Octets() || sizes.Stored != int64(len(stored)) {
			t.Fatalf("%+v, but %d octets of %d stored, %v", sizes, len(sent), len(stored), err)
		}
		var stuffer dotstuff.Stuffer
		want := stuffer.Append(nil, sent)
		got, added, err := readStuffed(message.NewReader(in()), int(size)*int(size)+1)
		if err != nil || !bytes.Equal(got, want) || added != len(want)-len(sent) {
			t.Fatalf("byte-stuffed: %q, %d octets added, %v; want %q", got, added, err, want)
		}
		if sizes.Surrogate > 0 {
			r, err := message.NewSurrogate(bytes.NewReader(sent))
			if err != nil {
				t.Fatal(err)
			}
			n, err := io.Copy(io.Discard, r)
			if err != nil || n != sizes.Surrogate {
				t.Fatalf("surrogate of %d octets, %v, want %d", n, err, sizes.Surrogate)
			}
		}
	})
}

// readStuffed reads to the end into room for so many octets.
func readStuffed(r *message.Reader, room int) (got []byte, stuffed int, err error) {
	buf := make([]byte, room)
	for {
		n, more, err := r.ReadStuffed(buf)
		got, stuffed = append(got, buf[:n]...), stuffed+more
		switch {
		case err == io.EOF:
			return got, stuffed, nil
		case err != nil:
			return got, stuffed, err
		}
	}
}

// Lines that begin with dots are byte-stuffed while their ends are made, however short they are and whatever the room
// (trap 1). RFC 1939 section 3.
func TestReadStuffed(t *testing.T) {
	for _, c := range []struct{ line, sent string }{
		{".\n", "..\r\n"},
		{"\n", "\r\n"},
		{"..\r\n", "...\r\n"},
		{"x.\n", "x.\r\n"},
		{".a line of some length\n", "..a line of some length\r\n"},
	} {
		for _, room := range []int{1, 2, 15, 16, 17, 100, 1000, 64 << 10, 1 << 20} {
			for _, lines := range []int{1, 7, 30_000} {
				stored, want := strings.Repeat(c.line, lines), strings.Repeat(c.sent, lines)
				got, stuffed, err := readStuffed(message.NewReader(iotest.DataErrReader(strings.NewReader(stored))), room)
				if added := lines * (len(c.sent) - len(strings.ReplaceAll(strings.ReplaceAll(c.line, "\r", ""), "\n", "\r\n"))); err != nil || string(got) != want || stuffed != added {
					t.Errorf("%d lines %q into %d octets: %d octets, want %d; %d added, want %d, %v", lines, c.line, room, len(got), len(want), stuffed, added, err)
				}
			}
		}
	}
	fault := errors.New("fault")
	got, _, err := readStuffed(message.NewReader(io.MultiReader(strings.NewReader(".a\n.b"), iotest.ErrReader(fault))), 100)
	if !errors.Is(err, fault) || string(got) != "..a\r\n..b" {
		t.Errorf("%q, %v", got, err)
	}
}

type small struct {
	r    io.Reader
	size int
}

func (s small) Read(p []byte) (int, error) { return s.r.Read(p[:min(len(p), s.size)]) }

func BenchmarkMeasure(b *testing.B) {
	text := "Subject: a\n\n" + strings.Repeat(strings.Repeat("x", 72)+"\n", 280)
	r := strings.NewReader(text)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		r.Reset(text)
		if _, err := message.Measure(r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadStuffed(b *testing.B) {
	text := "Subject: a\n\n" + strings.Repeat(strings.Repeat("x", 72)+"\n."+strings.Repeat("x", 71)+"\n", 35_000)
	r := strings.NewReader(text)
	buf := make([]byte, 60<<10)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		r.Reset(text)
		sent := message.NewReader(r)
		for {
			if _, _, err := sent.ReadStuffed(buf); err == io.EOF {
				break
			}
		}
	}
}

func BenchmarkRead(b *testing.B) {
	text := "Subject: a\n\n" + strings.Repeat(strings.Repeat("x", 72)+"\n", 70_000)
	r := strings.NewReader(text)
	buf := make([]byte, 60<<10)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		r.Reset(text)
		sent := message.NewReader(r)
		for {
			if _, err := sent.Read(buf); err == io.EOF {
				break
			}
		}
	}
}

// Messages of lines so short that what is added to them does not fit beside them, into room of any size.
func TestReadShortLines(t *testing.T) {
	for _, line := range []string{"\n", "a\n", "abcdef\n", "abcdefg\n", "\r\n", "\r"} {
		stored := strings.Repeat(line, 100_000/len(line))
		want := strings.ReplaceAll(strings.ReplaceAll(stored, "\r\n", "\n"), "\n", "\r\n")
		if !strings.HasSuffix(want, "\n") {
			want += "\r\n"
		}
		for _, room := range []int{1, 2, 15, 16, 17, 1000, 64 << 10, 1 << 20} {
			var got []byte
			buf := make([]byte, room, room+100)
			r := message.NewReader(iotest.DataErrReader(strings.NewReader(stored)))
			for {
				n, err := r.Read(buf)
				if n > room {
					t.Fatalf("%d octets in room for %d", n, room)
				}
				got = append(got, buf[:n]...)
				if err != nil {
					break
				}
			}
			if string(got) != want {
				t.Errorf("%q into %d octets: %d octets, want %d", line, room, len(got), len(want))
			}
		}
	}
}
