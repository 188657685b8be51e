package sasl

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"dewey/auth"
)

// A client of each mechanism that tries a name and a password: what it is sent, with what is random
// replaced by its length, and what came of it.
func attempt(t *testing.T, mechanism string, h *testHost, user, password string) (seen []string, calls []string, err error) {
	t.Helper()
	if mechanism == "APOP" {
		err = APOP(h, "<1.2@mx>", user, strings.Repeat("0", 32))
		return nil, h.calls, err
	}
	s := start(t, mechanism, h, overTLS)
	next := func(response []byte) []byte {
		if err != nil {
			return nil
		}
		var challenge []byte
		var done bool
		challenge, done, err = s.Next(response)
		if done {
			t.Fatalf("%s lets %q in", mechanism, user)
		}
		if err == nil {
			seen = append(seen, string(challenge))
		}
		return challenge
	}
	challenge := next(nil)
	switch {
	case mechanism == "PLAIN":
		next([]byte("\x00" + user + "\x00" + password))
	case mechanism == "LOGIN":
		next([]byte(user))
		next([]byte(password))
	case mechanism == "OAUTHBEARER":
		next([]byte("n,a=" + user + ",\x01auth=Bearer " + strings.ReplaceAll(password, " ", "") + "\x01\x01"))
		next([]byte{1})
	case mechanism == "XOAUTH2":
		next([]byte("user=" + user + "\x01auth=Bearer " + strings.ReplaceAll(password, " ", "") + "\x01\x01"))
		next([]byte{})
	case mechanism == "CRAM-MD5":
		next([]byte(cramAnswer(string(challenge), user, password)))
	default:
		client := &scramClient{hash: hashes[mechanism], gs2: "n,,", bare: "n=" + user + ",r=nonce", password: password}
		if strings.HasSuffix(mechanism, "-PLUS") {
			client.gs2, client.binding = "p=tls-exporter,,", exporter
		}
		first := next([]byte(client.gs2 + client.bare))
		next([]byte(client.answer(t, string(first))))
	}
	random := regexp.MustCompile(`<[0-9.]+@|[rs]=[^,]+`)
	for i, text := range seen {
		seen[i] = random.ReplaceAllStringFunc(text, func(part string) string {
			if part[0] == '<' {
				return "<random@"
			}
			return part[:2] + strconv.Itoa(len(part))
		})
	}
	return seen, h.calls, err
}

// A user who is not there, one with another password, and one whose password is kept in a form that does
// not serve, look alike in every message but for random parts, and the host is asked the same.
func TestTrap42UnknownUsersLookLikeOthers(t *testing.T) {
	mechanisms := append(Names(), "APOP")
	for _, mechanism := range mechanisms {
		if mechanism == "EXTERNAL" { // it sends no name of its own
			continue
		}
		wrong := newHost()
		want, wantCalls, err := attempt(t, mechanism, wrong, "tim", "wrong")
		if !errors.Is(err, auth.ErrRejected) {
			t.Fatalf("%s: %v", mechanism, err)
		}
		for name, h := range map[string]*testHost{
			"unknown":              {passwords: map[string]string{}},
			"unknown, no made-up":  {passwords: map[string]string{}, zero: true},
			"no secret":            {passwords: map[string]string{"tim": "tanstaaftanstaaf"}, broken: true},
			"unknown, no anything": {passwords: map[string]string{}, broken: true},
		} {
			h.iterations = 4096
			got, calls, err := attempt(t, mechanism, h, "tim", "wrong")
			if !slices.Equal(got, want) || !slices.Equal(calls, wantCalls) || !errors.Is(err, auth.ErrRejected) || errors.Is(err, ErrForm) {
				t.Errorf("%s, %s: %q, asked %q, %v; want %q, asked %q", mechanism, name, got, calls, err, want, wantCalls)
			}
		}
		// Even the right proof of what was made up lets nobody in.
		_, _, err = attempt(t, mechanism, newHost(), "nobody", "made up for nobody")
		if !errors.Is(err, auth.ErrRejected) {
			t.Errorf("%s: %v", mechanism, err)
		}
	}
}

// The salt of a name is the same each time, and another for another name and mechanism, whether the host
// makes it up or this package does.
func TestTrap42SaltIsStable(t *testing.T) {
	salt := func(mechanism, user string, h *testHost) string {
		challenge, _, err := start(t, mechanism, h, Channel{}).Next([]byte("n,,n=" + user + ",r=nonce"))
		_, salt, ok := strings.Cut(string(challenge), ",s=")
		if err != nil || !ok {
			t.Fatalf("%s, %s: %q, %v", mechanism, user, challenge, err)
		}
		return salt
	}
	for _, zero := range []bool{false, true} {
		unknown := func() *testHost { return &testHost{zero: zero, iterations: 4096} }
		seen := make(map[string]string)
		for i := range 20 {
			user := fmt.Sprintf("user%d", i)
			one := salt("SCRAM-SHA-256", user, unknown())
			if two := salt("SCRAM-SHA-256", user, unknown()); one != two {
				t.Errorf("%s: %s, then %s", user, one, two)
			}
			if zero && one == salt("SCRAM-SHA-1", user, unknown()) {
				t.Errorf("%s: the same salt for two mechanisms", user)
			}
			if other, ok := seen[one]; ok {
				t.Errorf("%s and %s have one salt", user, other)
			}
			seen[one] = user
		}
	}
}

// The library's e=unknown-user is never sent, nor any other server-error.
func TestTrap42NoServerError(t *testing.T) {
	for _, user := range []string{"nobody", "tim"} {
		client := &scramClient{hash: sha1.New, gs2: "n,,", bare: "n=" + user + ",r=nonce", password: "wrong"}
		s := start(t, "SCRAM-SHA-1", newHost(), Channel{})
		first, _, err := s.Next([]byte(client.gs2 + client.bare))
		if err != nil || !strings.HasPrefix(string(first), "r=") {
			t.Fatalf("%q, %v", first, err)
		}
		challenges, _, err := play(t, s, []byte(client.answer(t, string(first))))
		if len(challenges) != 0 || !errors.Is(err, auth.ErrRejected) || strings.Contains(err.Error(), "e=") {
			t.Errorf("%s: %q, %v", user, challenges, err)
		}
	}
}

// A host that hands out an empty or a spoilt secret without an error lets nobody in by it: not by the proof
// that fits what it handed out, nor by one that fits what is used instead.
func TestUnusableSecrets(t *testing.T) {
	h := &vectorHost{}
	for _, password := range []string{"", string(madeUp(auth.APOP, "tim", madeUpSalt))} {
		sum := digest(md5.New, []byte("<1.2@mx>"+password))
		if err := APOP(h, "<1.2@mx>", "tim", hex.EncodeToString(sum)); !errors.Is(err, auth.ErrRejected) {
			t.Errorf("APOP: %v", err)
		}
	}
	for _, states := range [][32]byte{{}, [32]byte(madeUp(auth.CRAMMD5, "tim", 32))} {
		sum, err := hmacMD5(states, "<1.2@mx>")
		if err != nil {
			t.Fatal(err)
		}
		if err := cramMD5(h, "<1.2@mx>", "tim "+hex.EncodeToString(sum)); !errors.Is(err, auth.ErrRejected) {
			t.Errorf("CRAM-MD5: %v", err)
		}
	}
	good := scramKeys(sha1.New, "secret", []byte("salt"), 4096)
	for name, spoil := range map[string]func(*auth.SCRAM){
		"no salt":               func(k *auth.SCRAM) { *k = scramKeys(sha1.New, "secret", nil, 4096); k.Salt = nil },
		"no iterations":         func(k *auth.SCRAM) { k.Iterations = 0 },
		"negative iterations":   func(k *auth.SCRAM) { k.Iterations = -1 },
		"no StoredKey":          func(k *auth.SCRAM) { k.StoredKey = nil },
		"a short ServerKey":     func(k *auth.SCRAM) { k.ServerKey = k.ServerKey[:19] },
		"another hash's keys":   func(k *auth.SCRAM) { *k = scramKeys(sha256.New, "secret", k.Salt, 4096) },
		"nothing but its salts": func(k *auth.SCRAM) { *k = auth.SCRAM{Salt: k.Salt} },
	} {
		h.secret.SCRAM = good
		spoil(&h.secret.SCRAM)
		client := &scramClient{hash: sha1.New, gs2: "n,,", bare: "n=tim,r=nonce", password: "secret"}
		s := start(t, "SCRAM-SHA-1", h, Channel{})
		first, _, err := s.Next([]byte(client.gs2 + client.bare))
		if err != nil || !strings.HasSuffix(string(first), ",i=4096") || strings.Contains(string(first), ",s=,") {
			t.Errorf("%s: %q, %v", name, first, err)
			continue
		}
		_, _, err = play(t, s, []byte(client.answer(t, string(first))))
		if !errors.Is(err, auth.ErrRejected) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
