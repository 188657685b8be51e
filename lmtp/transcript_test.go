package lmtp_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"dewey/internal/poptest"
	"dewey/lmtp"
)

// Headers of a transcript: "settings" changes one, "fault" orders one of the box, "got" is an owner's messages
// in Go's quotes, without the trace, "log" what the log must have. Who is not named by got has no mail.
func TestTranscripts(t *testing.T) {
	for _, tr := range poptest.Read(t, "testdata/transcripts") {
		t.Run(tr.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { play(t, tr) })
		})
	}
}

func play(t *testing.T, tr poptest.Transcript) {
	b := newBench(t, newPipes(), func(s *lmtp.Server) {
		for _, v := range tr.Headers["settings"] {
			name, value, _ := strings.Cut(v, " ")
			n, _ := strconv.Atoi(value)
			switch name {
			case "MaxSize":
				s.Settings.MaxSize = int64(n)
			case "MaxConnections":
				s.Settings.MaxConnections = n
			case "OverQuotaTemporary":
				s.Settings.OverQuotaTemporary = true
			default:
				t.Fatalf("settings: %s", v)
			}
		}
	})
	for _, v := range tr.Headers["fault"] {
		f := strings.Fields(v)
		b.box.fault(f[0], f[1], f[2])
	}
	want := make(map[string][]string)
	for _, v := range tr.Headers["got"] {
		owner, text, _ := strings.Cut(v, " ")
		text, err := strconv.Unquote(text)
		if err != nil {
			t.Fatal(v, err)
		}
		want[owner] = append(want[owner], text)
	}
	tr.Play(t, b.pipe.dial)
	b.end()
	for owner, mail := range b.box.mail {
		var got []string
		for _, m := range mail {
			got = append(got, content(t, m))
		}
		if !slices.Equal(got, want[owner]) {
			t.Errorf("%s has %q, want %q", owner, got, want[owner])
		}
		delete(want, owner)
	}
	if len(want) > 0 {
		t.Errorf("missing: %q", want)
	}
	for _, l := range tr.Headers["log"] {
		if !strings.Contains(b.log.String(), l) {
			t.Errorf("the log lacks %q:\n%s", l, b.log)
		}
	}
	for name := range tr.Headers {
		if !slices.Contains([]string{"settings", "fault", "got", "log"}, name) {
			t.Fatal(fmt.Errorf("unknown header %q", name))
		}
	}
}
