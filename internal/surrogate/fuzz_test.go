package surrogate

import (
	"bytes"
	"math/rand/v2"
	"mime"
	"net/mail"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// fieldsOf splits a header section by its lines, apart from how the code does it.
func fieldsOf(header []byte) []string {
	var fields []string
	for line := range strings.SplitAfterSeq(string(header), "\r\n") {
		switch {
		case line == "\r\n" || line == "":
			return fields
		case len(fields) > 0 && (line[0] == ' ' || line[0] == '\t'):
			fields[len(fields)-1] += line
		default:
			fields = append(fields, line)
		}
	}
	return fields
}

var encodedWords = regexp.MustCompile(`=\?UTF-8\?[BQ]\?[^? ]*\?=`)

// check holds a surrogate against all that Header promises.
func check(t *testing.T, in []byte) {
	t.Helper()
	before := bytes.Clone(in)
	out := Header(in)
	switch {
	case !bytes.Equal(in, before):
		t.Fatalf("input changed: %q", before)
	case !isASCII(out):
		t.Fatalf("not ASCII: %q from %q", out, in)
	case !bytes.Equal(out, Header(in)):
		t.Fatalf("not the same again: %q", in)
	case !bytes.Equal(out, Header(out)):
		t.Fatalf("not idempotent: %q from %q", Header(out), in)
	case Needed(out):
		t.Fatalf("still needed: %q", out)
	case len(out) > MaxGrowth*(len(in)+len("\r\n")):
		t.Fatalf("%d octets from %d: %q", len(out), len(in), in)
	}
	got, want := fieldsOf(out), fieldsOf(in)
	if len(got) != len(want) {
		t.Fatalf("%d fields from %d: %q from %q", len(got), len(want), out, in)
	}
	for i := range want {
		if isASCII(want[i]) {
			if got[i] != want[i] {
				t.Fatalf("%q from %q", got[i], want[i])
			}
			continue
		}
		checkField(t, got[i], want[i])
	}
}

// checkField checks one field that was rewritten.
func checkField(t *testing.T, got, from string) {
	t.Helper()
	if !strings.Contains(got, ":") || got[0] == ':' {
		t.Fatalf("no field: %q from %q", got, from)
	}
	if strings.HasSuffix(got, "\r\n") != strings.HasSuffix(from, "\r\n") {
		t.Fatalf("other line end: %q from %q", got, from)
	}
	if longestLine([]byte(got)) > 998 && longestLine([]byte(from)) <= 998 {
		t.Fatalf("long line: %q from %q", got, from)
	}
	for i, line := range strings.Split(strings.TrimSuffix(got, "\r\n"), "\r\n") {
		if strings.Trim(line, " \t\r\n\x00") == "" {
			t.Fatalf("blank line: %q from %q", got, from)
		}
		if strings.Contains(from, "=?") {
			continue
		}
		for _, word := range encodedWords.FindAllString(line, -1) {
			if len(word) > 75 {
				t.Fatalf("long encoded-word: %q from %q", word, from)
			}
			if len(line) > 76 {
				t.Fatalf("line %d has %d octets: %q from %q", i, len(line), got, from)
			}
			if decoded, err := new(mime.WordDecoder).Decode(word); err != nil || !utf8.ValidString(decoded) {
				t.Fatalf("bad encoded-word: %q from %q: %v", word, from, err)
			}
		}
	}
}

// decodeText is the value of an unstructured field as a client shows it.
func decodeText(t *testing.T, field []byte) string {
	t.Helper()
	_, value, _ := bytes.Cut(field, []byte(":"))
	s, err := new(mime.WordDecoder).DecodeHeader(strings.Trim(unfold(string(value)), " \t\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// checkSubject checks that a text is read as it was written.
func checkSubject(t *testing.T, text string) {
	t.Helper()
	if strings.Contains(text, "=?") {
		return // an encoded-word, or so Go's decoder thinks
	}
	in := []byte("Subject: " + strings.ReplaceAll(text, "\r\n", "\r\n "))
	text = strings.NewReplacer("\r\n", " ", "\r", " ", "\n", " ", "\x00", " ").Replace(strings.ToValidUTF8(text, "\uFFFD"))
	check(t, in)
	if isASCII(in) {
		return
	}
	if got, want := decodeText(t, Header(in)), strings.Trim(text, " \t"); got != want {
		t.Fatalf("subject reads\n%q, was\n%q\nin %q", got, want, in)
	}
}

func FuzzHeader(f *testing.F) {
	for _, seed := range []string{
		"Subject: Grüße\r\n aus  München\r\n\r\nbody",
		"To: \"Müller, J\" <j@bücher.example>, é@x (ü), g: a@b;\r\nCc: é\r\n",
		"Received: from é (ü) by b for <ö@x>; date\r\n",
		"Message-ID: <é@x>\r\nReferences: <a@b> <é@x>\r\n",
		"Content-Type: a/b; name=\"é\"; name*0*=UTF-8''%C3; name*1=é; é\r\n",
		"é\r\n é\r\n:é\r\nX:é",
		"Keywords: é, =?UTF-8?Q?a?= ü =?UTF-8?Q?b?=\r\n",
		"Return-Path: <é@x>\r\nDate: é (ü)\r\nX: \xff\x00\r\xc3\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, header []byte) {
		check(t, header)
		checkSubject(t, string(header))
	})
}

// TestRandomFields puts fields together from all that the syntaxes know.
func TestRandomFields(t *testing.T) {
	atoms := []string{
		"é", "ü", "日本", "👩‍👧", "a", "b.c", " ", " ", "  ", "\t", "\r\n ", "\r\n", "<", ">", "<a@b>", "<é@b>", "@", ",",
		";", ":", "(", ")", "\"", "\\", "[", "]", "=?UTF-8?Q?x?=", "=?", "=", "*", "*0", "*0*=", "name=", "'", "%", "%41",
		"UTF-8''", "for", "from ", "\x00", "\r", "\n", "\xff", "\x7f", ".", "-", strings.Repeat("x", 70),
		strings.Repeat(" ", 50), strings.Repeat("é", 40), strings.Repeat("y", 90), strings.Repeat(" ", 90),
	}
	names := []string{"Subject", "X-" + strings.Repeat("n", 70), "", "Bé", "Keywords"}
	for name := range rewritings {
		names = append(names, name)
	}
	slices.Sort(names)
	random := rand.New(rand.NewPCG(1, 2))
	rounds := 60_000
	if testing.Short() {
		rounds = 6_000
	}
	for range rounds {
		var header strings.Builder
		for range 1 + random.IntN(2) {
			header.WriteString(names[random.IntN(len(names))] + ":")
			for range random.IntN(14) {
				header.WriteString(atoms[random.IntN(len(atoms))])
			}
			header.WriteString("\r\n")
		}
		check(t, []byte(header.String()))
		checkSubject(t, header.String())
	}
}

// TestRandomAddresses has names of all kinds read again as they were written.
func TestRandomAddresses(t *testing.T) {
	letters := []rune("aB1 .,;:<>@()[]\"\\'=?_-éüß日本語👩 ")
	domains := []string{"x.example", "bücher.example", "例え.example"}
	ascii := []string{"x.example", "xn--bcher-kva.example", "xn--r8jz45g.example"}
	random := rand.New(rand.NewPCG(3, 4))
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	for range 5_000 {
		var want []mail.Address
		var list []string
		for range 1 + random.IntN(6) {
			name := make([]rune, 1+random.IntN(60))
			for i := range name {
				name[i] = letters[random.IntN(len(letters))]
			}
			text := strings.TrimSpace(string(name))
			if text == "" || strings.Contains(text, "=?") {
				text = "é"
			}
			n := random.IntN(len(domains))
			want = append(want, mail.Address{Name: text, Address: "a@" + ascii[n]})
			list = append(list, "\""+quote.Replace(text)+"\" <a@"+domains[n]+">")
		}
		in := []byte("To: " + strings.Join(list, ", "))
		check(t, in)
		got, err := mail.ParseAddressList(strings.TrimPrefix(unfold(string(Header(in))), "To:"))
		if err != nil {
			t.Fatalf("%v: %q from %q", err, Header(in), in)
		}
		for i, a := range got {
			if len(got) != len(want) || *a != want[i] {
				t.Fatalf("got %q, want %q", got, want)
			}
		}
	}
}

// TestGrowth looks at what grows most.
func TestGrowth(t *testing.T) {
	worst, of := 0.0, ""
	for _, part := range []string{
		"é\r\n", "\xff\r\n", "a:é\r\n", "To:é\r\n", "Date:é\r\n", "(é)", "é,", "\xff,", "é ", "é a ", ";é", ";a=é", "a@é.é,", "@",
		"<", ">", "(", "\"", "[", "\\", ",", ";", ":", "é:;", "=?UTF-8?Q?x?= é ", "(é)@", "é;a@b,", " ", "\r\n ", "%", "'", "*",
		";abcdefghijklmnopqrstuvwx=éééééééééééééééééééééé", ";a*1=é", "<é> ", "for é ", "é\r\n ", ".", "=", "=?",
	} {
		for _, name := range []string{
			"", "Subject: ", "To: é", "Return-Path: é", "Received: é", "References: é ", "Content-Type: a; é=", "Keywords: é", "Date: é",
		} {
			in := []byte(name + strings.Repeat(part, 4096/len(part)))
			out := Header(in)
			if ratio := float64(len(out)) / float64(len(in)); ratio > worst {
				worst, of = ratio, name+part
			}
			if !isASCII(out) {
				t.Errorf("not ASCII: %q repeated", name+part)
			}
		}
	}
	for _, name := range []string{"abcdefghijklmnopqrstuvwx", strings.Repeat("n", 300)} {
		in := []byte("Content-Type: a; " + name + "=" + strings.Repeat("é", 200))
		if out := Header(in); len(out) > MaxGrowth*len(in) {
			t.Errorf("%d octets from %d", len(out), len(in))
		}
	}
	t.Logf("grows most: %.2f times, %q repeated", worst, of)
	if worst > MaxGrowth {
		t.Errorf("grows %.2f times: %q repeated", worst, of)
	}
}

// BenchmarkHeader has a usual header section, and the largest of the kind that takes longest.
func BenchmarkHeader(b *testing.B) {
	usual := lines("From: Jörg Müller <a@b.example>", "To: plain@b.example", "Subject: Grüße aus München") +
		strings.Repeat("Received: from a.example by b.example with ESMTPS id 1;\r\n Mon, 1 Jan 2024 00:00:00 +0000\r\n", 10)
	for name, header := range map[string]string{
		"usual":   usual,
		"hostile": "To: é" + strings.Repeat("(é)@", MaxHeader/5),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(header)))
			for b.Loop() {
				Header([]byte(header))
			}
		})
	}
}
