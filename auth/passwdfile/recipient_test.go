package passwdfile

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"dewey/auth"
)

var _ auth.Recipients = (*File)(nil)

// recipient is check for who gets mail.
func recipient(t *testing.T, f *File, user string) string {
	t.Helper()
	id, err := f.Recipient(t.Context(), user)
	switch {
	case err == nil:
		return id.User + " " + id.Home
	case !reflect.DeepEqual(id, auth.Identity{}):
		return "both"
	case errors.Is(err, auth.ErrRejected):
		return "rejected"
	}
	return "fault"
}

// Mail comes for everybody, also for those who may not log in.
func TestRecipient(t *testing.T) {
	f := open(t, users(t, crowd+"locked:!\nempty::::::/srv/empty\n"), nil)
	for user, want := range map[string]string{
		"mrose": "mrose /srv/mrose", "MRose": "mrose /srv/mrose", "Ann@example.org": "Ann@example.org ", "ann@example.org": "rejected",
		"Bob@Example.org": "bob@example.org ", "nologin@example.org": "nologin@example.org ", "far@example.org": "far@example.org ",
		"locked": "locked ", "empty": "empty ", "nobody": "rejected", "": "rejected", "root": "root ",
	} {
		if got := recipient(t, f, user); got != want {
			t.Errorf("%q: %q, not %q", user, got, want)
		}
	}
}

// Where users are elsewhere too, a file that never was has none, but not while its folder is missing; one that vanishes
// is a fault as ever.
func TestRecipientOfOthers(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "etc")
	path := filepath.Join(folder, "users")
	f, err := Open(path, Options{Others: true})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(when, want string) {
		t.Helper()
		if got := recipient(t, f, "mrose"); got != want {
			t.Errorf("%s: %q, not %q", when, got, want)
		}
	}
	expect("no folder", "fault")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	expect("no file", "rejected")
	write(t, path, "mrose:{PLAIN}x\n")
	expect("a file", "mrose ")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	expect("vanished", "fault")
}

// Unknown is said only of a file that can be read: it bounces mail.
func TestRecipientCannotTell(t *testing.T) {
	path := users(t, "mrose:{PLAIN}x\nbob:{PLAIN}x\n")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	f := open(t, path, nil)
	if got := recipient(t, f, "mrose"); got != "fault" {
		t.Errorf("without a file: %q", got)
	}
	write(t, path, "mrose:{PLAIN}x\nbob:{NONSENSE}x\nann {PLAIN}x\n eve:{PLAIN}x\n:{PLAIN}x\n")
	for user, want := range map[string]string{
		"mrose": "mrose ", "bob": "fault", "Bob": "fault", "ann": "fault", "Ann": "fault", "eve": "fault",
		"ann@example.org": "rejected", "tim": "rejected", "": "rejected",
	} {
		if got := recipient(t, f, user); got != want {
			t.Errorf("%q: %q, not %q", user, got, want)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got := recipient(t, f, "mrose"); got != "fault" {
		t.Errorf("vanished: %q", got)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	for user, want := range map[string]string{"mrose": "mrose ", "tim": "fault"} {
		if got := recipient(t, f, user); got != want {
			t.Errorf("unreadable, %q: %q, not %q", user, got, want)
		}
	}
}
