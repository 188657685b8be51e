package uidlist_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"dewey/store/maildir/uidlist"
)

// As Dovecot 2.3.19 wrote it, with keys that it does not know.
const dovecotList = `3 V1795400728 N8 Ga4f7d52518a4036bc527000083ecc375 Xhello
2 S16 W18 E2 U123 Zfoo PUID1-2 :1700000001.M2P1.h
3 W18 :1700000004.1.h
7 W50 S48 PCUSTOM O3 Gguid :1000000001.M1P1.h,S=48,W=50
`

func parse(t *testing.T, text string) *uidlist.List {
	t.Helper()
	l, err := uidlist.Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestParse(t *testing.T) {
	l := parse(t, dovecotList)
	want := &uidlist.List{
		Version: 3, Validity: 1795400728, Next: 8, GUID: "a4f7d52518a4036bc527000083ecc375", Extra: "Xhello", Lines: 3,
		Records: []uidlist.Record{
			{2, "S16 W18 E2 U123 Zfoo PUID1-2", "1700000001.M2P1.h"},
			{3, "W18", "1700000004.1.h"},
			{7, "W50 S48 PCUSTOM O3 Gguid", "1000000001.M1P1.h,S=48,W=50"},
		},
	}
	if diff := cmp.Diff(want, l); diff != "" {
		t.Error(diff)
	}
	if got := string(l.Append(nil)); got != dovecotList {
		t.Errorf("written as\n%s", got)
	}
	if !l.Appendable() {
		t.Error("nothing can be added to it")
	}
	for i, id := range []string{"UID1-2", "000000036b03a418", "CUSTOM"} {
		if got := l.Records[i].UniqueID(l.Validity); got != id {
			t.Errorf("record %d has the unique-id %q, want %q", i, got, id)
		}
	}
}

func TestParseByOctets(t *testing.T) {
	l, err := uidlist.Parse(iotest.OneByteReader(strings.NewReader(dovecotList)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(parse(t, dovecotList), l); diff != "" {
		t.Error(diff)
	}
	if _, err := uidlist.Parse(iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader(dovecotList)))); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("a reader's error became %v", err)
	}
}

func TestVersion1(t *testing.T) {
	l := parse(t, "1 1234567 5\n1 1700000001.a.h\n4 1700000002.b.h:2,S\n")
	if l.Appendable() {
		t.Error("a record of version 3 would be added to a list of version 1")
	}
	want := "3 V1234567 N5\n1 :1700000001.a.h\n4 :1700000002.b.h\n"
	if got := string(l.Append(nil)); got != want {
		t.Errorf("written as %q, want %q", got, want)
	}
}

func TestFaults(t *testing.T) {
	const head = "3 V1 N10 Ga4f7d52518a4036bc527000083ecc375\n"
	long := strings.Repeat("x", uidlist.MaxLine)
	for _, test := range []struct {
		name, text string
		uids       []uint32
		next       uint32
		lost       int
		torn       bool
	}{
		{"none", head + "1 :a\n2 W1 :b\n", []uint32{1, 2}, 10, 0, false},
		{"no records", head, nil, 10, 0, false},
		{"torn", head + "1 :a\n12 :b", []uint32{1}, 13, 0, true},
		{"torn in the uid", head + "1 :a\n1", []uint32{1}, 10, 0, true},
		{"torn without uid", head + "1 :a\nx", []uint32{1}, 10, 0, true},
		{"uid does not rise", head + "2 :a\n2 :b\n1 :c\n3 :d\n", []uint32{2, 3}, 10, 2, false},
		{"uid too high", head + "4294967295 :a\n99999999999999999999 :b\n3 :c\n", []uint32{3}, 10, 2, false},
		{"uid 0", head + "0 :a\n1 :b\n", []uint32{1}, 10, 1, false},
		{"no name", head + "1 W5\n2 W5 :\n3 :c\n", []uint32{3}, 10, 2, false},
		{"slash in the name", head + "1 :../a\n2 :b\n", []uint32{2}, 10, 1, false},
		{"next below the last uid", head + "20 :a\n", []uint32{20}, 21, 0, false},
		{"twice, the higher uid wins", head + "1 :a\n2 :b\n3 :a\n", []uint32{2, 3}, 10, 0, false},
		{"long line", head + "1 :a\n2 :" + long + "\n3 :c\n", []uint32{1, 3}, 10, 1, false},
		{"long last line", head + "1 :a\n12 :" + long + long, []uint32{1}, 13, 0, true},
		{"CRLF", head + "1 :a\r\n", []uint32{1}, 10, 0, false},
		{"keys that are none", head + "1 lower W5  X :a\n", []uint32{1}, 10, 0, false},
		{"bad GUID", "3 V1 N10 Gshort\n1 :a\n", []uint32{1}, 10, 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := parse(t, test.text)
			var uids []uint32
			for _, r := range l.Records {
				uids = append(uids, r.UID)
			}
			lost := 0
			for _, f := range l.Faults {
				if f.Lost {
					lost++
				}
			}
			if !slices.Equal(uids, test.uids) || l.Next != test.next || lost != test.lost || l.Torn != test.torn {
				t.Errorf("uids %d next %d lost %d torn %v, want %d %d %d %v; faults %v",
					uids, l.Next, lost, l.Torn, test.uids, test.next, test.lost, test.torn, l.Faults)
			}
			if (l.Torn || lost > 0) && l.Appendable() {
				t.Error("a record would be added to a list with faults")
			}
		})
	}
}

func TestFormatErrors(t *testing.T) {
	for _, test := range []struct {
		name, text string
		line       int
	}{
		{"empty", "", 1},
		{"header without end", "3 V1 N1", 1},
		{"version 2", "2 V1 N1\n", 1},
		{"no version", "V1 N1\n", 1},
		{"validity 0", "3 V0 N1\n", 1},
		{"no next", "3 V1\n", 1},
		{"next 33 bits", "3 V1 N4294967296\n", 1},
		{"version 1 without next", "1 5\n", 1},
		{"long header", "3 V1 N1 X" + strings.Repeat("x", 1<<20) + "\n", 1},
		{"binary", "\x00\x01\x02\n\n\n", 1},
		{"four bad lines", "3 V1 N1\n1 :a\nx\nx\nx\n2 :b\nx\n", 7},
	} {
		_, err := uidlist.Parse(strings.NewReader(test.text))
		var format *uidlist.FormatError
		if !errors.As(err, &format) || format.Line != test.line {
			t.Errorf("%s: error %v, want a FormatError in line %d", test.name, err, test.line)
		}
	}
}

// An endless line takes bounded memory.
func TestEndlessLine(t *testing.T) {
	r := io.MultiReader(strings.NewReader("3 V1 N1\n1 :"), io.LimitReader(zeros{}, 64<<20), strings.NewReader("\n2 :b\n"))
	allocs := testing.Benchmark(func(b *testing.B) {
		if b.N > 1 {
			b.Skip()
		}
		l, err := uidlist.Parse(r)
		if err != nil || len(l.Records) != 1 {
			b.Errorf("%v, %v", l, err)
		}
	})
	if n := allocs.AllocedBytesPerOp(); n > 1<<20 {
		t.Errorf("%d octets allocated", n)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestSetUnset(t *testing.T) {
	r := uidlist.Record{UID: 1, Keys: "W50 S48 Zfoo W60", Base: "a"}
	if w, ok := r.GetOctets('W'); !ok || w != 50 {
		t.Errorf("W is %d: the first one counts", w)
	}
	r.Set('W', "70")
	r.Set('E', "0")
	if r.Keys != "S48 Zfoo W70 E0" {
		t.Errorf("keys %q", r.Keys)
	}
	r.Unset('Z')
	r.Unset('Q')
	if r.Keys != "S48 W70 E0" {
		t.Errorf("keys %q", r.Keys)
	}
	for _, value := range []string{"S", "S-1", "S+1", "S1x", "S9223372036854775808"} {
		r.Keys = value
		if n, ok := r.GetOctets('S'); ok {
			t.Errorf("%q is taken for %d", value, n)
		}
	}
}

func TestSizeList(t *testing.T) {
	l, err := uidlist.ParseSizeList(strings.NewReader(
		"/3 8 1795400728\n" +
			"1700000001.M1P1.h:2,S 48 1:1795400728:0\n" +
			"name with space,S=5 50 7:0:1\n" +
			"old+name\xff:2, 9 0:0\n" +
			"bad line\n" +
			"1700000001.M1P1.h:2,S 48 2:1795400728:0\n" +
			"torn 5 9:1"))
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, e := range l.Entries {
		ids = append(ids, e.Base+" "+e.UniqueID())
	}
	want := []string{"1700000001.M1P1.h UID1-1795400728", "name with space,S=5 UID7", "old+name\xff old+2Bname+FF"}
	if diff := cmp.Diff(want, ids); diff != "" {
		t.Error(diff)
	}
	if len(l.Faults) != 3 || l.Next != 8 || l.Validity != 1795400728 {
		t.Errorf("%+v", l)
	}
	for _, text := range []string{"", "3 1 1\n", "/1 1 1\n", "/3\n", "/3 x 1\n", "/3 1 x\n"} {
		_, err := uidlist.ParseSizeList(strings.NewReader(text))
		var format *uidlist.FormatError
		if !errors.As(err, &format) {
			t.Errorf("%q: error %v, want a FormatError", text, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		dovecotList, "1 1234567 5\n1 a\n4 b:2,S\n", "3 V1 N1\n1 :a\n1 :b\n2 :a", "3 V1 N1 G\n\n\n", "3 V1  N1 X\n1  W5  :a:b\n",
		"3 V1 N1\n1 w :a\n2  : b\n3 W :c \r\n", "/3 8 1\na 5 1:2:0\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if l, err := uidlist.ParseSizeList(strings.NewReader(string(text))); err == nil {
			for i := range l.Entries {
				_ = l.Entries[i].UniqueID()
			}
		}
		l, err := uidlist.Parse(strings.NewReader(string(text)))
		if err != nil {
			return
		}
		last := uint32(0)
		for i := range l.Records {
			if r := &l.Records[i]; r.UID <= last || r.UID >= l.Next || r.Base == "" {
				t.Fatalf("record %+v after uid %d, next %d", r, last, l.Next)
			}
			last = l.Records[i].UID
		}
		written := l.Append(nil)
		again, err := uidlist.Parse(strings.NewReader(string(written)))
		if err != nil {
			t.Fatalf("%q was written as %q: %v", text, written, err)
		}
		if len(again.Faults) > 0 || again.Torn {
			t.Fatalf("%q was written as %q: %+v", text, written, again.Faults)
		}
		if second := again.Append(nil); string(second) != string(written) {
			t.Fatalf("written as %q, then as %q", written, second)
		}
		again.Version, again.Torn, again.Faults, again.Lines = l.Version, l.Torn, l.Faults, l.Lines
		if diff := cmp.Diff(l, again); diff != "" {
			t.Fatal(diff)
		}
	})
}

// The order is Dovecot's: package maildir's tests hold it against a real one.
func TestCompareNames(t *testing.T) {
	sorted := []string{
		"a",
		"9.M5P1.h", "10.M5P1.h", "010.M6P1.h:2,S",
		"1700000000.M7P1.h", "1700000000.M10P1.h", "1700000000.P5Q1.h",
		"1700000001.h", "99999999999999999999999999.x",
	}
	for i, a := range sorted {
		for j, b := range sorted {
			if got := uidlist.CompareNames(a, b); got < 0 && i >= j || got > 0 && i <= j || got == 0 && i != j {
				t.Errorf("CompareNames(%q, %q) = %d", a, b, got)
			}
		}
	}
}

func BenchmarkParse(b *testing.B) {
	text := []byte("3 V1795400728 N200000 Ga4f7d52518a4036bc527000083ecc375\n")
	for i := range 100_000 {
		text = fmt.Appendf(text, "%d S2000 W2050 E0 :%d.M%06dP%d.mail.example.org,S=2000,W=2050\n", i+1, 1700000000+i/10, i%1000*7, i)
	}
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := uidlist.Parse(bytes.NewReader(text)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRank(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if rank := uidlist.Rank("1700000000.M123456P4711.mail.example.org,S=2000,W=2050:2,S"); rank.Compare(&rank) != 0 {
			b.Fatal(rank)
		}
	}
}
