package pop3server_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"unicode"

	"dewey/auth"
	"dewey/pop3"
	"dewey/pop3server"
	"dewey/sasl"
)

var fuzzSeeds = []string{
	"", "\r\n", "CAPA\r\n", "QUIT\r\n", "QUIT now\r\n", "QUIT", "USER mrose\r\nPASS tanstaaf\r\nSTAT\r\n", "AUTH\r\nAUTH PLAIN\r\n", "AUTH PLAIN\r\nAG1yb3NlAHRhbnN0YWFm\r\nSTAT\r\n", "AUTH LOGIN\r\nbXJvc2U=\r\n*\r\n", "AUTH PLAIN =\r\n",
	"LANG de\r\nLANG\r\nUTF8\r\nCAPA\r\n", "STAT\r\nLIST\r\nUIDL\r\nRETR 1\r\nTOP 2 1\r\nDELE 1\r\nRSET\r\nNOOP\r\nQUIT\r\n",
	"DELE 1\r\nDELE 2\r\nDELE 3\r\nQUIT\r\n", "LIST 01\nLIST 0\nLIST 4294967297\nTOP 1 -1\n", "RETR \x00\r\n\xff\xff\r\n",
	"USER recent:mrose\r\nPASS tanstaaf\r\nDELE 1\r\nQUIT\r\n", "USER mrose+x\r\nPASS tanstaaf\r\nUSER recent:\r\nPASS +\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\n\r\n", strings.Repeat("NOOP\r\n", 100), strings.Repeat("x", 300) + "\r\nQUIT\r\n", "USER %s%n\r\nPASS  \r\n",
}

// authSeeds are for a server that knows secrets, at a connection where passwords may go as they are.
var authSeeds = []string{
	"AUTH\r\nAUTH CRAM-MD5\r\ndGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw\r\nCAPA\r\n", "AUTH CRAM-MD5 =\r\nAUTH CRAM-MD5\r\n*\r\n",
	"AUTH SCRAM-SHA-256 biwsbj11c2VyLHI9ck9wck5HZndFYmVSV2diTkVrcU8=\r\nYz1iaXdzLHI9eCxwPXg=\r\nNOOP\r\n", "AUTH SCRAM-SHA-1\r\nbixhPW1yb3NlLG49YWRtaW4scj1meWtv\r\n*\r\n",
	"AUTH SCRAM-SHA-1 eSwsbj11c2VyLHI9Zg==\r\n=\r\n", "AUTH SCRAM-SHA-256-PLUS cD10bHMtZXhwb3J0ZXIsLG49dSxyPXg=\r\n", "AUTH EXTERNAL =\r\n",
	"AUTH LOGIN\r\nYWRtaW4=\r\nYSAgYg==\r\nSTAT\r\nDELE 1\r\n", "AUTH PLAIN bXJvc2UAYWRtaW4AYSAgYg==\r\nRETR 1\r\nQUIT\r\n", "AUTH PLAIN\r\nbXJvc2UAYWRtaW4AYSAgYg==\r\nDELE 2\r\n",
	"APOP mrose c4c9334bac560ecc979e58001b3e22fb\r\nAPOP\r\n", "XCLIENT ADDR=192.0.2.9 PORT=7\r\nUSER mrose\r\nCAPA\r\n", "XCLIENT ADDR=127.0.0.1\r\nXCLIENT ADDR=::1\r\n",
	"AUTH PLAIN " + plain("recent:mrose", "admin+x", "a  b") + "\r\nRETR 1\r\n", "AUTH PLAIN " + plain("mrose+x", "admin", "a  b") + "\r\n",
	"AUTH PLAIN " + strings.Repeat("A", 400) + "\r\nCAPA\r\n", "AUTH LOGIN\r\n" + strings.Repeat("QUIT", 150) + "\r\nNOOP\r\n", "auth\r\nAuTh pLaIn =\r\n",
}

// Whatever is sent in AUTHORIZATION, and in TRANSACTION: each line gets one response that is well
// formed, in order, and nothing is removed but what was marked, by a QUIT.
func FuzzAuthorization(f *testing.F) { fuzzSession(f, fuzzSeeds, users, "") }

func FuzzTransaction(f *testing.F) { fuzzSession(f, fuzzSeeds, users, login) }

// And so with each SASL mechanism, and XCLIENT, on offer; who logged in had the right to.
func FuzzAuth(f *testing.F) { fuzzSession(f, append(authSeeds, fuzzSeeds...), newRoster(), "") }

// ending ends the last line, and a SASL exchange, and the session.
const ending = "\n*\nQUIT\n"

func fuzzSession(f *testing.F, seeds []string, users auth.PasswordChecker, prefix string) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		mail := newShelf(sized(120), ".\n..\n\n.", "Subject: Grüße\n\nb\n")
		l := newListener()
		ended := make(chan pop3server.End, 1)
		srv := &pop3server.Server{Users: users, Maildrops: mail, View: takeApart, Logger: slog.New(slog.DiscardHandler)}
		if _, ok := users.(auth.SecretKeeper); ok {
			srv.Settings.Mechanisms = append(sasl.Names(), auth.APOP)
			srv.Settings.Trusted = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		}
		var who pop3server.Session
		srv.Hooks.LoggedIn = func(s pop3server.Session, _ int, _ int64) { who = s }
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
		e := <-ended // by itself: the server's end would hide why
		_ = srv.Close()
		<-served
		if e.Err != nil && strings.Contains(e.Err.Error(), "PROXY header") { // trap 51: the connection ends, whatever follows
			return
		}
		if errors.Is(e.Err, pop3server.ErrTooManyErrors) { // TestErrorsEndTheSession
			return
		}
		if e.Err != nil && !errors.Is(e.Err, io.ErrClosedPipe) {
			t.Fatal(e.Err)
		}
		// A SCRAM or CRAM-MD5 proof can't come from who does not see the challenge.
		if who.User != "" && who.Method != "PASS" && who.Method != "PLAIN" && who.Method != "LOGIN" {
			t.Fatalf("logged in: %+v", who)
		}
		if strings.ContainsAny(who.User, ":+") {
			t.Fatalf("logged in by a name that was not taken apart: %+v", who)
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
