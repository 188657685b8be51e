package maildrop

import (
	"context"
	"errors"
	"io"
)

// ErrFull says that there is no room for a message in the owner's maildrop: his quota, not the disk.
var ErrFull = errors.New("maildrop is full")

// A Depositor takes mail in. Its methods may be called from many goroutines at once, for one owner too, also
// while a session holds his maildrop: what is delivered meanwhile belongs to the next.
type Depositor interface {
	// Deposit begins to take in one message for an owner. ErrFull if there is no room even now. Any other
	// error means that no mail can be taken in for now.
	Deposit(ctx context.Context, owner Owner) (Deposit, error)
}

// A Deposit is a message on its way into a maildrop. One goroutine uses it at a time.
type Deposit interface {
	// Write takes the next octets of the message as they are to be kept: any octets, lines of any length,
	// line ends CRLF or LF. After an error the message can't be committed.
	io.Writer

	// Commit makes the message durable and only then visible, under a unique-id of its own. When it returns
	// nil the message is there for good, also after a power loss. On error no session will see the message,
	// unless it was visible already and could not be taken back: then it is seen, whole, and the error says so. ErrFull if there is
	// no room.
	Commit(ctx context.Context) error

	// Discard throws away what was not committed. After Commit it does nothing. Call it in any case.
	Discard()
}
