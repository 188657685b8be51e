package mta

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const password = "a secret"

// A dewey is a running one, with the machine's configuration.
type dewey struct {
	*process
	m       *machine
	address string // of POP3
}

// serve starts dewey, outside of the machine.
func (m *machine) serve() *dewey {
	m.t.Helper()
	file := m.serverFile()
	cmd := exec.Command(m.path("/usr/local/bin/dewey"), "serve", "--config", file)
	cmd.Dir = m.root
	d := &dewey{process: start(m.t, cmd), m: m}
	listening := regexp.MustCompile(`msg=listening key=pop3\.listen address=(127\.0\.0\.1:\d+)`)
	wantsLMTP := strings.Contains(m.read("/etc/dewey/dewey.toml"), "[lmtp]")
	await(m.t, "listening", func() bool {
		select {
		case <-d.ended:
			m.t.Fatalf("dewey has ended: %v\n%s", d.err, d)
		default:
		}
		found := listening.FindStringSubmatch(d.String())
		if found == nil || wantsLMTP && !strings.Contains(d.String(), "key=lmtp.listen") {
			return false
		}
		d.address = found[1]
		return true
	})
	return d
}

// curl talks POP3 to dewey, over STLS, and believes the certificate that dewey has made, and no other.
func (d *dewey) curl(user, path string, args ...string) []byte {
	d.t.Helper()
	program, err := exec.LookPath("curl")
	if err != nil {
		d.t.Fatalf("install Debian's package curl (make test does): %v", err)
	}
	_, port, err := net.SplitHostPort(d.address)
	d.m.check(err)
	ctx, cancel := context.WithTimeout(d.t.Context(), time.Minute)
	defer cancel()
	args = append([]string{
		"--silent", "--show-error", "--ssl-reqd", "--cacert", d.m.path("/var/lib/dewey/tls/cert.pem"),
		"--resolve", "mail.example.org:" + port + ":127.0.0.1", "--user", user + ":" + password, "--max-time", "30",
	}, append(args, "pop3://mail.example.org:"+port+"/"+path)...)
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + d.t.TempDir()}
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &stdout, &stderr, 5*time.Second
	if err := cmd.Run(); err != nil {
		d.t.Fatalf("curl: %v\n%s", err, &stderr)
	}
	return stdout.Bytes()
}

// await waits until there are so many messages in a user's Maildir, fetches them all and deletes them.
func (d *dewey) await(user, maildir string, count int) [][]byte {
	d.t.Helper()
	await(d.t, fmt.Sprintf("%d messages for %s", count, user), func() bool { return len(d.m.maildir(maildir)) >= count })
	if list := string(d.curl(user, "")); strings.Count(list, "\n") != count {
		d.t.Errorf("%s has other than %d messages:\n%s", user, count, list)
	}
	out := d.t.TempDir()
	d.curl(user, fmt.Sprintf("[1-%d]", count), "--output", filepath.Join(out, "#1"))
	var messages [][]byte
	for n := range count {
		message, err := os.ReadFile(filepath.Join(out, fmt.Sprint(n+1)))
		d.m.check(err)
		messages = append(messages, message)
	}
	for range count {
		d.curl(user, "", "--head", "--request", "DELE 1")
	}
	return messages
}

// A message is one that is given to sendmail.
type message struct {
	name string
	text []byte
}

func mail(name, body string) message {
	id := strings.ReplaceAll(name, " ", "-")
	return message{name, fmt.Appendf(nil, "From: Mrose <mrose@example.org>\nTo: mrose@example.org\nSubject: %s\n"+
		"Date: Mon, 02 Mar 2026 09:30:00 +0100\nMessage-ID: <%s@example.org>\n\n%s", name, id, body)}
}

// longLine is longer than SMTP allows (RFC 5321 section 4.5.3.1.6).
const longLine = 20_000

func awkwardMessages() []message {
	eightBit := make([]byte, 0, 256*2)
	for c := 1; c < 256; c++ {
		if c != '\r' && c != '\n' {
			eightBit = append(eightBit, byte(c), ' ')
		}
	}
	return []message{
		mail("plain", "Nothing special.\n"),
		mail("dot lines", ".\n..\n...\n....\n.\n\n.\nend\n"),
		mail("dots before words", ".a\n..b\n. c\n.\td\n"),
		mail("body is a dot line", ".\n"),
		mail("ends in a dot", "Stop\n."),
		mail("no line end at the end", "The last line has no end"),
		mail("ends in empty lines", "Gap\n\n\n\n"),
		mail("empty body", ""),
		mail("8-bit octets", string(eightBit)+"\n"),
		mail("UTF-8 body", "Grüße aus Köln — ½ Preis, 日本\n"),
		mail("From line in the body", "Look:\n\nFrom hedda to all\n>From here\nend\n"),
		mail("998 octets", strings.Repeat("0123456789", 100)[:998]+"\nafter it\n"),
		mail("a long line", strings.Repeat("0123456789", longLine/10)+"\nafter it\n"),
		mail("a long line of dots", strings.Repeat(".", longLine)+"\nafter it\n"),
		mail("large", strings.Repeat("..a line of a message of a mebibyte\n", 1<<20/36)),
	}
}

// trace is the fields that those who carry a message write before it.
var trace = regexp.MustCompile(`^(?:(?:Return-[Pp]ath|Delivered-To|X-Original-To|Received|Envelope-to|Delivery-date): [^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*)+`)

// compare checks that the messages came, each once, and as they were sent: with CRLF for LF and a last line end.
func compare(t *testing.T, got [][]byte, want []message) {
	t.Helper()
	found := make(map[string]int)
	for _, text := range got {
		found[string(text[len(trace.Find(text)):])]++
	}
	for _, m := range want {
		sent := strings.ReplaceAll(strings.TrimSuffix(string(m.text), "\n")+"\n", "\n", "\r\n")
		if found[sent] == 0 {
			t.Errorf("%q did not arrive as it was sent", m.name)
			continue
		}
		found[sent]--
	}
	for text, n := range found {
		if n > 0 {
			t.Errorf("%d times, and not sent so: %q … %q", n, text[:min(len(text), 1000)], text[max(0, len(text)-200):])
		}
	}
	for _, text := range got {
		if len(trace.Find(text)) == 0 {
			t.Errorf("no trace before %q", text[:min(len(text), 200)])
		}
	}
}

// maildir lists the files of the messages in a Maildir.
func (m *machine) maildir(name string) (files []string) {
	m.t.Helper()
	for _, sub := range []string{"new", "cur"} {
		found, err := filepath.Glob(filepath.Join(m.path(name), sub, "*"))
		m.check(err)
		files = append(files, found...)
	}
	return files
}
