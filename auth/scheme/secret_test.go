package scheme

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/subtle"
	"encoding"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

func parsed(t *testing.T, field string) Hash {
	t.Helper()
	h, err := All.Parse(field)
	if err != nil {
		t.Fatalf("%s: %v", field, err)
	}
	for i, mechanism := range []string{"APOP", "CRAM-MD5", SCRAMSHA1, SCRAMSHA256} {
		if h.ServesAll()[i] != h.Serves(mechanism) {
			t.Errorf("%s: ServesAll says otherwise of %s", field, mechanism)
		}
	}
	return h
}

// The examples of RFC 5802 section 5 and RFC 7677 section 3, from the {PLAIN} password.
func TestDeriveOfTheRFCs(t *testing.T) {
	for mechanism, c := range map[string]struct {
		s                      scram
		salt, auth, proof, sig string
	}{
		SCRAMSHA1: {
			scramSHA1, "QSXCR+Q6sek8bf92",
			"n=user,r=fyko+d2lbbFgONRv9qkxdawL,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096,c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j",
			"v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=", "rmF9pqV8S7suAoZWja4dJRkFsKQ=",
		},
		SCRAMSHA256: {
			scramSHA256, "W22ZaJ0SNY7soEsUEjb6gQ==",
			"n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
			"dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
		},
	} {
		unbase64 := func(text string) []byte {
			octets, err := base64.StdEncoding.DecodeString(text)
			if err != nil {
				t.Fatal(err)
			}
			return octets
		}
		prepared, ok := parsed(t, "{PLAIN}pencil").Prepared()
		keys, err := Derive(mechanism, prepared, unbase64(c.salt), DerivedIterations)
		if !ok || err != nil || keys.Iterations != 4096 || !bytes.Equal(keys.Salt, unbase64(c.salt)) {
			t.Fatalf("%+v, %v", keys, err)
		}
		mac := func(key []byte) []byte {
			m := hmac.New(c.s.digest, key)
			m.Write([]byte(c.auth))
			return m.Sum(nil)
		}
		client := mac(keys.StoredKey)
		subtle.XORBytes(client, client, unbase64(c.proof))
		d := c.s.digest()
		d.Write(client)
		if !hmac.Equal(mac(keys.ServerKey), unbase64(c.sig)) || !hmac.Equal(d.Sum(nil), keys.StoredKey) {
			t.Errorf("%s: other keys", mechanism)
		}
	}
	if _, err := Derive("SCRAM-MD5", "x", nil, 4096); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
}

// What doveadm stores comes out as it is stored, and is what the password itself gives.
func TestSecretsOfDoveadm(t *testing.T) {
	for _, password := range passwords {
		plain, err := doveadm(t, "-s", "PLAIN.b64", "-p", password)
		if err != nil {
			t.Fatal(plain)
		}
		own := parsed(t, plain)
		if got, ok := own.Password(); !ok || got != password || !own.Serves("APOP") {
			t.Errorf("%q: the password is %q", password, got)
		}
		cram, err := doveadm(t, "-s", "CRAM-MD5", "-p", password)
		if err != nil {
			t.Fatal(cram)
		}
		_, digits, _ := strings.Cut(cram, "}")
		for _, h := range []Hash{own, parsed(t, cram), parsed(t, "{HMAC-MD5}"+digits)} {
			if states, ok := h.CRAMMD5(); !ok || hex.EncodeToString(states[:]) != digits || !h.Serves("CRAM-MD5") {
				t.Errorf("%q: {%s} gives %x, not %s", password, h.Scheme, states, digits)
			}
		}
		for _, mechanism := range []string{SCRAMSHA1, SCRAMSHA256} {
			field, err := doveadm(t, "-s", mechanism, "-p", password)
			if err != nil {
				t.Fatal(field)
			}
			h := parsed(t, field)
			keys, ok := h.SCRAM(mechanism)
			_, value, _ := strings.Cut(field, "}")
			b64 := base64.StdEncoding.EncodeToString
			if again := itoa(keys.Iterations) + "," + b64(keys.Salt) + "," + b64(keys.StoredKey) + "," + b64(keys.ServerKey); !ok || again != value || !h.Serves(mechanism) {
				t.Errorf("%s gives %s", field, again)
			}
			if h.Serves("APOP") || h.Serves("CRAM-MD5") || h.Serves(SCRAMSHA1) && h.Serves(SCRAMSHA256) {
				t.Errorf("%s serves others", mechanism)
			}
			prepared, ok := own.Prepared()
			if !ok || prepared != password { // where SASLprep changes it, doveadm's keys are none that a client makes
				continue
			}
			derived, err := Derive(mechanism, prepared, keys.Salt, keys.Iterations)
			if err != nil || !bytes.Equal(derived.StoredKey, keys.StoredKey) || !bytes.Equal(derived.ServerKey, keys.ServerKey) {
				t.Errorf("%q: other keys than doveadm's, %v", password, err)
			}
		}
	}
}

// RFC 2195 section 2's example, with MD5 gone on with from the states.
func TestCRAMMD5OfTheRFC(t *testing.T) {
	states, ok := parsed(t, "{PLAIN}tanstaaftanstaaf").CRAMMD5()
	if !ok {
		t.Fatal("no states")
	}
	goOn := func(state []byte, data []byte) []byte {
		saved := []byte("md5\x01")
		for i := range 4 {
			saved = binary.BigEndian.AppendUint32(saved, binary.LittleEndian.Uint32(state[4*i:]))
		}
		saved = binary.BigEndian.AppendUint64(append(saved, make([]byte, 64)...), 64)
		d := md5.New()
		if err := d.(encoding.BinaryUnmarshaler).UnmarshalBinary(saved); err != nil {
			t.Fatal(err)
		}
		d.Write(data)
		return d.Sum(nil)
	}
	inner := goOn(states[16:], []byte("<1896.697170952@postoffice.reston.mci.net>"))
	if got := hex.EncodeToString(goOn(states[:16], inner)); got != "b913a602c7eda7a495b4e6e7334d3890" {
		t.Error(got)
	}
}

// The examples of RFC 4013 section 3, and what no client could send or would be let in with.
func TestPreparedPasswords(t *testing.T) {
	for password, want := range map[string]string{
		"I\u00adX": "IX", "user": "user", "USER": "USER", "\u00aa": "a", "\u2168": "IX", "a\u00a0b": "a b", // C.1.2: to a space
		"\u0007": "", "\u06271": "", "\u00ad": "", "a\xffb": "", "x\u007f": "", "a secret": "a secret", "ñ": "ñ", "n\u0303": "ñ",
		"\x00": "", strings.Repeat("x", 512): strings.Repeat("x", 512), "": "",
	} {
		h := parsed(t, "{PLAIN.HEX}"+hex.EncodeToString([]byte(password)))
		got, ok := h.Prepared()
		if got != want && ok || ok != (want != "") || h.Serves(SCRAMSHA256) != ok {
			t.Errorf("%q: %q, %v", password, got, ok)
		}
		sane := password != "" && password != "\x00"
		if _, ok := h.Password(); ok != sane || ok != h.Verify(password) || h.Serves("CRAM-MD5") != sane {
			t.Errorf("%.9q: the password itself: %v", password, ok)
		}
	}
}

func TestOthersHaveNoSecrets(t *testing.T) {
	for _, name := range All.Names() {
		if strings.HasPrefix(name, "SCRAM") || strings.HasPrefix(name, "CLEAR") || name == "PLAIN" || name == "CRAM-MD5" || name == "HMAC-MD5" || costly(name) {
			continue
		}
		field, err := All.Make(name, "a secret")
		if err != nil {
			t.Fatal(err)
		}
		for _, mechanism := range []string{"APOP", "CRAM-MD5", SCRAMSHA1, SCRAMSHA256, "PLAIN", ""} {
			if parsed(t, field).Serves(mechanism) {
				t.Errorf("%s serves %q", name, mechanism)
			}
		}
	}
	for _, locked := range []string{"", "!{PLAIN}x", "{PLAIN}", "{CRAM-MD5}!", "{SCRAM-SHA-1}*"} {
		for _, mechanism := range []string{"APOP", "CRAM-MD5", SCRAMSHA1, SCRAMSHA256} {
			if parsed(t, locked).Serves(mechanism) {
				t.Errorf("%q serves %s", locked, mechanism)
			}
		}
	}
}

// APOP is a name for Make alone.
func TestMakeAPOP(t *testing.T) {
	for name, want := range map[string]string{"APOP": "{PLAIN}x y", "apop": "{PLAIN}x y", "Apop.hex": "{PLAIN.HEX}782079"} {
		if got, err := Strong.Make(name, "x y"); got != want || err != nil {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	if _, err := Strong.Make("APOP", "a:b"); !errors.Is(err, ErrPassword) || !strings.Contains(err.Error(), "{PLAIN.B64}") {
		t.Error(err)
	}
	if _, err := Strong.Parse("{APOP}x"); !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "{PLAIN}, as APOP") {
		t.Error(err)
	}
	if _, err := Strong.Make("APOP.B32", "x"); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
}
