package passwdfile

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"dewey/auth"
	"dewey/auth/scheme"
)

const crowd = "mrose:{PLAIN}x::::/srv/mrose\nbob@example.org:{PLAIN}x\nAnn@example.org:!\nann@example.com:{PLAIN}x\n" +
	"nologin@example.org:{PLAIN}x::::::nologin\nfar@example.org:{PLAIN}x::::::allow_nets=198.51.100.0/24\n@example.org:{PLAIN}x\n" +
	"root:{PLAIN}x::::::login_as=*\ngone:{PLAIN}x::::::login_as=* nologin\n" +
	"desk:{PLAIN}x::::::allow_nets=192.0.2.0/24 login_as=*@example.org,mrose x=y\ntwice:{PLAIN}x::::::login_as=mrose login_as=root\n"

func TestFind(t *testing.T) {
	f := open(t, users(t, crowd), nil)
	for user, want := range map[string]string{
		"mrose": "mrose /srv/mrose", "MRose": "mrose /srv/mrose", "Ann@example.org": "Ann@example.org ", "ann@example.org": "", "Bob@Example.org": "bob@example.org ",
		"nologin@example.org": "", "far@example.org": "", "desk": "desk ", "nobody": "", "": "",
	} {
		id, err := f.Find(t.Context(), user, home)
		if got := id.User + " " + id.Home; err == nil && got != want || err != nil && want != "" || err != nil && !errors.Is(err, auth.ErrRejected) {
			t.Errorf("%q: %q, %v", user, got, err)
		}
	}
	if id, err := f.Find(t.Context(), "far@example.org", away); err != nil || id.User != "far@example.org" {
		t.Errorf("%+v, %v", id, err)
	}
}

// RFC 4422 section 3.4.1: who may act as whom.
func TestAuthorize(t *testing.T) {
	f := open(t, users(t, crowd), nil)
	for id, may := range map[string]string{
		"root":    "mrose bob@example.org Ann@example.org ann@example.com far@example.org @example.org root gone desk twice",
		"gone":    "",
		"desk":    "mrose bob@example.org Ann@example.org far@example.org desk",
		"twice":   "mrose root twice",
		"mrose":   "mrose",
		"Root":    "", // an Identity has the name as in the file
		"removed": "",
		"":        "",
	} {
		for as := range strings.FieldsSeq("mrose bob@example.org Ann@example.org ann@example.com far@example.org nologin@example.org @example.org root gone desk twice removed") {
			got, err := f.Authorize(t.Context(), auth.Identity{User: id}, as)
			want := strings.Contains(" "+may+" ", " "+as+" ")
			if as == "gone" {
				want = false
			}
			if (err == nil) != want || err == nil && got.User != as || err != nil && (!errors.Is(err, auth.ErrRejected) || !reflect.DeepEqual(got, auth.Identity{})) {
				t.Errorf("%s as %s: %+v, %v", id, as, got, err)
			}
		}
	}
	if got, err := f.Authorize(t.Context(), auth.Identity{User: "desk"}, "MROSE"); err != nil || !reflect.DeepEqual(got, auth.Identity{User: "mrose", Home: "/srv/mrose"}) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestLoginAsErrors(t *testing.T) {
	for value, ok := range map[string]bool{
		"mrose": true, "*": true, "*@example.org": true, "a,b,*c": true,
		"": false, ",": false, "a,": false, "a*": false, "**": false, "*@*": false, "a,b*": false,
	} {
		table, err := parse("users", "tanstaaf:{PLAIN}x::::::login_as="+value+"\n", scheme.Strong)
		if (err == nil) != ok || !ok && (!strings.Contains(err.Error(), "users:1: login_as") || !strings.Contains(err.Error(), "would be right") || len(table.index) != 0) {
			t.Errorf("%q: %v", value, err)
		}
	}
}
