package pop3server_test

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dewey/auth"
	"dewey/internal/poptest"
	"dewey/maildrop"
	"dewey/pop3server"
)

// Headers of a transcript: "sizes" makes messages of so many octets, "mail" one from a Go string;
// "from" is the client's address, "settings" changes one of them, "fault" orders one from the store;
// "users: roster" has the server know secrets too, "life: user" and then Retention or Deletion what is stored of one;
// "ages" says how long ago each message came, "folders" which there are, and "views" lets names ask for some;
// "removed" says which messages, by the number that they had first, must have been removed at the
// end, and "log" what the log must have.
func TestTranscripts(t *testing.T) {
	for _, tr := range poptest.Read(t, "testdata/transcripts") {
		t.Run(tr.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { play(t, tr) })
		})
	}
}

func play(t *testing.T, tr poptest.Transcript) {
	mail := newShelf()
	from := "127.0.0.1"
	change := func(*pop3server.Server) {}
	removed := ""
	var logged, ages []string
	known := newRoster()
	known.lives = make(map[string]auth.Life)
	for name, values := range tr.Headers {
		for _, v := range values {
			switch name {
			case "sizes":
				for _, n := range strings.Fields(v) {
					octets, _ := strconv.Atoi(n)
					mail.add(sized(octets))
				}
			case "mail":
				text, err := strconv.Unquote(v)
				if err != nil {
					t.Fatalf("mail %s: %v", v, err)
				}
				mail.add(text)
			case "from":
				from = v
			case "settings":
				was := change
				change = func(s *pop3server.Server) { was(s); set(t, &s.Settings, v) }
			case "users":
			case "life":
				user, value, _ := strings.Cut(v, " ")
				known.lives[user] = lifeOf(value)
			case "ages":
				ages = strings.Fields(v)
			case "folders":
				mail.folders = strings.Fields(v)
			case "views":
				was := change
				change = func(s *pop3server.Server) { was(s); s.View = takeApart }
			case "fault":
				order(t, mail, v)
			case "removed":
				if v != "none" {
					removed = "uid" + strings.ReplaceAll(v, " ", " uid")
				}
			case "log":
				logged = append(logged, v)
			default:
				t.Fatalf("unknown header %q", name)
			}
		}
	}
	for i, age := range ages {
		d, err := time.ParseDuration(age)
		if err != nil {
			t.Fatal(err)
		}
		mail.mail[i].at = time.Now().Add(-d)
	}
	b := newBench(t, mail, func(s *pop3server.Server) {
		if change(s); len(tr.Headers["users"])+len(tr.Headers["life"]) > 0 {
			s.Users = known
		}
	})
	tr.Play(t, func() net.Conn { return b.dial(from) })
	b.end()
	if got := mail.gone(); got != removed {
		t.Errorf("removed %q, want %q", got, removed)
	}
	for _, l := range logged {
		if !strings.Contains(b.log.String(), l) {
			t.Errorf("the log lacks %q:\n%s", l, b.log)
		}
	}
	if strings.Contains(b.log.String(), "tanstaaf") {
		t.Errorf("the log has a password:\n%s", b.log)
	}
}

// lifeOf is of one word: a Retention, "off", or a Deletion.
func lifeOf(word string) auth.Life {
	if word == "off" {
		return auth.Life{Retention: maildrop.Off}
	}
	if d, err := time.ParseDuration(word); err == nil {
		return auth.Life{Retention: d}
	}
	return auth.Life{Deletion: word}
}

func set(t *testing.T, s *pop3server.Settings, v string) {
	name, value, _ := strings.Cut(v, "=")
	n, _ := strconv.Atoi(value)
	switch name {
	case "plaintext":
		s.Plaintext = map[string]pop3server.Plaintext{"never": pop3server.PlaintextNever, "always": pop3server.PlaintextAlways}[value]
	case "implementation":
		s.Implementation = value
	case "language":
		s.Language = value
	case "hostname":
		s.Hostname = value
	case "logindelay":
		s.LoginDelay, _ = time.ParseDuration(value)
	case "maxperuser":
		s.MaxPerUser = n
	case "maxattempts":
		s.MaxAttempts = n
	case "logintimeout":
		s.LoginTimeout, _ = time.ParseDuration(value)
	case "retention":
		s.Life.Retention, _ = time.ParseDuration(value)
	case "deletion":
		s.Life.Deletion = value
	case "window":
		s.Life.Window, _ = time.ParseDuration(value)
	case "windowmessages":
		s.Life.WindowMessages = int64(n)
	case "nouserpass":
		s.NoUserPass = value == "true"
	case "mechanisms":
		s.Mechanisms = strings.FieldsFunc(value, func(r rune) bool { return r == ',' })
	default:
		t.Fatalf("unknown setting %q", v)
	}
}

// order arranges a fault: what, then of which unique-id.
func order(t *testing.T, mail *shelf, v string) {
	what, uid, _ := strings.Cut(v, " ")
	fault := errors.New("input/output error")
	switch what {
	case "open":
		mail.openErr = fault
	case "damaged":
		mail.openErr = fmt.Errorf("uid list line 3: %w", maildrop.ErrDamaged)
	case "in-use":
		mail.openErr = maildrop.ErrInUse
	case "unreadable":
		mail.readErr = map[string]error{uid: fault}
	case "vanishes":
		mail.vanish = uid
	case "cut":
		mail.cutAfter = map[string]int{uid: 20}
	case "short":
		mail.trim = map[string]int{uid: 10}
	case "not-removed":
		mail.failDele = map[string]error{uid: fault}
	case "panic":
		mail.panicOn = uid
	case "claims-7":
		mail.claim = map[string]int64{uid: 7}
	default:
		t.Fatalf("unknown fault %q", v)
	}
}

// sized is a message of so many octets as sent.
func sized(octets int) string {
	const head = "Subject: a\r\n\r\n"
	if octets < len(head)+2 {
		panic("too small")
	}
	return head + strings.Repeat("x", octets-len(head)-2) + "\r\n"
}
