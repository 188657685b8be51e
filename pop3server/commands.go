package pop3server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"dewey/internal/popwire"
	"dewey/pop3"
)

// A command is one row of the protocol.
type command struct {
	in       pop3.State // states that accept it, or-ed together
	min, max int        // how many arguments; rest: one argument, spaces kept
	run      func(*session, context.Context, []string) (response, error)
}

const (
	anyState = pop3.Authorization | pop3.Transaction
	rest     = -1
)

// commands is the protocol. A command of another state is refused before its handler runs, which
// therefore never asks for it.
var commands = map[string]command{
	"CAPA": {anyState, 0, 0, (*session).capa},    // RFC 2449 section 5
	"QUIT": {anyState, 0, 0, (*session).quit},    // RFC 1939 sections 4, 6
	"LANG": {anyState, 0, 1, (*session).setLang}, // RFC 6856 section 3

	"USER": {pop3.Authorization, 1, 1, (*session).setUser}, // RFC 1939 section 7
	"PASS": {pop3.Authorization, 1, rest, (*session).pass}, // RFC 1939 section 7
	"APOP": {pop3.Authorization, 2, 2, (*session).apop},    // RFC 1939 section 7
	"AUTH": {pop3.Authorization, 0, 2, (*session).auth},    // RFC 5034 section 4
	"STLS": {pop3.Authorization, 0, 0, (*session).stls},    // RFC 2595 section 4
	"UTF8": {pop3.Authorization, 0, 0, (*session).setUTF8}, // RFC 6856 section 2.1

	"XCLIENT": {pop3.Authorization, 1, 20, (*session).xclient}, // of Dovecot's proxies

	"STAT": {pop3.Transaction, 0, 0, (*session).stat}, // RFC 1939 section 5
	"LIST": {pop3.Transaction, 0, 1, (*session).list}, // RFC 1939 section 5
	"RETR": {pop3.Transaction, 1, 1, (*session).retr}, // RFC 1939 section 5
	"DELE": {pop3.Transaction, 1, 1, (*session).dele}, // RFC 1939 section 5
	"NOOP": {pop3.Transaction, 0, 0, (*session).noop}, // RFC 1939 section 5
	"RSET": {pop3.Transaction, 0, 0, (*session).rset}, // RFC 1939 section 5
	"TOP":  {pop3.Transaction, 2, 2, (*session).top},  // RFC 1939 section 7
	"UIDL": {pop3.Transaction, 0, 1, (*session).uidl}, // RFC 1939 section 7
}

// A response is what a command that succeeds is answered with.
type response struct {
	text string
	// body writes the lines after the status line, but not the line that ends them; nil if the
	// response is a single line. Its error cuts the response off.
	body func(*popwire.Writer) error
	// message is what body reads, to be closed in any case; nil if there is none.
	message io.Closer
	// after is called when the response was sent; its error ends the session.
	after func() error
}

// A fatal error ends the session without a response.
type fatal struct{ error }

func (f fatal) Unwrap() error { return f.error }

// dispatch takes one line in; respond sends exactly one response out. readErr is popwire.ErrLongLine
// or nil.
func (s *session) dispatch(line string, readErr error) (response, error) {
	user := s.user
	s.user = "" // PASS comes directly after USER or not at all. RFC 1939 section 7.
	if readErr != nil {
		return response{}, readErr
	}
	for _, c := range []byte(line) {
		if c < ' ' || c == 0x7f {
			return response{}, errOctets // a NUL is no end of a line (trap 37)
		}
	}
	keyword, tail, _ := strings.Cut(line, " ")
	cmd, ok := commands[upper(keyword)]
	if !ok {
		return response{}, errUnknown
	}
	if cmd.in&s.state == 0 {
		return response{}, errState
	}
	args, err := cmd.arguments(tail)
	if err != nil {
		return response{}, err
	}
	if cmd.max == rest {
		s.user = user
	}
	return cmd.run(s, s.ctx, args)
}

// upper folds the case of ASCII letters and of no others: keywords are printable ASCII. RFC 1939 section
// 3. (Unicode knows a dotless i and a long s.)
func upper(keyword string) string {
	return strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' {
			r -= 'a' - 'A'
		}
		return r
	}, keyword)
}

// arguments splits what follows the keyword and its space. One blank at the end is let pass, as some
// clients send it; where the rest is one argument, all blanks are its own (trap 38).
func (c command) arguments(text string) ([]string, error) {
	if c.max == rest {
		if text == "" {
			return nil, errSyntax
		}
		return []string{text}, nil
	}
	var args []string
	if text = strings.TrimSuffix(text, " "); text != "" {
		args = strings.Split(text, " ")
	}
	if len(args) < c.min || len(args) > c.max {
		return nil, errSyntax
	}
	for _, a := range args {
		if a == "" {
			return nil, errSyntax
		}
	}
	return args, nil
}

// respond writes the response. Only here is anything written, but for the greeting. An error ends the
// session: the client is gone, or the response could not be finished.
func (s *session) respond(r response, err error) error {
	if end := (fatal{}); errors.As(err, &end) {
		return end.error
	}
	if err != nil {
		code, text, known := refusal(err)
		if !known {
			if s.ctx.Err() != nil {
				return context.Cause(s.ctx)
			}
			s.log.Error("command failed", "user", s.info.User, "error", err)
		}
		return s.out.Err(code, s.lang.say(text))
	}
	if r.message != nil {
		defer r.message.Close()
	}
	if err := s.out.OK(r.text); err != nil {
		return err
	}
	if r.after != nil {
		return errors.Join(s.out.Flush(), r.after())
	}
	if r.body == nil {
		return nil
	}
	err = r.body(s.out)
	if cut := (*popwire.ReadError)(nil); errors.As(err, &cut) {
		// The client must not take a cut message for a whole one: no line that ends it, and the
		// connection closes. Trap 2.
		s.log.Error("response cut short", "user", s.info.User, "error", err)
		_ = s.out.Flush()
		return fmt.Errorf("%w: %w", ErrCutShort, err)
	}
	if err != nil {
		return err
	}
	return s.out.End()
}

// number reads a message-number or a number of lines: decimal digits and nothing else. One that is too
// large for int64 is the largest there is, so that it wraps nowhere. RFC 1939 section 4; trap 14.
func number(arg string) (int64, error) {
	var n int64
	for _, c := range []byte(arg) {
		if c < '0' || c > '9' {
			return 0, errNumber
		}
		if d := int64(c - '0'); n > (math.MaxInt64-d)/10 {
			n = math.MaxInt64
		} else {
			n = 10*n + d
		}
	}
	return n, nil
}
