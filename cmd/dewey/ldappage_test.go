package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What Debian's package makes of the answers "example.org" and "admin's" to its questions; certificates are added for a
// directory on another machine.
const (
	debianSlapd = "/usr/share/slapd/slapd.init.ldif"
	slapdBase   = "dn: dc=example,dc=org\nobjectClass: top\nobjectClass: dcObject\nobjectClass: organization\no: example.org\ndc: example\n"
	slapdTLS    = "dn: cn=config\nobjectClass: olcGlobal\nolcTLSCertificateFile: FOLDER/ldap.crt\nolcTLSCertificateKeyFile: FOLDER/ldap.key\n"
)

// A user who is in no group.
const outsider = "dn: uid=zoe,ou=people,dc=example,dc=org\nobjectClass: inetOrgPerson\nuid: zoe\ncn: zoe\nsn: zoe\nmail: zoe@example.org\nuserPassword: zoes\n"

// A slapd is Debian's, with its own configuration, in a folder.
type slapd struct {
	t                      *testing.T
	folder, socket, secure string // its ldapi:// as a path, and host:port of ldaps://
	cmd                    *exec.Cmd
}

func newSlapd(t *testing.T, folder string) *slapd {
	t.Helper()
	initial, err := os.ReadFile(debianSlapd)
	if err != nil {
		t.Fatalf("%v: install the package slapd", err)
	}
	authority := certified(t, folder, "ldap-ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil)
	certified(t, folder, "ldap", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, &authority)
	if err := os.Rename(filepath.Join(folder, "ldap-ca.crt"), filepath.Join(folder, "ldap-ca.pem")); err != nil {
		t.Fatal(err)
	}
	d := &slapd{t: t, folder: folder, socket: filepath.Join(folder, "ldapi"), secure: unused(t)}
	text := strings.NewReplacer("@SUFFIX@", "dc=example,dc=org", "@PASSWORD@", "admin's", "/var/run/slapd/", folder+"/", "/var/lib/ldap", folder+"/db",
		"dn: cn=config\nobjectClass: olcGlobal\n", strings.ReplaceAll(slapdTLS, "FOLDER", folder)).Replace(string(initial))
	for name, text := range map[string]string{"config": text, "base": slapdBase} {
		write(t, filepath.Join(folder, name), text)
	}
	d.program("install", "-d", "-m", "0700", "db", "slapd.d")
	d.program("/usr/sbin/slapadd", "-n", "0", "-F", "slapd.d", "-l", "config")
	d.program("/usr/sbin/slapadd", "-n", "1", "-F", "slapd.d", "-l", "base")
	d.run()
	t.Cleanup(d.stop)
	return d
}

// program runs one to its end, in the folder.
func (d *slapd) program(name string, args ...string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = d.folder
	if out, err := cmd.CombinedOutput(); err != nil {
		d.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// run starts it, and waits until it listens.
func (d *slapd) run() {
	d.t.Helper()
	d.cmd = exec.CommandContext(context.WithoutCancel(d.t.Context()), "/usr/sbin/slapd", "-F", filepath.Join(d.folder, "slapd.d"), "-d", "0",
		"-h", ldapi(d.socket)+" ldaps://"+d.secure)
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("tcp", d.secure)
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(end) {
			d.t.Fatalf("slapd: %v", err)
		}
	}
}

func (d *slapd) stop() {
	_ = d.cmd.Process.Kill()
	_ = d.cmd.Wait() // the second time it says that there is none
}

// ldapi is the URL of a socket as OpenLDAP's programs have it.
func ldapi(socket string) string { return "ldapi://" + strings.ReplaceAll(socket, "/", "%2F") }

// unused returns an address of this machine where nobody listens.
func unused(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// An ldapLogin is what a name and a password come to.
type ldapLogin struct{ user, password, want string }

// docs/LDAP.md from its beginning to its end as root would follow it: its files, its commands, and each of its configurations
// in a server, with nothing put in but the machine's names, and nobody for vmail.
func TestLDAPPage(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("the page's commands are root's: run this test as root")
	}
	folder, err := os.MkdirTemp("", "dewey-ldap") // t.TempDir lies in a folder that is root's alone
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	d := newSlapd(t, folder)
	write(t, filepath.Join(folder, "admin"), "admin's")
	program, err := static()
	if err != nil {
		t.Fatal(err)
	}
	machine := strings.NewReplacer("/etc/dewey", folder, "/var/lib/dewey", folder+"/data", "/var/vmail", folder+"/vmail", "-o vmail -g vmail", "-o nobody", `user = "vmail"`, `user = "nobody"`,
		"ldapi:///run/slapd/ldapi", "ldapi://"+d.socket, "ldapi:/// ", ldapi(d.socket)+" ", " -W ", " -y admin ",
		"ldap1.example.org", unused(t), "ldap2.example.org", d.secure, `":110"`, `"127.0.0.1:0"`, `":995"`, `"127.0.0.1:0"`)
	right := []ldapLogin{{"mrose", "a secret", "+OK"}, {"MRose", "a secret", "+OK"}, {"m.rose@example.org", "a secret", "+OK"}}
	wrong := []ldapLogin{{"mrose", "another", "-ERR [AUTH]"}, {"mrose", "", "-ERR"}, {"ghost", "a secret", "-ERR [AUTH]"}, {"*", "a secret", "-ERR [AUTH]"}}
	all := slices.Concat(right, wrong)
	zoe := []ldapLogin{{"zoe", "zoes", "+OK"}}
	addresses := []string{"mrose@example.org 250", "m.rose@example.org 250", "zoe@example.org 250", "ghost@example.org 550", "mrose@example.net 550"}
	configurations := []struct {
		name, maildir string
		logins        []ldapLogin
		addresses     []string
		told          []string // by `dewey auth test`
	}{
		{"by bind", "vmail/mrose", slices.Concat(all, zoe), addresses, []string{"ldap: accepted", "mrose"}},
		{"TLS, and a server that is down", "vmail/mrose", slices.Concat(all, zoe), addresses, []string{"ldap: accepted"}},
		{"groups", "vmail/mrose", slices.Concat(all, []ldapLogin{{"zoe", "zoes", "-ERR [AUTH]"}}), addresses, []string{"ldap: accepted"}},
		{
			"path and quota", "vmail/first/mrose/Maildir", all,
			[]string{"mrose@example.org 250", "m.rose@example.org 250", "ghost@example.org 550"},
			[]string{"ldap: accepted", folder + "/vmail/first/mrose/Maildir", "2147483648 octets, 10000 messages"},
		},
		{"without a search", "vmail/mrose", slices.Concat(wrong, right[:2], zoe), []string{"mrose 250", "mrose@example.org 250", "mrose@example.net 250", "zoe 250", "ghost 550"}, []string{"ldap: accepted"}},
		{"by lookup", "vmail/mrose", slices.Concat(all, zoe), addresses, []string{"ldap: accepted"}},
		{name: "Active Directory"}, // TestPagesOfBackends takes it
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "LDAP.md"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(folder, "dewey.toml")
	done := 0
	for _, m := range regexp.MustCompile("(?s)(?:`([^`\n]+\\.ldif)`[^`]*?)?\n```(ldif|toml|sh)\n(.*?)\n```\n").FindAllStringSubmatch(string(text), -1) {
		block := machine.Replace(m[3]) + "\n"
		switch m[2] {
		case "ldif":
			if m[1] == "" {
				t.Fatalf("which file is this?\n%s", block)
			}
			write(t, filepath.Join(folder, m[1]), block)
			if m[1] == "users.ldif" {
				block += "\n" + outsider
				write(t, filepath.Join(folder, m[1]), block)
			}
		case "sh":
			// This machine has the packages and no user of mail, and the server is for below.
			block = regexp.MustCompile(`(?m)^(apt-get|dpkg-reconfigure|useradd|dewey serve) .*$`).ReplaceAllString(block, "")
			ldapPageRuns(t, folder, program, block)
		case "toml":
			if done == len(configurations) {
				t.Fatalf("the page has more configurations than %d", done)
			}
			c := configurations[done]
			done++
			if c.logins == nil {
				continue
			}
			write(t, file, block)
			out := ldapPageRuns(t, folder, program, "dewey auth test --config "+file+" mrose\n")
			for _, words := range c.told {
				if !strings.Contains(out, words) {
					t.Errorf("%s: no %q in\n%s", c.name, words, out)
				}
			}
			p := startStatic(t, "--config", file, "--set", "lmtp.listen=127.0.0.1:0")
			in := field(p.wait("key=lmtp.listen"), "address")
			pop := field(p.wait("key=pop3.listen"), "address")
			pops := field(p.wait("key=pop3s.listen"), "address")
			lmtp := lmtpClient(t, "tcp", in)
			lmtp.say("MAIL FROM:<>", "250")
			for _, a := range c.addresses {
				address, code, _ := strings.Cut(a, " ")
				lmtp.say("RCPT TO:<"+address+">", code)
			}
			lmtp.say("RSET", "250")
			lmtp.say("MAIL FROM:<>", "250")
			lmtp.say("RCPT TO:<"+strings.Fields(c.addresses[0])[0]+">", "250")
			lmtp.say("DATA", "354")
			lmtp.say("Subject: "+c.name+"\r\n\r\nbody\r\n.", "250")
			lmtp.say("QUIT", "221")
			if found, _ := filepath.Glob(filepath.Join(folder, c.maildir, "new", "*")); len(found) != 1 {
				t.Errorf("%s: %d messages in %s", c.name, len(found), c.maildir)
			}
			for _, l := range c.logins {
				wantLogin(t, pops, false, l)
			}
			wantLogin(t, pop, true, right[0])
			reader := secure(t, pops, false, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // its own certificate
			reader.ok("USER mrose")
			reader.ok("PASS a secret", "1 message")
			reader.ok("DELE 1")
			reader.ok("QUIT")
			for _, over := range []*client{reader, lmtp} { // the server waits for these to close
				_ = over.conn.Close()
			}
			if strings.Contains(block, "remember_outage") { // the last server is down as well
				d.stop()
				wantLogin(t, pops, false, right[0])
				wantLogin(t, pops, false, ldapLogin{"mrose", "another", "-ERR [SYS/TEMP]"})
				d.run()
			}
			p.signal(syscall.SIGTERM)
			if code := p.end(); code != 0 {
				t.Errorf("%s: code %d", c.name, code)
			}
		}
	}
	if done != len(configurations) {
		t.Errorf("%d configurations", done)
	}
}

// ldapPageRuns has a shell run lines of the page, and returns what they say. What asks for a password is told mrose's.
func ldapPageRuns(t *testing.T, folder, program, lines string) string {
	t.Helper()
	if _, err := exec.LookPath("ldapadd"); err != nil {
		t.Fatalf("%v: install the package ldap-utils", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-ec", lines) //nolint:gosec // the page's
	cmd.Dir, cmd.Stdin = folder, strings.NewReader("a secret\n")
	cmd.Env = append(os.Environ(), "LDAPNOINIT=1", "PATH="+filepath.Dir(program)+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s%v\n%s", lines, err, out)
	}
	return string(out)
}

// wantLogin tries a login in TLS.
func wantLogin(t *testing.T, address string, stls bool, l ldapLogin) {
	t.Helper()
	c := secure(t, address, stls, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // its own certificate
	defer c.conn.Close()
	c.ok("USER " + l.user)
	fmt.Fprintf(c.conn, "PASS %s\r\n", l.password)
	if got := c.read(); !strings.HasPrefix(got, l.want) {
		t.Errorf("%s with %q: %q, want %q", l.user, l.password, got, l.want)
	}
}
