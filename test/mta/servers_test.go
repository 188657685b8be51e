package mta

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A server is a kind of mail server.
type server struct {
	page  string
	base  func() (string, error)
	setUp func(m *machine)          // what the package's installation would have done
	start func(m *machine) *process // in the foreground
	queue func(m *machine) string   // lists what waits
	flush []string                  // the command that tries all that waits
	log   func(m *machine) string
}

var postfix = &server{
	page: "../../docs/POSTFIX.md",
	base: baseOf("postfix", "usr/lib/postfix/sbin/*", "usr/sbin/*"),
	setUp: func(m *machine) {
		for _, name := range []string{"active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved", "trace"} {
			m.folder("/var/spool/postfix/"+name, postfixUser, 0o700)
		}
		m.folder("/var/spool/postfix", rootUser, 0o755)
		m.folder("/var/spool/postfix/pid", rootUser, 0o755)
		m.folder("/var/lib/postfix", postfixUser, 0o755)
		for name, mode := range map[string]os.FileMode{"maildrop": 0o730, "public": 0o710} {
			m.folder("/var/spool/postfix/"+name, postfixUser, mode)
			m.check(os.Chown(m.path("/var/spool/postfix/"+name), postfixUser, postdrop))
		}
		for _, name := range []string{"/usr/sbin/postdrop", "/usr/sbin/postqueue"} {
			m.check(os.Chown(m.path(name), rootUser, postdrop))
			m.check(os.Chmod(m.path(name), 0o755|os.ModeSetgid))
		}
		// Debian's own, but for the port.
		master := m.read("/usr/share/postfix/master.cf.dist")
		ours := strings.Replace(master, "\nsmtp      inet", "\n"+m.smtp+" inet", 1)
		if ours == master {
			m.t.Fatal("Postfix's master.cf has no line smtp inet")
		}
		m.write("/etc/postfix/master.cf", ours)
		m.write("/etc/postfix/dynamicmaps.cf", "")
	},
	start: func(m *machine) *process {
		m.run(rootUser, nil, "/usr/sbin/postalias", "hash:/etc/aliases")
		// Not `postfix start`, which is a script.
		p := start(m.t, m.command(context.Background(), rootUser, "/usr/lib/postfix/sbin/master", "-d", "-c", "/etc/postfix"))
		await(m.t, "ready", func() bool { return greets(m.smtp) })
		return p
	},
	queue: func(m *machine) string { return m.run(rootUser, nil, "/usr/sbin/postqueue", "-p") },
	flush: []string{"/usr/sbin/postqueue", "-f"},
	log:   func(m *machine) string { return m.log.String() },
}

var exim = &server{
	page: "../../docs/EXIM.md",
	base: baseOf("exim4-daemon-light", "usr/sbin/exim4"),
	setUp: func(m *machine) {
		m.folder("/var/spool/exim4", eximUser, 0o750)
		m.folder("/var/log/exim4", eximUser, 0o750)
		m.folder("/run/exim4", eximUser, 0o755)
		m.check(os.Chmod(m.path("/usr/sbin/exim4"), 0o755|os.ModeSetuid))
	},
	start: func(m *machine) *process {
		p := start(m.t, m.command(context.Background(), rootUser, "/usr/sbin/exim4", "-bdf", "-q30m", "-oX", strings.Replace(m.smtp, "127.0.0.1:", "127.0.0.1.", 1)))
		await(m.t, "ready", func() bool { return greets(m.smtp) })
		return p
	},
	queue: func(m *machine) string { return m.run(rootUser, nil, "/usr/sbin/exim4", "-bp") },
	flush: []string{"/usr/sbin/exim4", "-qff"},
	log: func(m *machine) string {
		text := ""
		files, _ := filepath.Glob(m.path("/var/log/exim4/*log"))
		for _, file := range files {
			content, err := os.ReadFile(file)
			text += filepath.Base(file) + ":\n" + string(content) + errorText(err)
		}
		return text
	},
}

func greets(address string) bool {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	line, err := bufio.NewReader(conn).ReadString('\n')
	return err == nil && strings.HasPrefix(line, "220 ")
}

// recipient asks by SMTP whether there would be mail for somebody, as a stranger: from 127.0.0.2, which the
// pages don't trust.
func (m *machine) recipient(address string) string {
	m.t.Helper()
	dialer := net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	conn, err := dialer.DialContext(m.t.Context(), "tcp", m.smtp)
	m.check(err)
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	in := bufio.NewReader(conn)
	reply := ""
	for _, command := range []string{"", "EHLO client.example.com", "MAIL FROM:<>", "RCPT TO:<" + address + ">"} {
		if command != "" {
			_, err := fmt.Fprintf(conn, "%s\r\n", command)
			m.check(err)
		}
		for reply = ""; ; {
			line, err := in.ReadString('\n')
			m.check(err)
			reply += line
			if len(line) > 3 && line[3] == ' ' {
				break
			}
		}
		if !strings.HasPrefix(reply, "2") && !strings.HasPrefix(command, "RCPT") {
			m.t.Fatalf("%s: %s", command, reply)
		}
	}
	return reply
}

// send gives a message to the mail server's sendmail, as the user mrose.
func (m *machine) send(text []byte, to string) {
	m.t.Helper()
	m.run(mroseUser, text, "/usr/sbin/sendmail", "-i", "-f", "mrose@example.org", to)
}

// newServed makes a machine with a mail server and dewey, configured by a section of its page.
func newServed(t *testing.T, s *server, heading string) *machine {
	t.Helper()
	m := newMachine(t, s.base)
	s.setUp(m)
	m.configure(readPage(t, s.page), heading)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the mail server's log:\n%s", s.log(m))
		}
	})
	s.start(m)
	return m
}
