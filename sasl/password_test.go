package sasl

import (
	"crypto/md5"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"

	"dewey/auth"
)

func cramAnswer(challenge, user, password string) string {
	return user + " " + hex.EncodeToString(mac(md5.New, []byte(password), []byte(challenge)))
}

// What comes out of an exchange that is well-formed: who was proven, as whom he acts, or that he was refused.
func TestExchanges(t *testing.T) {
	long := strings.Repeat("ü", 127) + "x" // 255 octets: RFC 4616 section 2
	for _, c := range []struct {
		name, mechanism string
		responses       [][]byte
		challenges      []string
		user, as        string // none: refused
	}{
		{"initial response", "PLAIN", octets("\x00tim\x00tanstaaftanstaaf"), nil, "tim", ""},
		{"on a line of its own", "PLAIN", [][]byte{nil, []byte("\x00tim\x00tanstaaftanstaaf")}, []string{""}, "tim", ""},
		{"as himself", "PLAIN", octets("tim\x00tim\x00tanstaaftanstaaf"), nil, "tim", ""},
		{"as himself, spelt otherwise", "PLAIN", octets("t\u00adim\x00tim\x00tanstaaftanstaaf"), nil, "tim", ""},
		{"as himself, not prepared", "PLAIN", octets("Ⅳ\x00Ⅳ\x00roman"), nil, "Ⅳ", ""},
		{"as another", "PLAIN", octets("user\x00tim\x00tanstaaftanstaaf"), nil, "tim", "user"},
		{"as another, prepared", "PLAIN", octets("ⅸ\x00tim\x00tanstaaftanstaaf"), nil, "tim", "ix"},
		{"as another, an emoji", "PLAIN", octets("🐫\x00tim\x00tanstaaftanstaaf"), nil, "tim", "🐫"},
		{"may not act as another", "PLAIN", octets("tim\x00user\x00pencil"), nil, "", ""},
		{"wrong password", "PLAIN", octets("\x00tim\x00wrong"), nil, "", ""},
		{"unknown", "PLAIN", octets("\x00mit\x00tanstaaftanstaaf"), nil, "", ""},
		{"a name that can't be prepared", "PLAIN", octets("\u200e\x00tim\x00tanstaaftanstaaf"), nil, "", ""},
		{"a name of which nothing is left", "PLAIN", octets("\u00ad\x00tim\x00tanstaaftanstaaf"), nil, "", ""},
		{"a name that is no UTF-8", "PLAIN", octets("\xff\x00tim\x00tanstaaftanstaaf"), nil, "", ""},
		{"a name that swells", "PLAIN", octets(strings.Repeat("ﷺ", 300) + "\x00tim\x00tanstaaftanstaaf"), nil, "", ""},
		{"255 octets", "PLAIN", octets(long + "\x00" + long + "\x00" + long), nil, long, ""},

		{"three steps", "LOGIN", [][]byte{nil, []byte("tim"), []byte("tanstaaftanstaaf")}, []string{"Username:", "Password:"}, "tim", ""},
		{"initial response", "LOGIN", octets("tim", "tanstaaftanstaaf"), []string{"Password:"}, "tim", ""},
		{"wrong password", "LOGIN", octets("tim", "Tanstaaftanstaaf"), []string{"Password:"}, "", ""},
		{"unknown", "LOGIN", octets("mit", "tanstaaftanstaaf"), []string{"Password:"}, "", ""},
		{"255 octets", "LOGIN", octets(long, long), []string{"Password:"}, long, ""},

		{"empty", "EXTERNAL", octets(""), nil, "tim", ""},
		{"on a line of its own", "EXTERNAL", [][]byte{nil, {}}, []string{""}, "tim", ""},
		{"as another", "EXTERNAL", octets("user"), nil, "tim", "user"},
		{"as himself", "EXTERNAL", octets("tim"), nil, "tim", "tim"},
		{"a name that can't be prepared", "EXTERNAL", octets("\u200e"), nil, "", ""},
	} {
		h := newHost()
		h.external = "tim"
		h.passwords[long], h.passwords["Ⅳ"] = long, "roman"
		got, done, err := play(t, start(t, c.mechanism, h, Channel{}), c.responses...)
		if !slices.Equal(got, c.challenges) || done != (c.user != "") || h.as != c.as {
			t.Errorf("%s, %s: %q, %v, %v, as %q", c.mechanism, c.name, got, done, err, h.as)
		}
		if c.user != "" && h.user != c.user || c.user == "" && !errors.Is(err, auth.ErrRejected) {
			t.Errorf("%s, %s: %q, %v", c.mechanism, c.name, h.user, err)
		}
	}
}

func TestCRAMMD5(t *testing.T) {
	long := strings.Repeat("a long one ", 10) // over a block of MD5
	for _, c := range []struct {
		name, user, password string
		want                 error
	}{
		{"plain", "tim", "tanstaaftanstaaf", nil},
		{"a name with spaces", "tim of  boston ", "secret", nil},
		{"a long password", "long", long, nil},
		{"octets that are no UTF-8", "\xfftim", "caf\xe9", nil},
		{"wrong", "tim", "tanstaaftanstaag", auth.ErrRejected},
		{"unknown", "mit", "tanstaaftanstaaf", auth.ErrRejected},
		{"made up", "mit", "made up for mit", auth.ErrRejected}, // even with the right proof
	} {
		h := newHost()
		h.passwords["tim of  boston "], h.passwords["long"], h.passwords["\xfftim"] = "secret", long, "caf\xe9"
		s := start(t, "CRAM-MD5", h, Channel{})
		challenge, _, err := s.Next(nil)
		if err != nil {
			t.Fatal(err)
		}
		_, done, err := play(t, s, []byte(cramAnswer(string(challenge), c.user, c.password)))
		if done != (c.want == nil) || !errors.Is(err, c.want) || done && h.user != c.user {
			t.Errorf("%s: %v, %v, %q", c.name, done, err, h.user)
		}
	}
}

// Passwords reach the host as they came: spaces, and octets of any character set.
func TestTrap38PasswordsWithSpaces(t *testing.T) {
	for _, password := range []string{
		"two words", " leading", "trailing ", "  ", "a\ttab", "\xe4\xf6\xfc", "\xff\xfe", "ﬁ", "a\u00a0b", "\u00ad", "🐫", "\u200e", "=2C,",
	} {
		for mechanism, responses := range map[string][][]byte{
			"PLAIN": octets("\x00tim\x00" + password),
			"LOGIN": octets("tim", password),
		} {
			h := newHost()
			h.passwords["tim"] = password
			if _, done, err := play(t, start(t, mechanism, h, Channel{}), responses...); !done || err != nil {
				t.Errorf("%s: %q: %v", mechanism, password, err)
			}
		}
		// The mechanisms that do not send the password prove the same octets.
		h := newHost()
		h.passwords["tim"] = password
		s := start(t, "CRAM-MD5", h, Channel{})
		challenge, _, _ := s.Next(nil)
		if _, done, err := play(t, s, []byte(cramAnswer(string(challenge), "tim", password))); !done || err != nil {
			t.Errorf("CRAM-MD5: %q: %v", password, err)
		}
		sum := digest(md5.New, append([]byte("<1.2@mx>"), password...))
		if err := APOP(h, "<1.2@mx>", "tim", hex.EncodeToString(sum)); err != nil {
			t.Errorf("APOP: %q: %v", password, err)
		}
	}
}

// CR, LF and NUL in credentials never reach the host, and so no backend and no log.
func TestTrap41NoLineEndsInCredentials(t *testing.T) {
	proof := strings.Repeat("0", 32)
	for _, c := range []string{"\r", "\n", "\r\n", "\x00"} {
		for _, e := range []struct {
			mechanism string
			responses [][]byte
		}{
			{"PLAIN", octets("\x00ti" + c + "m\x00secret")},
			{"PLAIN", octets("\x00tim" + c + "\x00secret")},
			{"PLAIN", octets("\x00tim\x00sec" + c + "ret")},
			{"PLAIN", octets("\x00tim\x00secret" + c)},
			{"PLAIN", octets("us" + c + "er\x00tim\x00secret")},
			{"LOGIN", octets("tim"+c, "secret")},
			{"LOGIN", octets("tim", "sec"+c+"ret")},
			{"LOGIN", octets("tim", "secret"+c)},
			{"CRAM-MD5", [][]byte{nil, []byte("ti" + c + "m " + proof)}},
			{"CRAM-MD5", [][]byte{nil, []byte("tim " + proof + c)}},
			{"EXTERNAL", octets("ti" + c + "m")},
			{"SCRAM-SHA-1", octets("n,,n=ti" + c + "m,r=nonce")},
			{"SCRAM-SHA-256", octets("n,a=us" + c + "er,n=tim,r=nonce")},
			{"SCRAM-SHA-256", octets("n,,n=tim,r=non" + c + "ce")},
		} {
			h := newHost()
			h.external = "tim"
			_, done, err := play(t, start(t, e.mechanism, h, Channel{}), e.responses...)
			if done || !errors.Is(err, ErrForm) {
				t.Errorf("%s %q: %v", e.mechanism, e.responses, err)
			}
			for _, call := range h.calls {
				if strings.ContainsAny(call, "\r\n\x00") {
					t.Errorf("%s: the host was asked %q", e.mechanism, call)
				}
			}
		}
		if err := APOP(newHost(), "<1.2@mx>", "ti"+c+"m", proof); !errors.Is(err, ErrForm) {
			t.Errorf("APOP: %v", err)
		}
	}
}

// A fault of the host is neither a refusal nor a malformed response, and ends the exchange at once.
func TestFaultOfTheHost(t *testing.T) {
	for _, e := range []struct {
		mechanism string
		responses [][]byte
	}{
		{"PLAIN", octets("\x00tim\x00tanstaaftanstaaf")},
		{"LOGIN", octets("tim", "tanstaaftanstaaf")},
		{"EXTERNAL", octets("")},
		{"CRAM-MD5", [][]byte{nil, []byte("tim " + strings.Repeat("0", 32))}},
		{"SCRAM-SHA-1", octets("n,,n=tim,r=nonce")},
		{"SCRAM-SHA-256", octets("n,,n=tim,r=nonce")},
	} {
		h := newHost()
		h.fault = errFault
		_, done, err := play(t, start(t, e.mechanism, h, Channel{}), e.responses...)
		if done || !errors.Is(err, errFault) || errors.Is(err, auth.ErrRejected) || errors.Is(err, ErrForm) || len(h.calls) != 1 {
			t.Errorf("%s: %v, %v, %q", e.mechanism, done, err, h.calls)
		}
	}
}

// Whoever has no right to act as another is told nothing of names: As is asked after the proof.
func TestAsAfterTheProof(t *testing.T) {
	h := newHost()
	_, _, err := play(t, start(t, "PLAIN", h, Channel{}), []byte("user\x00tim\x00wrong"))
	if !errors.Is(err, auth.ErrRejected) || !slices.Equal(h.calls, []string{"CheckPassword tim wrong"}) {
		t.Errorf("%v, %q", err, h.calls)
	}
	h = newHost() // no certificate
	_, _, err = play(t, start(t, "EXTERNAL", h, Channel{}), []byte("user"))
	if !errors.Is(err, auth.ErrRejected) || !slices.Equal(h.calls, []string{"External"}) {
		t.Errorf("%v, %q", err, h.calls)
	}
}
