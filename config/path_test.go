package config

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"dewey/maildrop"
)

func TestMaildirPath(t *testing.T) {
	for _, test := range []struct{ template, user, home, want string }{
		{"{data}/mail/{user}", "mrose", "", "/d/mail/mrose"},
		{"{data}/mail/{user}", "mrose@example.org", "", "/d/mail/mrose@example.org"},
		{"{data}/mail/{user}", "{home}", "/h", "/d/mail/{home}"}, // what is put in is not looked at again
		{"{data}/mail/{domain}/{local}/Maildir", "m.rose@example.org", "", "/d/mail/example.org/m.rose/Maildir"},
		{"{data}/{domain}/{local}", "a@b@example.org", "", "/d/example.org/a@b"},
		{"/var/mail/{local}", "mrose", "", "/var/mail/mrose"},
		{"{home}/Maildir", "mrose", "/home/mrose", "/home/mrose/Maildir"},
		{"{home}", "mrose", "/home/mrose/", "/home/mrose"},
		{"{data}/mail/{user}", "a..b", "", "/d/mail/a..b"},
		{"{data}/mail/x{user}", "mrose", "", "/d/mail/xmrose"},
	} {
		c, err := Load("", []string{"data=/d", "maildir.path=" + test.template})
		if err != nil {
			t.Errorf("%s: %v", test.template, err)
			continue
		}
		got, err := c.MaildirPath(maildrop.Owner{Name: test.user, Home: test.home})
		if err != nil || got != test.want {
			t.Errorf("%s for %q: %q, %v; want %q", test.template, test.user, got, err, test.want)
		}
	}
}

// No name leads out of the folder or into another user's Maildir.
func TestMaildirPathRefusesTricks(t *testing.T) {
	for template, users := range map[string][]string{
		"{data}/mail/{user}":           {"", ".", "..", ".hidden", "../x", "a/b", "/etc", "a/../b", "a\x00", "a\nb", "\x7f", "a@b/c"},
		"{data}/mail/x{user}":          {"..", "./../y"},
		"{data}/mail/{domain}/{local}": {"", "mrose", "mrose@", "@example.org", "..@example.org", "mrose@..", "mrose@.", "a/b@c", "a@b/c", "mrose@.x", "@"},
		"{data}/mail/{local}":          {"", "@x", "..@x", ".@x"},
	} {
		c, err := Load("", []string{"data=/d", "maildir.path=" + template})
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range users {
			if got, err := c.MaildirPath(maildrop.Owner{Name: u, Home: "/h"}); !errors.Is(err, ErrUnsafeName) || got != "" {
				t.Errorf("%s for %q: %q, %v", template, u, got, err)
			}
		}
	}
	c, err := Load("", []string{"maildir.path={home}/Maildir"})
	if err != nil {
		t.Fatal(err)
	}
	for _, home := range []string{"", "home/mrose", "../x", "./", "/home\x00/x", "/home\n"} {
		if got, err := c.MaildirPath(maildrop.Owner{Name: "mrose", Home: home}); !errors.Is(err, ErrUnsafeName) {
			t.Errorf("home %q: %q, %v", home, got, err)
		}
	}
}

// A path without a user in it would be everybody's.
func TestMaildirPathTemplates(t *testing.T) {
	for template, want := range map[string]string{
		"":                         "is empty",
		"{data}/mail":              "one Maildir for all users",
		"{data}/mail/{domain}":     "one Maildir for all users",
		"{data}/mail/{usr}":        "did you mean {user}?",
		"{data}/mail/{nobody}":     "known here: {data}, {user}, {local}, {domain}, {home}",
		"{data}/{user":             "brace without its other one",
		"{data}/user}":             "brace without its other one",
		"{{data}}/{user}":          "brace without its other one",
		"{data}/{}/{user}":         "names no placeholder",
		"/x/{data}/{user}":         "put it at the beginning",
		"/x/{home}":                "put it at the beginning",
		"{data}/mail/{user}\x01":   "control character",
		"{data}/mail/{USER}":       "did you mean {user}?",
		"{data}/mail/{user}/{data": "brace without its other one",
	} {
		_, err := Load("", []string{"maildir.path=" + template})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "--set maildir.path: ") {
			t.Errorf("%q: %v; want %q", template, err, want)
		}
	}
}

func FuzzMaildirPath(f *testing.F) {
	f.Add("mrose", "/home/mrose")
	f.Add("../x@..", "x")
	f.Add("a@b\x00", "/")
	c, err := Load("", []string{"data=/d", "maildir.path={data}/mail/{domain}/{local}"})
	if err != nil {
		f.Fatal(err)
	}
	one, _ := Load("", []string{"data=/d"})
	f.Fuzz(func(t *testing.T, user, home string) {
		o := maildrop.Owner{Name: user, Home: home}
		if p, err := one.MaildirPath(o); err == nil && (filepath.Dir(p) != "/d/mail" || filepath.Base(p) != user) {
			t.Errorf("%q: %q", user, p)
		}
		if p, err := c.MaildirPath(o); err == nil && filepath.Dir(filepath.Dir(p)) != "/d/mail" {
			t.Errorf("%q: %q", user, p)
		}
	})
}
