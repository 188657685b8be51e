package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"dewey/maildrop"
	"dewey/maildrop/message"
)

func TestVisible(t *testing.T) {
	for text, want := range map[string]string{
		"plain ünï 日本 👩‍💻":                       "plain ünï 日本 👩‍💻",
		"\x1b[31m\r\n\x00\x7f":                   `\x1b[31m\x0d\x0a\x00\x7f`,
		"a\tb":                                   "a b",
		"\u009b \u202e \u2028 \ufeff \U000e0041": `\u009b \u202e \u2028 \ufeff \ue0041`,
		"\xff \xef\xbb \xef\xbf\xbd":             "\\xff \\xef\\xbb \ufffd",
	} {
		if got := visible(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestCut(t *testing.T) {
	for _, c := range []struct {
		text    string
		columns int
		want    string
		taken   int
	}{
		{"", 5, "", 0},
		{"abcde", 5, "abcde", 5},
		{"abcdef", 5, "abcd…", 5},
		{"日本語", 6, "日本語", 6},
		{"日本語", 5, "日本…", 5},
		{"日本語", 4, "日…", 3},
		{"日本語x", 6, "日本…", 5},
		{"e\u0301e\u0301", 2, "e\u0301e\u0301", 2},
		{"e\u0301e\u0301e", 2, "e\u0301…", 2},
		{"a" + strings.Repeat("\u0301", 100), 5, "a" + strings.Repeat("\u0301", 8) + "…", 2},
	} {
		if got, taken := cut(c.text, c.columns); got != c.want || taken != c.taken {
			t.Errorf("%q to %d: %q, %d; want %q, %d", c.text, c.columns, got, taken, c.want, c.taken)
		}
	}
}

func TestParseHeading(t *testing.T) {
	for text, want := range map[string]heading{
		"":                       {},
		"\nSubject: body\n":      {},
		"Subject:\n\nFrom: x\n":  {},
		"SUBJECT : a\n  b\n\tc ": {subject: "a  b\tc"},
		"no field\n>From x\nsubject: a\r\n b\r\nSubject: second\r\nX: y\r\n\r\nFrom: body": {subject: "a b"},
		"Subject: =?utf-8?q?a=20b?= =?koi8-r?q?=C1?= =?nonsense?q?x?=\n":                   {subject: "=?utf-8?q?a=20b?= =?koi8-r?q?=C1?= =?nonsense?q?x?="},
		"Subject: =?utf-8?q?a=20b?= =?koi8-r?q?=C1?=\n":                                    {subject: "a bа"},
		"Date: Mon, 1 Jan 2024 10:00:00 +2300\n":                                           {date: time.Date(2023, 12, 31, 11, 0, 0, 0, time.UTC)},
		"Date: Fri, 31 Dec 9999 10:00:00 -2300\n":                                          {},
		"Date: yesterday\n": {},
	} {
		if got := parseHeading([]byte(text)); got != want {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
	}
}

func FuzzHeading(f *testing.F) {
	f.Add([]byte("Subject: =?utf-8?q?a?=\r\n b\nDate: Mon, 1 Jan 2024 10:00:00 +0000\nFrom: \"x\" <y@z>\n\nbody"), 20)
	f.Add([]byte("From: \xff\x1b\u202e\n"), 3)
	f.Fuzz(func(t *testing.T, text []byte, columns int) {
		section, err := readHeader(iotest.HalfReader(bytes.NewReader(text)), nil)
		if err != nil || !bytes.HasPrefix(text, section) {
			t.Fatalf("%q: %q, %v", text, section, err)
		}
		h := parseHeading(section)
		columns = 1 + columns&63
		for _, s := range []string{h.subject, author(h.from)} {
			shown, taken := cut(visible(s), columns)
			if taken > columns && taken > 1 || strings.ContainsFunc(shown, acts) {
				t.Fatalf("%q: %q takes %d of %d", s, shown, taken, columns)
			}
		}
		row := mailRow{Date: h.date, From: readable(h.from), Subject: readable(h.subject)}
		var again mailRow
		written := jsonText(row)
		if err := json.Unmarshal([]byte(written), &again); err != nil || again.From != row.From || again.Subject != row.Subject || strings.ContainsFunc(written, acts) {
			t.Fatalf("%s: %v", written, err)
		}
	})
}

func TestReadHeader(t *testing.T) {
	long := "Subject: " + strings.Repeat("x", 10_000) + "\n"
	for text, want := range map[string]string{
		"A: b\n\nc": "A: b\n", "A: b\r\n\r\nc": "A: b\r\n", "A: b": "A: b", "": "", long + "\nbody\n\n": long,
	} {
		for _, r := range []io.Reader{strings.NewReader(text), iotest.OneByteReader(strings.NewReader(text))} {
			if got, err := readHeader(r, nil); string(got) != want || err != nil {
				t.Errorf("%.20q: %.20q, %v", text, got, err)
			}
		}
	}
	endless := io.LimitReader(strings.NewReader(strings.Repeat("x", 10<<20)), 10<<20)
	if got, err := readHeader(endless, nil); err != nil || len(got) != message.MaxHeader {
		t.Errorf("%d octets, %v", len(got), err)
	}
	broken := errors.New("broken")
	if _, err := readHeader(iotest.ErrReader(broken), nil); !errors.Is(err, broken) {
		t.Error(err)
	}
}

func TestFindMessage(t *testing.T) {
	messages := []maildrop.Message{{UID: "a"}, {UID: "2"}, {UID: "1"}, {UID: "17"}}
	for what, want := range map[string]int{"a": 1, "2": 2, "17": 4, "4": 4, "003": 3, "1": 0, "0": 0, "5": 0, "+3": 0, "": 0, "A": 0} {
		if got, err := findMessage(messages, what); got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v", what, got, err)
		}
	}
}

// At a terminal nothing of a message acts on it; elsewhere all octets are as they are.
func TestShowVisible(t *testing.T) {
	var out bytes.Buffer
	text := "Subject: \x1b[31m\r\n\r\n\ta\rb\xff\u009b日\r\n"
	if err := showVisible(&out, iotest.OneByteReader(strings.NewReader(text))); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "Subject: \\x1b[31m\n\n\ta\\x0db\\xff\\u009b日\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	out.Reset()
	if err := copyMessage(&out, strings.NewReader(text), false); err != nil || out.String() != strings.ReplaceAll(text, "\r\n", "\n") {
		t.Errorf("%q, %v", out.String(), err)
	}
	broken := errors.New("broken")
	for _, f := range []func() error{
		func() error { return showVisible(io.Discard, iotest.ErrReader(broken)) },
		func() error { return copyMessage(io.Discard, iotest.ErrReader(broken), false) },
		func() error { return copyMessage(io.Discard, iotest.ErrReader(broken), true) },
	} {
		if err := f(); !errors.Is(err, broken) {
			t.Error(err)
		}
	}
}
