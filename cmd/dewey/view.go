package main

import (
	"context"
	"errors"
	"strings"

	"dewey/auth"
	"dewey/config"
	"dewey/maildrop"
)

// recentPrefix before a name asks for all that was delivered lately, as other servers have it.
const recentPrefix = "recent:"

// viewOf finds in the name that a client gives whom it means, and what of his mail it wants to see: recent:USER,
// USER+FOLDER, or both. A user's name is never cut, nor is any while that can't be told.
func viewOf(ctx context.Context, name string, mail *config.Mail, users auth.Recipients) (user string, view maildrop.View) {
	if n := len(recentPrefix); mail.Recent > 0 && len(name) > n && strings.EqualFold(name[:n], recentPrefix) {
		name, view.Recent = name[n:], mail.Recent
	}
	user, folder, found := cutFolder(name, mail.FolderDelimiter)
	if !found {
		return name, view
	}
	if _, err := users.Recipient(ctx, name); !errors.Is(err, auth.ErrRejected) {
		return name, view
	}
	view.Folder = folder
	return user, view
}

// cutFolder parts a name from a folder at the last delimiter: that of its part after the @, or else of the one before.
func cutFolder(name, delimiter string) (user, folder string, found bool) {
	if delimiter == "" {
		return name, "", false
	}
	at := strings.LastIndex(name, "@")
	if at < 0 {
		at = len(name)
	}
	domain := ""
	i := strings.LastIndex(name[at:], delimiter)
	if i >= 0 {
		i += at
		at = len(name)
	} else {
		i, domain = strings.LastIndex(name[:at], delimiter), name[at:]
	}
	if i < 1 || i+len(delimiter) == at {
		return name, "", false
	}
	return name[:i] + domain, name[i+len(delimiter) : at], true
}
