package sasl

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"hash"
	"slices"
	"testing"

	"dewey/auth"
)

// vectorHost hands out one secret.
type vectorHost struct {
	testHost
	secret auth.Secret
}

func (h *vectorHost) Secret(user, mechanism string) (auth.Secret, error) {
	return h.secret, h.call("Secret", user, mechanism)
}

// The examples of RFC 5802 section 5 and RFC 7677 section 3.
func TestSCRAMExamples(t *testing.T) {
	for _, c := range []struct {
		form                             scramForm
		hash                             func() hash.Hash
		salt, nonce                      string
		clientFirst, serverFirst, cFinal string
		sFinal                           string
	}{
		{
			sha1Form, sha1.New, "QSXCR+Q6sek8bf92", "3rfcNHYJY1ZVvWVs7j",
			"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
			"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
			"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
			"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
		},
		{
			sha256Form, sha256.New, "W22ZaJ0SNY7soEsUEjb6gQ==", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
			"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
			"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
			"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
			"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
		},
	} {
		salt, err := base64.StdEncoding.DecodeString(c.salt)
		if err != nil {
			t.Fatal(err)
		}
		h := &vectorHost{secret: auth.Secret{SCRAM: scramKeys(c.hash, "pencil", salt, 4096)}}
		s := newSCRAM(c.form, false, h, Channel{}, func() string { return c.nonce })
		got, done, err := play(t, s, nil, []byte(c.clientFirst), []byte(c.cFinal), []byte{})
		if want := []string{"", c.serverFirst, c.sFinal}; !done || err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v, %v", c.form.secret, got, done, err)
		}
		if want := []string{"Secret user " + c.form.secret}; !slices.Equal(h.calls, want) {
			t.Errorf("%s: asked %q", c.form.secret, h.calls)
		}
	}
}

// The example of RFC 2195 section 2. The challenge is random, so it is given to what answers it.
func TestCRAMMD5Example(t *testing.T) {
	const challenge = "<1896.697170952@postoffice.reston.mci.net>"
	h := newHost()
	if err := cramMD5(h, challenge, "tim b913a602c7eda7a495b4e6e7334d3890"); err != nil {
		t.Error(err)
	}
	if err := cramMD5(h, challenge, "tim b913a602c7eda7a495b4e6e7334d3891"); !errors.Is(err, auth.ErrRejected) {
		t.Error(err)
	}
}

// HMAC-MD5's own examples, RFC 2202: keys longer than a block, and text over more than one.
func TestHMACMD5Examples(t *testing.T) {
	for _, c := range []struct{ key, text, digest string }{
		{string(slices.Repeat([]byte{0x0b}, 16)), "Hi There", "9294727a3638bb1c13f48ef8158bfc9d"},
		{"Jefe", "what do ya want for nothing?", "750c783e6ab0b503eaa86e310a5db738"},
		{string(slices.Repeat([]byte{0xaa}, 80)), "Test Using Larger Than Block-Size Key - Hash Key First", "6b1ab7fe4bd7bf8f0b62e6ce61b9d0cd"},
		{string(slices.Repeat([]byte{0xaa}, 80)), "Test Using Larger Than Block-Size Key and Larger Than One Block-Size Data", "6f630fad67cda0ee1fb1f562db3aa53e"},
	} {
		got, err := hmacMD5(cramStates(c.key), c.text)
		if hex.EncodeToString(got) != c.digest || err != nil {
			t.Errorf("%q: %x, %v", c.text, got, err)
		}
	}
}

// The example of RFC 1939 section 7.
func TestAPOPExample(t *testing.T) {
	const timestamp = "<1896.697170952@dbc.mtview.ca.us>"
	h := &testHost{passwords: map[string]string{"mrose": "tanstaaf", "nobody": ""}}
	if err := APOP(h, timestamp, "mrose", "c4c9334bac560ecc979e58001b3e22fb"); err != nil || h.user != "mrose" {
		t.Errorf("%v, %q", err, h.user)
	}
	empty := hex.EncodeToString(digest(md5.New, []byte(timestamp)))
	for _, c := range []struct {
		user, digest string
		want         error
	}{
		{"mrose", "c4c9334bac560ecc979e58001b3e22fc", auth.ErrRejected},
		{"rose", "c4c9334bac560ecc979e58001b3e22fb", auth.ErrRejected},
		{"nobody", empty, auth.ErrRejected}, // an empty password lets nobody in
		{"stranger", empty, auth.ErrRejected},
		{"mrose", "C4C9334BAC560ECC979E58001B3E22FB", ErrForm}, // "using lower-case ASCII characters"
		{"mrose", "c4c9334bac560ecc979e58001b3e22f", ErrForm},
		{"mrose", "c4c9334bac560ecc979e58001b3e22fb0", ErrForm},
		{"mrose", "g4c9334bac560ecc979e58001b3e22fb", ErrForm},
		{"mrose", "", ErrForm},
		{"mrose", "c4c9334bac560ecc979e58001b3e22f\xc3", ErrForm},
		{"", "c4c9334bac560ecc979e58001b3e22fb", ErrForm},
		{"mr\rose", "c4c9334bac560ecc979e58001b3e22fb", ErrForm},
	} {
		h.calls = nil
		if err := APOP(h, timestamp, c.user, c.digest); !errors.Is(err, c.want) {
			t.Errorf("%q %q: %v", c.user, c.digest, err)
		}
		if asked := len(h.calls) > 0; asked != (c.want != ErrForm) {
			t.Errorf("%q %q: asked %q", c.user, c.digest, h.calls)
		}
	}
	h.fault = errFault
	if err := APOP(h, timestamp, "mrose", "c4c9334bac560ecc979e58001b3e22fb"); !errors.Is(err, errFault) || errors.Is(err, auth.ErrRejected) {
		t.Error(err)
	}
}

// The exchanges of RFC 4616 section 4.
func TestPLAINExamples(t *testing.T) {
	h := newHost()
	_, done, err := play(t, start(t, "PLAIN", h, Channel{}), nil, []byte("\x00tim\x00tanstaaftanstaaf"))
	if !done || err != nil || h.user != "tim" || h.as != "" {
		t.Errorf("%v, %v, %q as %q", done, err, h.user, h.as)
	}
	h = newHost()
	h.passwords["Kurt"] = "xipj3plmq"
	_, done, err = play(t, start(t, "PLAIN", h, Channel{}), []byte("Ursel\x00Kurt\x00xipj3plmq"))
	if done || !errors.Is(err, auth.ErrRejected) || !slices.Equal(h.calls, []string{"CheckPassword Kurt xipj3plmq", "As Ursel"}) {
		t.Errorf("%v, %v, %q", done, err, h.calls)
	}
}
