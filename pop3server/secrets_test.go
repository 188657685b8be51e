package pop3server_test

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"strings"
	"testing"

	"dewey/maildrop"
	"dewey/pop3server"
)

// No secret is in the log, at any level, nor in what hooks are told, whatever the mechanism and whatever goes wrong:
// neither a password nor what is made of one.
func TestNoSecretInAnyLog(t *testing.T) {
	const right, wrong = "r1ght horse battery", "wr0ng horse battery"
	r := newRoster()
	r.passwords["tim"] = right
	told := &syncBuffer{}
	b := newBench(t, newShelf(sized(120)), func(s *pop3server.Server) {
		withCertificates(s)
		s.Users, s.Settings.FailureDelay = r, 0
		s.Maildrops = storeFunc(func(ctx context.Context, o maildrop.Owner) (maildrop.Maildrop, error) { return newShelf().Open(ctx, o) })
		s.Hooks.LoginFailed = func(s pop3server.Session, user string, err error) { fmt.Fprintln(told, s, user, err) }
		s.Hooks.LoggedIn = func(s pop3server.Session, _ int, _ int64) { fmt.Fprintln(told, s) }
		s.Hooks.Closed = func(s pop3server.Session, e pop3server.End) { fmt.Fprintln(told, s, e) }
	})
	secrets := []string{right, wrong, "horse"}
	add := func(all ...string) {
		for _, s := range all {
			secrets = append(secrets, s, b64(s), hex.EncodeToString([]byte(s)), fmt.Sprint([]byte(s)))
		}
	}
	add(right, wrong)
	visit := func() (*visitor, string) {
		v := b.visit(t, remote)
		stamp := v.timestamp(t)
		config := clientTLS()
		config.Certificates = []tls.Certificate{timsCert()}
		v.stls(t, config)
		return v, stamp
	}
	for _, fault := range []string{"", "away", "panic"} {
		r.fault, r.panics = nil, ""
		switch fault {
		case "away":
			r.fault = errAway
		case "panic":
			r.panics = "tim"
		}
		for _, password := range []string{right, wrong} {
			for _, user := range []string{"tim", "nobody"} {
				for _, form := range []struct {
					name string
					hash func() hash.Hash
				}{{"SCRAM-SHA-1", sha1.New}, {"SCRAM-SHA-256", sha256.New}} {
					for _, plus := range []bool{false, true} {
						v := b.visit(t, remote)
						_ = v.line(t)
						under := v.stls(t, clientTLS())
						c := &scramClient{hash: form.hash, gs2: "n,,", user: user, password: password}
						name := form.name
						if plus {
							c, name = bound("tls-exporter", form.hash, exporter(t, under)), name+"-PLUS"
							c.user, c.password = user, password
							add(string(c.binding))
						}
						first := v.send(t, "AUTH "+name+" "+b64(c.gs2+c.bare()))
						if strings.HasPrefix(first, "+ ") {
							final := c.final(t, unchallenge(t, first))
							if strings.HasPrefix(v.send(t, b64(final)), "+ ") {
								_ = v.send(t, "")
							}
							salt := strings.TrimPrefix(strings.Split(unchallenge(t, first), ",")[1], "s=")
							raw, _ := base64.StdEncoding.DecodeString(salt)
							salted := saltedPassword(form.hash, password, raw, 4096)
							keys := scramKeys(form.hash, password, raw)
							add(final, c.proof, c.signature, string(salted), string(keys.StoredKey), string(keys.ServerKey))
						}
						_ = v.Close()
					}
				}
				v, stamp := visit()
				digest := apopDigest(stamp, password)
				add(digest)
				_ = v.send(t, "APOP "+user+" "+digest)
				v, _ = visit()
				if challenge := v.send(t, "AUTH CRAM-MD5"); strings.HasPrefix(challenge, "+ ") {
					response := cramResponse(user, password, unchallenge(t, challenge))
					add(response, response[len(user)+1:])
					_ = v.send(t, b64(response))
				}
				states := cramStates(password)
				add(string(states[:16]), string(states[16:]), plain("", user, password))
				for _, lines := range [][]string{
					{"USER " + user, "PASS " + password},
					{"AUTH PLAIN " + plain("", user, password)},
					{"AUTH PLAIN " + plain("mrose", user, password)},
					{"AUTH PLAIN", plain("", user, password)},
					{"AUTH LOGIN", b64(user), b64(password)},
					// What people and programs get wrong.
					{"PASS " + password},
					{"PASS" + password},
					{password},
					{"AUTH PLAIN " + password},
					{"AUTH " + b64(password)},
					{"AUTH PLAIN", password},
					{"AUTH PLAIN " + b64(user+"\x00"+password)},
					{"AUTH PLAIN " + plain("", "", password)},
					{"AUTH PLAIN " + plain("", user, password+"\r\n")},
					{"AUTH LOGIN", b64(user), b64(password + "\x00")},
					{"AUTH LOGIN", b64(user), password},
					{"AUTH CRAM-MD5", b64(user + " " + password)},
					{"AUTH CRAM-MD5", password},
					{"AUTH SCRAM-SHA-256 " + b64("n,,n="+user+",r="+strings.ReplaceAll(password, " ", ""))},
					{"APOP " + user + " " + strings.ReplaceAll(password, " ", "")},
					{"USER " + user, "PASS " + password + strings.Repeat(" x", 200)},
					{"XCLIENT LOGIN=" + password},
				} {
					v, _ := visit()
					for _, l := range lines {
						if v.send(t, l) == "" {
							break
						}
					}
					_ = v.Close()
				}
			}
		}
	}
	b.end()
	log := b.log.String() + told.String()
	if strings.Count(log, "logged in") < 10 || strings.Count(log, "login refused") < 10 || strings.Count(log, "panic in session") < 10 {
		t.Errorf("too little in the log: %d %d %d", strings.Count(log, "logged in"), strings.Count(log, "login refused"), strings.Count(log, "panic in session"))
	}
	for _, s := range secrets {
		if i := strings.Index(log, s); i >= 0 {
			t.Errorf("the log has %q: ...%s", s, log[max(0, i-300):min(len(log), i+100)])
		}
		if quoted := fmt.Sprintf("%q", s); strings.Contains(log, quoted[1:len(quoted)-1]) {
			t.Errorf("the log has %s", quoted)
		}
	}
}

// send is say, but for a server that hangs up.
func (v *visitor) send(t testing.TB, line string) string {
	t.Helper()
	_, _ = io.WriteString(v, line+"\r\n")
	got, _ := v.in.ReadString('\n')
	return strings.TrimSuffix(got, "\r\n")
}

// An authorization identity, too, is only a name: what looks like a password in its place is logged as one, which
// nobody can help; but an octet that would end a line of the log is not. Trap 41.
func TestTrap41NothingBreaksALine(t *testing.T) {
	b := newBench(t, newShelf(), withRoster(newRoster()))
	for _, line := range []string{
		"AUTH PLAIN " + plain("", "a\r\nlevel=ERROR msg=forged", "x"), "AUTH PLAIN " + plain("a\nlevel=ERROR msg=forged", "tim", "tanstaaftanstaaf"),
		"AUTH PLAIN " + plain("", "a\u2028level=ERROR msg=forged", "x"), "USER a level=ERROR msg=forged", "AUTH PLAIN " + plain("", "a level=ERROR msg=forged", "x"),
		"AUTH SCRAM-SHA-256 " + b64("n,a=x\nlevel=ERROR msg=forged,n=tim,r=abc"), "AUTH LOGIN " + b64("x\nlevel=ERROR msg=forged"),
		"APOP x\" d41d8cd98f00b204e9800998ecf8427e", "XCLIENT ADDR=x\x1b",
	} {
		v := b.visit(t, remote)
		_ = v.line(t)
		v.stls(t, clientTLS())
		if got := v.send(t, line); !strings.HasPrefix(got, "-ERR") {
			t.Errorf("%q: %q", line, got)
		}
		_ = v.Close()
	}
	b.end()
	for l := range strings.Lines(b.log.String()) {
		if !strings.HasPrefix(l, "time=") || strings.HasPrefix(l[strings.Index(l, " ")+1:], "level=ERROR") {
			t.Errorf("a line of the log: %s", l)
		}
	}
}
