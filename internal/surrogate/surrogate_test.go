package surrogate

import (
	"bytes"
	"mime"
	"net/mail"
	"strings"
	"testing"
)

// lines puts CRLF after each line.
func lines(s ...string) string { return strings.Join(s, "\r\n") + "\r\n" }

func TestNeeded(t *testing.T) {
	tests := []struct {
		name, header string
		want         bool
	}{
		{"nothing", "", false},
		{"ASCII", "Subject: a\r\n", false},
		{"UTF-8", "Subject: é\r\n", true},
		{"Latin-1", "Subject: \xe9\r\n", false},
		{"both", "Subject: é\r\nTo: \xe9\r\n", false},
		{"UTF-8 in the body", "Subject: a\r\n\r\né\r\n", false},
		{"Latin-1 in the body", "Subject: é\r\n\r\n\xe9\r\n", true},
		{"no header section", "\r\né\r\n", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := Needed([]byte(test.header)); got != test.want {
				t.Errorf("Needed(%q) = %v", test.header, got)
			}
		})
	}
}

// The expectations follow the grammar of the RFCs named; encoded-words are checked by hand and by
// the decoders of the standard library in the tests below.
func TestHeader(t *testing.T) {
	tests := []struct{ name, in, want string }{
		// What is ASCII stays. RFC 6856 section 2.1.
		{"empty", "", ""},
		{"ASCII", "Subject: a\r\n  b\r\nX:\r\n", "Subject: a\r\n  b\r\nX:\r\n"},
		{"ends before the empty line", "X: a\r\n\r\nbody é\r\n", "X: a\r\n"},
		{"empty line first", "\r\nX: é\r\n", ""},
		{"last line without an end", "X: é", "X: =?UTF-8?B?w6k=?="},
		{
			"other fields untouched", "A:  x \r\n\ty\r\nB: é\r\nC : =?x?= \x00\r\n",
			"A:  x \r\n\ty\r\nB: =?UTF-8?B?w6k=?=\r\nC : =?x?= \x00\r\n",
		},

		// Text. RFC 2047 section 5 (1).
		{"B is shorter", "Subject: é\r\n", "Subject: =?UTF-8?B?w6k=?=\r\n"},
		{"Q is shorter", "Subject: café-society\r\n", "Subject: =?UTF-8?Q?caf=C3=A9-society?=\r\n"},
		{"no space after the colon", "Subject:é\r\n", "Subject: =?UTF-8?B?w6k=?=\r\n"},
		{"ends stay", "Subject: Re: [x] café au lait (etc.)\r\n", "Subject: Re: [x] =?UTF-8?B?Y2Fmw6k=?= au lait (etc.)\r\n"},
		{"folds stay", "Subject: a\r\n  é\r\n\tb\r\n", "Subject: a\r\n  =?UTF-8?B?w6k=?=\r\n\tb\r\n"},
		{"no line of white space", "Subject: é\r\n \r\n  a\r\n \r\n", "Subject: =?UTF-8?B?w6k=?=\r\n   a\r\n"},
		{ // RFC 2047 section 6.2: white space between encoded-words is not shown
			"among encoded-words", "X: =?UTF-8?Q?a?= é =?utf-8?b?Yg==?= c\r\n",
			"X: =?UTF-8?Q?a?= =?UTF-8?Q?_=C3=A9_?= =?utf-8?b?Yg==?= c\r\n",
		},
		{"control octets", "X: a\rb\x00c\nd é\r\n", "X: a b c d =?UTF-8?B?w6k=?=\r\n"},
		{"octets that are not UTF-8", "X: \xff\xfe\r\n", "X: =?UTF-8?B?77+9?=\r\n"},

		// Addresses. RFC 6857 section 3, RFC 5322 section 3.4.
		{"display name", "From: Zoë <zoe@example.com>\r\n", "From: =?UTF-8?Q?Zo=C3=AB?= <zoe@example.com>\r\n"},
		{"quoted name", "From: \"Zoë \\\"\"<z@x>\r\n", "From: =?UTF-8?B?Wm/DqyAi?= <z@x>\r\n"},
		{"comment", "To: z@x (Zoë)\r\n", "To: z@x (=?UTF-8?Q?Zo=C3=AB?=)\r\n"},
		{"nested comment", "To: z@x (a (ë) b)\r\n", "To: z@x (=?UTF-8?B?YSAow6spIGI=?=)\r\n"},
		{"domain", "To: Bob <bob@BÜCHER.example>\r\n", "To: Bob <bob@xn--bcher-kva.example>\r\n"},
		{"bare address, domain", "To: bob@bücher.example (b)\r\n", "To: bob@xn--bcher-kva.example (b)\r\n"},
		{"local part", "To: <é@x>\r\n", "To: =?UTF-8?B?w6lAeA==?= :;\r\n"},
		{"local part and name", "To: Bob <é@x>, c@d\r\n", "To: =?UTF-8?B?Qm9iIDzDqUB4Pg==?= :;, c@d\r\n"},
		{"domain that is not sure", "To: <a@e\u0301.example>\r\n", "To: =?UTF-8?B?YUBlzIEuZXhhbXBsZQ==?= :;\r\n"},
		{"a name alone", "To: é\r\n", "To: =?UTF-8?B?w6k=?= :;\r\n"},
		{"others stay", "To: \"A, B\"\r\n <a@b>,é <c@d>\r\n", "To: \"A, B\"\r\n <a@b>, =?UTF-8?B?w6k=?= <c@d>\r\n"},
		{"group", "To: é: a@b, ü <c@d>;\r\n", "To: =?UTF-8?B?w6k=?= : a@b, =?UTF-8?B?w7w=?= <c@d>;\r\n"},
		{"group with a local part", "To: g: a@b, é@x;\r\n", "To: =?UTF-8?B?ZzogYUBiLCDDqUB4?= :;\r\n"},
		{"semicolons as commas", "To: a@b; é <c@d>\r\n", "To: a@b; =?UTF-8?B?w6k=?= <c@d>\r\n"},
		{"not parsed", "To: \"é <a@b>\r\n", "To: =?UTF-8?B?IsOp?= <a@b>\r\n"},
		{"null path", "Return-Path: <> (é)\r\n", "Return-Path: <> (=?UTF-8?B?w6k=?=)\r\n"},
		{"path, domain", "Return-Path: <a@é.x>\r\n", "Return-Path: <a@xn--9ca.x>\r\n"},
		{"path, local part", "Return-Path: <é@x>\r\n", "Downgraded-Return-Path: =?UTF-8?B?PMOpQHg+?=\r\n"},
		{"path not parsed", "Delivered-To: (é\r\n", "Downgraded-Delivered-To: =?UTF-8?B?KMOp?=\r\n"},
		{"keywords", "Keywords: a b, c é\r\n", "Keywords: a b, =?UTF-8?Q?c_=C3=A9?=\r\n"},

		// Received. RFC 5321 section 4.4.
		{
			"trace", "Received: from é.x (ü [1.2.3.4]) by b for <ö@x>; date\r\n",
			"Received: from xn--9ca.x (=?UTF-8?B?w7wgWzEuMi4zLjRd?=) by b\r\n (=?UTF-8?B?Zm9yIDzDtkB4Pg==?=); date\r\n",
		},

		// Message identifiers, and fields with comments alone. RFC 6857 section 3.1.10.
		{"message id", "Message-Id: <é@x>\r\n", "Downgraded-Message-Id: =?UTF-8?B?PMOpQHg+?=\r\n"},
		{"references", "References: <é@x>\r\n <a@b>\r\n", "References: (=?UTF-8?B?PMOpQHg+?=)\r\n <a@b>\r\n"},
		{"references, none left", "References: <é@x> <ü@x>\r\n", "Downgraded-References: =?UTF-8?B?PMOpQHg+IDzDvEB4Pg==?=\r\n"},
		{"date", "Date: Mon, 1 Jan 2024 00:00:00 +0100 (é)\r\n", "Date: Mon, 1 Jan 2024 00:00:00 +0100 (=?UTF-8?B?w6k=?=)\r\n"},
		{"date, not parsed", "Date: 1. März\r\n", "Downgraded-Date: 1. =?UTF-8?B?TcOkcno=?=\r\n"},

		// Parameters. RFC 2231 sections 3, 4.
		{"parameter", "Content-Type: a/b; name=\"é a.b\"; c=d\r\n", "Content-Type: a/b; name*=UTF-8''%C3%A9%20a.b; c=d\r\n"},
		{"no quotes", "Content-Disposition: inline;\r\n filename=é a.b\r\n", "Content-Disposition: inline;\r\n filename*=UTF-8''%C3%A9%20a.b\r\n"},
		{"sections", "Content-Type: a/b; name*1=é; name*0=\"a;\"; c=d\r\n", "Content-Type: a/b; name*=UTF-8''a%3B%C3%A9; c=d\r\n"},
		{"extended with UTF-8", "Content-Type: a/b; name*=UTF-8''%41é\r\n", "Content-Type: a/b; name*=UTF-8''A%C3%A9\r\n"},
		{"both forms", "Content-Type: a/b; name=é; name*=ISO-8859-1''%E9\r\n", "Content-Type: a/b; name*=ISO-8859-1''%E9\r\n"},
		{"no name", "Content-Type: a/b; é; c=d; ü=1\r\n", "Content-Type: a/b; x-downgraded*=UTF-8''%C3%A9%3B%20%C3%BC%3D1; c=d\r\n"},
		{"no type", "Content-Type: é\r\n", "Content-Type: =?UTF-8?B?w6k=?=\r\n"},

		// What is no field becomes one.
		{"no colon", "é\r\n", "Downgraded-Field: =?UTF-8?B?w6k=?=\r\n"},
		{"name outside ASCII", "é: a\r\n", "Downgraded-Field: =?UTF-8?B?w6k6?= a\r\n"},
		{"no name", ":é\r\n", "Downgraded-Field: =?UTF-8?B?OsOp?=\r\n"},
		{"continuation first", " é\r\nX: a\r\n", "Downgraded-Field: =?UTF-8?B?w6k=?=\r\nX: a\r\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := string(Header([]byte(test.in))); got != test.want {
				t.Errorf("Header(%q)\n got %q\nwant %q", test.in, got, test.want)
			}
			check(t, []byte(test.in))
		})
	}
}

const long = "Il était une fois, dans un pays très éloigné, une très longue ligne d’en-tête qui ne tenait " +
	"pas sur une seule ligne — 長い長い件名 — и не кончалась. 👩‍👩‍👧"

// Folding: RFC 2047 section 2 for the lengths, section 5 for the characters that are not split.
func TestFolding(t *testing.T) {
	fields := []string{
		"Subject: " + long,
		"Subject: Re: " + long + "\r\n  " + long,
		"X-" + strings.Repeat("Long", 20) + ": " + long,
		"To: " + long + " <a@b>, c@d (" + long + "),\r\n\t\"" + long + "\" <e@f>",
		"Keywords: " + long,
		"Received: from a (" + long + ") by b; date",
		"References: <" + strings.ReplaceAll(long, " ", "") + "> <a@b>",
		"X: é" + strings.Repeat(" ", 900) + "é " + strings.Repeat("a", 990) + " é",
		"X: a" + strings.Repeat(" ", 996) + "\r\n" + strings.Repeat(" ", 100) + "é" + strings.Repeat(" ", 800) + "b",
		"To: é <a@b>," + strings.Repeat("a@b,", 200),
	}
	for _, field := range fields {
		check(t, []byte(field+"\r\n"))
		check(t, []byte("A: b\r\n"+field))
	}
	got := decodeText(t, Header([]byte("Subject: "+long)))
	if got != long {
		t.Errorf("subject reads %q", got)
	}
}

// The domain in A-labels makes a line longer than the limit; encoded-words, folded, are left.
func TestLongLine(t *testing.T) {
	in := "Return-Path: <" + strings.Repeat("a", 975) + "@ü.ü>"
	out := Header([]byte(in))
	check(t, []byte(in))
	if got := longestLine(out); got > foldedLine {
		t.Errorf("a line of %d octets", got)
	}
}

func TestAddressesAreRead(t *testing.T) {
	header := lines(
		"To: Jörg <a@b.example>, \"Müller, Eva\" <eva@bücher.example>,",
		" plain@b.example, Zoë Ünal <z@b.example> (Büro), \"A \\\"é\\\" B\" <q@b.example>,",
		" δοκιμή <u@пример.испытание>, é@x.example, Équipe: g@b.example, 名前 <h@b.example>;",
	)
	m, err := mail.ReadMessage(bytes.NewReader(append(Header([]byte(header)), "\r\n"...)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := m.Header.AddressList("To")
	if err != nil {
		t.Fatal(err)
	}
	want := []mail.Address{
		{Name: "Jörg", Address: "a@b.example"},
		{Name: "Müller, Eva", Address: "eva@xn--bcher-kva.example"},
		{Address: "plain@b.example"},
		{Name: "Zoë Ünal", Address: "z@b.example"},
		{Name: "A \"é\" B", Address: "q@b.example"},
		{Name: "δοκιμή", Address: "u@xn--e1afmkfd.xn--80akhbyknj4f"}, // the IDN that IANA set up for tests
		{Address: "g@b.example"},
		{Name: "名前", Address: "h@b.example"},
	}
	if len(got) != len(want) {
		t.Fatalf("%d addresses, want %d: %v", len(got), len(want), got)
	}
	for i := range want {
		if *got[i] != want[i] {
			t.Errorf("address %d is %q, want %q", i, *got[i], want[i])
		}
	}
}

func TestParametersAreRead(t *testing.T) {
	values := []string{"é", "Résumé (2) 100%.pdf", "日本語", long, long + long + long, "'*%41", "a\\\"b é"}
	for _, value := range values {
		quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value)
		in := []byte("Content-Disposition: attachment;\r\n size=12; filename=\"" + quoted + "\"; x=y")
		check(t, in)
		_, v, _ := bytes.Cut(Header(in), []byte(":"))
		kind, params, err := mime.ParseMediaType(unfold(string(v)))
		if err != nil {
			t.Fatalf("%q: %v", v, err)
		}
		if kind != "attachment" || params["filename"] != value || params["size"] != "12" || params["x"] != "y" {
			t.Errorf("got %q %q, want filename %q", kind, params, value)
		}
	}
}
