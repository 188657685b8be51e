package pop3server_test

import (
	"context"
	"crypto/hmac"
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"dewey/auth"
)

// A roster is a backend that knows passwords, and so all secrets, and whom a certificate may name. What it
// is asked it notes.
type roster struct {
	passwords map[string]string
	weak      []string          // mechanisms that it does not serve
	admin     string            // who may act as others
	fault     error             // could not tell
	panics    string            // the user at whom it panics
	gate      func(user string) // called first
	lives     map[string]auth.Life

	mu    sync.Mutex
	asked []string
}

func newRoster() *roster {
	return &roster{
		passwords: map[string]string{"mrose": "tanstaaf", "tim": "tanstaaftanstaaf", "user": "pencil", "admin": "a  b", "gone": "away"},
		admin:     "admin",
	}
}

func (r *roster) note(what, user string, remote netip.Addr) error {
	r.mu.Lock()
	r.asked = append(r.asked, what+" "+user+" "+remote.String())
	r.mu.Unlock()
	if r.gate != nil {
		r.gate(user)
	}
	if user == r.panics {
		panic("ordered")
	}
	return r.fault
}

func (r *roster) CheckPassword(_ context.Context, a auth.Attempt) (auth.Identity, error) {
	if err := r.note("password", a.User, a.Remote); err != nil {
		return auth.Identity{}, err
	}
	if want, ok := r.passwords[a.User]; !ok || want != a.Password {
		return auth.Identity{}, fmt.Errorf("no: %w", auth.ErrRejected)
	}
	return auth.Identity{User: a.User, Life: r.lives[a.User]}, nil
}

func (r *roster) Secret(_ context.Context, user, mechanism string, remote netip.Addr) (auth.Secret, error) {
	if err := r.note(mechanism, user, remote); err != nil {
		return auth.Secret{}, err
	}
	password, ok := r.passwords[user]
	if !ok {
		password = "made up for " + user
	}
	s := auth.Secret{Password: password, CRAMMD5: cramStates(password)}
	salt := sha256.Sum256([]byte("salt of " + user))
	switch mechanism {
	case auth.SCRAMSHA1:
		s.SCRAM = scramKeys(sha1.New, password, salt[:16])
	case auth.SCRAMSHA256:
		s.SCRAM = scramKeys(sha256.New, password, salt[:16])
	}
	if !ok {
		return s, fmt.Errorf("no: %w", auth.ErrRejected)
	}
	s.Identity.User, s.Identity.Life = user, r.lives[user]
	return s, nil
}

func (r *roster) Serves(mechanism string) bool { return !slices.Contains(r.weak, mechanism) }

func (r *roster) Find(_ context.Context, user string, remote netip.Addr) (auth.Identity, error) {
	if err := r.note("find", user, remote); err != nil {
		return auth.Identity{}, err
	}
	if _, ok := r.passwords[user]; !ok {
		return auth.Identity{}, fmt.Errorf("no: %w", auth.ErrRejected)
	}
	return auth.Identity{User: user}, nil
}

func (r *roster) Authorize(_ context.Context, id auth.Identity, as string) (auth.Identity, error) {
	if _, ok := r.passwords[as]; !ok || id.User != r.admin {
		return auth.Identity{}, fmt.Errorf("no: %w", auth.ErrRejected)
	}
	return auth.Identity{User: as}, nil
}

func (r *roster) Lives() []auth.Life {
	var all []auth.Life
	for user := range r.passwords {
		all = append(all, auth.Life{Retention: r.lives[user].Retention, Deletion: r.lives[user].Deletion})
	}
	return all
}

// What a Server sees of a roster.
type (
	secretive struct { // no directory
		auth.PasswordChecker
		auth.SecretKeeper
	}
	directed struct { // no secrets
		auth.PasswordChecker
		auth.Directory
	}
	checker struct{ auth.PasswordChecker } // neither
)

// cramStates are the states of MD5 after HMAC's two padded keys, out of the library's own form of a state:
// four words, big-endian, after four octets. RFC 2104 section 4.
func cramStates(password string) (states [32]byte) {
	key := []byte(password)
	if len(key) > md5.BlockSize {
		sum := md5.Sum(key)
		key = sum[:]
	}
	for i, pad := range []byte{0x5c, 0x36} {
		block := slices.Repeat([]byte{pad}, md5.BlockSize)
		subtle.XORBytes(block, block, key)
		d := md5.New()
		d.Write(block)
		form, _ := d.(encoding.BinaryMarshaler).MarshalBinary()
		for word := range 4 {
			binary.LittleEndian.PutUint32(states[16*i+4*word:], binary.BigEndian.Uint32(form[4+4*word:]))
		}
	}
	return states
}

func mac(h func() hash.Hash, key []byte, text string) []byte {
	m := hmac.New(h, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

func digest(h func() hash.Hash, text []byte) []byte {
	d := h()
	d.Write(text)
	return d.Sum(nil)
}

// saltedPassword is Hi of RFC 5802 section 2.2, which takes its time, and so is remembered.
func saltedPassword(h func() hash.Hash, password string, salt []byte, iterations int) []byte {
	key := fmt.Sprintf("%d %q %x %d", h().Size(), password, salt, iterations)
	if salted, ok := saltedPasswords.Load(key); ok {
		return salted.([]byte)
	}
	salted, err := pbkdf2.Key(h, password, salt, iterations, h().Size())
	if err != nil {
		panic(err)
	}
	saltedPasswords.Store(key, salted)
	return salted
}

var saltedPasswords sync.Map

// scramKeys is RFC 5802 section 3, with the least iterations of RFC 7677 section 4.
func scramKeys(h func() hash.Hash, password string, salt []byte) auth.SCRAM {
	salted := saltedPassword(h, password, salt, 4096)
	return auth.SCRAM{
		Salt: salt, Iterations: 4096,
		StoredKey: digest(h, mac(h, salted, "Client Key")),
		ServerKey: mac(h, salted, "Server Key"),
	}
}

func b64(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

func plain(as, user, password string) string { return b64(as + "\x00" + user + "\x00" + password) }

// cramResponse is RFC 2195 section 2.
func cramResponse(user, password, challenge string) string {
	return user + " " + hex.EncodeToString(mac(md5.New, []byte(password), challenge))
}

// apopDigest is RFC 1939 section 7.
func apopDigest(timestamp, password string) string {
	sum := md5.Sum([]byte(timestamp + password))
	return hex.EncodeToString(sum[:])
}

// A scramClient has a client's arithmetic, by RFC 5802 section 3.
type scramClient struct {
	hash           func() hash.Hash
	gs2            string // gs2-header
	user, password string
	binding        []byte // cbind-data
	spoil          bool   // sends a wrong proof

	proof, signature string // after final
}

func (c *scramClient) bare() string { return "n=" + c.user + ",r=fyko+d2lbbFgONRv9qkxdawL" }

func (c *scramClient) final(t testing.TB, serverFirst string) string {
	t.Helper()
	var nonce, salt64 string
	var iterations int
	if _, err := fmt.Sscanf(strings.ReplaceAll(serverFirst, ",", " "), "r=%s s=%s i=%d", &nonce, &salt64, &iterations); err != nil {
		t.Fatalf("server-first-message %q: %v", serverFirst, err)
	}
	salt, err := base64.StdEncoding.DecodeString(salt64)
	if err != nil || !strings.HasPrefix(nonce, "fyko+d2lbbFgONRv9qkxdawL") || len(nonce) < 40 {
		t.Fatalf("server-first-message %q", serverFirst)
	}
	salted := saltedPassword(c.hash, c.password, salt, iterations)
	without := "c=" + b64(c.gs2+string(c.binding)) + ",r=" + nonce
	text := c.bare() + "," + serverFirst + "," + without
	key := mac(c.hash, salted, "Client Key")
	proof := mac(c.hash, digest(c.hash, key), text)
	subtle.XORBytes(proof, proof, key)
	if c.spoil {
		proof[0] ^= 1
	}
	c.proof = base64.StdEncoding.EncodeToString(proof)
	c.signature = "v=" + base64.StdEncoding.EncodeToString(mac(c.hash, mac(c.hash, salted, "Server Key"), text))
	return without + ",p=" + c.proof
}

// scram runs a whole exchange and returns the last line of the server.
func (v *visitor) scram(t testing.TB, mechanism string, c *scramClient) string {
	t.Helper()
	first := v.say(t, "AUTH "+mechanism+" "+b64(c.gs2+c.bare()))
	if !strings.HasPrefix(first, "+ ") {
		return first
	}
	second := v.say(t, b64(c.final(t, unchallenge(t, first))))
	if !strings.HasPrefix(second, "+ ") {
		return second
	}
	// "an additional server challenge ... the client responds with an empty response": RFC 5034 section 4.
	if got := unchallenge(t, second); got != c.signature {
		t.Errorf("server-final-message %q, want %q", got, c.signature)
	}
	return v.say(t, "")
}

// say sends a line and returns the one that comes back.
func (v *visitor) say(t testing.TB, line string) string {
	t.Helper()
	if _, err := v.Write([]byte(line + "\r\n")); err != nil {
		t.Fatalf("%.80q: %v", line, err)
	}
	got, err := v.in.ReadString('\n')
	if err != nil {
		t.Fatalf("%.80q: got %q, %v", line, got, err)
	}
	return strings.TrimSuffix(got, "\r\n")
}

// multi sends a command and returns the lines of its multi-line response.
func (v *visitor) multi(t testing.TB, command string) []string {
	t.Helper()
	if got := v.say(t, command); !strings.HasPrefix(got, "+OK") {
		t.Fatalf("%s: %q", command, got)
	}
	var lines []string
	for {
		l, err := v.in.ReadString('\n')
		if err != nil {
			t.Fatalf("%s: %q, %v", command, l, err)
		}
		if l == ".\r\n" {
			return lines
		}
		lines = append(lines, strings.TrimSuffix(l, "\r\n"))
	}
}

func unchallenge(t testing.TB, line string) string {
	t.Helper()
	text, ok := strings.CutPrefix(line, "+ ")
	octets, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil {
		t.Fatalf("no challenge: %q", line)
	}
	return string(octets)
}

var errAway = errors.New("the database is away")
