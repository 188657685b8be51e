package pop3server_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"dewey/auth"
	"dewey/internal/popwire"
	"dewey/pop3server"
)

func withRoster(r *roster) func(*pop3server.Server) {
	return func(s *pop3server.Server) {
		withTLS(s)
		s.Users = r
		s.Settings.FailureDelay = 0
	}
}

const refused = "-ERR [AUTH] authentication failed"

// timestamp takes the greeting's, in the only form that all clients take. RFC 1939 section 7.
func (v *visitor) timestamp(t testing.TB) string {
	t.Helper()
	greeting, err := v.in.ReadString('\n')
	stamp := regexp.MustCompile(`^\+OK [^<>]*(<[0-9]+\.[0-9]+@[A-Za-z0-9.-]+>)\r\n$`).FindStringSubmatch(greeting)
	if err != nil || stamp == nil {
		t.Fatalf("greeting %q, %v", greeting, err)
	}
	return stamp[1]
}

// APOP by RFC 1939 section 7: each connection has a timestamp of its own, and the digest of one is worth nothing on
// another, nor once more on the same. Trap 44.
func TestTrap44APOP(t *testing.T) {
	var in pop3server.Session
	b := newBench(t, newShelf(sized(120)), func(s *pop3server.Server) {
		withRoster(newRoster())(s)
		s.Hooks.LoggedIn = func(s pop3server.Session, _ int, _ int64) { in = s }
	})
	seen := make(map[string]bool)
	for range 50 {
		v := b.visit(t, remote)
		stamp := v.timestamp(t)
		if seen[stamp] {
			t.Errorf("%s came twice", stamp)
		}
		seen[stamp] = true
		_ = v.Close()
	}
	one, two := b.visit(t, remote), b.visit(t, remote)
	stamp, other := one.timestamp(t), two.timestamp(t)
	two.ask(t, "APOP mrose "+apopDigest(stamp, "tanstaaf"), refused)
	one.ask(t, "APOP mrose "+apopDigest(stamp, "tanstaaf"), "+OK 1 message (120 octets)")
	if got := one.say(t, "APOP mrose "+apopDigest(stamp, "tanstaaf")); !strings.HasPrefix(got, "-ERR") {
		t.Error(got)
	}
	if in.Method != "APOP" || in.User != "mrose" || in.TLS {
		t.Errorf("%+v", in)
	}
	one.ask(t, "QUIT", "+OK bye")
	two.ask(t, "apop mrose "+apopDigest(other, "tanstaaf"), "+OK 1 message (120 octets)")
}

// A timestamp is shown only where every user could log in with it, since clients do not fall back, or where the
// administrator says so; and APOP is taken only then. RFC 1939 section 7.
func TestAPOPOnlyIfOffered(t *testing.T) {
	strong, weak := newRoster(), newRoster()
	weak.weak = []string{auth.APOP}
	for _, c := range []struct {
		name       string
		users      auth.PasswordChecker
		mechanisms []string
		want       bool
	}{
		{"no secrets", checker{strong}, nil, false},
		{"no secrets, ordered", checker{strong}, []string{"APOP"}, false},
		{"secrets", strong, nil, true},
		{"secrets of some", weak, nil, false},
		{"secrets of some, ordered", weak, []string{"PLAIN", "APOP"}, true},
		{"turned off", strong, []string{"PLAIN", "CRAM-MD5"}, false},
		{"all turned off", strong, []string{}, false},
	} {
		b := newBench(t, newShelf(), func(s *pop3server.Server) { s.Users, s.Settings.Mechanisms = c.users, c.mechanisms })
		v := b.visit(t, "127.0.0.1")
		greeting := v.line(t)
		if got := strings.ContainsAny(greeting, "<>"); got != c.want {
			t.Errorf("%s: %q", c.name, greeting)
		}
		if got := v.say(t, "APOP mrose "+apopDigest("", "tanstaaf")); strings.Contains(got, "[AUTH]") != c.want {
			t.Errorf("%s: %q", c.name, got)
		}
		b.end()
	}
}

// CRAM-MD5 by RFC 2195: the server speaks first, in base64, with a new challenge each time; an initial response is
// an error. RFC 5034 section 4.
func TestCRAMMD5(t *testing.T) {
	b := newBench(t, newShelf(sized(120)), withRoster(newRoster()))
	v := b.visit(t, remote)
	_ = v.line(t)
	for _, initial := range []string{"=", b64("tim b913a602c7eda7a495b4e6e7334d3890")} {
		if got := v.say(t, "AUTH CRAM-MD5 "+initial); !strings.HasPrefix(got, "-ERR ") || strings.Contains(got, "[") {
			t.Errorf("an initial response: %q", got)
		}
	}
	first := unchallenge(t, v.say(t, "AUTH CRAM-MD5"))
	v.ask(t, b64(cramResponse("tim", "wrong", first)), refused)
	second := unchallenge(t, v.say(t, "AUTH CRAM-MD5"))
	if first == second || !regexp.MustCompile(`^<[0-9]+\.[0-9]+@[A-Za-z0-9.-]+>$`).MatchString(second) {
		t.Errorf("challenges %s, %s", first, second)
	}
	v.ask(t, b64(cramResponse("tim", "tanstaaftanstaaf", first)), refused) // a replay
	third := unchallenge(t, v.say(t, "AUTH cram-md5"))
	v.ask(t, b64(cramResponse("tim", "tanstaaftanstaaf", third)), "+OK 1 message (120 octets)")
}

// SCRAM by RFC 5802: whole exchanges, with the server's signature as a challenge before +OK, which the client
// answers with an empty response (RFC 5034 section 4). A client that sends no initial response, a wrong proof, a
// client that cancels at each point.
func TestSCRAM(t *testing.T) {
	b := newBench(t, newShelf(sized(120)), withRoster(newRoster()))
	for _, m := range []struct {
		name string
		c    scramClient
	}{
		{"SCRAM-SHA-1", scramClient{hash: sha1.New, gs2: "n,,", user: "user", password: "pencil"}},
		{"SCRAM-SHA-256", scramClient{hash: sha256.New, gs2: "n,,", user: "user", password: "pencil"}},
	} {
		v := b.visit(t, remote)
		_ = v.line(t)
		wrong := m.c
		wrong.password = "pencils"
		if got := v.scram(t, m.name, &wrong); got != refused {
			t.Errorf("%s: a wrong password: %q", m.name, got)
		}
		spoilt := m.c
		spoilt.spoil = true
		if got := v.scram(t, m.name, &spoilt); got != refused {
			t.Errorf("%s: a wrong proof: %q", m.name, got)
		}
		if got := v.say(t, "AUTH "+m.name); got != "+ " {
			t.Errorf("%s: %q", m.name, got)
		}
		first := v.say(t, b64(m.c.gs2+m.c.bare()))
		v.ask(t, "*", "-ERR authentication cancelled")
		// A server-first-message of another exchange: another nonce.
		_ = v.say(t, "AUTH "+m.name+" "+b64(m.c.gs2+m.c.bare()))
		v.ask(t, b64(m.c.final(t, unchallenge(t, first))), refused)
		// The user is proven, and cancels: he is not in.
		first = v.say(t, "AUTH "+m.name+" "+b64(m.c.gs2+m.c.bare()))
		_ = unchallenge(t, v.say(t, b64(m.c.final(t, unchallenge(t, first)))))
		v.ask(t, "*", "-ERR authentication cancelled")
		v.ask(t, "STAT", "-ERR command not valid in this state")
		// An answer to the signature that is not empty.
		first = v.say(t, "AUTH "+m.name+" "+b64(m.c.gs2+m.c.bare()))
		_ = unchallenge(t, v.say(t, b64(m.c.final(t, unchallenge(t, first)))))
		if got := v.say(t, b64("STAT")); !strings.HasPrefix(got, "-ERR ") {
			t.Errorf("%s: %q", m.name, got)
		}
		if got := v.scram(t, m.name, &m.c); got != "+OK 1 message (120 octets)" {
			t.Errorf("%s: %q", m.name, got)
		}
		v.ask(t, "QUIT", "+OK bye")
	}
}

// Trap 42: an unknown user gets a salt and an iteration count as others do, the same each time and over
// connections, and the refusal comes at the end.
func TestTrap42SCRAMOfNobody(t *testing.T) {
	b := newBench(t, newShelf(), withRoster(newRoster()))
	var salts []string
	for range 2 {
		v := b.visit(t, remote)
		_ = v.line(t)
		c := &scramClient{hash: sha256.New, gs2: "n,,", user: "nobody", password: "x"}
		first := unchallenge(t, v.say(t, "AUTH SCRAM-SHA-256 "+b64(c.gs2+c.bare())))
		fields := strings.Split(first, ",")
		if len(fields) != 3 || fields[2] != "i=4096" {
			t.Fatalf("server-first-message %q", first)
		}
		salts = append(salts, fields[1])
		v.ask(t, b64(c.final(t, first)), refused)
		// Whoever could guess what was made up is not in either.
		c.password = "made up for nobody"
		if got := v.scram(t, "SCRAM-SHA-256", c); got != refused {
			t.Error(got)
		}
	}
	if salts[0] != salts[1] {
		t.Errorf("salts %q", salts)
	}
}

// Responses of up to 64 KiB are taken, on a line of their own and with the command; over the limit there is one -ERR
// and the session goes on in step. Traps 36, 39.
func TestTrap39LongResponses(t *testing.T) {
	b := newBench(t, newShelf(sized(120)), withRoster(newRoster()))
	token := func(octets int) string { return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{'x'}, octets)) }
	for _, c := range []struct {
		response string
		long     bool
	}{
		{token(200), false},
		{token(1 << 10), false},
		{token(4 << 10), false},
		{token(64 << 10), false},
		{strings.Repeat("A", popwire.MaxResponse), false},
		{strings.Repeat("A", popwire.MaxResponse+1), true},
		{token(1 << 20), true},
		{strings.Repeat("QUIT\r", 100_000), true},
	} {
		v := b.visit(t, remote)
		_ = v.line(t)
		v.stls(t, clientTLS())
		if got := v.say(t, "AUTH PLAIN"); got != "+ " {
			t.Fatal(got)
		}
		check := func(got string) {
			if !strings.HasPrefix(got, "-ERR ") || strings.Contains(got, "too long") != c.long {
				t.Errorf("%d octets of %.10q: %q", len(c.response), c.response, got)
			}
		}
		check(v.say(t, c.response))
		v.ask(t, "NOOP", "-ERR command not valid in this state")
		if len("AUTH PLAIN "+c.response) <= popwire.MaxResponse || c.long {
			check(v.say(t, "AUTH PLAIN "+c.response))
		}
		v.ask(t, "NOOP", "-ERR command not valid in this state")
		v.ask(t, "AUTH PLAIN "+plain("", "mrose", "tanstaaf"), "+OK 1 message (120 octets)")
		// Inside, a long line is long again.
		v.ask(t, strings.Repeat("x", 300), "-ERR command line too long")
		v.ask(t, "QUIT", "+OK bye")
	}
}

// A client that is gone inside an exchange, at each point, leaves nothing behind, and an address can still try: four
// undecided attempts would be the most.
func TestDisconnectInsideExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended chan pop3server.End
		b := newBench(t, newShelf(), func(s *pop3server.Server) {
			withRoster(newRoster())(s)
			s.Throttle = auth.NewThrottle(auth.Limits{MaxDelay: maxDelay})
			ended = ends(s)
		})
		c := &scramClient{hash: sha256.New, gs2: "n,,", user: "user", password: "pencil"}
		for point := range 12 {
			v := b.visit(t, remote)
			_ = v.line(t)
			first := v.say(t, "AUTH SCRAM-SHA-256 "+b64(c.gs2+c.bare()))
			switch point % 3 {
			case 1:
				_, _ = io.WriteString(v, "cmw") // half a line
			case 2:
				_ = v.say(t, b64(c.final(t, unchallenge(t, first))))
			}
			_ = v.Close()
			if e := <-ended; !errors.Is(e.Err, io.EOF) && !errors.Is(e.Err, io.ErrUnexpectedEOF) && !errors.Is(e.Err, io.ErrClosedPipe) {
				t.Errorf("ended by %v", e.Err)
			}
		}
		v := b.visit(t, remote)
		_ = v.line(t)
		took := elapsed(func() {
			if got := v.scram(t, "SCRAM-SHA-256", c); got != "+OK 0 messages (0 octets)" {
				t.Error(got)
			}
		})
		if took > 0 {
			t.Errorf("it took %v", took)
		}
		_ = v.Close()
		b.end()
	})
}

// AUTH after login is refused, whatever its arguments, and begins nothing. RFC 5034 section 4.
func TestAuthAfterLogin(t *testing.T) {
	b := newBench(t, newShelf(), withRoster(newRoster()))
	v := b.visit(t, remote)
	_ = v.line(t)
	before := v.multi(t, "CAPA")
	stamp := apopDigest("<1.1@localhost>", "tanstaaf")
	if got := v.scram(t, "SCRAM-SHA-1", &scramClient{hash: sha1.New, gs2: "n,,", user: "user", password: "pencil"}); !strings.HasPrefix(got, "+OK") {
		t.Fatal(got)
	}
	for _, command := range []string{
		"AUTH", "AUTH PLAIN", "AUTH PLAIN =", "AUTH CRAM-MD5", "AUTH SCRAM-SHA-1", "AUTH NONE", "APOP mrose " + stamp, "USER mrose", "PASS tanstaaf", "UTF8", "STLS", "XCLIENT ADDR=192.0.2.9",
	} {
		v.ask(t, command, "-ERR command not valid in this state")
	}
	// What was there before login is there still, but for STLS. RFC 2449 section 5, RFC 2595 section 4.
	want := slices.DeleteFunc(before, func(tag string) bool { return tag == "STLS" })
	if got := v.multi(t, "CAPA"); !slices.Equal(got, want) {
		t.Errorf("after login %q, before %q", got, want)
	}
}

// A backend that fails is no refusal, in any mechanism; and so is one that panics the end of its session alone.
func TestBackendFaultInExchange(t *testing.T) {
	r := newRoster()
	b := newBench(t, newShelf(), withRoster(r))
	const fault = "-ERR [SYS/TEMP] temporary fault, try again later"
	c := &scramClient{hash: sha1.New, gs2: "n,,", user: "user", password: "pencil"}
	for _, panics := range []bool{false, true} {
		if r.fault = errAway; panics {
			r.fault, r.panics = nil, "user"
		}
		for _, mechanism := range []string{"PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "APOP", "PASS"} {
			v := b.visit(t, remote)
			stamp := v.timestamp(t)
			v.stls(t, clientTLS())
			line := map[string]string{
				"PLAIN": "AUTH PLAIN " + plain("", "user", "pencil"), "LOGIN": b64("pencil"), "PASS": "PASS pencil",
				"SCRAM-SHA-1": "AUTH SCRAM-SHA-1 " + b64(c.gs2+c.bare()), "APOP": "APOP user " + apopDigest(stamp, "pencil"),
			}[mechanism]
			switch mechanism {
			case "LOGIN":
				_ = v.say(t, "AUTH LOGIN "+b64("user"))
			case "PASS":
				_ = v.say(t, "USER user")
			case "CRAM-MD5":
				line = b64(cramResponse("user", "pencil", unchallenge(t, v.say(t, "AUTH CRAM-MD5"))))
			}
			if !panics {
				v.ask(t, line, fault)
				continue
			}
			_, _ = io.WriteString(v, line+"\r\n")
			if got, _ := v.rest(t); got != "" {
				t.Errorf("%s: %q after a panic", mechanism, got)
			}
		}
	}
	r.panics = ""
	v := b.visit(t, remote)
	_ = v.line(t)
	if got := v.scram(t, "SCRAM-SHA-1", c); got != "+OK 0 messages (0 octets)" {
		t.Error(got)
	}
}

// A Host's context ends with its client: a slow backend is told that nobody waits any more.
func TestBackendIsToldThatTheServerCloses(t *testing.T) {
	asked := make(chan struct{})
	b := newBench(t, newShelf(), func(s *pop3server.Server) {
		s.Users = auth.PasswordFunc(func(ctx context.Context, _ auth.Attempt) (auth.Identity, error) {
			close(asked)
			<-ctx.Done()
			return auth.Identity{}, ctx.Err()
		})
	})
	v := b.visit(t, "127.0.0.1")
	_ = v.line(t)
	_, _ = io.WriteString(v, "AUTH PLAIN "+plain("", "mrose", "x")+"\r\n")
	<-asked
	b.end()
	if got, _ := bufio.NewReader(v.in).ReadString('\n'); got != "" {
		t.Errorf("said %q", got)
	}
}
