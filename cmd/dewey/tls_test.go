package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/md5" //nolint:gosec // APOP and CRAM-MD5 have it
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// secure dials an address and starts TLS, at once or by STLS.
func secure(t *testing.T, address string, stls bool, config *tls.Config) *client {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	c := &client{t: t, conn: conn, in: bufio.NewReader(conn)}
	if stls {
		_ = c.read()
		c.ok("STLS")
	}
	over := tls.Client(conn, config)
	if err := over.Handshake(); err != nil {
		t.Fatal(err)
	}
	c.conn, c.in = over, bufio.NewReader(over)
	if !stls {
		_ = c.read()
	}
	return c
}

// certified makes a certificate and its key in two PEM files; a nil parent makes it sign itself.
func certified(t *testing.T, folder, name string, template *x509.Certificate, parent *tls.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber, _ = rand.Int(rand.Reader, big.NewInt(1<<60))
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	template.Subject = pkix.Name{CommonName: name}
	signer, by := any(key), template
	if parent != nil {
		signer, by = parent.PrivateKey, parent.Leaf
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{".crt": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: secret}} {
		temporary := filepath.Join(folder, name+file+".new")
		if err := os.WriteFile(temporary, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(temporary, filepath.Join(folder, name+file)); err != nil {
			t.Fatal(err)
		}
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// Without any configuration there is TLS on both ports, with a certificate whose fingerprint the log tells and
// which the next start has again.
func TestSelfMadeCertificate(t *testing.T) {
	data := t.TempDir()
	addUser(t, data, "mrose")
	var last string
	for range 2 {
		p := start(t, "dewey", []string{"serve", "--set", "data=" + data, "--set", "pop3.listen=127.0.0.1:0", "--set", "pop3s.listen=127.0.0.1:0"})
		told := field(p.wait("msg=certificate", "self_made=true"), "sha256")
		if last != "" && told != last {
			t.Error("the next start has another certificate")
		}
		last = told
		plain, implicit := field(p.wait("key=pop3.listen"), "address"), field(p.wait("key=pop3s.listen"), "address")
		pool := x509.NewCertPool()
		if pemFile, err := os.ReadFile(filepath.Join(data, "tls", "cert.pem")); err != nil || !pool.AppendCertsFromPEM(pemFile) {
			t.Fatal(err)
		}
		for _, stls := range []bool{true, false} {
			c := secure(t, map[bool]string{true: plain, false: implicit}[stls], stls, &tls.Config{RootCAs: pool, ServerName: "localhost"})
			sum := sha256.Sum256(c.conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Raw)
			if got := strings.ReplaceAll(told, ":", ""); !strings.EqualFold(got, hex.EncodeToString(sum[:])) {
				t.Errorf("told %s, served %x", told, sum)
			}
			c.login("mrose")
			c.ok("QUIT")
			if line, err := c.in.ReadString('\n'); line != "" || err != io.EOF { // and not an unexpected one
				t.Errorf("%q, %v", line, err)
			}
		}
		p.signal(syscall.SIGTERM)
		p.end()
	}
}

// A certificate that is replaced is served without a restart; one that does not fit its key is not, and the log
// says so. Sessions go on.
func TestCertificateIsReplaced(t *testing.T) {
	data, folder := t.TempDir(), t.TempDir()
	addUser(t, data, "mrose")
	template := func() *x509.Certificate { return &x509.Certificate{DNSNames: []string{"localhost"}} }
	first := certified(t, folder, "server", template(), nil)
	p, _ := serve(t, data, "--set", "pop3.listen=", "--set", "pop3s.listen=127.0.0.1:0",
		"--set", "tls.certificate="+filepath.Join(folder, "server.crt"), "--set", "tls.key="+filepath.Join(folder, "server.key"))
	address := field(p.seen[len(p.seen)-1], "address")
	served := func() string {
		c := secure(t, address, false, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the test compares it itself
		return string(c.conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Raw)
	}
	old := secure(t, address, false, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // as above
	if served() != string(first.Certificate[0]) {
		t.Error("another certificate")
	}
	second := certified(t, folder, "server", template(), nil)
	p.signal(syscall.SIGHUP)
	p.wait("msg=reloaded")
	if served() != string(second.Certificate[0]) {
		t.Error("the new certificate is not served")
	}
	if err := os.WriteFile(filepath.Join(folder, "server.key"), []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGHUP)
	p.wait("certificates stay as they were", "server.key")
	if served() != string(second.Certificate[0]) {
		t.Error("the old certificate is not kept")
	}
	old.login("mrose")
	old.ok("QUIT")
}

// EXTERNAL: the user is whom the certificate names, by the rule in the file.
func TestExternal(t *testing.T) {
	data, folder := t.TempDir(), t.TempDir()
	addUser(t, data, "mrose")
	ca := certified(t, folder, "ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil)
	mine := certified(t, folder, "mine", &x509.Certificate{EmailAddresses: []string{"mrose@example.org"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, &ca)
	other := certified(t, folder, "other", &x509.Certificate{EmailAddresses: []string{"nobody@example.org"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, &ca)
	_, address := serve(t, data, "--set", "pop3.listen=127.0.0.1:0", "--set", "pop3s.listen=",
		"--set", "tls.client_ca="+filepath.Join(folder, "ca.crt"), "--set", "tls.client_name=local")
	config := func(certificates ...tls.Certificate) *tls.Config {
		return &tls.Config{Certificates: certificates, InsecureSkipVerify: true} //nolint:gosec // it is the client who is proven
	}
	c := secure(t, address, true, config(mine))
	c.ok("AUTH EXTERNAL =", "0 messages")
	c.ok("QUIT")
	for _, certificates := range [][]tls.Certificate{{other}, nil} {
		c = secure(t, address, true, config(certificates...))
		fmt.Fprint(c.conn, "AUTH EXTERNAL =\r\n")
		if reply := c.read(); !strings.HasPrefix(reply, "-ERR") {
			t.Error(reply)
		}
		c.login("mrose")
		c.ok("QUIT")
	}
}

// A named proxy's header tells who the client is; a proxy without one, and one that is not named, are cut off.
func TestProxy(t *testing.T) {
	data := t.TempDir()
	addUser(t, data, "mrose")
	p, address := serve(t, data, "--set", "pop3.listen=127.0.0.1:0", "--set", "pop3s.listen=", "--set", "login.proxy_networks=127.0.0.2", "--set", "login.plaintext=always")
	from := func(source, first string) (*client, string) {
		d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
		conn, err := d.DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(patience))
		fmt.Fprint(conn, first)
		c := &client{t: t, conn: conn, in: bufio.NewReader(conn)}
		line, _ := c.in.ReadString('\n')
		return c, line
	}
	const header = "PROXY TCP4 192.0.2.7 192.0.2.1 4711 110\r\n"
	c, greeting := from("127.0.0.2", header)
	if !strings.HasPrefix(greeting, "+OK") {
		t.Fatal(greeting)
	}
	c.login("mrose")
	c.ok("QUIT")
	p.wait(`msg="logged in"`, "remote=192.0.2.7:4711")
	if _, line := from("127.0.0.2", "CAPA\r\n"); line != "" {
		t.Error(line)
	}
	p.wait(`msg="connection refused"`, "remote=127.0.0.2:")
	c, _ = from("127.0.0.1", header+"USER mrose\r\n")
	c.closed()
	p.wait(`msg="connection refused"`, "remote=127.0.0.1:", "PROXY")
}

// No secret is in the log at its finest level, whatever way in a client takes, and whether it gets in.
func TestNoSecretInTheLog(t *testing.T) {
	data := t.TempDir()
	addUser(t, data, "mrose")
	p, address := serve(t, data, "--set", "pop3.listen=127.0.0.1:0", "--set", "pop3s.listen=", "--log-level", "debug", "--set", "login.max_delay=0s")
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	var secrets []string
	for _, password := range []string{"tanstaaf", "wr0ngw0rd"} {
		secrets = append(secrets, password, b64(password), b64("\x00mrose\x00"+password))
		for _, try := range []func(c *client, timestamp string) []string{
			func(*client, string) []string { return []string{"USER mrose", "PASS " + password} },
			func(_ *client, timestamp string) []string {
				sum := md5.Sum([]byte(timestamp + password)) //nolint:gosec // RFC 1939
				secrets = append(secrets, hex.EncodeToString(sum[:]))
				return []string{"APOP mrose " + hex.EncodeToString(sum[:])}
			},
			func(*client, string) []string { return []string{"AUTH PLAIN " + b64("\x00mrose\x00"+password)} },
			func(*client, string) []string { return []string{"AUTH LOGIN", b64("mrose"), b64(password)} },
			func(*client, string) []string {
				return []string{"AUTH PLAIN", b64("\x00mrose\x00" + password + "\x00")}
			}, // malformed
			func(*client, string) []string { return []string{"AUTH PLAIN " + b64("\x00mrose\x00"+password) + "!"} },
			func(*client, string) []string {
				return []string{"PASS " + password, "USER mrose " + password, password}
			},
			func(*client, string) []string { return []string{"AUTH SCRAM-SHA-256 " + b64("n,,n=mrose,r="+password)} },
		} {
			conn, err := net.DialTimeout("tcp", address, patience)
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.SetDeadline(time.Now().Add(patience))
			c := &client{t: t, conn: conn, in: bufio.NewReader(conn)}
			greeting := c.read()
			timestamp := greeting[strings.LastIndexByte(greeting, ' ')+1:]
			for _, line := range try(c, timestamp) {
				fmt.Fprintf(conn, "%s\r\n", line)
				_ = c.read()
			}
			_ = conn.Close()
		}
	}
	p.signal(syscall.SIGTERM)
	p.end()
	if !p.saw("login refused", "method=APOP") || !p.saw("logged in", "method=LOGIN") {
		t.Error("what should be refused, or let in, was not")
	}
	for _, line := range p.seen {
		for _, secret := range secrets {
			if strings.Contains(line, secret) {
				t.Errorf("%q in the log: %s", secret, line)
			}
		}
	}
}
