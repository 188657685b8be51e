package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
	"unicode/utf8"
)

// clientPatience is how long the server may take for a reply. RFC 5321 section 4.5.3.2.6 asks for ten minutes.
const clientPatience = 10 * time.Minute

// A mailClient speaks LMTP to dewey. RFC 2033.
type mailClient struct {
	conn   net.Conn
	in     *bufio.Reader
	defers bool // a full maildrop is told so that the mail comes again
}

// A refusal is a reply that is no success.
type refusal struct {
	code int
	text string
}

func (r *refusal) Error() string { return fmt.Sprintf("%d %s", r.code, r.text) }

// errNoServer says that what answers there is not dewey.
var errNoServer = errors.New("what answers at lmtp.listen does not speak LMTP with CHUNKING as dewey does")

// deliver sends one message after begin. Its error has the exit code of the worst that befell a recipient; it is
// nil only if all have the message.
func (c *mailClient) deliver(to []string, message io.Reader) error {
	// Who can't be served for now will be tried again with all the others, so they get nothing either.
	var failed []error
	taken := 0
	for _, address := range to {
		err := c.command(address, "RCPT TO:<%s>", address)
		if err == nil {
			taken++
			continue
		}
		failed = append(failed, err)
	}
	if err := worst(failed); err != nil && (taken == 0 || errorCode(err) == exitTempFail) {
		return err
	}
	if err := c.send(message); err != nil {
		return worst(append(failed, err))
	}
	for range taken { // one reply each, in their order. RFC 2033 section 4.2
		if _, err := c.reply(); err != nil {
			failed = append(failed, c.judge("", err))
		}
	}
	_, _ = io.WriteString(c.conn, "QUIT\r\n")
	_, _ = c.reply() // what is delivered is delivered
	return worst(failed)
}

// begin says who we are and who sends.
func (c *mailClient) begin(host, sender string, to []string) error {
	if _, err := c.reply(); err != nil {
		return c.judge("", err)
	}
	if _, err := fmt.Fprintf(c.conn, "LHLO %s\r\n", host); err != nil {
		return c.judge("", err)
	}
	offered, err := c.reply()
	if err != nil {
		return c.judge("", err)
	}
	if !strings.Contains(offered+"\n", "\nCHUNKING\n") {
		return exit(exitTempFail, "%w", errNoServer)
	}
	return c.mail(sender, to)
}

// mail says who sends.
func (c *mailClient) mail(sender string, to []string) error {
	parameters := " BODY=8BITMIME"
	if !ascii(sender + strings.Join(to, "")) {
		parameters += " SMTPUTF8" // RFC 6531 section 3.4
	}
	return c.command("-f "+sender, "MAIL FROM:<%s>%s", sender, parameters)
}

// send sends the message in chunks, so that all octets go as they are and none is held in memory for long. RFC
// 3030 section 2. Without the last chunk nothing is delivered.
func (c *mailClient) send(message io.Reader) error {
	chunk := make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(message, chunk)
		last := errors.Is(err, io.ErrUnexpectedEOF) || err == io.EOF
		if err != nil && !last {
			return exit(exitTempFail, "standard input: %w", err)
		}
		line := fmt.Sprintf("BDAT %d\r\n", n)
		if last {
			line = fmt.Sprintf("BDAT %d LAST\r\n", n)
		}
		_ = c.conn.SetDeadline(time.Now().Add(clientPatience))
		if _, err := c.conn.Write(append([]byte(line), chunk[:n]...)); err != nil {
			return c.judge("", err)
		}
		if last {
			return nil
		}
		if _, err := c.reply(); err != nil { // too large, say: the rest need not be sent
			return c.judge("", err)
		}
	}
}

// command sends a command line and reads its reply.
func (c *mailClient) command(whose, format string, args ...any) error {
	_ = c.conn.SetDeadline(time.Now().Add(clientPatience))
	if _, err := fmt.Fprintf(c.conn, format+"\r\n", args...); err != nil {
		return c.judge(whose, err)
	}
	if _, err := c.reply(); err != nil {
		return c.judge(whose, err)
	}
	return nil
}

// reply reads a reply, and returns its lines; a *refusal if it is none of success.
func (c *mailClient) reply() (string, error) {
	_ = c.conn.SetDeadline(time.Now().Add(clientPatience))
	var lines []string
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return "", err //nolint:wrapcheck // judge does
		}
		text := strings.TrimRight(string(line), "\r\n")
		var code int
		if _, err := fmt.Sscanf(text, "%3d", &code); err != nil || len(text) < 3 || len(lines) > 100 {
			return "", errNoServer
		}
		lines = append(lines, strings.TrimLeft(text[3:], "- "))
		if len(text) > 3 && text[3] == '-' {
			continue
		}
		if code/100 != 2 {
			return "", &refusal{code, strings.Join(lines, " ")}
		}
		return strings.Join(lines, "\n"), nil
	}
}

// judge gives an error its exit code. RFC 3463.
func (c *mailClient) judge(whose string, err error) error {
	code := exitTempFail
	var no *refusal
	if errors.As(err, &no) && no.code/100 == 5 {
		status, _, _ := strings.Cut(no.text, " ")
		switch status {
		case "5.1.1":
			code = exitNoUser
		case "5.1.3", "5.5.4", "5.6.7", "5.5.2":
			code = exitUsage
		case "5.2.2":
			if code = exitCantCreate; c.defers {
				code = exitTempFail
			}
		case "5.3.4":
			code = exitData
		}
	}
	if whose != "" {
		err = fmt.Errorf("%s: %w", whose, err)
	}
	return &exitError{code, err}
}

// worst returns all errors as one, with the code of the one that counts most: that it is to be tried again.
func worst(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	code := 0
	for _, err := range errs {
		if is := errorCode(err); code == 0 || is == exitTempFail {
			code = is
		}
	}
	return &exitError{code, errors.Join(errs...)}
}

// errorCode is what to end with: 0 for no error, and what has no code of its own passes.
func errorCode(err error) int {
	var own *exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &own):
		return own.code
	}
	return exitTempFail
}

func ascii(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) < 0
}
