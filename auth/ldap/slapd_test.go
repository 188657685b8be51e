package ldap_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dewey/auth/ldap"
	"dewey/auth/scheme"
)

const (
	service         = "cn=dewey,dc=example,dc=org"
	servicePassword = "the service's"
	people          = "ou=people,dc=example,dc=org"
)

// A directory is a slapd with users of all sorts.
type directory struct {
	t       *testing.T
	dir     string
	port    int // of ldap://
	tlsPort int
	socket  string
	ca      []byte
	cmd     *exec.Cmd
	urls    string
}

const slapdConf = `
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
attributetype ( 1.3.6.1.4.1.55555.1.1 NAME 'mailHome' EQUALITY caseExactMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
attributetype ( 1.3.6.1.4.1.55555.1.2 NAME 'mailQuota' EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.55555.1.3 NAME 'mailMessages' EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.55555.1.4 NAME 'login' EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
objectclass ( 1.3.6.1.4.1.55555.2.1 NAME 'mailUser' SUP top AUXILIARY MAY ( mailHome $ mailQuota $ mailMessages $ login ) )
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload ppolicy
moduleload pw-sha2
moduleload argon2
pidfile DIR/pid
sizelimit 100
TLSCACertificateFile DIR/ca.pem
TLSCertificateFile DIR/cert.pem
TLSCertificateKeyFile DIR/key.pem
# Only the account reads: were a search made as a user, it would find nobody.
access to attrs=userPassword by dn.exact="cn=dewey,dc=example,dc=org" read by anonymous auth by * none
access to dn.subtree="ou=own,dc=example,dc=org" by dn.exact="cn=dewey,dc=example,dc=org" read by users read by anonymous auth by * none
access to * by dn.exact="cn=dewey,dc=example,dc=org" read by anonymous auth by * none
database mdb
suffix "dc=example,dc=org"
rootdn "cn=root,dc=example,dc=org"
directory DIR/db
maxsize 16777216
overlay ppolicy
ppolicy_default "cn=policy,dc=example,dc=org"
`

// An entry is its name and its attributes, each "name: value".
type entry struct {
	dn         string
	attributes []string
}

// ldif writes all in base64, as values may be anything.
func ldif(entries []entry) string {
	var b strings.Builder
	line := func(name, value string) {
		fmt.Fprintf(&b, "%s:: %s\n", name, base64.StdEncoding.EncodeToString([]byte(value)))
	}
	for _, e := range entries {
		line("dn", e.dn)
		for _, a := range e.attributes {
			name, value, _ := strings.Cut(a, ": ")
			line(name, value)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func person(in, rdn string, attributes ...string) entry {
	return entry{rdn + "," + in, append([]string{"objectClass: inetOrgPerson", "objectClass: mailUser", "cn: x", "sn: x"}, attributes...)}
}

// hashed returns a value of userPassword, as OpenLDAP names the scheme.
func hashed(t *testing.T, as, name, password string) string {
	t.Helper()
	text, err := scheme.All.Make(name, password)
	if err != nil {
		t.Fatal(err)
	}
	return "userPassword: {" + as + "}" + text[strings.Index(text, "}")+1:]
}

func users(t *testing.T) []entry {
	const own = "ou=own,dc=example,dc=org"
	list := []entry{
		{"dc=example,dc=org", []string{"objectClass: dcObject", "objectClass: organization", "o: x", "dc: example"}},
		{people, []string{"objectClass: organizationalUnit", "ou: people"}},
		{"ou=more," + people, []string{"objectClass: organizationalUnit", "ou: more"}},
		{own, []string{"objectClass: organizationalUnit", "ou: own"}},
		{"ou=groups,dc=example,dc=org", []string{"objectClass: organizationalUnit", "ou: groups"}},
		{"cn=policy,dc=example,dc=org", []string{"objectClass: device", "objectClass: pwdPolicy", "cn: policy", "pwdAttribute: userPassword", "pwdLockout: TRUE", "pwdMaxFailure: 3"}},
		{service, []string{"objectClass: organizationalRole", "objectClass: simpleSecurityObject", "cn: dewey", hashed(t, "SSHA", "SSHA", servicePassword)}},

		person(people, "uid=bob", "uid: bob", "mail: Bob@example.org", "login: Bob", "mailHome: /srv/mail/bob", "mailQuota: 2G", "mailMessages: 1000", hashed(t, "SSHA", "SSHA", "secret of bob")),
		person(people, "uid=alice", "uid: alice", "mailQuota: 0", "mailMessages: 0", "login: alice", hashed(t, "SSHA512", "SSHA512", "secret of alice")),
		person(people, "uid=carol", "uid: carol", "mailQuota: 5000", "login: carol", hashed(t, "CRYPT", "SHA512-CRYPT", "secret of carol")),
		person(people, "uid=dave", "uid: dave", "login: dave", "userPassword: clear of dave"),
		person(people, "uid=erin", "uid: erin", "login: erin", hashed(t, "ARGON2", "ARGON2ID", "secret of erin")),
		person(people, "uid=frank", "uid: frank", "login: frank", hashed(t, "SSHA", "SSHA", "one of frank"), hashed(t, "SHA", "SHA", "other of frank")),
		person(people, "uid=mallory", "uid: mallory", "login: mallory", hashed(t, "SSHA", "SSHA", "secret of mallory")),
		person(people, "uid=locked", "uid: locked", "login: locked", "pwdAccountLockedTime: 000001010000Z", hashed(t, "SSHA", "SSHA", "secret of locked")),
		person(people, "uid=ghost", "uid: ghost", "login: ghost"),
		person(people, "uid=shut", "uid: shut", "login: shut", "userPassword: {CRYPT}!"),
		person(people, "uid=des", "uid: des", "login: des", "userPassword: {CRYPT}abJnggxhB/yWI"),
		person(people, "uid=nohome", "uid: nohome", "login: nohome", "mailHome: /srv/../etc", hashed(t, "SSHA", "SSHA", "secret")),
		person(people, "uid=relative", "uid: relative", "login: relative", "mailHome: mail/x", hashed(t, "SSHA", "SSHA", "secret")),
		person(people, "uid=homes", "uid: homes", "login: homes", "mailHome: /a", "mailHome: /b", hashed(t, "SSHA", "SSHA", "secret")),
		person(people, "uid=noquota", "uid: noquota", "login: noquota", "mailQuota: much", hashed(t, "SSHA", "SSHA", "secret")),
		person(people, "uid=logins", "uid: logins", "login: a", "login: b", hashed(t, "SSHA", "SSHA", "secret")),
		person(people, "uid=nologin", "uid: nologin", hashed(t, "SSHA", "SSHA", "secret")),
		person(people, "uid=twin", "uid: twin", "login: twin", hashed(t, "SSHA", "SSHA", "secret")),
		person("ou=more,"+people, "uid=twin", "uid: twin", "login: twin2", hashed(t, "SSHA", "SSHA", "secret")),
		person("ou=more,"+people, "uid=triplet", "uid: triplet", "login: triplet", hashed(t, "SSHA", "SSHA", "secret")),
		person("ou=more,"+people, "uid=triplet+cn=y", "cn: y", "uid: triplet", "login: triplet", hashed(t, "SSHA", "SSHA", "secret")),
		person(people, "uid=triplet", "uid: triplet", "login: triplet", hashed(t, "SSHA", "SSHA", "secret")),

		person(own, "uid=olga", "uid: olga", "login: olga", "mailHome: /srv/mail/olga", hashed(t, "SSHA", "SSHA", "secret of olga")),
		{"cn=mail,ou=groups,dc=example,dc=org", []string{"objectClass: groupOfNames", "cn: mail", "member: uid=bob," + people, "member: uid=alice," + people, "member: uid=olga," + own}},
	}
	for _, name := range hostile {
		list = append(list, person(own, "uid="+escapedRDN(name), "uid: "+name, "login: "+name, hashed(t, "SSHA", "SSHA", "secret")))
	}
	return list
}

// hostile are names that mean something in filters, or in names of entries.
var hostile = []string{`a*b`, `)(uid=*`, `back\slash`, `par(en)`, `c,o+m=m"a;<x>`, `#sharp`, `*`, `{user}`, `bob)(|(uid=*`, `x,ou=people`}

// escapedRDN escapes every octet: what the package makes of a name must mean the same.
func escapedRDN(name string) string {
	var b strings.Builder
	for _, octet := range []byte(name) {
		fmt.Fprintf(&b, `\%02x`, octet)
	}
	return b.String()
}

// start runs a slapd with the users above, until the test's end.
func start(t *testing.T) *directory {
	t.Helper()
	for _, program := range []string{"/usr/sbin/slapd", "/usr/sbin/slapadd"} {
		if _, err := os.Stat(program); err != nil {
			t.Fatalf("%v: install the package slapd", err)
		}
	}
	d := &directory{t: t, dir: t.TempDir(), port: freePort(t), tlsPort: freePort(t)}
	d.socket = filepath.Join(d.dir, "ldapi")
	var cert, key []byte
	d.ca, cert, key = certificates(t, "127.0.0.1")
	for name, data := range map[string]string{
		"ca.pem": string(d.ca), "cert.pem": string(cert), "key.pem": string(key),
		"slapd.conf": strings.ReplaceAll(slapdConf, "DIR", d.dir), "data.ldif": ldif(users(t)),
	} {
		if err := os.WriteFile(filepath.Join(d.dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(d.dir, "db"), 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("/usr/sbin/slapadd", "-q", "-f", filepath.Join(d.dir, "slapd.conf"), "-l", filepath.Join(d.dir, "data.ldif")).CombinedOutput(); err != nil {
		t.Fatalf("slapadd: %v\n%s", err, out)
	}
	d.urls = fmt.Sprintf("ldap://127.0.0.1:%d ldaps://127.0.0.1:%d ldapi://%s", d.port, d.tlsPort, strings.ReplaceAll(d.socket, "/", "%2F"))
	d.run()
	t.Cleanup(d.kill)
	return d
}

// run starts slapd and waits until it listens.
func (d *directory) run() {
	d.t.Helper()
	log, err := os.Create(filepath.Join(d.dir, "log"))
	if err != nil {
		d.t.Fatal(err)
	}
	defer log.Close()
	d.cmd = exec.Command("/usr/sbin/slapd", "-f", filepath.Join(d.dir, "slapd.conf"), "-h", d.urls, "-d", "0")
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	until(d.t, "slapd listens", func() bool {
		c, err := net.Dial("unix", d.socket)
		if err == nil {
			c.Close()
		} else if log, _ := os.ReadFile(log.Name()); len(log) > 0 {
			d.t.Fatalf("slapd: %s", log)
		}
		return err == nil
	})
}

func (d *directory) kill() {
	if d.cmd != nil {
		_ = d.cmd.Process.Signal(syscall.SIGCONT)
		_ = d.cmd.Process.Kill()
		_ = d.cmd.Wait()
		d.cmd = nil
	}
}

// signal stops or kills slapd, and waits until it is so; or lets it go on.
func (d *directory) signal(s syscall.Signal) {
	process := d.cmd.Process
	if err := process.Signal(s); err != nil {
		d.t.Error(err)
	}
	for deadline := time.Now().Add(10 * time.Second); s != syscall.SIGCONT; time.Sleep(time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", process.Pid))
		if _, state, _ := strings.Cut(string(stat), ") "); err != nil || state[0] == 'T' || state[0] == 'Z' {
			return
		}
		if time.Now().After(deadline) {
			d.t.Errorf("slapd still runs after %v", s)
			return
		}
	}
}

func (d *directory) url() string { return fmt.Sprintf("ldap://127.0.0.1:%d", d.port) }

// config finds users by a search, with the service account.
func (d *directory) config() ldap.Config {
	return ldap.Config{
		URLs: []string{d.url()}, BindDN: service, BindPassword: servicePassword,
		Base: people, Filter: "(uid={user})", UserAttribute: "login",
		HomeAttribute: "mailHome", QuotaAttribute: "mailQuota", QuotaMessagesAttribute: "mailMessages",
	}
}

// freePort returns one that the kernel gives to no connection meanwhile.
func freePort(t *testing.T) int {
	t.Helper()
	for {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10_000+mathrand.IntN(20_000)))
		if err == nil {
			defer l.Close()
			return l.Addr().(*net.TCPAddr).Port
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
	}
}

// until waits for a condition, ten seconds at the most.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within ten seconds: %s", what)
		}
	}
}

// certificates makes an authority and a server's certificate for an address, in PEM.
func certificates(t *testing.T, address string) (ca, cert, key []byte) {
	t.Helper()
	fatal := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fatal(err)
	template := x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, &template, &template, &caKey.PublicKey, caKey)
	fatal(err)
	ownKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fatal(err)
	own := template
	own.SerialNumber, own.Subject, own.IsCA, own.IPAddresses = big.NewInt(2), pkix.Name{CommonName: "server"}, false, []net.IP{net.ParseIP(address)}
	der, err := x509.CreateCertificate(rand.Reader, &own, &template, &ownKey.PublicKey, caKey)
	fatal(err)
	keyDER, err := x509.MarshalECPrivateKey(ownKey)
	fatal(err)
	block := func(kind string, data []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}) }
	return block("CERTIFICATE", caDER), block("CERTIFICATE", der), block("EC PRIVATE KEY", keyDER)
}
