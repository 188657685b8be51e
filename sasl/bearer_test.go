package sasl

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"dewey/auth"
)

// tokens is a host that knows these tokens.
func tokens(known map[string]string) *testHost {
	h := newHost()
	h.tokens = known
	return h
}

const vector = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="

func unbase64(t testing.TB, text string) []byte {
	t.Helper()
	octets, err := base64.StdEncoding.DecodeString(strings.NewReplacer(" ", "", "\n", "").Replace(text))
	if err != nil {
		t.Fatal(err)
	}
	return octets
}

// The exchanges of RFC 7628 sections 4.1 and 4.3, as they are on the wire there; 4.4 has "user=" where its own grammar has
// "a=", and fails there too.
func TestOAuthBearerVectors(t *testing.T) {
	for _, port := range []string{"143", "587"} {
		wire := `bixhPXVzZXJAZXhhbXBsZS5jb20sAWhv
         c3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9QmVhcmVyI
         HZGOWRmdDRxbVRjMk52YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQ
         EB`
		if port == "587" {
			wire = `bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2Vy
         dmVyLmV4YW1wbGUuY29tAXBvcnQ9NTg3AWF1dGg9QmVhcmVyIHZGOWRmd
         DRxbVRjMk52YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB`
		}
		h := tokens(map[string]string{vector: "user@example.com"})
		got, done, err := play(t, start(t, "OAUTHBEARER", h, Channel{}), unbase64(t, wire))
		want := auth.Token{Bearer: vector, User: "user@example.com", Host: "server.example.com", Port: port}
		if !done || err != nil || len(got) != 0 || h.token != want || h.user != "user@example.com" {
			t.Errorf("%v, %v, %q, %+v", done, err, got, h.token)
		}
	}
	for _, answer := range [][]byte{unbase64(t, "AQ=="), {}, []byte("x"), nil} {
		h := tokens(nil)
		h.refusal = &auth.TokenRefusal{Status: auth.TokenInvalid, Scope: "example_scope", ConfigurationURL: "https://example.com/.well-known/openid-configuration"}
		got, done, err := play(t, start(t, "OAUTHBEARER", h, Channel{}), unbase64(t, `bixhPXVzZXJAZXhhbXBsZS5jb20sAW
         hvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9AQE=`), answer)
		want := string(unbase64(t, `eyJzdGF0dXMiOiJpbnZhbGlkX3Rva2VuIiwic2NvcGUiOiJleGFtcGxl
        X3Njb3BlIiwib3BlbmlkLWNvbmZpZ3VyYXRpb24iOiJodHRwczovL2V4
        YW1wbGUuY29tLy53ZWxsLWtub3duL29wZW5pZC1jb25maWd1cmF0aW9u
        In0=`))
		if done || !errors.Is(err, auth.ErrRejected) || !slices.Equal(got, []string{want}) || h.token.Bearer != "" {
			t.Errorf("%v, %v, %q", done, err, got)
		}
	}
	h := tokens(map[string]string{"vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg==": "someuser@example.com"})
	_, done, err := play(t, start(t, "OAUTHBEARER", h, Channel{}), unbase64(t, `bix1c2VyPXNvbWV1c2VyQGV4YW1wbGUuY29tLAFhdXRoPUJlYXJl
       ciB2RjlkZnQ0cW1UYzJOdmIzUmxja0JoZEhSaGRtbHpkR0V1WTI5dENnPT0BAQ==`))
	if done || !errors.Is(err, ErrForm) || len(h.calls) != 0 {
		t.Errorf("%v, %v, %q", done, err, h.calls)
	}
}

// The initial client response that Google documents for XOAUTH2, and the error that it sends, whose status is HTTP's.
func TestXOAuth2Vector(t *testing.T) {
	const token = "vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg"
	wire := "dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB2RjlkZnQ0cW1UYzJOdmIzUmxja0JoZEhSaGRtbHpkR0V1WTI5dENnAQE="
	h := tokens(map[string]string{token: "someuser@example.com"})
	_, done, err := play(t, start(t, "XOAUTH2", h, Channel{}), nil, unbase64(t, wire))
	if want := (auth.Token{Bearer: token, User: "someuser@example.com"}); !done || err != nil || h.token != want {
		t.Errorf("%v, %v, %+v", done, err, h.token)
	}
	for status, want := range map[string]string{auth.TokenInvalid: "401", auth.TokenInsufficient: "403"} {
		h.refusal = &auth.TokenRefusal{Status: status, Scope: "https://mail.example.com/"}
		got, done, err := play(t, start(t, "XOAUTH2", h, Channel{}), unbase64(t, wire), []byte{})
		want := `{"status":"` + want + `","schemes":"bearer","scope":"https://mail.example.com/"}`
		if done || !errors.Is(err, auth.ErrRejected) || !slices.Equal(got, []string{want}) {
			t.Errorf("%v, %v, %q, want %q", done, err, got, want)
		}
	}
}

// What comes out of exchanges with tokens.
func TestBearer(t *testing.T) {
	long := strings.Repeat("t", 64<<10)
	known := map[string]string{"good": "user", "chief": "tim", "o+/-._~!=": "a,b=c", long: "user"}
	for _, c := range []struct {
		name, mechanism string
		response        string
		user, as        string // none: refused
	}{
		{"no name", "OAUTHBEARER", "n,,\x01auth=Bearer good\x01\x01", "user", ""},
		{"his own name", "OAUTHBEARER", "y,a=user,\x01auth=bEARER   good \x01\x01", "user", "user"},
		{"his own name, prepared", "OAUTHBEARER", "n,a=u\u00adser,\x01auth=Bearer good\x01\x01", "user", "user"},
		{"escapes, and other characters", "OAUTHBEARER", "n,a=a=2Cb=3Dc,\x01auth=Bearer o+/-._~!=\x01\x01", "a,b=c", "a,b=c"},
		{"another's name", "OAUTHBEARER", "n,a=tim,\x01auth=Bearer good\x01\x01", "", ""},
		{"another's name, with the right", "OAUTHBEARER", "n,a=user,\x01auth=Bearer chief\x01\x01", "tim", "user"},
		{"unknown keys", "OAUTHBEARER", "n,,\x01path=/\x01x=\r\n\t y\x01Auth=Bearer good\x01host=h\x01\x01", "user", ""},
		{"unknown", "OAUTHBEARER", "n,,\x01auth=Bearer bad\x01\x01", "", ""},
		{"empty", "OAUTHBEARER", "n,,\x01auth=\x01\x01", "", ""},
		{"64 KiB", "OAUTHBEARER", "n,a=user,\x01auth=Bearer " + long + "\x01\x01", "user", "user"},
		{"his own name", "XOAUTH2", "user=user\x01auth=Bearer good\x01\x01", "user", "user"},
		{"in another order", "XOAUTH2", "auth=Bearer good\x01user=user\x01\x01", "user", "user"},
		{"another's name", "XOAUTH2", "user=tim\x01auth=Bearer good\x01\x01", "", ""},
		{"another's name, with the right", "XOAUTH2", "user=user\x01auth=Bearer chief\x01\x01", "tim", "user"},
		{"unknown", "XOAUTH2", "user=user\x01auth=Bearer bad\x01\x01", "", ""},
		{"64 KiB", "XOAUTH2", "user=user\x01auth=Bearer " + long + "\x01\x01", "user", "user"},
	} {
		for _, twoSteps := range []bool{false, true} {
			h := tokens(known)
			responses := octets(c.response, "\x01")
			if twoSteps {
				responses = append([][]byte{nil}, responses...)
			}
			got, done, err := play(t, start(t, c.mechanism, h, Channel{}), responses...)
			if twoSteps && (len(got) == 0 || got[0] != "") {
				t.Errorf("%s, %s: %q", c.mechanism, c.name, got)
			} else if twoSteps {
				got = got[1:]
			}
			if c.user == "" {
				if done || !errors.Is(err, auth.ErrRejected) || len(got) != 1 || !json.Valid([]byte(got[0])) {
					t.Errorf("%s, %s: %v, %v, %q", c.mechanism, c.name, done, err, got)
				}
			} else if !done || len(got) != 0 || h.user != c.user || h.as != "" && h.as != c.as || h.token.User != c.as {
				t.Errorf("%s, %s: %v, %v, %q, %q as %q", c.mechanism, c.name, done, err, got, h.user, h.as)
			}
		}
	}
}

// After a refusal there is one response more, whatever it is, and never a panic: what go-sasl's server does to an empty
// line.
func TestTrap45AfterTheRefusal(t *testing.T) {
	for mechanism, first := range map[string]string{"OAUTHBEARER": "n,,\x01auth=Bearer x\x01\x01", "XOAUTH2": "user=tim\x01auth=Bearer x\x01\x01"} {
		for _, answer := range [][]byte{nil, {}, {1}, []byte("n,,\x01auth=Bearer good\x01\x01"), []byte("user=user\x01auth=Bearer good\x01\x01")} {
			h := tokens(map[string]string{"good": "user"})
			_, done, err := play(t, start(t, mechanism, h, Channel{}), []byte(first), answer)
			if done || !errors.Is(err, auth.ErrRejected) || len(h.calls) != 1 {
				t.Errorf("%s, %q: %v, %v, %q", mechanism, answer, done, err, h.calls)
			}
		}
	}
}

// A backend that can't tell ends the exchange at once: no client is to throw a good token away.
func TestBearerFault(t *testing.T) {
	for mechanism, first := range map[string]string{"OAUTHBEARER": "n,,\x01auth=Bearer x\x01\x01", "XOAUTH2": "user=tim\x01auth=Bearer x\x01\x01"} {
		h := tokens(nil)
		h.fault = errFault
		got, done, err := play(t, start(t, mechanism, h, Channel{}), []byte(first))
		if done || !errors.Is(err, errFault) || errors.Is(err, auth.ErrRejected) || len(got) != 0 {
			t.Errorf("%s: %q, %v, %v", mechanism, got, done, err)
		}
	}
}

// What neither mechanism's grammar has is refused before a host is asked.
func TestBearerMalformed(t *testing.T) {
	const good = "auth=Bearer good\x01\x01"
	over := strings.Repeat("t", 64<<10+1)
	for mechanism, responses := range map[string][]string{
		"OAUTHBEARER": {
			"", "\x01", "n,,", "n,," + good, "n,,\x01", "n,,\x01\x01", "n\x01" + good, "n,\x01" + good, "n,,,\x01" + good, "p=tls-exporter,,\x01" + good,
			"F,n,,\x01" + good, "x,,\x01" + good, ",,\x01" + good, "n,user,\x01" + good, "n,user=user,\x01" + good, "n,a=,\x01" + good, "n,a==,\x01" + good,
			"n,a=a=2cb,\x01" + good, "n,a=a\rb,\x01" + good, "n,a=a\x00b,\x01" + good, "n,a=" + strings.Repeat("a", 1025) + ",\x01" + good,
			"n,,\x01auth=Bearer good\x01", "n,,\x01auth=Bearer good", "n,,\x01" + good + "x", "n,,\x01" + good + "\x01", "n,,\x01auth=Basic Og==\x01\x01",
			"n,,\x01auth=good\x01\x01", "n,,\x01auth=Bearer a b\x01\x01", "n,,\x01auth=Bearer a\r\nb\x01\x01", "n,,\x01auth=Bearer \xff\x01\x01",
			"n,,\x01auth=Bearer good\x01auth=Bearer good\x01\x01", "n,,\x01auth=Bearer good\x01AUTH=\x01\x01", "n,,\x01=x\x01" + good, "n,,\x01x\x01" + good,
			"n,,\x01x1=x\x01" + good, "n,,\x01ſ=x\x01" + good, "n,,\x01x=\x00\x01" + good, "n,,\x01host=a\r\nb\x01" + good, "n,,\x01host=h\x01\x01",
			"n,,\x01auth=Bearer " + over + "\x01\x01", "n,,\x01x=" + over + over + "\x01" + good, strings.Repeat("\x01", 1<<17),
		},
		"XOAUTH2": {
			"", "\x01", "\x01\x01", good, "user=\x01" + good, "user=user\x01\x01", "user=user\x01auth=Bearer good\x01", "user=user\x01auth=Basic x\x01\x01",
			"user=a\rb\x01" + good, "user=a\x7f\x01" + good, "user=user\x01user=tim\x01" + good, "n,a=user,\x01" + good, "user=" + strings.Repeat("u", 1025) + "\x01" + good,
			"user=user\x01auth=Bearer " + over + "\x01\x01",
		},
	} {
		for _, r := range responses {
			h := tokens(map[string]string{"good": "user"})
			got, done, err := play(t, start(t, mechanism, h, Channel{}), []byte(r))
			if done || !errors.Is(err, ErrForm) || errors.Is(err, auth.ErrRejected) || len(got) != 0 || len(h.calls) != 0 {
				t.Errorf("%s %.60q: %v, %v, %q, asked %q", mechanism, r, done, err, got, h.calls)
			}
			if err != nil && (strings.Contains(err.Error(), "good") || len(err.Error()) > 100) {
				t.Errorf("%s: the error repeats what came: %v", mechanism, err)
			}
		}
	}
}

// A model of RFC 7628's grammar, by regular means: fields between ^A.
func FuzzOAUTHBEARER(f *testing.F) {
	for _, seed := range []string{
		"n,a=user@example.com,\x01host=server.example.com\x01port=143\x01auth=Bearer " + vector + "\x01\x01", "n,,\x01auth=Bearer good\x01\x01", "y,a=tim,\x01auth=bearer good\x01\x01",
		"n,,\x01auth=\x01\x01", "n,a=a=2Cb,\x01auth=Bearer good\x01x=y\x01\x01", "\x01", "n,,\x01auth=Bearer good\x01\x01\x01", "p=x,,\x01auth=Bearer good\x01\x01",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, response []byte) {
		fuzzBearer(t, "OAUTHBEARER", response, func(fields []string) bool {
			return len(fields) > 3 && (strings.HasPrefix(fields[0], "n,") || strings.HasPrefix(fields[0], "y,")) && strings.Count(fields[0], ",") == 2
		})
	})
}

// FuzzXOAUTH2 is the same without a gs2-header.
func FuzzXOAUTH2(f *testing.F) {
	for _, seed := range []string{
		"user=someuser@example.com\x01auth=Bearer ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg\x01\x01", "user=user\x01auth=Bearer good\x01\x01", "auth=Bearer good\x01user=user\x01\x01",
		"user=\x01auth=\x01\x01", "user=tim\x01auth=Bearer good\x01\x01", "\x01\x01", "user=user\x01auth=Bearer good\x01",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, response []byte) {
		fuzzBearer(t, "XOAUTH2", response, func(fields []string) bool {
			return len(fields) > 3 && slices.ContainsFunc(fields, func(f string) bool { return len(f) > 5 && strings.EqualFold(f[:5], "user=") })
		})
	})
}

func fuzzBearer(t *testing.T, mechanism string, response []byte, begins func([]string) bool) {
	h := tokens(map[string]string{"good": "user"})
	got, done, err := play(t, start(t, mechanism, h, Channel{}), response, []byte{1})
	fields := strings.Split(string(response), "\x01")
	n := len(fields)
	if len(h.calls) > 0 && (!begins(fields) || fields[n-1] != "" || fields[n-2] != "") {
		t.Errorf("%q: asked %q", response, h.calls)
	}
	named := slices.ContainsFunc(fields, func(f string) bool {
		scheme, token, _ := strings.Cut(f, " ")
		return strings.EqualFold(scheme, "auth=Bearer") && strings.Trim(token, " ") == "good"
	})
	if done && (!named || h.token.User != "" && h.token.User != "user") || done != (err == nil) {
		t.Errorf("%q: %v, %v, %+v", response, done, err, h.token)
	}
	for _, text := range []string{h.token.User, h.token.Bearer, h.token.Host, h.token.Port} {
		if strings.ContainsAny(text, "\x00\x01\r\n") {
			t.Errorf("%q: %+v", response, h.token)
		}
	}
	if !utf8.ValidString(h.token.User) || len(got) > 1 {
		t.Errorf("%q: %+v, %q", response, h.token, got)
	}
	for _, challenge := range got {
		var told map[string]string
		if err := json.Unmarshal([]byte(challenge), &told); err != nil || len(slices.Collect(maps.Keys(told))) == 0 {
			t.Errorf("%q: %q, %v", response, challenge, err)
		}
	}
}
