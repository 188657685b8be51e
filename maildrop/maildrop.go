// Package maildrop is the contract between the protocol and whatever keeps mail: a Store opens an
// owner's Maildrop for one session, the Maildrop lists its messages, hands them over and removes
// some. The protocol never imports a store, a store never imports the protocol; both import this.
//
// A store need not know anything of POP3's numbers, deletion marks, byte-stuffing or states: that is
// the server's. Package maildrop/message helps a store to measure a message and to send it with the
// right line ends, package maildrop/maildroptest checks that it keeps this contract.
package maildrop

import (
	"context"
	"errors"
	"io"
	"time"
)

var (
	// ErrInUse says that another session holds the maildrop. RFC 1939 section 4.
	ErrInUse = errors.New("maildrop is in use")
	// ErrNoMessage says that no message has that number.
	ErrNoMessage = errors.New("no such message")
	// ErrGone says that a message was there when the maildrop was opened, and was removed since by
	// somebody else.
	ErrGone = errors.New("message is gone")
	// ErrDamaged says that the maildrop cannot be served until a person has looked at it. What was
	// found must be in the error that wraps it.
	ErrDamaged = errors.New("maildrop is damaged")
	// ErrNoFolder says that the owner has no such folder, or that the store knows none.
	ErrNoFolder = errors.New("no such folder")
)

// An Owner is the user whose maildrop is opened, as the user database knows him.
type Owner struct {
	Name string // the proven login name
	Home string // an absolute path; empty if the database names none
	// Quota is what the database says of how much he may keep; what it does not say is the store's to say.
	Quota Quota
	// Life is how long his mail stays, and what of it a session sees: all that holds, whoever says so.
	Life Life
	// View is what this session asked for at its login.
	View View
}

// A Quota bounds what a maildrop may hold. 0 says nothing, NoQuota that there is no bound. A store that knows
// quotas refuses mail that would pass one with ErrFull; what is there stays and is served as ever.
type Quota struct {
	Octets   int64 // as stored, which need not be as sent
	Messages int64
}

// NoQuota is for users who are to have no bound although others have one.
const NoQuota = -1

// Or takes from another Quota what this one does not say, and turns NoQuota into 0: no bound.
func (q Quota) Or(other Quota) Quota {
	return Quota{Octets: bound(q.Octets, other.Octets), Messages: bound(q.Messages, other.Messages)}
}

func bound[N time.Duration | int64](own, other N) N {
	if own == 0 {
		own = other
	}
	return max(own, 0)
}

// A Life is how long an owner's mail stays, and what of it a session sees. 0 (or nil) says nothing: no limit, unless
// Or finds one elsewhere. Off says that there is none, whatever others say.
type Life struct {
	// Retention is how old mail may get, in whole days: what is older is removed at night. RFC 2449 section 6.7.
	Retention time.Duration
	// Undelete is how long what was removed is kept, invisible, so that it can be brought back.
	Undelete time.Duration
	// Deletion is what becomes of messages that are marked as deleted when a session ends with QUIT: DeletionRemove (and
	// ""), DeletionKeep or DeletionRetrieved.
	Deletion string
	// Window lets sessions see only what was delivered in the time before the login.
	Window time.Duration
	// WindowMessages lets sessions see only so many messages, the newest.
	WindowMessages int64
	// Folders are those whose mail sessions see too, after the owner's own: names in UTF-8, with / between a folder and
	// one in it. Stores that know no folders have none of them. Not nil and empty: none.
	Folders []string
}

// Off in a Life is for users for whom a limit that others have does not hold.
const Off = -1

// What Life.Deletion may be.
const (
	DeletionRemove    = "remove"    // they are removed: RFC 1939 section 6
	DeletionKeep      = "keep"      // they stay where they are, and no session but one with View.Recent sees them
	DeletionRetrieved = "retrieved" // they are removed, and so is what was retrieved: EXPIRE 0 of RFC 2449 section 6.7
)

// Or takes from another Life what this one does not say, and turns Off into 0.
func (l Life) Or(other Life) Life {
	l.Retention = bound(l.Retention, other.Retention)
	l.Undelete = bound(l.Undelete, other.Undelete)
	l.Window = bound(l.Window, other.Window)
	l.WindowMessages = bound(l.WindowMessages, other.WindowMessages)
	if l.Deletion == "" {
		l.Deletion = other.Deletion
	}
	if l.Folders == nil {
		l.Folders = other.Folders
	}
	return l
}

// A View is what of a maildrop a session sees, if that is not what its owner sees as a rule.
type View struct {
	// Recent, if not 0, shows all that was delivered in the time before the login, whatever Life.Window,
	// Life.WindowMessages and Life.Deletion say.
	Recent time.Duration
	// Folder, if not empty, shows a folder's mail instead of the owner's own and that of Life.Folders. Names are as in
	// there. ErrNoFolder if there is none.
	Folder string
}

// A Store hands over maildrops. Its methods may be called from many goroutines at once.
type Store interface {
	// Open locks the owner's maildrop against every other session, in this process or any other, and
	// takes the scan of what is in it. The lock ends with Close, or with the process. An owner who
	// has had no mail yet has an empty maildrop.
	//
	// It may wait a little for a lock and then returns ErrInUse. ErrDamaged if a person is needed.
	// Any other error means that the maildrop could not be read for now. A fault is never an empty
	// maildrop. No lock is held when Open returns an error.
	Open(ctx context.Context, owner Owner) (Maildrop, error)
}

// A Maildrop is one owner's mail, opened and locked for one session. Messages are numbered from 1
// and keep their numbers until Close; mail delivered meanwhile belongs to the next session. RFC 1939
// sections 4 and 5. One goroutine uses a Maildrop at a time.
type Maildrop interface {
	// Messages returns the scan taken at Open; message n is at index n-1. The caller does not change it.
	Messages() []Message

	// Retrieve returns message n with CRLF line ends, not byte-stuffed: io.EOF comes after exactly as
	// many octets as the Message that it returns says, and only then; when the rest cannot be read,
	// Read returns another error. That Message is the one in the scan, unless the store's record of
	// its sizes proved wrong; its unique-id is always the same. ErrNoMessage if there is no n; ErrGone
	// if it was removed underneath. The caller closes the reader, which may have ReadStuffed, as message.Reader does.
	Retrieve(ctx context.Context, n int) (Message, io.ReadCloser, error)

	// Remove removes the given messages and no others. When it returns nil they are gone for good,
	// also after a crash; one that somebody else has removed counts as removed. On error some or all
	// of them may remain, under the unique-ids that they had. ErrNoMessage, with nothing removed, if a
	// number is not in the scan.
	Remove(ctx context.Context, numbers []int) error

	// Close releases the lock. It removes nothing. The Maildrop is of no use afterwards.
	Close() error
}

// Dated is a Maildrop that knows when its messages were delivered. Without it there are no windows.
type Dated interface {
	// Received returns when message n was delivered. ErrNoMessage, ErrGone as in Retrieve.
	Received(ctx context.Context, n int) (time.Time, error)
}

// Message is what a scan listing and a unique-id listing say of one message.
type Message struct {
	// UID is the unique-id: 1 to 70 octets from 0x21 to 0x7E, unique in the maildrop, the same in
	// every session, never used again for another message. RFC 1939 section 7.
	UID string

	// Octets is the message's exact size as sent: line ends as CRLF, the last line's too, before
	// byte-stuffing. RFC 1939 section 11.
	Octets int64

	// Surrogate is the exact size of what is sent instead to a client that has not asked for UTF-8:
	// 0 if the message goes out as it is. RFC 6856 section 2.1. Package maildrop/message computes it.
	Surrogate int64
}

// ValidUID says whether a unique-id is one that RFC 1939 section 7 allows: 1 to pop3.MaxUID octets, each
// from 0x21 to 0x7E (trap 27).
func ValidUID(uid string) bool {
	if len(uid) < 1 || len(uid) > 70 {
		return false
	}
	for _, c := range []byte(uid) {
		if c < 0x21 || c > 0x7e {
			return false
		}
	}
	return true
}
