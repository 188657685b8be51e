package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Over quota by LMTP, at RCPT and after the message, with both words for it; each user by his own quota; and by POP3
// there is room again.
func TestQuotaByLMTP(t *testing.T) {
	for choice, reply := range map[string]string{"reject": "552 5.2.2", "defer": "452 4.2.2"} {
		t.Run(choice, func(t *testing.T) {
			data, file := t.TempDir(), filepath.Join(t.TempDir(), "dewey.toml")
			write := func(path, text string) {
				t.Helper()
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write(file, "mail.quota_messages = 2\nmail.quota_octets = \"64K\"\n")
			write(filepath.Join(data, "users"), "mrose:{PLAIN}tanstaaf\nbob:{PLAIN}x::::::quota_messages=0\nann:{PLAIN}x::::::quota=50\n"+
				"dove:{PLAIN}x::::::userdb_quota_rule=*:storage=1T:messages=1\n")
			p, _ := serve(t, data, "--config", file, "--set", "lmtp.listen=127.0.0.1:0", "--set", "pop3.listen=127.0.0.1:0", "--set", "pop3s.listen=",
				"--set", "lmtp.over_quota="+choice)
			tcp, pop := field(p.saw1(t, "key=lmtp.listen", "address=127"), "address"), field(p.saw1(t, "key=pop3.listen"), "address")
			c := lmtpClient(t, "tcp", tcp)
			mail := func(text string, codes map[string]string) {
				t.Helper()
				c.say("MAIL FROM:<x@example.com>", "250")
				var order []string
				for _, user := range []string{"mrose", "bob", "ann", "dove"} {
					if code, ok := codes[user]; ok {
						c.say("RCPT TO:<"+user+"@example.org>", code)
						if strings.HasPrefix(code, "2") {
							order = append(order, "250")
						}
					}
				}
				if len(order) == 0 {
					c.say("RSET", "250")
					return
				}
				c.say("DATA", "354")
				c.say(text+"\r\n.", order[0])
				for _, code := range order[1:] {
					if line := c.read(); !strings.HasPrefix(line, code+" ") {
						t.Fatalf("%q", line)
					}
				}
			}
			mail("a: b\r\n\r\n1", map[string]string{"mrose": "250", "bob": "250", "dove": "250"})
			mail("a: b\r\n\r\n2", map[string]string{"mrose": "250", "bob": "250", "dove": reply})
			mail("a: b\r\n\r\n3", map[string]string{"mrose": reply, "bob": "250", "dove": reply})
			// That it does not fit in shows when it is there: then the others have it.
			c.say("MAIL FROM:<x@example.com>", "250")
			c.say("RCPT TO:<ann@example.org>", "250")
			c.say("RCPT TO:<bob@example.org>", "250")
			c.say("DATA", "354")
			c.say("a: b\r\n\r\n4\r\n.", reply)
			if line := c.read(); !strings.HasPrefix(line, "250 ") {
				t.Fatalf("%q", line)
			}
			for user, want := range map[string]int{"mrose": 2, "bob": 4, "ann": 0, "dove": 1} {
				if got := len(mails(t, data, user)); got != want {
					t.Errorf("%s has %d messages, want %d", user, got, want)
				}
			}
			s := dial(t, pop)
			s.login("mrose")
			s.ok("STAT", "+OK 2 ")
			mail("", map[string]string{"mrose": reply})
			s.ok("DELE 1")
			s.ok("QUIT")
			mail("a: b\r\n\r\n5", map[string]string{"mrose": "250"})
			mail("", map[string]string{"mrose": reply})
			// A new quota holds from the next message on, without a restart.
			write(file, "mail.quota_messages = 3\n")
			p.signal(syscall.SIGHUP)
			p.wait("msg=reloaded")
			mail("a: b\r\n\r\n6", map[string]string{"mrose": "250"})
			mail("", map[string]string{"mrose": reply})
		})
	}
}
