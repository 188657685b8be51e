package mailfile_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"

	"dewey/mailfile"
)

// readAll returns the messages of an mbox, each with its time in front.
func readAll(t interface{ Fatal(...any) }, r io.Reader, q mailfile.Quoting) []string {
	m := mailfile.NewMbox(r, q)
	var all []string
	for {
		at, err := m.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(m)
		if err != nil {
			t.Fatal(err)
		}
		when := "-"
		if !at.IsZero() {
			when = at.UTC().Format(time.DateTime)
		}
		all = append(all, when+"|"+string(text))
	}
}

func TestMbox(t *testing.T) {
	const text = "From a@b Thu Jan  1 00:00:01 1998\nSubject: 1\n\n" +
		"From here on\n\nFrom here, too\n>From x\n>>From x\n> From x\n>Fromage\n\n\n" +
		"From - Fri Feb 13 10:00 2004\nSubject: 2\nContent-Length: 5\n\n\nb\n" +
		"From c d  Sun, 29 Feb 2004 10:00:00 -0130\n\n" +
		"From nobody\n\nFrom e Mon Mar 1 24:61:00 2004\n"
	for q, want := range map[mailfile.Quoting]string{
		mailfile.QuotingRD:   "From x\n>From x\n",
		mailfile.QuotingO:    "From x\n>>From x\n",
		mailfile.QuotingNone: ">From x\n>>From x\n",
	} {
		want := []string{
			"1998-01-01 00:00:01|Subject: 1\n\nFrom here on\n\nFrom here, too\n" + want + "> From x\n>Fromage\n\n",
			"2004-02-13 10:00:00|Subject: 2\nContent-Length: 5\n\n\nb\n",
			"2004-02-29 11:30:00|\nFrom nobody\n\nFrom e Mon Mar 1 24:61:00 2004\n",
		}
		for name, r := range map[string]io.Reader{
			"whole": strings.NewReader(text), "octets": iotest.OneByteReader(strings.NewReader(text)),
		} {
			if got := readAll(t, r, q); !slices.Equal(got, want) {
				t.Errorf("quoting %d, %s:\n%q, want\n%q", q, name, got, want)
			}
		}
	}
	m := mailfile.NewMbox(strings.NewReader(text), mailfile.QuotingRD)
	for err := error(nil); err == nil; _, err = m.Next() {
	}
	if m.Doubtful() != 4 || m.Cut() {
		t.Errorf("%d doubtful lines; cut: %v", m.Doubtful(), m.Cut())
	}
}

func TestMboxEdges(t *testing.T) {
	const line = "From a Thu Jan  1 00:00:01 1998"
	for text, want := range map[string][]string{
		"":                         nil,
		"\n\r\n":                   nil,
		line + "\n":                {"1998-01-01 00:00:01|"},
		line + "\n\n":              {"1998-01-01 00:00:01|"},
		line + "\n\n\n":            {"1998-01-01 00:00:01|\n"},
		"\n\n" + line + "\r\n\r\n": {"1998-01-01 00:00:01|"},
		line + "\nx":               {"1998-01-01 00:00:01|x"}, // cut
		line + "\nx\n\n" + line:    {"1998-01-01 00:00:01|x\n\n" + line},
		"From a\nx\n" + line + "\n" + line + "\r\nx\r\n\r\n" + line + "\n": {
			"-|x\n", "1998-01-01 00:00:01|", "1998-01-01 00:00:01|x\r\n", "1998-01-01 00:00:01|",
		},
	} {
		if got := readAll(t, strings.NewReader(text), mailfile.QuotingRD); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	for _, text := range []string{"Subject: x\n", "\nx", "From", "From a"} {
		m := mailfile.NewMbox(strings.NewReader(text), mailfile.QuotingRD)
		for range 2 {
			if _, err := m.Next(); !errors.Is(err, mailfile.ErrNoMbox) {
				t.Errorf("%q: %v", text, err)
			}
		}
	}
}

// Forms of From lines as they are met: of RFC 4155, Thunderbird, pipermail, Gmail's Takeout, mutt, UUCP.
func TestFromLines(t *testing.T) {
	for line, want := range map[string]string{
		"From a@b Thu Jan  1 00:00:01 1998\n":                        "1998-01-01 00:00:01",
		"From - Thu Jan 01 00:00:01 1998\r\n":                        "1998-01-01 00:00:01",
		"From a at b.org  Thu Jan  1 00:00:01 1998\n":                "1998-01-01 00:00:01",
		"From 1234@xxx Thu Jan 01 00:00:01 +0100 1998\n":             "1997-12-31 23:00:01",
		"From a Thu Jan  1 00:00:01 PST 1998\n":                      "1998-01-01 00:00:01",
		"From a Thu Jan  1 00:00 PST DST 1998 \n":                    "1998-01-01 00:00:00",
		"From  Thu Jan  1 00:00:01 1998\n":                           "1998-01-01 00:00:01",
		"From a Thu, 1 Jan 1998 00:00:01 -0800\n":                    "1998-01-01 08:00:01",
		"From Mon Feb 2 10:00:00 2004 Thu Jan  1 00:00:01 1998\n":    "1998-01-01 00:00:01",
		"From a Thu Feb 30 00:00:01 1998\n":                          "",
		"From a Thu Jan  1 00:00:01 98\n":                            "",
		"From a Thu Jan  1 00:00:01 1998 remote from b\n":            "",
		"From Thu Jan  1 00:00:01 1998 on we will meet each other\n": "",
		"From a Thu Jan  1 1998\n":                                   "",
		"From here on\n":                                             "",
		"From \n":                                                    "",
		"Fromage Thu Jan  1 00:00:01 1998\n":                         "",
	} {
		at, ok := mailfile.Date([]byte(line))
		if got := at.Format(time.DateTime); ok != (want != "") || ok && got != want {
			t.Errorf("%q: %s, %v", line, got, ok)
		}
	}
}

// randomMessage draws a message with lines in it that an mbox has to be careful with.
func randomMessage(t *rapid.T) string {
	lines := rapid.SliceOfN(rapid.OneOf(
		rapid.SampledFrom([]string{
			"", "From ", "From a Thu Jan  1 00:00:01 1998", ">From x", ">>>From a Thu Jan  1 00:00:01 1998", "From", ">", ".", "\r",
			strings.Repeat("x", 64<<10), strings.Repeat("y", 64<<10-1) + "From a Thu Jan  1 00:00:01 1998", "\x00\xff", "Subject: x",
		}),
		rapid.StringOfN(rapid.RuneFrom([]rune(">From \r1x")), 0, 12, -1),
	), 0, 12).Draw(t, "lines")
	end := rapid.SampledFrom([]string{"\n", "\r\n"}).Draw(t, "end")
	text := strings.Join(lines, end)
	if rapid.Bool().Draw(t, "whole") && text != "" {
		text += end
	}
	return text
}

// What is written is read again, octet by octet but for the last line's end, which an mbox can't be without.
func TestMboxRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var file bytes.Buffer
		w := mailfile.NewMboxWriter(&file)
		var want []string
		for i := range rapid.IntRange(0, 6).Draw(t, "messages") {
			text := randomMessage(t)
			at := time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "time"), 0)
			sender := rapid.SampledFrom([]string{"", "a@b", "a b", "Thu Jan  1 00:00:01 1998\n"}).Draw(t, "sender")
			if err := w.Write(sender, at, iotest.HalfReader(strings.NewReader(text))); err != nil {
				t.Fatal(i, err)
			}
			if strings.HasSuffix(text, "\r") {
				text += "\r"
			}
			if text != "" && !strings.HasSuffix(text, "\n") {
				text += "\n"
			}
			want = append(want, at.UTC().Format(time.DateTime)+"|"+text)
		}
		if got := readAll(t, &file, mailfile.QuotingRD); !slices.Equal(got, want) {
			t.Fatalf("%q\nwant\n%q", got, want)
		}
	})
}

// A file that can't be read to its end is no file that ends there.
func TestMboxReadError(t *testing.T) {
	text := "From a Thu Jan  1 00:00:01 1998\nx\n\nFrom a Thu Jan  1 00:00:01 1998\ny\n"
	broken := errors.New("broken")
	for n := range len(text) + 1 {
		m := mailfile.NewMbox(io.MultiReader(strings.NewReader(text[:n]), iotest.ErrReader(broken)), mailfile.QuotingRD)
		var err error
		for range 10 {
			if _, err = m.Next(); err != nil {
				break
			}
			if _, err = io.Copy(io.Discard, m); err != nil {
				break
			}
		}
		if !errors.Is(err, broken) {
			t.Fatalf("after %d octets: %v", n, err)
		}
	}
	if err := mailfile.NewMboxWriter(io.Discard).Write("a", time.Now(), iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Error(err)
	}
}

// Memory is bounded whatever is in the file: long lines, long runs of empty lines and of >.
func TestMboxMemory(t *testing.T) {
	for _, piece := range []string{"x", "\n", ">", "From ", "From x\n", "\n\nFrom a Thu Jan  1 00:00:01 1998\n"} {
		r := io.LimitReader(&repeat{text: piece}, 1<<20)
		m := mailfile.NewMbox(io.MultiReader(strings.NewReader("From a\n"), r), mailfile.QuotingRD)
		live := &heap{}
		live.sample()
		base, octets := live.most, int64(0)
		for {
			if _, err := m.Next(); err != nil {
				break
			}
			n, _ := io.Copy(live, struct{ io.Reader }{m})
			octets += n
		}
		live.sample()
		if live.most > base+1<<20 {
			t.Errorf("%q: %d octets of memory", piece, live.most-base)
		}
		if got, want := octets+m.Others(), int64(1<<20+len("From a\n")); got != want {
			t.Errorf("%q: %d octets of %d", piece, got, want)
		}
	}
}

// heap takes octets and looks at what memory is in use, from time to time.
type heap struct{ most, n uint64 }

func (h *heap) sample() {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	h.most = max(h.most, m.HeapAlloc)
}

func (h *heap) Write(p []byte) (int, error) {
	if before := h.n; (before+uint64(len(p)))>>18 != before>>18 {
		h.sample()
	}
	h.n += uint64(len(p))
	return len(p), nil
}

type repeat struct {
	text string
	at   int
}

func (r *repeat) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = r.text[r.at]
		r.at = (r.at + 1) % len(r.text)
	}
	return len(p), nil
}

// No octet of the file is lost or doubled.
func FuzzMbox(f *testing.F) {
	for _, seed := range []string{
		"From a Thu Jan  1 00:00:01 1998\nx\n\n>From b\n\nFrom a Thu Jan  1 00:00:01 1998\r\n\r\n\r\nFrom c\n",
		"\n\nFrom - Thu, 1 Jan 1998 00:00 +0100\n\n\n\n", "From x\n>From \n>>From \n\n\nFrom", "Subject: x\n",
	} {
		f.Add([]byte(seed), 0)
	}
	f.Fuzz(func(t *testing.T, text []byte, q int) {
		m := mailfile.NewMbox(bytes.NewReader(text), mailfile.Quoting(((q%3)+3)%3))
		octets := int64(0)
		var all bytes.Buffer
		for {
			_, err := m.Next()
			if err == io.EOF {
				break
			}
			if errors.Is(err, mailfile.ErrNoMbox) {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			n, err := io.Copy(&all, struct{ io.Reader }{iotest.OneByteReader(m)})
			if err != nil {
				t.Fatal(err)
			}
			octets += n
		}
		if octets+m.Others() != int64(len(text)) {
			t.Fatalf("%d octets of messages and %d others, of %d", octets, m.Others(), len(text))
		}
		if !subsequence(all.Bytes(), text) {
			t.Fatalf("%q has octets that %q has not", all.Bytes(), text)
		}
	})
}

// subsequence says whether all octets of a are in b, in this order.
func subsequence(a, b []byte) bool {
	for _, c := range a {
		i := bytes.IndexByte(b, c)
		if i < 0 {
			return false
		}
		b = b[i+1:]
	}
	return true
}

func ExampleMbox() {
	m := mailfile.NewMbox(strings.NewReader("From a@example.org Thu Jan  1 10:00:00 1998\nSubject: x\n\n>From me\n"), mailfile.QuotingRD)
	at, err := m.Next()
	text, _ := io.ReadAll(m)
	fmt.Printf("%v %v\n%s", at, err, text)
	// Output:
	// 1998-01-01 10:00:00 +0000 UTC <nil>
	// Subject: x
	//
	// From me
}
