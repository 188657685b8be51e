package sasl

import (
	"fmt"

	"github.com/emersion/go-sasl"
)

// newPlain is RFC 4616.
//
// Names and passwords are octets, as with USER and PASS, so that whoever gets in there gets in here: no
// preparation, as RFC 4616 section 2 allows, because the hashes that are stored were made of unprepared
// passwords, and trap 38. The authorization identity is new here, and prepared: RFC 5034 section 4.
func newPlain(h Host, _ Channel) Server {
	return &exchange{opening: []byte{}, next: func(response []byte) ([]byte, step, error) {
		if len(response) > 3*maxCredential+2 {
			return nil, nil, fmt.Errorf("%w: too long", ErrForm)
		}
		// The library calls back if there are two NULs; its own error can't be told from others.
		err := fmt.Errorf("%w: other than two NULs", ErrForm)
		_, _, _ = sasl.NewPlainServer(func(as, user, password string) error {
			err = plain(h, as, user, password)
			return err
		}).Next(append([]byte{}, response...)) // nil would ask it for a challenge
		return nil, nil, err
	}}
}

func plain(h Host, as, user, password string) error {
	if as != "" {
		var err error
		if as, err = prepare(as); err != nil {
			return err
		}
	}
	if err := checkPassword(h, user, password); err != nil {
		return err
	}
	return actAs(h, as, user)
}

// newLogin is draft-murchison-sasl-login, with the challenges that servers really send: clients that look
// at them look for these. An initial response is the name.
func newLogin(h Host, _ Channel) Server {
	return &exchange{opening: []byte("Username:"), next: func(response []byte) ([]byte, step, error) {
		user := string(response)
		return []byte("Password:"), func(response []byte) ([]byte, step, error) {
			return nil, nil, checkPassword(h, user, string(response))
		}, checkName(user)
	}}
}

// newExternal is RFC 4422 appendix A: the response is the authorization identity, or empty.
func newExternal(h Host, _ Channel) Server {
	return &exchange{opening: []byte{}, next: func(response []byte) ([]byte, step, error) {
		as := string(response)
		if as != "" {
			var err error
			if as, err = prepare(as); err != nil {
				return nil, nil, err
			}
		}
		if err := h.External(); err != nil {
			return nil, nil, err
		}
		return nil, nil, actAs(h, as, "")
	}}
}
