package pop3server_test

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dewey/auth"
	"dewey/maildrop"
	"dewey/pop3server"
)

// tokens are a roster's users who have tokens.
type tokens struct {
	*roster
	users map[string]string // whom each token names
}

func (k tokens) CheckToken(_ context.Context, t auth.Token) (auth.Identity, error) {
	if err := k.note("token", cmp.Or(t.User, "-"), t.Remote); err != nil {
		return auth.Identity{}, err
	}
	switch user, ok := k.users[t.Bearer]; {
	case ok && t.Bearer == "narrow":
		return auth.Identity{}, &auth.TokenRefusal{Status: auth.TokenInsufficient, Scope: "mail"}
	case ok:
		return auth.Identity{User: user}, nil
	}
	return auth.Identity{}, &auth.TokenRefusal{Status: auth.TokenInvalid, Scope: "mail", ConfigurationURL: "https://id.example.org/.well-known/openid-configuration"}
}

func newTokens() tokens {
	return tokens{newRoster(), map[string]string{
		"tims": "tim", "chiefs": "admin", "narrow": "tim", "stranger": "nobody", strings.Repeat("t", 64<<10): "tim",
	}}
}

func withTokens(k tokens) func(*pop3server.Server) {
	return func(s *pop3server.Server) {
		withTLS(s)
		s.Users, s.Settings.FailureDelay, s.View = k, 0, takeApart
	}
}

func oauthbearer(as, token string) string {
	if as != "" {
		as = "a=" + as
	}
	return b64("n," + as + ",\x01host=mail.example.org\x01port=110\x01auth=Bearer " + token + "\x01\x01")
}

func xoauth2(user, token string) string {
	return b64("user=" + user + "\x01auth=Bearer " + token + "\x01\x01")
}

// under is a visitor under TLS.
func (b *bench) under(t *testing.T) *visitor {
	t.Helper()
	v := b.visit(t, remote)
	_ = v.line(t)
	v.stls(t, clientTLS())
	return v
}

// Both mechanisms, in one step and in two, with names and without; a refused client learns why, answers, and has failed.
// The session goes on in step. RFC 7628 section 3.2.3, RFC 5034 section 4.
func TestTokens(t *testing.T) {
	const (
		invalid = `{"status":"invalid_token","scope":"mail","openid-configuration":"https://id.example.org/.well-known/openid-configuration"}`
		xinv    = `{"status":"401","schemes":"bearer","scope":"mail","openid-configuration":"https://id.example.org/.well-known/openid-configuration"}`
		other   = `{"status":"invalid_token"}`
		xother  = `{"status":"401","schemes":"bearer"}`
	)
	for _, c := range []struct {
		mechanism, response string
		told                string // none: in
		user, by            string
		view                maildrop.View
	}{
		{"OAUTHBEARER", oauthbearer("", "tims"), "", "tim", "", maildrop.View{}},
		{"OAUTHBEARER", oauthbearer("tim", "tims"), "", "tim", "", maildrop.View{}},
		{"OAUTHBEARER", oauthbearer("user", "chiefs"), "", "user", "admin", maildrop.View{}},
		{"OAUTHBEARER", oauthbearer("recent:tim+Spam", "tims"), "", "tim", "", maildrop.View{Recent: month, Folder: "Spam"}},
		{"OAUTHBEARER", oauthbearer("recent:user", "chiefs"), "", "user", "admin", maildrop.View{Recent: month}},
		{"OAUTHBEARER", oauthbearer("tim", strings.Repeat("t", 64<<10)), "", "tim", "", maildrop.View{}},
		{"XOAUTH2", xoauth2("tim", "tims"), "", "tim", "", maildrop.View{}},
		{"XOAUTH2", xoauth2("user", "chiefs"), "", "user", "admin", maildrop.View{}},
		{"XOAUTH2", xoauth2("tim", strings.Repeat("t", 64<<10)), "", "tim", "", maildrop.View{}},

		{"OAUTHBEARER", oauthbearer("tim", "bad"), invalid, "", "", maildrop.View{}},
		{"OAUTHBEARER", oauthbearer("", "bad"), invalid, "", "", maildrop.View{}},
		{"OAUTHBEARER", b64("n,a=tim,\x01auth=\x01\x01"), invalid, "", "", maildrop.View{}},
		{"OAUTHBEARER", oauthbearer("tim", "narrow"), `{"status":"insufficient_scope","scope":"mail"}`, "", "", maildrop.View{}},
		{"OAUTHBEARER", oauthbearer("user", "tims"), other, "", "", maildrop.View{}},
		{"OAUTHBEARER", oauthbearer("who", "tims"), other, "", "", maildrop.View{}},
		{"OAUTHBEARER", oauthbearer("recent:", "tims"), other, "", "", maildrop.View{}},
		{"XOAUTH2", xoauth2("tim", "bad"), xinv, "", "", maildrop.View{}},
		{"XOAUTH2", xoauth2("tim", "narrow"), `{"status":"403","schemes":"bearer","scope":"mail"}`, "", "", maildrop.View{}},
		{"XOAUTH2", xoauth2("user", "tims"), xother, "", "", maildrop.View{}},
		{"XOAUTH2", xoauth2("tim", "chiefs.not"), xinv, "", "", maildrop.View{}},
	} {
		for _, steps := range []int{1, 2} {
			for _, answer := range []string{"AQ==", "", "*", "no base64"} {
				var in pop3server.Session
				failed := 0
				b := newBench(t, newShelf(sized(120)), func(s *pop3server.Server) {
					withTokens(newTokens())(s)
					s.Hooks.LoggedIn = func(s pop3server.Session, _ int, _ int64) { in = s }
					s.Hooks.LoginFailed = func(pop3server.Session, string, error) { failed++ }
				})
				b.mail.folders = []string{"Spam"}
				v := b.under(t)
				var got string
				if steps == 2 {
					v.ask(t, "AUTH "+c.mechanism, "+ ")
					got = v.say(t, c.response)
				} else {
					got = v.say(t, "AUTH "+c.mechanism+" "+c.response)
				}
				if c.told == "" {
					v.ask(t, "QUIT", "+OK bye")
					_ = v.Close()
					b.end()
					if !strings.HasPrefix(got, "+OK ") || in.User != c.user || in.By != c.by || in.Method != c.mechanism || in.View != c.view || failed != 0 {
						t.Errorf("%s %.60s: %q, %+v", c.mechanism, c.response, got, in)
					}
					break
				}
				if told := unchallenge(t, got); told != c.told {
					t.Errorf("%s %.60s: %s, want %s", c.mechanism, c.response, told, c.told)
				}
				v.ask(t, answer, refused)
				v.ask(t, "AUTH XOAUTH2 "+xoauth2("tim", "tims"), "+OK 1 message (120 octets)")
				v.ask(t, "QUIT", "+OK bye")
				_ = v.Close()
				b.end()
				if failed != 1 || strings.Count(b.log.String(), "login refused") != 1 {
					t.Errorf("%s %.60s, %q: %d failures\n%s", c.mechanism, c.response, answer, failed, b.log.String())
				}
			}
		}
	}
}

// A backend that can't tell is no refusal: nothing is said of the token, and the client may come back with it.
func TestTokensWithBackendAway(t *testing.T) {
	k := newTokens()
	k.fault = errAway
	b := newBench(t, newShelf(), withTokens(k))
	v := b.under(t)
	v.ask(t, "AUTH OAUTHBEARER "+oauthbearer("tim", "tims"), "-ERR [SYS/TEMP] temporary fault, try again later")
	v.ask(t, "AUTH XOAUTH2 "+xoauth2("tim", "tims"), "-ERR [SYS/TEMP] temporary fault, try again later")
	v.ask(t, "AUTH OAUTHBEARER AQ==", "-ERR malformed response")
	v.ask(t, "AUTH OAUTHBEARER "+b64("n,,\x01auth=Bearer "+strings.Repeat("t", 64<<10+1)+"\x01\x01"), "-ERR malformed response")
}

// Without a directory the name that a client gives must be the token's own.
func TestTokensWithoutDirectory(t *testing.T) {
	k := newTokens()
	b := newBench(t, newShelf(), func(s *pop3server.Server) {
		withTokens(k)(s)
		s.Users = struct {
			checker
			auth.TokenChecker
		}{checker{k.roster}, k}
	})
	v := b.under(t)
	_ = v.say(t, "AUTH XOAUTH2 "+xoauth2("user", "chiefs"))
	v.ask(t, "", refused)
	v.ask(t, "AUTH XOAUTH2 "+xoauth2("admin", "chiefs"), "+OK 0 messages (0 octets)")
}

// A token that is refused counts when it is refused, in the log too, whether the client then answers, cancels or hangs up;
// and while it says nothing, it keeps nobody waiting.
func TestThrottleCountsTokens(t *testing.T) {
	for name, leave := range map[string]func(*visitor){
		"answers":  func(v *visitor) { _ = v.send(t, "AQ==") },
		"cancels":  func(v *visitor) { _ = v.send(t, "*") },
		"hangs up": func(*visitor) {},
	} {
		synctest.Test(t, func(t *testing.T) {
			var ended chan pop3server.End
			b := newBench(t, newShelf(), func(s *pop3server.Server) {
				withTokens(newTokens())(s)
				s.Settings.Plaintext = pop3server.PlaintextAlways
				s.Throttle = auth.NewThrottle(auth.Limits{MaxDelay: maxDelay})
				ended = ends(s)
			})
			for n := range 3 {
				v := b.visit(t, remote)
				_ = v.line(t)
				if got := v.say(t, "AUTH OAUTHBEARER "+oauthbearer("", fmt.Sprint("guess", n))); !strings.HasPrefix(got, "+ ") {
					t.Errorf("%s: %q", name, got)
				}
				leave(v)
				_ = v.Close()
				<-ended
			}
			if d := b.try(t, remote, "user", "pencil", "+OK"); d != time.Second {
				t.Errorf("%s: the next one waits %v", name, d)
			}
			b.end()
			if n := strings.Count(b.log.String(), "login refused"); n != 3 {
				t.Errorf("%s: %d refusals in the log", name, n)
			}
		})
	}
}

// Bad tokens without a name, from anywhere, delay nobody elsewhere who sends no name either.
func TestThrottleHasNoNameForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, newShelf(), func(s *pop3server.Server) {
			withTokens(newTokens())(s)
			s.Settings.Plaintext = pop3server.PlaintextAlways
			s.Throttle = auth.NewThrottle(auth.Limits{MaxDelay: maxDelay})
		})
		try := func(from, token string) (string, time.Duration) {
			v := b.visit(t, from)
			_ = v.line(t)
			var got string
			d := elapsed(func() { got = v.say(t, "AUTH OAUTHBEARER "+oauthbearer("", token)) })
			if strings.HasPrefix(got, "+ ") {
				_ = v.say(t, "AQ==")
			}
			_ = v.Close()
			return got, d
		}
		for n := range 20 {
			_, _ = try(fmt.Sprintf("198.51.100.%d", n), fmt.Sprint("guess", n))
		}
		if got, d := try("203.0.113.7", "tims"); !strings.HasPrefix(got, "+OK") || d != 0 {
			t.Errorf("%q after %v", got, d)
		}
		b.end()
	})
}

// Nothing of a token is in a log or told to a hook, whatever becomes of it.
func TestNoTokenInAnyLog(t *testing.T) {
	const secret = "s3cret.t0ken-of/tim="
	told := &syncBuffer{}
	k := newTokens()
	k.users[secret] = "tim"
	for _, fault := range []error{nil, errAway} {
		k.fault = fault
		b := newBench(t, newShelf(), func(s *pop3server.Server) {
			withTokens(k)(s)
			s.Hooks.LoginFailed = func(s pop3server.Session, user string, err error) { fmt.Fprintln(told, s, user, err) }
			s.Hooks.Closed = func(s pop3server.Session, e pop3server.End) { fmt.Fprintln(told, s, e) }
		})
		for _, line := range []string{
			oauthbearer("tim", secret), oauthbearer("user", secret), oauthbearer("", secret+"x"), xoauth2("tim", secret), xoauth2("user", secret), xoauth2("tim", secret+"x"),
			b64("n,\x01auth=Bearer " + secret + "\x01\x01"), b64("user=tim\x01auth=" + secret + "\x01\x01"), secret, b64(secret),
		} {
			for _, mechanism := range []string{"OAUTHBEARER", "XOAUTH2"} {
				v := b.under(t)
				if strings.HasPrefix(v.send(t, "AUTH "+mechanism+" "+line), "+ ") {
					_ = v.send(t, "*")
				}
				_, _ = io.WriteString(v, "QUIT\r\n")
				_ = v.Close()
			}
		}
		b.end()
		if log := b.log.String() + told.String(); strings.Contains(log, "s3cret") || strings.Contains(log, b64(secret)[:16]) || !strings.Contains(log, "login") {
			t.Errorf("in a log: %s", log)
		}
	}
}
