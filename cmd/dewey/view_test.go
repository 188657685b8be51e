package main

import (
	"context"
	"errors"
	"testing"
	"time"

	"dewey/auth"
	"dewey/config"
	"dewey/maildrop"
)

// knownUsers are names that stand in a users file, or an error for all.
type knownUsers struct {
	names map[string]bool
	err   error
}

func (k knownUsers) Recipient(_ context.Context, user string) (auth.Identity, error) {
	if k.err == nil && !k.names[user] {
		return auth.Identity{}, auth.ErrRejected
	}
	return auth.Identity{User: user}, k.err
}

func TestViewOf(t *testing.T) {
	users := knownUsers{names: map[string]bool{"mrose": true, "mrose@example.org": true, "a+b": true, "a+b@example.org": true}}
	both := config.Mail{Recent: 30 * 24 * time.Hour, FolderDelimiter: "+"}
	lately := func(folder string) maildrop.View { return maildrop.View{Recent: both.Recent, Folder: folder} }
	for _, test := range []struct {
		name, user string
		view       maildrop.View
	}{
		{"mrose", "mrose", maildrop.View{}},
		{"", "", maildrop.View{}},
		{"recent:mrose", "mrose", lately("")},
		{"ReCeNt:mrose@example.org", "mrose@example.org", lately("")},
		{"recent:", "recent:", maildrop.View{}},
		{"recent:recent:mrose", "recent:mrose", lately("")},
		{"recent", "recent", maildrop.View{}},
		{"mrose+Spam", "mrose", maildrop.View{Folder: "Spam"}},
		{"mrose+Lists/dewey", "mrose", maildrop.View{Folder: "Lists/dewey"}},
		{"mrose+Spam@example.org", "mrose@example.org", maildrop.View{Folder: "Spam"}},
		{"mrose@example.org+Spam", "mrose@example.org", maildrop.View{Folder: "Spam"}},
		{"recent:mrose+Spam", "mrose", lately("Spam")},
		{"recent:mrose+Spam@example.org", "mrose@example.org", lately("Spam")},
		{"a+b", "a+b", maildrop.View{}},
		{"recent:a+b", "a+b", lately("")},
		{"a+b+Spam", "a+b", maildrop.View{Folder: "Spam"}},
		{"a+b+Spam@example.org", "a+b@example.org", maildrop.View{Folder: "Spam"}},
		{"a+b@example.org+Spam", "a+b@example.org", maildrop.View{Folder: "Spam"}},
		{"mrose+", "mrose+", maildrop.View{}},
		{"+Spam", "+Spam", maildrop.View{}},
		{"+Spam@example.org", "+Spam@example.org", maildrop.View{}},
		{"mrose+@example.org", "mrose+@example.org", maildrop.View{}},
		{"nobody+Spam", "nobody", maildrop.View{Folder: "Spam"}}, // whose password is wrong in any case
		{"mrose+\xff", "mrose", maildrop.View{Folder: "\xff"}},
	} {
		if user, view := viewOf(t.Context(), test.name, &both, users); user != test.user || view != test.view {
			t.Errorf("%q: %q %+v, want %q %+v", test.name, user, view, test.user, test.view)
		}
	}
	for _, test := range []struct {
		mail  config.Mail
		users knownUsers
	}{
		{config.Mail{}, users},
		{both, knownUsers{err: errors.New("the disk")}}, // nobody logs in then, and nobody as somebody else
	} {
		if user, view := viewOf(t.Context(), "mrose+Spam", &test.mail, test.users); user != "mrose+Spam" || view != (maildrop.View{}) {
			t.Errorf("%+v: %q %+v", test, user, view)
		}
	}
	if user, view := viewOf(t.Context(), "recent:mrose", &config.Mail{FolderDelimiter: "+"}, users); user != "recent:mrose" || view != (maildrop.View{}) {
		t.Errorf("%q %+v", user, view)
	}
}
