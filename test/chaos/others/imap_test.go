package others

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

const dovecotIMAP = "/usr/lib/dovecot/imap"

// An imap is one session of Dovecot's IMAP server, a process of its own, already logged in. RFC 3501.
type imap struct {
	in   *bufio.Reader
	out  io.WriteCloser
	cmd  *exec.Cmd
	stop context.CancelFunc
	tags int
}

// imap starts a session and selects the Maildir. It is killed after the time of a session.
func (p *place) imap() (*imap, error) {
	ctx, stop := context.WithTimeout(context.Background(), patience)
	c := &imap{cmd: exec.CommandContext(ctx, dovecotIMAP, "-c", p.dovecot), stop: stop}
	p.as(c.cmd)
	c.cmd.Env = []string{"USER=mrose", "HOME=" + p.data, "PATH=/usr/bin:/bin"}
	c.cmd.Stderr = p.log
	out, err := c.cmd.StdoutPipe()
	if err == nil {
		c.out, err = c.cmd.StdinPipe()
	}
	if err == nil {
		err = c.cmd.Start()
	}
	if err != nil {
		stop()
		return nil, err
	}
	c.in = bufio.NewReader(out)
	if l, err := c.line(); err != nil || !strings.HasPrefix(l, "* PREAUTH") {
		return nil, errors.Join(fmt.Errorf("greeting %q, %w", l, err), c.close())
	}
	if _, err := c.do("SELECT INBOX"); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

// close logs out.
func (c *imap) close() error {
	_, _ = c.do("LOGOUT")
	_ = c.out.Close()
	_, _ = io.Copy(io.Discard, c.in)
	err := c.cmd.Wait()
	c.stop()
	return err
}

var literal = regexp.MustCompile(`\{(\d+)\}$`)

// line reads a line, with the literals in it.
func (c *imap) line() (string, error) {
	var all strings.Builder
	for {
		l, err := c.in.ReadString('\n')
		if err != nil {
			return all.String(), err
		}
		l = strings.TrimRight(l, "\r\n")
		all.WriteString(l)
		found := literal.FindStringSubmatch(l)
		if found == nil {
			return all.String(), nil
		}
		n, _ := strconv.Atoi(found[1])
		if _, err := io.CopyN(&all, c.in, int64(n)); err != nil {
			return all.String(), err
		}
	}
}

// do sends a command and returns the untagged lines of its response. A NO or BAD is a *no.
func (c *imap) do(command string) ([]string, error) {
	c.tags++
	tag := fmt.Sprintf("a%d ", c.tags)
	if _, err := io.WriteString(c.out, tag+command+"\r\n"); err != nil {
		return nil, err
	}
	var lines []string
	for {
		l, err := c.line()
		if err != nil {
			return nil, fmt.Errorf("%.40s: %w", command, err)
		}
		rest, tagged := strings.CutPrefix(l, tag)
		switch {
		case !tagged:
			lines = append(lines, l)
		case strings.HasPrefix(rest, "OK"):
			return lines, nil
		default:
			return nil, &no{command, rest}
		}
	}
}

// append adds a message. RFC 3501 section 6.3.11.
func (c *imap) append(text string) error {
	c.tags++
	tag := fmt.Sprintf("a%d ", c.tags)
	if _, err := fmt.Fprintf(c.out, "%sAPPEND INBOX {%d}\r\n", tag, len(text)); err != nil {
		return err
	}
	for sent := false; ; {
		l, err := c.line()
		rest, tagged := strings.CutPrefix(l, tag)
		switch {
		case err != nil:
			return err
		case !sent && strings.HasPrefix(l, "+"):
			sent = true
			_, err = io.WriteString(c.out, text+"\r\n")
		case tagged && strings.HasPrefix(rest, "OK"):
			return nil
		case tagged:
			return &no{"APPEND", rest}
		}
		if err != nil {
			return err
		}
	}
}

type no struct{ command, reply string }

func (n *no) Error() string { return fmt.Sprintf("%.60s: %q", n.command, n.reply) }

var fetched = regexp.MustCompile(`(?s)^\* \d+ FETCH \(.*?UID (\d+).*X-Chaos: (\S+)`)

// keys are the messages that it shows: uid by key. A message without a key, or there twice, is an error.
func (c *imap) keys() (map[string]uint32, error) {
	lines, err := c.do("UID FETCH 1:* (UID BODY.PEEK[HEADER.FIELDS (X-CHAOS)])")
	if err != nil {
		return nil, err
	}
	all := map[string]uint32{}
	for _, l := range lines {
		if !strings.Contains(l, " FETCH ") {
			continue
		}
		found := fetched.FindStringSubmatch(l)
		if found == nil {
			continue // gone since: RFC 2180 section 4.1.2
		}
		if _, twice := all[found[2]]; twice {
			return nil, fmt.Errorf("IMAP shows %s twice", found[2])
		}
		uid, _ := strconv.ParseUint(found[1], 10, 32)
		all[found[2]] = uint32(uid)
	}
	return all, nil
}

// configure writes Dovecot's configuration.
func (p *place) configure(uid, gid int) error {
	if _, err := os.Stat(dovecotIMAP); err != nil {
		return fmt.Errorf("%w: apt-get install dovecot-imapd", err)
	}
	p.dovecot = filepath.Join(p.data, "dovecot.conf")
	return os.WriteFile(p.dovecot, fmt.Appendf(nil, `protocols = imap
base_dir = %[1]s/run
log_path = /dev/stderr
ssl = no
first_valid_uid = 1
first_valid_gid = 0
mail_uid = %[2]d
mail_gid = %[3]d
mail_location = maildir:%[4]s
`, p.data, uid, gid, p.maildir), 0o644)
}
