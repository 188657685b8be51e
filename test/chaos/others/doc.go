// Package others lets Dovecot's IMAP server, mutt, procmail and dewey work on one Maildir at the same time, and holds what
// comes of it against what each of them was told.
package others
