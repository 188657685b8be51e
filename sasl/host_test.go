package sasl

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"
	"testing"

	"dewey/auth"
)

// A testHost knows users by their passwords and makes secrets of them by the formulas of the RFCs.
type testHost struct {
	passwords  map[string]string
	external   string // the certificate's user
	admin      string // who may act as others
	iterations int
	zero       bool  // hands out empty secrets for unknown users
	broken     bool  // hands out empty secrets for all, and no error
	fault      error // could not tell

	user, as string // proven, and as whom he acts
	calls    []string

	tokens  map[string]string // the users that tokens name
	refusal error             // of all tokens
	token   auth.Token        // the last
}

var errFault = errors.New("the database is away")

func newHost() *testHost {
	return &testHost{passwords: map[string]string{"tim": "tanstaaftanstaaf", "user": "pencil"}, admin: "tim", iterations: 4096}
}

func (h *testHost) call(what ...string) error {
	h.calls = append(h.calls, strings.Join(what, " "))
	return h.fault
}

func (h *testHost) CheckPassword(user, password string) error {
	if err := h.call("CheckPassword", user, password); err != nil {
		return err
	}
	if want, ok := h.passwords[user]; !ok || want != password {
		return fmt.Errorf("%w: by the test", auth.ErrRejected)
	}
	h.user = user
	return nil
}

func (h *testHost) Secret(user, mechanism string) (auth.Secret, error) {
	if err := h.call("Secret", user, mechanism); err != nil {
		return auth.Secret{}, err
	}
	password, ok := h.passwords[user]
	switch {
	case h.broken, !ok && h.zero:
	case !ok:
		password = "made up for " + user
	}
	var s auth.Secret
	if !h.broken && (ok || !h.zero) {
		s = auth.Secret{Password: password, CRAMMD5: cramStates(password)}
		salt := sha256.Sum256([]byte("salt of " + user))
		switch mechanism {
		case auth.SCRAMSHA1:
			s.SCRAM = scramKeys(sha1.New, password, salt[:16], h.iterations)
		case auth.SCRAMSHA256:
			s.SCRAM = scramKeys(sha256.New, password, salt[:16], h.iterations)
		}
	}
	if !ok {
		return s, fmt.Errorf("%w: by the test", auth.ErrRejected)
	}
	h.user = user
	return s, nil
}

func (h *testHost) External() error {
	if err := h.call("External"); err != nil {
		return err
	}
	if h.external == "" {
		return auth.ErrRejected
	}
	h.user = h.external
	return nil
}

func (h *testHost) CheckToken(t auth.Token) error {
	if err := h.call("CheckToken", t.User); err != nil {
		return err
	}
	h.token = t
	user, ok := h.tokens[t.Bearer]
	switch {
	case h.refusal != nil:
		return h.refusal
	case !ok || t.User != "" && t.User != user && user != h.admin:
		return fmt.Errorf("%w: by the test", auth.ErrRejected)
	case t.User != user:
		h.as = t.User
	}
	h.user = user
	return nil
}

func (h *testHost) As(user string) error {
	if err := h.call("As", user); err != nil {
		return err
	}
	if h.admin != h.user {
		return fmt.Errorf("%w: not as another", auth.ErrRejected)
	}
	h.as = user
	return nil
}

func mac(h func() hash.Hash, key, text []byte) []byte {
	m := hmac.New(h, key)
	m.Write(text)
	return m.Sum(nil)
}

func digest(h func() hash.Hash, text []byte) []byte {
	d := h()
	d.Write(text)
	return d.Sum(nil)
}

// scramKeys is RFC 5802 section 3.
func scramKeys(h func() hash.Hash, password string, salt []byte, iterations int) auth.SCRAM {
	salted, err := pbkdf2.Key(h, password, salt, iterations, h().Size())
	if err != nil {
		panic(err)
	}
	return auth.SCRAM{
		Salt: salt, Iterations: iterations,
		StoredKey: digest(h, mac(h, salted, []byte("Client Key"))),
		ServerKey: mac(h, salted, []byte("Server Key")),
	}
}

// cramStates is MD5's compression of one block, by RFC 1321 alone: the code under test uses
// the library's.
func cramStates(password string) (states [32]byte) {
	key := []byte(password)
	if len(key) > md5.BlockSize {
		key = digest(md5.New, key)
	}
	for i, pad := range []byte{0x5c, 0x36} {
		block := [md5.BlockSize]byte(slices.Repeat([]byte{pad}, md5.BlockSize))
		subtle.XORBytes(block[:], block[:], key)
		for word, value := range compress(block) {
			binary.LittleEndian.PutUint32(states[16*i+4*word:], value)
		}
	}
	return states
}

// A scramClient is the client's arithmetic, from RFC 5802 section 3.
type scramClient struct {
	hash                func() hash.Hash
	gs2, bare, password string
	binding             []byte // cbind-data
	extensions          string // of client-final-message, each with a comma before it
	serverSignature     string // after answer
}

// answer makes client-final-message of server-first-message.
func (c *scramClient) answer(t testing.TB, serverFirst string) string {
	t.Helper()
	var nonce, salt64 string
	var iterations int
	if _, err := fmt.Sscanf(strings.ReplaceAll(serverFirst, ",", " "), "r=%s s=%s i=%d", &nonce, &salt64, &iterations); err != nil {
		t.Fatalf("server-first-message %q: %v", serverFirst, err)
	}
	salt, err := base64.StdEncoding.DecodeString(salt64)
	if err != nil {
		t.Fatal(err)
	}
	_, own, _ := strings.Cut(c.bare, ",r=")
	own, _, _ = strings.Cut(own, ",")
	if !strings.HasPrefix(nonce, own) || len(nonce) < len(own)+16 {
		t.Fatalf("nonce %q after %q", nonce, own)
	}
	salted, err := pbkdf2.Key(c.hash, c.password, salt, iterations, c.hash().Size())
	if err != nil {
		t.Fatal(err)
	}
	without := "c=" + base64.StdEncoding.EncodeToString(append([]byte(c.gs2), c.binding...)) + ",r=" + nonce + c.extensions
	text := []byte(c.bare + "," + serverFirst + "," + without)
	key := mac(c.hash, salted, []byte("Client Key"))
	proof := mac(c.hash, digest(c.hash, key), text)
	subtle.XORBytes(proof, proof, key)
	c.serverSignature = "v=" + base64.StdEncoding.EncodeToString(mac(c.hash, mac(c.hash, salted, []byte("Server Key")), text))
	return without + ",p=" + base64.StdEncoding.EncodeToString(proof)
}

// play sends responses until the exchange ends; nil is no initial response.
func play(t testing.TB, s Server, responses ...[]byte) (challenges []string, done bool, err error) {
	t.Helper()
	for _, r := range responses {
		var c []byte
		if c, done, err = s.Next(r); done || err != nil {
			if done == (err != nil) || c != nil {
				t.Errorf("done %v, %v, and a challenge %q", done, err, c)
			}
			break
		}
		if c == nil {
			t.Error("no challenge")
		}
		challenges = append(challenges, string(c))
	}
	if done || err != nil { // the end is the end
		if c, d, e := s.Next([]byte{}); c != nil || d || !errors.Is(e, ErrForm) {
			t.Errorf("after the end: %q, %v, %v", c, d, e)
		}
	}
	return challenges, done, err
}

func octets(responses ...string) [][]byte {
	var all [][]byte
	for _, r := range responses {
		all = append(all, []byte(r))
	}
	return all
}

func start(t testing.TB, mechanism string, h Host, c Channel) Server {
	t.Helper()
	m, ok := Find(mechanism)
	if !ok {
		t.Fatalf("no %s", mechanism)
	}
	return m.NewServer(h, c)
}
