// Package uidlist reads and writes the files in which Dovecot and Courier keep the unique-ids of a
// Maildir: dovecot-uidlist, versions 3 and 1 (Courier's courierimapuiddb is a version 1), and
// courierpop3dsizelist. It knows their formats and rules and nothing else: it opens no file, takes no
// lock and reads no directory.
package uidlist
