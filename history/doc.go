// Package history keeps a record of what POP3 sessions handed out and removed: which unique-ids, when, to
// whom, from where. It is for support, not for the mail: where it can't be written, sessions go on without.
//
// A Recorder listens to a server's hooks and writes a file a day, in UTC; Records and Sessions read the files,
// also while they are written. docs/HISTORY.md says what is kept, and for how long.
package history
