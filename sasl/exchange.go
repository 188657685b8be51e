package sasl

import (
	"errors"
	"fmt"
	"strings"

	"github.com/xdg-go/stringprep"

	"dewey/auth"
)

// maxCredential bounds names and passwords, in octets; PLAIN has to take 255 of each (RFC 4616 section 2),
// and no hash is to be fed with what a client may send on a line.
const maxCredential = 1024

// A step takes one response. It returns the challenge that goes out then, and the step for the answer to
// it; no step: the exchange is over, and the user proven. A mechanism that has to say why it failed
// (RFC 7628 section 3.2.3) returns that challenge and a step that fails.
type step func(response []byte) (challenge []byte, next step, err error)

// An exchange runs steps, and sees to what they have in common: how it begins, and that it ends.
type exchange struct {
	opening     []byte // the challenge if there is no initial response
	serverFirst bool   // there must be none: RFC 4422 section 5
	begun       bool
	next        step
}

func (e *exchange) Next(response []byte) (challenge []byte, done bool, err error) {
	first := !e.begun
	e.begun = true
	run := e.next
	e.next = nil
	switch {
	case run == nil:
		return nil, false, fmt.Errorf("%w: the exchange is over", ErrForm)
	case first && response == nil:
		e.next = run
		return e.opening, false, nil
	case first && e.serverFirst:
		return nil, false, fmt.Errorf("%w: the server speaks first", ErrForm)
	}
	challenge, next, err := run(response)
	if err != nil {
		return nil, false, err
	}
	if next == nil {
		return nil, true, nil
	}
	e.next = next
	return challenge, false, nil
}

// checkName refuses what is no user's name: the empty one, and those with octets that USER does not take
// either and that would end a line of a log or of a backend's protocol (trap 41).
func checkName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: an empty name", ErrForm)
	case len(name) > maxCredential:
		return fmt.Errorf("%w: a name of over %d octets", ErrForm, maxCredential)
	}
	for i := range len(name) {
		if name[i] < ' ' || name[i] == 0x7f {
			return fmt.Errorf("%w: a control octet in a name", ErrForm)
		}
	}
	return nil
}

// checkPassword proves a user by his password. Both go to the host as they came: see newPlain.
func checkPassword(h Host, user, password string) error {
	switch {
	case password == "":
		return fmt.Errorf("%w: an empty password", ErrForm)
	case len(password) > maxCredential:
		return fmt.Errorf("%w: a password of over %d octets", ErrForm, maxCredential)
	case strings.ContainsAny(password, "\x00\r\n"):
		return fmt.Errorf("%w: NUL, CR or LF in a password", ErrForm)
	}
	if err := checkName(user); err != nil {
		return err
	}
	return h.CheckPassword(user, password)
}

// query is SASLprep for what is looked up and not stored: code points that Unicode 3.2 did not have are
// allowed (RFC 4013 section 2.5). The library's own profile forbids them: table A.1.
var query = stringprep.Profile{
	Mappings:  stringprep.SASLprep.Mappings,
	Normalize: true,
	Prohibits: []stringprep.Set{
		stringprep.TableC1_2, stringprep.TableC2_1, stringprep.TableC2_2, stringprep.TableC3, stringprep.TableC4,
		stringprep.TableC5, stringprep.TableC6, stringprep.TableC7, stringprep.TableC8, stringprep.TableC9,
	},
	CheckBiDi: true,
}

// prepare returns a name as SASLprep has it; one that it can't prepare, or of which it leaves nothing, is
// nobody's. RFC 5034 section 4, RFC 5802 section 5.1.
func prepare(name string) (string, error) {
	if err := checkName(name); err != nil {
		return "", err
	}
	prepared, err := query.Prepare(name)
	if err != nil || prepared == "" || len(prepared) > maxCredential { // one letter may become 33 octets
		return "", fmt.Errorf("%w: a name that SASLprep forbids", auth.ErrRejected)
	}
	return prepared, nil
}

// actAs passes on an authorization identity, prepared or empty, if it says more than the name proven.
func actAs(h Host, as, user string) error {
	if as == "" || as == user {
		return nil
	}
	if prepared, err := prepare(user); err == nil && prepared == as {
		return nil
	}
	return h.As(as)
}

// secret asks the host. The refusal is the host's if it has no such user: the mechanism goes on with what
// it got, and ends with the refusal whatever the proof (trap 42).
func secret(h Host, user, mechanism string) (s auth.Secret, refusal, err error) {
	s, err = h.Secret(user, mechanism)
	if errors.Is(err, auth.ErrRejected) {
		return s, err, nil
	}
	return s, nil, err
}
