package passwdfile

import (
	"errors"
	"testing"

	"dewey/auth"
)

// A name that is not in the file is unknown, so that another backend may know it; whoever is in it and may not come in
// is this file's, and nobody else is asked about him.
func TestUnknownUsers(t *testing.T) {
	f := open(t, users(t, crowd+"locked:!{PLAIN}x\n"), nil)
	for user, unknown := range map[string]bool{
		"nobody": true, "": true, "ann@example.org": true,
		"mrose": false, "MROSE": false, "nologin@example.org": false, "far@example.org": false, "locked": false,
	} {
		_, password := f.CheckPassword(t.Context(), auth.Attempt{User: user, Password: "wrong", Remote: home})
		_, secret := f.Secret(t.Context(), user, auth.SCRAMSHA256, home)
		_, found := f.Find(t.Context(), user, home)
		_, authorized := f.Authorize(t.Context(), auth.Identity{User: user}, "root")
		_, recipient := f.Recipient(t.Context(), user)
		for what, err := range map[string]error{"password": password, "secret": secret, "find": found, "recipient": recipient, "authorize": authorized} {
			switch {
			case what == "authorize" && user == "MROSE": // an Identity has the name as in the file
			case errors.Is(err, auth.ErrUnknownUser) != unknown, unknown && !errors.Is(err, auth.ErrRejected):
				t.Errorf("%s of %q: %v", what, user, err)
			}
		}
	}
}
