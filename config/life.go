package config

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"dewey/maildrop"
)

// retention is whole days, for EXPIRE counts in them, or 0. RFC 2449 section 6.7.
var retention = func() kind[time.Duration] {
	const right = `write whole days from 1d to 36500d, such as "90d", or "0s" for no limit`
	return word(aString, `"90d"`, func(s string) (time.Duration, *fault) {
		d, err := ParseDuration(s)
		switch {
		case err != nil:
			return 0, faultf(right, "%s is not a time with a unit (d)", quote(s))
		case d < 0 || d%day != 0:
			return 0, faultf(right, "%s is not a number of days", quote(s))
		case d > mostDays:
			return 0, faultf(right, "%s is longer than %s", quote(s), showDuration(mostDays))
		}
		return d, nil
	}, func(d time.Duration) string { return quoteTOML(showDuration(d)) })
}()

// mostDays is a hundred years.
const mostDays = 36500 * day

// clock is a time of day, as the time after midnight.
var clock = word(aString, `"03:30"`, func(s string) (time.Duration, *fault) {
	t, err := time.Parse("15:04", s)
	if err != nil || len(s) != len("03:30") {
		return 0, faultf(`write hours and minutes from "00:00" to "23:59", such as "03:30"`, "%s is not a time of day", quote(s))
	}
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, nil
}, func(d time.Duration) string {
	return quoteTOML(fmt.Sprintf("%02d:%02d", int(d.Hours()), int(d.Minutes())%60))
})

// deletions are the choices of mail.deletion.
var deletions = []string{maildrop.DeletionRemove, maildrop.DeletionKeep, maildrop.DeletionRetrieved}

const (
	maxFolders = 100
	maxFolder  = 200 // octets of one's name
)

// folders are mail.folders: names as people know them, not as they lie on the disk.
var folders = func() kind[[]string] {
	of := list(text(folderName), `["Spam", "Lists/dewey"]`, foldASCII)
	read := of.read
	of.read = func(r raw) ([]string, []fault) {
		v, faults := read(r)
		if len(v) > maxFolders {
			faults = append(faults, fault{line: r.line, wrong: fmt.Sprintf("lists %d folders", len(v)), right: fmt.Sprintf("list at most %d", maxFolders)})
		}
		return v, faults
	}
	return of
}()

// folderName is a folder of Maildir++, where a dot parts a folder from one in it.
var folderName = textual{"Spam", func(s string) *fault {
	const right = `write a folder such as "Spam" or "Lists/dewey"`
	switch {
	case strings.ContainsFunc(s, unicode.IsControl):
		return faultf("write it without", "%s has a control character in it", quote(s))
	case len(s) > maxFolder:
		return faultf(fmt.Sprintf("write one of at most %d", maxFolder), "%s is a name of %d octets", quote(s), len(s))
	case strings.Contains(s, "."):
		return faultf(right+", with a slash between a folder and one in it", "%s has a dot in it", quote(s))
	case slices.Contains(strings.Split(s, "/"), ""):
		return faultf(right, "%s has an empty name in it", quote(s))
	case foldASCII(s) == "inbox":
		return faultf("leave it out: sessions see it first", "%s is no folder", quote(s))
	}
	return nil
}}

// foldASCII changes A to Z and nothing else.
func foldASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// folderDelimiter is what no name of a user has in it as a rule, and no form of a login means otherwise.
var folderDelimiter = textual{"+", func(s string) *fault {
	if s == "" || len(s) == 1 && strings.Contains("!\"#$%&'()*+,;<=>?[\\]^`{|}~", s) {
		return nil
	}
	return faultf(`write "+", or one of ! # $ % & * = ^ ~ and the like, or "" for none`, "%s can't part a user's name from a folder", quote(s))
}}
