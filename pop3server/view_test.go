package pop3server_test

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dewey/auth"
	"dewey/maildrop"
	"dewey/pop3server"
)

const month = 30 * 24 * time.Hour

// takeApart is a Server.View: "recent:" is for a month's mail, and what comes after the first "+" is a folder.
func takeApart(_ context.Context, name string) (user string, view maildrop.View) {
	user, recent := strings.CutPrefix(name, "recent:")
	if recent {
		view.Recent = month
	}
	user, view.Folder, _ = strings.Cut(user, "+")
	return user, view
}

// ways are all the ways to log in by a name and a password.
var ways = []string{"PASS", "APOP", "CRAM-MD5", "PLAIN", "LOGIN", "SCRAM-SHA-1", "SCRAM-SHA-256"}

// enter logs in on a new connection under TLS, in one of the ways, and returns the last line.
func (b *bench) enter(t *testing.T, way, user, password string) string {
	t.Helper()
	v := b.visit(t, remote)
	defer v.Close()
	stamp := v.timestamp(t)
	v.stls(t, clientTLS())
	switch way {
	case "PASS":
		_ = v.say(t, "USER "+user)
		return v.say(t, "PASS "+password)
	case "APOP":
		return v.say(t, "APOP "+user+" "+apopDigest(stamp, password))
	case "CRAM-MD5":
		return v.say(t, b64(cramResponse(user, password, unchallenge(t, v.say(t, "AUTH CRAM-MD5")))))
	case "PLAIN":
		return v.say(t, "AUTH PLAIN "+plain("", user, password))
	case "LOGIN":
		_ = v.say(t, "AUTH LOGIN "+b64(user))
		return v.say(t, b64(password))
	case "SCRAM-SHA-1":
		return v.scram(t, way, &scramClient{hash: sha1.New, gs2: "n,,", user: user, password: password})
	}
	return v.scram(t, way, &scramClient{hash: sha256.New, gs2: "n,,", user: user, password: password})
}

// viewed is a bench whose names ask for views, with what its last session was.
func viewed(t *testing.T, change func(*pop3server.Server)) (b *bench, r *roster, in *pop3server.Session, failed *string) {
	t.Helper()
	r, in, failed = newRoster(), &pop3server.Session{}, new(string)
	mail := newShelf()
	mail.folders = []string{"Spam"}
	b = newBench(t, mail, func(s *pop3server.Server) {
		withCertificates(s)
		s.Users, s.View, s.Settings.FailureDelay = r, takeApart, 0
		s.Hooks.LoggedIn = func(s pop3server.Session, _ int, _ int64) { *in = s }
		s.Hooks.LoginFailed = func(_ pop3server.Session, user string, _ error) { *failed = user }
		if change != nil {
			change(s)
		}
	})
	return b, r, in, failed
}

// Whatever the way in, a name asks for its view, and the backend, the store and the hooks have the user's own; what is
// refused is told of under the name that came.
func TestViewInEachWay(t *testing.T) {
	for _, way := range ways {
		for _, c := range []struct {
			name string
			view maildrop.View
		}{
			{"tim", maildrop.View{}},
			{"recent:tim", maildrop.View{Recent: month}},
			{"tim+Spam", maildrop.View{Folder: "Spam"}},
			{"recent:tim+Spam", maildrop.View{Recent: month, Folder: "Spam"}},
		} {
			b, r, in, failed := viewed(t, nil)
			if got := b.enter(t, way, c.name, "tanstaaftanstaaf"); got != "+OK 0 messages (0 octets)" {
				t.Errorf("%s as %s: %q", way, c.name, got)
			}
			if got := b.enter(t, way, c.name, "x"); got != refused {
				t.Errorf("%s as %s with another password: %q", way, c.name, got)
			}
			b.end()
			if b.mail.owner.Name != "tim" || b.mail.owner.View != c.view || in.User != "tim" || in.View != c.view {
				t.Errorf("%s as %s: opened %+v, %+v", way, c.name, b.mail.owner, in)
			}
			for _, asked := range r.asked {
				if strings.Fields(asked)[1] != "tim" {
					t.Errorf("%s as %s: asked %q", way, c.name, asked)
				}
			}
			log := b.log.String()
			if *failed != c.name || !strings.Contains(log, `user=`+c.name+` error=`) {
				t.Errorf("%s as %s: failed as %q\n%s", way, c.name, *failed, log)
			}
			if strings.Contains(log, "recent=720h") != (c.view.Recent != 0) || strings.Contains(log, "folder=Spam") != (c.view.Folder != "") {
				t.Errorf("%s as %s: %s", way, c.name, log)
			}
		}
	}
}

// A name of which the hook leaves nothing is nobody's, also if a backend has a user of that very name; it is asked all
// the same, so that it takes as long (trap 42). One that could not tell is no refusal.
func TestViewOfNobody(t *testing.T) {
	for _, way := range ways {
		b, r, in, _ := viewed(t, nil)
		r.passwords["recent:"] = "tanstaaftanstaaf"
		if got := b.enter(t, way, "recent:", "tanstaaftanstaaf"); got != refused {
			t.Errorf("%s: %q", way, got)
		}
		if len(r.asked) != 1 || in.User != "" {
			t.Errorf("%s: asked %q, in as %q", way, r.asked, in.User)
		}
		r.fault = errAway
		v := b.visit(t, remote)
		_ = v.line(t)
		v.stls(t, clientTLS())
		v.ask(t, "AUTH PLAIN "+plain("", "recent:", "x"), "-ERR [SYS/TEMP] temporary fault, try again later")
		b.end()
	}
}

// SCRAM's messages have the name that the client sent; the secret is that of the user, whether or not there is one, so
// that its salt is the same and tells nothing. RFC 5802 section 5.1; trap 42.
func TestViewInSCRAM(t *testing.T) {
	b, _, _, _ := viewed(t, nil)
	salts := make(map[string]string)
	for _, name := range []string{"tim", "recent:tim", "nobody", "nobody+Spam"} {
		v := b.visit(t, remote)
		_ = v.line(t)
		c := &scramClient{hash: sha256.New, gs2: "n,,", user: name}
		salts[name] = strings.Split(unchallenge(t, v.say(t, "AUTH SCRAM-SHA-256 "+b64(c.gs2+c.bare()))), ",")[1]
	}
	if salts["tim"] != salts["recent:tim"] || salts["nobody"] != salts["nobody+Spam"] || salts["tim"] == salts["nobody"] {
		t.Errorf("salts %q", salts)
	}
}

// With an authorization identity the view is what that asks for; if it asks for none it is the user's own, of his own
// mail alone. RFC 4422 section 3.4.1.
func TestViewOfAuthorizationIdentity(t *testing.T) {
	recent, spam := maildrop.View{Recent: month}, maildrop.View{Folder: "Spam"}
	for _, c := range []struct {
		as, user   string
		owner      string // empty: refused
		view       maildrop.View
		directory  bool
		onlySecret bool // not for EXTERNAL: the certificate has no view
	}{
		{as: "recent:mrose", user: "admin", owner: "mrose", view: recent, directory: true},
		{as: "mrose+Spam", user: "admin", owner: "mrose", view: spam, directory: true},
		{as: "mrose", user: "recent:admin", owner: "mrose", directory: true, onlySecret: true},
		{as: "mrose+Spam", user: "recent:admin", owner: "mrose", view: spam, directory: true, onlySecret: true},
		{as: "recent:admin", user: "admin", owner: "admin", view: recent},
		{as: "admin+Spam", user: "recent:admin", owner: "admin", view: spam, onlySecret: true},
		{as: "admin", user: "recent:admin", owner: "admin", view: recent, onlySecret: true},
		{as: "recent:admin", user: "recent:admin", owner: "admin", view: recent, onlySecret: true},
		{as: "recent:", user: "admin", directory: true},
		{as: "recent:nobody", user: "admin", directory: true},
		{as: "recent:tim", user: "mrose", directory: true},
		{as: "recent:mrose", user: "admin"},
	} {
		for _, way := range []string{"PLAIN", "SCRAM-SHA-256", "EXTERNAL"} {
			if way == "EXTERNAL" && (c.onlySecret || !c.directory) {
				continue
			}
			b, r, in, _ := viewed(t, func(s *pop3server.Server) {
				if !c.directory {
					r := s.Users.(*roster)
					s.Users = secretive{r, r}
				}
				s.Certified = func(*x509.Certificate) (string, error) { return c.user, nil }
			})
			v := b.clientCertified(t, timsCert())
			plainUser, _ := takeApart(t.Context(), c.user)
			var got string
			switch way {
			case "PLAIN":
				got = v.say(t, "AUTH PLAIN "+plain(c.as, c.user, r.passwords[plainUser]))
			case "EXTERNAL":
				got = v.say(t, "AUTH EXTERNAL "+b64(c.as))
			default:
				got = v.scram(t, way, &scramClient{hash: sha256.New, gs2: "n,a=" + c.as + ",", user: c.user, password: r.passwords[plainUser]})
			}
			want := refused
			if c.owner != "" {
				want = "+OK 0 messages (0 octets)"
			}
			b.end()
			if got != want || in.User != c.owner || in.View != c.view || b.mail.owner.View != c.view {
				t.Errorf("%s: %s as %s: %q, %+v", way, c.user, c.as, got, in)
			}
			if other := c.owner != "" && c.owner != "admin"; (in.By == "admin") != other {
				t.Errorf("%s: %s as %s: by %q", way, c.user, c.as, in.By)
			}
		}
	}
}

// Who spells his own name otherwise acts as nobody else, and sees what he asked for; for the same spelling twice there
// need be no directory.
func TestViewOfOwnNameSpeltOtherwise(t *testing.T) {
	for _, c := range []struct {
		as, user  string
		directory bool
	}{{"TIM", "recent:tim", true}, {"TIM", "recent:Tim", true}, {"recent:TIM", "TIM", false}, {"recent:tim", "TIM", false}} {
		b, _, in, _ := viewed(t, func(s *pop3server.Server) {
			if s.Users = (lax{s.Users.(*roster)}); !c.directory {
				s.Users = checker{s.Users}
			}
		})
		v := b.visit(t, "127.0.0.1")
		_ = v.line(t)
		v.ask(t, "AUTH PLAIN "+plain(c.as, c.user, "tanstaaftanstaaf"), "+OK 0 messages (0 octets)")
		if in.User != "tim" || in.By != "" || in.View.Recent != month {
			t.Errorf("%s as %s: %+v", c.user, c.as, in)
		}
	}
}

// A lax directory takes capital letters.
type lax struct{ *roster }

func (l lax) CheckPassword(ctx context.Context, a auth.Attempt) (auth.Identity, error) {
	a.User = strings.ToLower(a.User)
	return l.roster.CheckPassword(ctx, a)
}

func (l lax) Authorize(ctx context.Context, id auth.Identity, as string) (auth.Identity, error) {
	if strings.EqualFold(as, id.User) {
		return id, nil
	}
	return l.roster.Authorize(ctx, id, as)
}

// A certificate says who somebody is, not what he wants to see: its name is not taken apart.
func TestViewNotOfCertificate(t *testing.T) {
	b, r, _, _ := viewed(t, func(s *pop3server.Server) {
		s.Certified = func(*x509.Certificate) (string, error) { return "recent:tim", nil }
	})
	config := clientTLS()
	config.Certificates = []tls.Certificate{timsCert()}
	v := b.visit(t, remote)
	_ = v.line(t)
	v.stls(t, config)
	v.ask(t, "AUTH EXTERNAL =", refused)
	if want := []string{"find recent:tim " + netip.MustParseAddr(remote).String()}; !slices.Equal(r.asked, want) {
		t.Errorf("asked %q", r.asked)
	}
}

// The throttle knows the user alone, whatever he asks for: his failures add up, and so does his proof.
func TestViewsShareTheThrottle(t *testing.T) {
	names := []string{"recent:tim", "tim+a", "recent:tim+b", "tim+c"}
	for _, apart := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			b, _, ended := throttled(t, func(s *pop3server.Server) {
				if apart {
					s.View = takeApart
				}
			})
			for i, name := range names {
				b.try(t, fmt.Sprintf("192.0.2.%d", i+10), name, "x", refused)
				<-ended
			}
			if d := b.try(t, "192.0.2.20", "tim", "x", refused); (d > 0) != apart {
				t.Errorf("taken apart %v: after failures under other names the user waits %v", apart, d)
			}
			<-ended
			time.Sleep(time.Hour)
			if !apart {
				b.end()
				return
			}
			b.mail.folders = []string{"a", "z"}
			b.try(t, remote, "tim+a", "tanstaaftanstaaf", "+OK")
			<-ended
			for n := range 5 {
				b.try(t, remote, fmt.Sprint("guess", n), "x", refused)
				<-ended
			}
			if d := b.try(t, remote, "recent:tim", "tanstaaftanstaaf", "+OK"); d != 0 {
				t.Errorf("who is proven there waits %v under another name of his", d)
			}
			b.end()
		})
	}
}

// The bound on a user's sessions and the delay between his logins are his, whatever he asks for. RFC 2449 section 6.5.
func TestViewsShareTheBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, _, _ := viewed(t, func(s *pop3server.Server) {
			s.TLS, s.Settings.MaxPerUser, s.Settings.LoginDelay = nil, 1, time.Minute
		})
		visit := func(name, want string) *visitor {
			v := b.visit(t, "127.0.0.1")
			_ = v.line(t)
			v.ask(t, "AUTH PLAIN "+plain("", name, "tanstaaftanstaaf"), want)
			return v
		}
		v := visit("recent:tim", "+OK 0 messages (0 octets)")
		_ = visit("tim", "-ERR [LOGIN-DELAY] too soon after the last login").Close()
		time.Sleep(time.Minute)
		_ = visit("tim+Spam", "-ERR [IN-USE] maildrop is in use").Close()
		v.ask(t, "QUIT", "+OK bye")
		_ = visit("tim+Spam", "+OK 0 messages (0 octets)").Close()
		b.end()
		if got := strings.Count(b.log.String(), "too many sessions of this user"); got != 1 {
			t.Errorf("refused by the bound: %d\n%s", got, b.log)
		}
	})
}

// A folder that is none is a refusal, not a fault, and what the login held is free again.
func TestNoFolder(t *testing.T) {
	var why error
	b, _, _, _ := viewed(t, func(s *pop3server.Server) {
		s.Settings.MaxPerUser = 1
		s.Hooks.LoginFailed = func(_ pop3server.Session, _ string, err error) { why = err }
	})
	v := b.visit(t, "127.0.0.1")
	_ = v.line(t)
	for range 3 {
		v.ask(t, "AUTH PLAIN "+plain("", "tim+None", "tanstaaftanstaaf"), "-ERR [SYS/PERM] no such folder")
	}
	v.ask(t, "AUTH PLAIN "+plain("", "tim+None", "x"), refused)
	v.ask(t, "AUTH PLAIN "+plain("", "tim+Spam", "tanstaaftanstaaf"), "+OK 0 messages (0 octets)")
	b.end()
	if !errors.Is(why, auth.ErrRejected) || strings.Contains(b.log.String(), "level=ERROR") {
		t.Errorf("last refused for %v\n%s", why, b.log)
	}
}
