package scheme

import (
	"crypto/hmac"
	"crypto/subtle"
	"encoding/base64"
	"testing"
)

// The keys are those with which a client proves itself to the server, and the server to the client,
// in the examples of RFC 5802 section 5 and RFC 7677 section 3: user, pencil.
func TestSCRAMKeysOfTheRFCs(t *testing.T) {
	unbase64 := func(text string) []byte {
		t.Helper()
		octets, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		return octets
	}
	for name, c := range map[string]struct {
		s                      scram
		salt, auth, proof, sig string
	}{
		"SCRAM-SHA-1": {
			scramSHA1, "QSXCR+Q6sek8bf92",
			"n=user,r=fyko+d2lbbFgONRv9qkxdawL,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096,c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j",
			"v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=", "rmF9pqV8S7suAoZWja4dJRkFsKQ=",
		},
		"SCRAM-SHA-256": {
			scramSHA256, "W22ZaJ0SNY7soEsUEjb6gQ==",
			"n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
			"dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
		},
	} {
		stored, server, err := c.s.keys("pencil", unbase64(c.salt), 4096)
		if err != nil {
			t.Fatal(err)
		}
		mac := func(key []byte) []byte {
			m := hmac.New(c.s.digest, key)
			m.Write([]byte(c.auth))
			return m.Sum(nil)
		}
		if !hmac.Equal(mac(server), unbase64(c.sig)) {
			t.Errorf("%s: another ServerKey", name)
		}
		client := mac(stored)
		subtle.XORBytes(client, client, unbase64(c.proof))
		d := c.s.digest()
		d.Write(client)
		if !hmac.Equal(d.Sum(nil), stored) {
			t.Errorf("%s: another StoredKey", name)
		}
		b64 := base64.StdEncoding.EncodeToString
		verifies(t, "{"+name+"}4096,"+c.salt+","+b64(stored)+","+b64(server), "pencil")
	}
}

// Both keys have to fit: a line whose halves are of two passwords lets in nobody.
func TestSCRAMBothKeysCount(t *testing.T) {
	salt := random(16)
	stored, _, err := scramSHA256.keys("pencil", salt, minSCRAMIterations)
	if err != nil {
		t.Fatal(err)
	}
	_, server, err := scramSHA256.keys("pen", salt, minSCRAMIterations)
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.StdEncoding.EncodeToString
	h, err := Strong.Parse("{SCRAM-SHA-256}4096," + b64(salt) + "," + b64(stored) + "," + b64(server))
	if err != nil || h.Verify("pencil") || h.Verify("pen") {
		t.Errorf("%v", err)
	}
}

// Memory and processors are counted before a hash runs.
func TestCostsAreCounted(t *testing.T) {
	for field, memory := range map[string]int64{
		"$y$j9T$" + saltY + "$" + tag86[:43]: 16 << 20, // as man 5 crypt says
		"$y$jFT$" + saltY + "$" + tag86[:43]: 1 << 30,
		"{PBKDF2}$1$salt$5000$" + hex40:      0,
		"{SCRAM-SHA-1}4096" + scram1:         0,
		"{SCRAM-SHA-256}4096" + scram256:     0,
	} {
		if h, err := Strong.Parse(field); err != nil || h.Threads != 1 || h.Memory != memory {
			t.Errorf("%s: %+v, %v", field, h, err)
		}
	}
}
