package passwdfile

import (
	"context"
	"crypto/hmac"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"slices"

	"dewey/auth"
	"dewey/auth/scheme"
)

// mechanisms lists what there are secrets for, in the order of scheme's ServesAll.
var mechanisms = [...]string{auth.APOP, auth.CRAMMD5, auth.SCRAMSHA1, auth.SCRAMSHA256}

// indexOf returns the place of one among mechanisms, or -1.
func indexOf(mechanism string) int {
	return slices.Index(mechanisms[:], mechanism)
}

// maxShapes bounds how many shapes of SCRAM secrets a table keeps: most files have one or two.
const maxShapes = 64

// A shape is what a client sees of a user's SCRAM secret before it is known whether there is one, and
// what it takes to compute it.
type shape struct {
	salt, iterations int
	derived          bool // from {PLAIN}, at each login
}

// served counts, of the users who may log in, whom the mechanisms serve.
type served struct {
	users  int
	of     [len(mechanisms)]int
	shapes [len(mechanisms)]map[shape]int
}

func (s *served) add(h scheme.Hash) {
	s.users++
	all := h.ServesAll()
	for i, m := range mechanisms {
		if !all[i] {
			continue
		}
		s.of[i]++
		if m != auth.SCRAMSHA1 && m != auth.SCRAMSHA256 {
			continue
		}
		one := derivedShape
		if keys, stored := h.SCRAM(m); stored {
			one = shape{salt: len(keys.Salt), iterations: keys.Iterations}
		}
		if s.shapes[i] == nil {
			s.shapes[i] = make(map[shape]int)
		}
		if _, found := s.shapes[i][one]; found || len(s.shapes[i]) < maxShapes {
			s.shapes[i][one]++
		}
	}
}

var (
	derivedShape = shape{scheme.SCRAMSalt, scheme.DerivedIterations, true}
	defaultShape = shape{scheme.SCRAMSalt, scheme.SCRAMIterations, false} // if there is no user to look like
)

// Serves implements auth.SecretKeeper: it says whether each user who may log in (his password is not
// locked, and he has no nologin) has a password that serves the mechanism, in the file as it is or was less than
// a second ago.
func (f *File) Serves(mechanism string) bool {
	i, s := indexOf(mechanism), f.recent().served
	return i >= 0 && s.users > 0 && s.of[i] == s.users
}

// Secret implements auth.SecretKeeper. APOP needs a {PLAIN} password, CRAM-MD5 that or {CRAM-MD5}, SCRAM
// the scheme of its own name, or {PLAIN}: its keys are then derived each time, with a salt made of the key
// and the name, and the fewest iterations that RFC 5802 section 5.1 allows. They are not kept: the second
// login of a known name would be faster than the first of an unknown one. A {PLAIN} password counts for
// SCRAM in SASLprep's form (RFC 4013), and does not serve it if that forbids it.
//
// What is made up has for SCRAM the salt's length, the iterations, and the work of some user's: over all
// names the same mix as that of the users whom the mechanism serves (trap 42). Each name keeps its own
// through changes of the file, but for as many names as the mix demands.
//
// Errors that do not wrap auth.ErrRejected are those of CheckPassword.
func (f *File) Secret(ctx context.Context, user, mechanism string, remote netip.Addr) (auth.Secret, error) {
	i := indexOf(mechanism)
	if i < 0 {
		return auth.Secret{}, fmt.Errorf("passwdfile: there are no secrets for %q", mechanism)
	}
	st, err := f.current(ctx)
	if err != nil {
		return auth.Secret{}, fmt.Errorf("passwdfile: %w", err)
	}
	e, known, err := st.table.login(user)
	if err != nil {
		return auth.Secret{}, fmt.Errorf("passwdfile: %w", err)
	}
	// All is done for known names too, as it takes time.
	name := auth.Lower(user)
	one := f.shape(st.table, i, name)
	made := base64.RawStdEncoding.EncodeToString(f.digest("password", mechanism, name)[:passwordOctets])
	h, err := f.set.Parse("{PLAIN}" + made)
	if err != nil {
		return auth.Secret{}, fmt.Errorf("passwdfile: %w", err)
	}
	serves := false
	if own, err := f.set.Parse(e.secret); err != nil {
		return auth.Secret{}, fmt.Errorf("passwdfile: %w", err)
	} else if known && e.extra.admits(remote) && own.Serves(mechanism) {
		h, one, serves = own, derivedShape, true
	}

	var s auth.Secret
	switch mechanism {
	case auth.APOP:
		s.Password, _ = h.Password()
	case auth.CRAMMD5:
		s.CRAMMD5, _ = h.CRAMMD5()
	default:
		keys, stored := h.SCRAM(mechanism)
		if !stored {
			if keys, err = f.keys(ctx, h, mechanism, name, one, remote); err != nil {
				return auth.Secret{}, fmt.Errorf("passwdfile: %w", err)
			}
		}
		s.SCRAM = auth.SCRAM(keys)
	}
	switch {
	case serves:
	case known:
		return s, errRejected
	default:
		return s, errUnknown
	}
	s.Identity = e.identity()
	return s, nil
}

// passwordOctets make up a password of 16 digits.
const passwordOctets = 12

// keys derives the keys of a {PLAIN} password, or makes up some that no password has.
func (f *File) keys(ctx context.Context, h scheme.Hash, mechanism, name string, s shape, remote netip.Addr) (scheme.SCRAM, error) {
	salt := f.digest("salt", mechanism, name)[:s.salt]
	if !s.derived {
		size := 32
		if mechanism == auth.SCRAMSHA1 {
			size = 20
		}
		return scheme.SCRAM{
			Salt: salt, Iterations: s.iterations,
			StoredKey: f.digest("stored", mechanism, name)[:size], ServerKey: f.digest("server", mechanism, name)[:size],
		}, nil
	}
	prepared, _ := h.Prepared()
	var keys scheme.SCRAM
	err := f.run(ctx, remote, scheme.Hash{Scheme: mechanism, Threads: 1}, func() (err error) {
		keys, err = scheme.Derive(mechanism, prepared, salt, s.iterations)
		return err
	})
	return keys, err
}

// shape picks what an unknown name looks like.
func (f *File) shape(t *table, mechanism int, name string) shape {
	best, most := defaultShape, 0.0
	for s, users := range t.served.shapes[mechanism] {
		label := fmt.Sprint(s.salt, s.iterations, s.derived)
		if score := f.race(users, "shape", label, mechanisms[mechanism], name); score > most {
			best, most = s, score
		}
	}
	return best
}

// race scores one of several things to pick for a name, by the rule of the highest random weight: a change of
// the file changes what is picked for no more names than it must. The score is that of an exponential race, which
// each wins as often as it has users.
func (f *File) race(users int, parts ...string) float64 {
	u := (float64(binary.BigEndian.Uint64(f.digest(parts...))) + 1) / (1 << 64)
	return float64(users) / -math.Log(min(u, 1-0x1p-53))
}

// digest returns 64 octets that nobody can know without the key. The parts have their lengths before
// them, so that they can't run together.
func (f *File) digest(parts ...string) []byte {
	mac := hmac.New(sha512.New, f.key)
	for _, part := range parts {
		mac.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		mac.Write([]byte(part))
	}
	return mac.Sum(nil)
}
