package pop3server

import (
	"errors"
	"fmt"

	"dewey/auth"
	"dewey/internal/popwire"
	"dewey/maildrop"
	"dewey/pop3"
	"dewey/sasl"
)

// What a command can be refused for, besides what stores and backends return.
var (
	errUnknown     = errors.New("unknown command")
	errState       = errors.New("command not valid in this state")
	errSyntax      = errors.New("wrong arguments")
	errOctets      = errors.New("octet that no command may have")
	errNumber      = errors.New("not a number")
	errDeleted     = errors.New("message is marked as deleted")
	errNoUser      = errors.New("PASS without USER")
	errPlaintext   = errors.New("plaintext login needs TLS here")
	errUserPass    = errors.New("USER and PASS are turned off")
	errMechanism   = errors.New("unknown SASL mechanism, or not offered")
	errInitial     = errors.New("initial response to a mechanism in which the server speaks first")
	errBase64      = errors.New("response is not base64")
	errCancelled   = errors.New("authentication cancelled by the client")
	errAPOP        = errors.New("APOP is not offered")
	errTLS         = errors.New("TLS is on already")
	errLanguage    = errors.New("unknown language")
	errUserBusy    = fmt.Errorf("too many sessions of this user: %w", maildrop.ErrInUse)
	errAddressBusy = errors.New("too many connections from this address")
	errServerBusy  = errors.New("too many connections")
	errLoginDelay  = errors.New("too soon after the user's last login")
	errNotRemoved  = errors.New("some deleted messages not removed")
)

// refusals says what a client reads for each error; the first match (errors.Is) wins. An error not
// listed reads as a fault that will pass, with no detail: the detail belongs in the log.
var refusals = []struct {
	err  error
	code pop3.Code
	text string // a key of the catalog
}{
	{errNotRemoved, pop3.CodeSysTemp, "some deleted messages not removed"},      // RFC 1939 section 6
	{auth.ErrRejected, pop3.CodeAuth, "authentication failed"},                  // RFC 3206 section 5
	{errLoginDelay, pop3.CodeLoginDelay, "too soon after the last login"},       // RFC 2449 section 8.1.1
	{maildrop.ErrInUse, pop3.CodeInUse, "maildrop is in use"},                   // RFC 2449 section 8.1.2
	{maildrop.ErrDamaged, pop3.CodeSysPerm, "maildrop needs its administrator"}, // RFC 3206 section 4
	{maildrop.ErrNoFolder, pop3.CodeSysPerm, "no such folder"},                  // RFC 3206 section 4
	{maildrop.ErrNoMessage, "", "no such message"},                              // RFC 1939 section 5
	{maildrop.ErrGone, "", "message is gone"},
	{errDeleted, "", "message is deleted"}, // RFC 1939 section 5
	{errAddressBusy, pop3.CodeSysTemp, "too many connections from your address"},
	{errServerBusy, pop3.CodeSysTemp, "too many connections"},
	{errUnknown, "", "unknown command"}, // RFC 1939 section 3
	{errState, "", "command not valid in this state"},
	{errSyntax, "", "wrong arguments"},
	{errNumber, "", "invalid number"},
	{errOctets, "", "invalid octet in command"},
	{popwire.ErrLongLine, "", "command line too long"}, // RFC 2449 section 4
	{errNoUser, "", "USER first"},                      // RFC 1939 section 7
	{errPlaintext, "", "plaintext login needs TLS here"},
	{errUserPass, "", "USER is not offered"},
	{errMechanism, "", "unknown mechanism"},        // RFC 5034 section 4
	{errInitial, "", "wrong arguments"},            // RFC 5034 section 4
	{errBase64, "", "invalid base64"},              // RFC 5034 section 4
	{errCancelled, "", "authentication cancelled"}, // RFC 5034 section 4
	{sasl.ErrForm, "", "malformed response"},       // RFC 4422 section 3.5
	{errAPOP, "", "APOP is not offered"},
	{errTLS, "", "TLS is on already"}, // RFC 2595 section 4
	{errXCLIENT, "", "wrong arguments"},
	{auth.ErrBusy, pop3.CodeSysTemp, "too many failed logins from your address"},
	{errLanguage, "", "unknown language"}, // RFC 6856 section 3.2
}

// fault is what a client reads for an error that is not in the table. RFC 3206 section 4.
const (
	faultCode = pop3.CodeSysTemp
	faultText = "temporary fault, try again later"
)

// refusal looks err up. known is false if the table does not have it: then the log must.
func refusal(err error) (code pop3.Code, text string, known bool) {
	for _, r := range refusals {
		if errors.Is(err, r.err) {
			return r.code, r.text, true
		}
	}
	return faultCode, faultText, false
}
