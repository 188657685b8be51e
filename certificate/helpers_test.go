package certificate

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// log keeps what was logged, all levels.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *log) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// count counts the lines at or above WARN that contain s.
func (l *log) count(s string) (n int) {
	for line := range strings.Lines(l.String()) {
		if !strings.Contains(line, "level=DEBUG") && strings.Contains(line, s) {
			n++
		}
	}
	return n
}

// noSecrets fails if the log has any line of any of the keys in the files.
func (l *log) noSecrets(t testing.TB, keys ...string) {
	t.Helper()
	if strings.Contains(l.String(), "PRIVATE KEY") {
		t.Errorf("a key in the log: %s", l.String())
	}
	for _, name := range keys {
		for line := range strings.Lines(string(read(t, name))) {
			if line = strings.TrimSpace(line); !strings.HasPrefix(line, "-----") && len(line) > 10 && strings.Contains(l.String(), line) {
				t.Errorf("a key in the log: %s", l.String())
			}
		}
	}
}

// authority is a CA for tests.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pem  []byte
}

var testRSA = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "test CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// issue returns the PEM forms of a certificate (without chain) and its key.
func (a *authority) issue(t testing.TB, key crypto.Signer, template *x509.Certificate) (cert, keyPEM []byte) {
	t.Helper()
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(100*24*time.Hour)
	}
	if template.ExtKeyUsage == nil {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

// pair writes a certificate with its chain, and its key, under a stem in dir.
func (a *authority) pair(t testing.TB, dir, stem string, key crypto.Signer, names ...string) Pair {
	t.Helper()
	cert, keyPEM := a.issue(t, key, &x509.Certificate{DNSNames: names})
	p := Pair{filepath.Join(dir, stem+".pem"), filepath.Join(dir, stem+"-key.pem")}
	write(t, p.Certificate, append(cert, a.pem...))
	write(t, p.Key, keyPEM)
	return p
}

func write(t testing.TB, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func mustOpen(t testing.TB, o Options) (*Keeper, *log) {
	t.Helper()
	l := new(log)
	if o.Logger == nil {
		o.Logger = l.logger()
	}
	k, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return k, l
}

// connect returns the ends of a connection over TCP. A net.Pipe has no buffer: one side's alert meets the
// other's last message, and both wait.
func connect() (server, client net.Conn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		return nil, nil, err
	}
	if server, err = l.Accept(); err != nil {
		client.Close()
		return nil, nil, err
	}
	_ = server.SetDeadline(time.Now().Add(20 * time.Second))
	_ = client.SetDeadline(time.Now().Add(20 * time.Second))
	return server, client, nil
}

// shake does a handshake, and reads an octet, so that the client has its ticket.
func shake(server, client *tls.Config) (tls.ConnectionState, error) {
	a, b, err := connect()
	if err != nil {
		return tls.ConnectionState{}, err
	}
	return shakeOver(a, b, server, client)
}

func shakeOver(a, b net.Conn, server, client *tls.Config) (tls.ConnectionState, error) {
	defer b.Close()
	go func() {
		defer a.Close()
		c := tls.Server(a, server)
		if c.Handshake() == nil {
			_, _ = c.Write([]byte{'+'})
		}
	}()
	c := tls.Client(b, client)
	if err := c.Handshake(); err != nil {
		return tls.ConnectionState{}, err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return c.ConnectionState(), err
}

func mustShake(t testing.TB, server, client *tls.Config) tls.ConnectionState {
	t.Helper()
	cs, err := shake(server, client)
	if err != nil {
		t.Fatal(err)
	}
	return cs
}

// wrapped is what a server does with TLS(): clone it once, and wrap GetConfigForClient.
func wrapped(base *tls.Config, saw func(leaf *x509.Certificate)) *tls.Config {
	c := base.Clone()
	original := c.GetConfigForClient
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		result, err := original(hello)
		if err != nil || result == nil {
			return result, err
		}
		cert, err := result.GetCertificate(hello)
		if err == nil {
			saw(cert.Leaf)
		}
		return result, err
	}
	return c
}

// eventually waits for something that another goroutine or process does.
func eventually(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, limit)
		}
	}
}
