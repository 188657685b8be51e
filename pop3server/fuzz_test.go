package pop3server_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"unicode"

	"dewey/pop3"
	"dewey/pop3server"
)

var fuzzSeeds = []string{
	"", "\r\n", "CAPA\r\n", "QUIT\r\n", "QUIT now\r\n", "QUIT", "USER mrose\r\nPASS tanstaaf\r\nSTAT\r\n", "AUTH\r\nAUTH PLAIN\r\n", "AUTH PLAIN\r\nAG1yb3NlAHRhbnN0YWFm\r\nSTAT\r\n", "AUTH LOGIN\r\nbXJvc2U=\r\n*\r\n", "AUTH PLAIN =\r\n",
	"LANG de\r\nLANG\r\nUTF8\r\nCAPA\r\n", "STAT\r\nLIST\r\nUIDL\r\nRETR 1\r\nTOP 2 1\r\nDELE 1\r\nRSET\r\nNOOP\r\nQUIT\r\n",
	"DELE 1\r\nDELE 2\r\nDELE 3\r\nQUIT\r\n", "LIST 01\nLIST 0\nLIST 4294967297\nTOP 1 -1\n", "RETR \x00\r\n\xff\xff\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\n\r\n", strings.Repeat("NOOP\r\n", 100), strings.Repeat("x", 300) + "\r\nQUIT\r\n", "USER %s%n\r\nPASS  \r\n",
}

// Whatever is sent in AUTHORIZATION, and in TRANSACTION: each line gets one response that is well
// formed, in order, and nothing is removed but what was marked, by a QUIT.
func FuzzAuthorization(f *testing.F) { fuzzSession(f, "") }

func FuzzTransaction(f *testing.F) { fuzzSession(f, login) }

// ending ends the last line, and a SASL exchange, and the session.
const ending = "\n*\nQUIT\n"

func fuzzSession(f *testing.F, prefix string) {
	for _, s := range fuzzSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		mail := newShelf(sized(120), ".\n..\n\n.", "Subject: Grüße\n\nb\n")
		l := newListener()
		ended := make(chan pop3server.End, 1)
		srv := &pop3server.Server{Users: users, Maildrops: mail, Logger: slog.New(slog.DiscardHandler)}
		srv.Hooks.Closed = func(_ pop3server.Session, e pop3server.End) { ended <- e }
		served := make(chan error, 1)
		go func() { served <- srv.Serve(l) }()
		c := l.dial("127.0.0.1")
		written := make(chan struct{})
		go func() {
			defer close(written)
			_, _ = io.WriteString(c, prefix+string(in)+ending)
		}()
		out, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		<-written
		_ = srv.Close()
		<-served
		if e := <-ended; e.Err != nil && !errors.Is(e.Err, io.ErrClosedPipe) {
			t.Fatal(e.Err)
		}
		marked := conform(t, bufio.NewReader(bytes.NewReader(out)), strings.SplitAfter(prefix+string(in)+ending, "\n"))
		if len(mail.removed) != marked {
			t.Fatalf("%d removed, %d marked", len(mail.removed), marked)
		}
	})
}

// conform holds the responses against the lines that were sent, up to the +OK to QUIT, and returns how
// many messages were marked then.
func conform(t *testing.T, out *bufio.Reader, lines []string) (marked int) {
	status := func() string {
		l, err := out.ReadString('\n')
		if rest, ok := strings.CutPrefix(l, "+ "); err == nil && ok { // a challenge
			if _, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(rest, "\r\n")); err != nil {
				t.Fatalf("challenge %q: %v", l, err)
			}
			return l
		}
		if err != nil || len(l) > pop3.MaxResponse || !strings.HasSuffix(l, "\r\n") ||
			!strings.HasPrefix(l, "+OK") && !strings.HasPrefix(l, "-ERR") || strings.ContainsFunc(l[:len(l)-2], unicode.IsControl) {
			t.Fatalf("status line %q, %v", l, err)
		}
		return l
	}
	status() // the greeting
	exchange := false
	for _, line := range lines {
		response := status()
		exchanged := exchange
		exchange = strings.HasPrefix(response, "+ ")
		if exchanged || !strings.HasPrefix(response, "+OK") {
			continue
		}
		words := strings.Fields(strings.ToUpper(line))
		switch words[0] {
		case "QUIT":
			if rest, _ := io.ReadAll(out); len(rest) > 0 {
				t.Fatalf("after QUIT: %q", rest)
			}
			return marked
		case "DELE":
			marked++
		case "RSET":
			marked = 0
		}
		if multi := len(words) == 1; words[0] == "RETR" || words[0] == "TOP" || words[0] == "CAPA" ||
			multi && (words[0] == "LIST" || words[0] == "UIDL" || words[0] == "LANG" || words[0] == "AUTH") {
			for {
				l, err := out.ReadString('\n')
				if err != nil || !strings.HasSuffix(l, "\r\n") {
					t.Fatalf("%s: line %q, %v", line, l, err)
				}
				if l == ".\r\n" {
					break
				}
			}
		}
	}
	t.Fatal("no +OK to QUIT")
	return 0
}
