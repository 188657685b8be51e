package sasl

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"dewey/auth"
)

// nobody lets in nobody: whatever is sent, no exchange with it may succeed.
type nobody struct{ asked []string }

func (n *nobody) note(user string) error {
	n.asked = append(n.asked, user)
	return auth.ErrRejected
}
func (n *nobody) CheckPassword(user, _ string) error { return n.note(user) }

func (n *nobody) CheckToken(t auth.Token) error {
	if t.User == "" {
		return auth.ErrRejected
	}
	return n.note(t.User)
}
func (n *nobody) External() error { return auth.ErrRejected }
func (n *nobody) As(user string) error {
	panic("As before a proof: " + user)
}

func (n *nobody) Secret(user, mechanism string) (auth.Secret, error) {
	return auth.Secret{}, n.note(user)
}

// FuzzServer: no mechanism panics, succeeds without a proof, goes on for ever, asks for a name with
// control octets, or repeats what was sent in its error.
func FuzzServer(f *testing.F) {
	proof := base64.StdEncoding.EncodeToString(make([]byte, sha256.Size))
	for i := range All() {
		for _, r := range [][3]string{
			{"\x00tim\x00secret", "", ""},
			{"user\x00tim\x00secret", "", ""},
			{"tim", "secret", ""},
			{"", "tim " + strings.Repeat("0", 32), ""},
			{"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL", "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=", ""},
			{"n,a=a=2Cb,n=a=3Db,r=x", "c=biws,r=x,x=1,p=" + proof, ""},
			{"y,,n=user,r=x", "c=eSws,r=x,p=" + proof, ""},
			{"p=tls-exporter,,n=user,r=x", "c=cD10bHMtZXhwb3J0ZXIsLA==,r=x,p=" + proof, ""},
			{"p=tls-server-end-point,,n=user,r=x,m=1", "", ""},
			{"n,,m=1,n=user,r=x", "", ""},
			{",,,,", ",,,,", "="},
			{"n,a=user@example.com,\x01host=server.example.com\x01port=143\x01auth=Bearer dG9rZW4=\x01\x01", "\x01", ""},
			{"n,,\x01auth=\x01\x01", "*", ""},
			{"user=someuser@example.com\x01auth=Bearer ya29.token\x01\x01", "", ""},
		} {
			f.Add(uint8(i), true, r[0], r[1], r[2])
			f.Add(uint8(i), false, r[0], r[1], r[2])
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, initial bool, one, two, three string) {
		m := All()[int(which)%len(All())]
		responses := octets(one, two, three)
		if !initial {
			responses = append([][]byte{nil}, responses...)
		}
		h := new(nobody)
		challenges, done, err := play(t, m.NewServer(h, overTLS), responses...)
		if done || err == nil {
			t.Fatalf("%s: %v, %v after %q", m.Name, done, err, challenges)
		}
		if !errors.Is(err, ErrForm) && !errors.Is(err, auth.ErrRejected) || len(err.Error()) > 200 || !printable(err.Error()) {
			t.Errorf("%s: %v", m.Name, err)
		}
		if len(h.asked) > 1 {
			t.Errorf("%s asked for %q", m.Name, h.asked)
		}
		for _, user := range h.asked {
			if user == "" || len(user) > maxCredential || strings.ContainsAny(user, "\x00\r\n\x7f\x1b") {
				t.Errorf("%s asked for %q", m.Name, user)
			}
		}
	})
}

func printable(text string) bool {
	return strings.IndexFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) < 0
}

// FuzzPLAIN has RFC 4616 section 2 as its model.
func FuzzPLAIN(f *testing.F) {
	for _, seed := range []string{"\x00tim\x00secret", "tim\x00tim\x00secret", "user\x00tim\x00secret", "\x00tim\x00secret\x00", "\x00tim\x00secret\n", "\xff\x00tim\x00secret", "\u00ad\x00tim\x00secret"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, response []byte) {
		h := &testHost{passwords: map[string]string{"tim": "secret"}, admin: "tim"}
		_, done, err := play(t, start(t, "PLAIN", h, Channel{}), response)
		fields := bytes.Split(response, []byte{0})
		proven := len(fields) == 3 && string(fields[1]) == "tim" && string(fields[2]) == "secret"
		if done && !proven || done != (err == nil) {
			t.Errorf("%q: %v, %v", response, done, err)
		}
		if proven && len(fields[0]) == 0 && !done {
			t.Errorf("%q: %v", response, err)
		}
		if done && len(fields[0]) > 0 && (!utf8.Valid(fields[0]) || h.as == "" && string(fields[0]) == "user") {
			t.Errorf("%q: as %q", response, h.as)
		}
	})
}

// FuzzLOGIN: two responses that are the name and the password, and no others.
func FuzzLOGIN(f *testing.F) {
	f.Add("tim", "secret")
	f.Add("tim\x00", "secret\r")
	f.Fuzz(func(t *testing.T, user, password string) {
		h := &testHost{passwords: map[string]string{"tim": "secret"}}
		_, done, err := play(t, start(t, "LOGIN", h, Channel{}), octets(user, password)...)
		if want := user == "tim" && password == "secret"; done != want || want != (err == nil) {
			t.Errorf("%q, %q: %v, %v", user, password, done, err)
		}
	})
}

// FuzzCRAMMD5 and FuzzAPOP: one answer is right.
func FuzzCRAMMD5(f *testing.F) {
	const challenge = "<1896.697170952@postoffice.reston.mci.net>"
	const right = "tim b913a602c7eda7a495b4e6e7334d3890"
	f.Add(right)
	f.Add("tim B913A602C7EDA7A495B4E6E7334D3890")
	f.Add(" " + right)
	f.Fuzz(func(t *testing.T, response string) {
		err := cramMD5(newHost(), challenge, response)
		if (err == nil) != (response == right) {
			t.Errorf("%q: %v", response, err)
		}
	})
}

func FuzzAPOP(f *testing.F) {
	f.Add("mrose", "c4c9334bac560ecc979e58001b3e22fb")
	f.Add("", "C4C9334BAC560ECC979E58001B3E22FB")
	f.Fuzz(func(t *testing.T, user, digest string) {
		h := &testHost{passwords: map[string]string{"mrose": "tanstaaf"}}
		err := APOP(h, "<1896.697170952@dbc.mtview.ca.us>", user, digest)
		if (err == nil) != (user == "mrose" && digest == "c4c9334bac560ecc979e58001b3e22fb") {
			t.Errorf("%q %q: %v", user, digest, err)
		}
	})
}

// FuzzSCRAM changes what a client with the right password sends: no changed message is as good as the one
// that was signed. RFC 5802 section 3: AuthMessage has all of them.
func FuzzSCRAM(f *testing.F) {
	const gs2, bare, nonce = "p=tls-exporter,a=user,", "n=tim,r=nonce,x=1", "0123456789abcdef"
	stored := auth.Secret{SCRAM: scramKeys(sha256.New, "secret", []byte("salt"), 1)}
	client := &scramClient{hash: sha256.New, gs2: gs2, bare: bare, password: "secret", binding: exporter, extensions: ",z=1"}
	final := client.answer(f, "r=nonce"+nonce+",s=c2FsdA==,i=1")
	f.Add(gs2+bare, final, "")
	for i := 0; i < len(final); i += 7 {
		f.Add(gs2+bare, final[:i]+"x"+final[i+1:], "")
		f.Add(gs2+bare, final[:i]+final[i+1:], "")
	}
	for i := range len(gs2 + bare) {
		f.Add((gs2 + bare)[:i]+(gs2 + bare)[i+1:], final, "")
		f.Add((gs2 + bare)[:i]+"="+(gs2 + bare)[i:], final, "")
	}
	f.Add("p=tls-server-end-point,a=user,"+bare, final, "")
	f.Add(gs2+bare, final+",p=AAAA", "")
	f.Add(gs2+bare, final, "x")
	f.Fuzz(func(t *testing.T, one, two, three string) {
		h := &vectorHost{secret: stored}
		h.admin, h.user = "tim", "tim"
		s := newSCRAM(sha256Form, true, h, overTLS, func() string { return nonce })
		challenges, done, err := play(t, s, octets(one, two, three)...)
		right := one == gs2+bare && two == final
		if done != (right && three == "") || done != (err == nil) {
			t.Errorf("%q %q %q: %q, %v, %v", one, two, three, challenges, done, err)
		}
		if signed := slices.ContainsFunc(challenges, func(c string) bool { return strings.HasPrefix(c, "v=") }); signed != right || (h.as != "") != right {
			t.Errorf("%q %q: %q, as %q", one, two, challenges, h.as)
		}
	})
}
