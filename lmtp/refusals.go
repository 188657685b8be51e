package lmtp

import (
	"errors"
	"syscall"

	"dewey/maildrop"
)

// ErrUnknown says that an address is nobody's here.
var ErrUnknown = errors.New("no such recipient")

// Why a message is not taken in; they are in Delivery.Err, wrapped.
var (
	// ErrTooLarge says that a message has more octets than Settings.MaxSize.
	ErrTooLarge = errors.New("message is too large")
	// ErrPanic says that what is behind the server panicked.
	ErrPanic = errors.New("panic")
)

// refusals says what a client reads for each error; the first match (errors.Is) wins. An error not listed reads
// as a temporary fault with no detail: the detail belongs in the log. RFC 3463 sections 3.2, 3.3 and 3.4.
var refusals = []struct {
	err   error
	reply reply
}{
	{ErrUnknown, reply{code: 550, status: "5.1.1", text: "no such recipient here"}},
	{maildrop.ErrFull, reply{code: 552, status: "5.2.2", text: "the recipient's maildrop is full"}},
	{ErrTooLarge, reply{code: 552, status: "5.3.4", text: "the message is too large"}}, // RFC 1870 section 6.1
	{syscall.ENOSPC, reply{code: 452, status: "4.3.1", text: "no room for mail at the moment"}},
	{syscall.EMFILE, busy}, // who has too much in hand finishes that
	{syscall.ENFILE, busy},
	{syscall.EDQUOT, reply{code: 452, status: "4.3.1", text: "no room for mail at the moment"}},
}

// busy: RFC 3463 section 3.4, X.3.2, has excessive load for its example.
var busy = reply{code: 451, status: "4.3.2", text: "too much at once; mail can be taken in in a while"}

var later = reply{code: 451, status: "4.3.0", text: "mail can't be taken in at the moment"}

func (s *session) refusal(err error) reply {
	for _, r := range refusals {
		if errors.Is(err, r.err) {
			if r.err == maildrop.ErrFull && s.settings.OverQuotaTemporary { //nolint:errorlint // a table's own entry
				return reply{code: 452, status: "4.2.2", text: r.reply.text}
			}
			return r.reply
		}
	}
	return later
}
