package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dewey/auth"
	"dewey/auth/passwdfile"
	"dewey/config"
	"dewey/maildrop"
	"dewey/pop3server"
	"dewey/store/maildir"
)

// configTakes says whether a configuration may have a key with that value, in TOML or JSON, which is the same here.
func configTakes(t *testing.T, key string, value any) bool {
	t.Helper()
	text, err := json.Marshal(value)
	if s := fmt.Sprint(value); err != nil || strings.Contains(s, "\xff") {
		text = fmt.Appendf(nil, "['%s']", s) // JSON has no such octets
	}
	name := filepath.Join(t.TempDir(), "dewey.toml")
	write(t, name, fmt.Sprintf("%s = %s\n", key, text))
	_, err = config.Load(name, nil)
	return err == nil
}

// usersTake says whether a line of the users file may have that extra field.
func usersTake(t *testing.T, field string) bool {
	t.Helper()
	name := filepath.Join(t.TempDir(), "users")
	write(t, name, "mrose:{PLAIN}x::::::"+field+"\n")
	users, err := passwdfile.List(name, passwdfile.Options{})
	return err == nil && len(users) == 1
}

// What is a folder's name is the same to the configuration, the users file and the store, none of which imports
// another, but for INBOX: the user's own mail is asked for by it, and is not listed beside itself.
func TestFolderNamesAreTheSameToAll(t *testing.T) {
	root := t.TempDir()
	store := maildir.New(maildir.Options{Path: func(maildrop.Owner) (string, error) { return root, nil }})
	storeTakes := func(name string) bool {
		for _, folder := range []string{"", "." + strings.ReplaceAll(name, "/", ".")} { // so that it is there, if it may be
			for _, sub := range []string{"new", "cur", "tmp"} {
				_ = os.MkdirAll(filepath.Join(root, folder, sub), 0o700) // not all names can be
			}
		}
		_, err := store.Look(t.Context(), maildrop.Owner{Name: "mrose", View: maildrop.View{Folder: name}})
		if err != nil && !errors.Is(err, maildrop.ErrNoFolder) {
			t.Fatalf("%q: %v", name, err)
		}
		return err == nil
	}
	for name, legal := range map[string]bool{
		"Spam": true, "Lists/dewey": true, "a/b/c": true, "Entwürfe": true, "日本語": true, "R&D": true, "a b": true, "a,b": true, "a:b": true,
		"~": true, "*%": true, `a\b`: true, `"'`: true, "Inboxes": true, "inbox/a": true,
		strings.Repeat("x", 200): true, strings.Repeat("x", 201): false, strings.Repeat("ü", 100): true, strings.Repeat("ü", 101): false,
		".": false, "..": false, "../a": false, ".Spam": false, "a.b": false, "a.": false,
		"/": false, "/a": false, "a/": false, "a//b": false,
		"a\x00": false, "a\tb": false, "a\x1bb": false, "\x7f": false, "\u0085": false, "\xff": false, "a\xff": false,
		"INBOX": false, "Inbox": false,
	} {
		if got := configTakes(t, "mail.folders", []string{name}); got != legal {
			t.Errorf("%q: the configuration takes it: %v", name, got)
		}
		if got := usersTake(t, "folders="+name); got != legal && !strings.ContainsAny(name, " ,\t") { // which end it
			t.Errorf("%q: the users file takes it: %v", name, got)
		}
		if got := storeTakes(name); got != (legal || strings.EqualFold(name, "INBOX")) {
			t.Errorf("%q: the store takes it: %v", name, got)
		}
	}
	for n, legal := range map[int]bool{100: true, 101: false} {
		names := make([]string, n)
		for i := range names {
			names[i] = fmt.Sprint("f", i)
		}
		if c, u := configTakes(t, "mail.folders", names), usersTake(t, "folders="+strings.Join(names, ",")); c != legal || u != legal {
			t.Errorf("%d folders: %v, %v", n, c, u)
		}
	}
	for _, twice := range [][]string{{"a", "a"}, {"Spam", "spam"}} {
		if configTakes(t, "mail.folders", twice) || usersTake(t, "folders="+strings.Join(twice, ",")) {
			t.Errorf("%q is taken", twice)
		}
	}
}

// And so is what becomes of deleted mail, to the protocol too.
func TestDeletionsAreTheSameToAll(t *testing.T) {
	words := []string{maildrop.DeletionRemove, maildrop.DeletionKeep, maildrop.DeletionRetrieved}
	if want := []string{"remove", "keep", "retrieved"}; !slices.Equal(words, want) {
		t.Errorf("%q, want %q", words, want)
	}
	srv := &pop3server.Server{Users: auth.PasswordFunc(nil), Maildrops: maildir.New(maildir.Options{Path: maildirOf(&config.Config{})})}
	for _, word := range append(words, "Keep", "removed", "delete", "never", "0", "keep,remove") {
		legal := slices.Contains(words, word)
		protocol := srv.Reconfigure(pop3server.Settings{Life: maildrop.Life{Deletion: word}}) == nil
		if c, u := configTakes(t, "mail.deletion", word), usersTake(t, "deletion="+word); c != legal || u != legal || protocol != legal {
			t.Errorf("%q: configuration %v, users file %v, protocol %v, want %v", word, c, u, protocol, legal)
		}
	}
}
