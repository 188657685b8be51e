package lmtp

import (
	"fmt"
	"strings"
	"time"
)

// commands are the protocol. HELO and EHLO must not be LMTP's: RFC 2033 section 4.1. AUTH and STARTTLS are not
// offered, and so unknown.
var commands = map[string]struct {
	argument bool // it may have one
	run      func(*session, string) reply
}{
	"LHLO": {true, (*session).lhlo},  // RFC 2033 section 4.1
	"MAIL": {true, (*session).mail},  // RFC 5321 section 4.1.1.2
	"RCPT": {true, (*session).rcpt},  // RFC 5321 section 4.1.1.3
	"DATA": {false, (*session).data}, // RFC 2033 section 4.2
	"BDAT": {true, (*session).bdat},  // RFC 2033 section 4.3, RFC 3030 section 2
	"RSET": {false, (*session).rset}, // RFC 5321 section 4.1.1.5
	"NOOP": {true, (*session).noop},  // RFC 5321 section 4.1.1.9
	"VRFY": {true, (*session).vrfy},  // RFC 5321 section 3.5.3
	"QUIT": {false, (*session).quit}, // RFC 5321 section 4.1.1.10
}

// strays are words of other protocols. A browser can be made to send LMTP to a port of its own machine, in
// the body of a request: the request's first line ends it.
var strays = map[string]bool{
	"CONNECT": true, "DELETE": true, "GET": true, "HEAD": true, "OPTIONS": true, "PATCH": true, "POST": true, "PUT": true,
}

const maxBad = 10 // lines that are no command, before the connection is closed

var (
	badSyntax   = reply{code: 500, status: "5.5.2", text: "this is no command"}
	badArgument = reply{code: 501, status: "5.5.4", text: "syntax error in the argument"}
	badSequence = reply{code: 503, status: "5.5.1", text: "not now: the order is LHLO, MAIL, RCPT, and DATA or BDAT"}
	fine        = reply{code: 250, status: "2.0.0", text: "ok"}
)

// dispatch runs a command line.
func (s *session) dispatch(line string) reply {
	verb, argument, has := strings.Cut(strings.TrimRight(line, " "), " ")
	verb = strings.ToUpper(verb)
	c, ok := commands[verb]
	switch {
	case strays[verb]:
		s.last = errStray
		return reply{code: 421, status: "4.7.0", text: "this is LMTP"}
	case !clean(line) || !ok:
		return s.bad(badSyntax)
	case has && !c.argument:
		return badArgument
	}
	return c.run(s, argument)
}

// bad counts what is no command.
func (s *session) bad(r reply) reply {
	if s.nonsense++; s.nonsense >= maxBad {
		s.last = errNonsense
		return reply{code: 421, status: "4.7.0", text: "too many lines that are no command"}
	}
	return r
}

func (s *session) lhlo(name string) reply {
	if !validDomain(name, false) {
		return badArgument
	}
	s.reset()
	s.name = name
	return reply{code: 250, text: s.settings.Hostname, more: []string{
		"PIPELINING",          // RFC 2033 section 5
		"ENHANCEDSTATUSCODES", // RFC 2033 section 5
		"8BITMIME",            // RFC 6152 section 2
		"SMTPUTF8",            // RFC 6531 section 3.1
		"CHUNKING",            // RFC 3030 section 2
		fmt.Sprintf("SIZE %d", s.settings.MaxSize), // RFC 1870 section 4: 0 is no bound
	}}
}

func (s *session) mail(argument string) reply {
	if s.name == "" || s.tx != nil {
		return badSequence
	}
	s.begun = true
	path, ok := cutFold(argument, "FROM:")
	if !ok {
		return badArgument
	}
	// Whether SMTPUTF8 is there is known only after the address has been read.
	from, rest, err := parsePath(path, true)
	parameters, perr := parseParameters(rest)
	if err != nil || perr != nil {
		return badArgument
	}
	t := &transaction{from: from, began: time.Now(), id: s.srv.newID()}
	for _, p := range parameters {
		switch p.keyword {
		case "SIZE": // RFC 1870 section 6.1
			n, err := parseSize(p.value)
			if err != nil {
				return badArgument
			}
			if s.settings.MaxSize > 0 && n > s.settings.MaxSize {
				return s.refusal(ErrTooLarge)
			}
		case "BODY": // RFC 6152 section 2; BINARYMIME is not offered
			if v := strings.ToUpper(p.value); v != "7BIT" && v != "8BITMIME" {
				return badArgument
			}
		case "SMTPUTF8": // RFC 6531 section 3.4
			if p.value != "" {
				return badArgument
			}
			t.utf8 = true
		default: // RFC 5321 section 4.1.1.11
			return reply{code: 555, status: "5.5.4", text: "unknown parameter"}
		}
	}
	if !t.utf8 && !isASCII(from) { // RFC 6531 section 3.5
		return reply{code: 553, status: "5.6.7", text: "an address outside ASCII needs SMTPUTF8"}
	}
	s.tx = t
	return reply{code: 250, status: "2.1.0", text: "sender ok"}
}

func (s *session) rcpt(argument string) reply {
	if s.tx == nil || s.tx.chunked {
		return badSequence
	}
	path, ok := cutFold(argument, "TO:")
	if !ok {
		return badArgument
	}
	address, rest, err := parsePath(path, s.tx.utf8)
	parameters, perr := parseParameters(rest)
	switch {
	case err == errNotASCII: //nolint:errorlint // parsePath wraps nothing
		return reply{code: 550, status: "5.6.7", text: "an address outside ASCII needs SMTPUTF8"}
	case err != nil || perr != nil || address == "":
		return reply{code: 501, status: "5.1.3", text: "syntax error in the address"}
	case len(parameters) > 0:
		return reply{code: 555, status: "5.5.4", text: "unknown parameter"}
	case len(s.tx.recipients) >= s.settings.MaxRecipients:
		return tooMany
	}
	taken := reply{code: 250, status: "2.1.5", text: "recipient ok"}
	copies := 0
	for _, r := range s.tx.recipients {
		if r.address == address {
			s.tx.recipients = append(s.tx.recipients, r)
			return taken
		}
		copies += len(r.copies)
	}
	r, err := s.find(address)
	if err != nil {
		s.log.LogAttrs(s.ctx, s.level(err), "recipient refused", attr("from", s.tx.from), attr("to", address), attr("error", err))
		return s.refusal(err)
	}
	if copies > 0 && copies+len(r.copies) > maxCopies {
		s.drop(r, nil)
		return tooMany
	}
	s.tx.recipients = append(s.tx.recipients, r)
	return taken
}

// tooMany: the sender tries the others in another transaction. RFC 5321 section 4.5.3.1.10.
var tooMany = reply{code: 452, status: "4.5.3", text: "too many recipients"}

func (s *session) data(string) reply {
	if s.tx == nil || s.tx.chunked || len(s.tx.recipients) == 0 {
		return badSequence
	}
	s.say(reply{code: 354, text: "send the message, end with <CRLF>.<CRLF>"})
	if s.last = s.flush(); s.last != nil {
		return answered
	}
	if err := s.readData(s.settings.DataTimeout, s.take); err != nil {
		return s.cut(err)
	}
	s.deliver()
	return answered
}

// bdat takes a chunk. Whatever the reply, the chunk is read first. RFC 3030 section 2.
func (s *session) bdat(argument string) reply {
	fields := strings.Fields(argument)
	if len(fields) == 0 || len(fields) > 2 || len(fields) == 2 && !strings.EqualFold(fields[1], "LAST") {
		s.last = errSyntax // where the chunk ends is not known, and it must not be taken for commands
		return badArgument
	}
	size, err := parseSize(fields[0])
	if err != nil {
		s.last = errSyntax
		return badArgument
	}
	last := len(fields) == 2
	if int64(s.in.Buffered()) < size { // who waits for replies before he goes on gets them
		if s.last = s.flush(); s.last != nil {
			return answered
		}
	}
	if s.tx == nil || len(s.tx.recipients) == 0 {
		if err := s.readChunk(size, s.settings.DataTimeout, func([]byte) {}); err != nil {
			return s.cut(err)
		}
		// Zero replies where no RCPT succeeded: RFC 2033 section 4.3. 503 after the last chunk: RFC 3030 section 2.
		if last && s.begun {
			s.reset()
			return answered
		}
		return badSequence
	}
	s.tx.chunked = true
	if err := s.readChunk(size, s.settings.DataTimeout, s.take); err != nil {
		return s.cut(err)
	}
	switch {
	case last:
		s.deliver()
		return answered
	case s.tx.tooLarge(s.settings): // the same for what comes yet, and for each recipient after the last chunk
		return s.refusal(ErrTooLarge)
	}
	return fine
}

// cut ends a session whose client has not sent a message to its end: what comes is the rest of it, and must
// not be taken for commands.
func (s *session) cut(err error) reply {
	s.last = err
	if isTimeout(err) {
		return tooSlow
	}
	return answered
}

func (s *session) rset(string) reply {
	s.reset()
	return fine
}

func (s *session) noop(string) reply { return fine }

// vrfy: who exists is told at RCPT. RFC 5321 section 3.5.3.
func (s *session) vrfy(string) reply {
	return reply{code: 252, status: "2.5.0", text: "RCPT tells"}
}

func (s *session) quit(string) reply {
	s.reset()
	s.last = errQuit
	return reply{code: 221, status: "2.0.0", text: "bye"}
}

func cutFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return "", false
	}
	return s[len(prefix):], true
}
