package pop3server_test

import (
	"bufio"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"dewey/pop3server"
)

// certificate makes a certificate that signs itself. It is valid in a synctest bubble too, where time begins in
// the year 2000.
func certificate(name string, key crypto.Signer, by x509.SignatureAlgorithm) tls.Certificate {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2090, 1, 1, 0, 0, 0, 0, time.UTC),
		IsCA: true, BasicConstraintsValid: true, SignatureAlgorithm: by,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func ecKey(c elliptic.Curve) crypto.Signer {
	key, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

var rsaKey = sync.OnceValue(func() crypto.Signer {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

const host = "mail.example.org"

var (
	p256Cert  = sync.OnceValue(func() tls.Certificate { return certificate(host, ecKey(elliptic.P256()), 0) })
	p384Cert  = sync.OnceValue(func() tls.Certificate { return certificate(host, ecKey(elliptic.P384()), 0) })
	rsaCert   = sync.OnceValue(func() tls.Certificate { return certificate(host, rsaKey(), x509.SHA256WithRSA) })
	rsa512    = sync.OnceValue(func() tls.Certificate { return certificate(host, rsaKey(), x509.SHA512WithRSA) })
	edCert    = sync.OnceValue(func() tls.Certificate { return certificate(host, edKey(), 0) })
	timsCert  = sync.OnceValue(func() tls.Certificate { return certificate("tim", ecKey(elliptic.P256()), 0) })
	otherCert = sync.OnceValue(func() tls.Certificate { return certificate("tim", ecKey(elliptic.P256()), 0) })
)

func edKey() crypto.Signer {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func pool(certs ...tls.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c.Leaf)
	}
	return p
}

func serverTLS() *tls.Config { return &tls.Config{Certificates: []tls.Certificate{p256Cert()}} }

func clientTLS() *tls.Config {
	return &tls.Config{RootCAs: pool(p256Cert(), p384Cert(), rsaCert(), rsa512(), edCert()), ServerName: host}
}

// withTLS lets a bench's server speak TLS.
func withTLS(s *pop3server.Server) { s.TLS = serverTLS() }

// handshake puts the visitor under TLS.
func (v *visitor) handshake(t testing.TB, config *tls.Config) *tls.Conn {
	t.Helper()
	c := tls.Client(v.Conn, config)
	if err := c.Handshake(); err != nil {
		t.Fatalf("handshake: %v", err)
	}
	v.Conn, v.in = underTLS{c, v.Conn}, bufio.NewReader(c)
	return c
}

func (v *visitor) stls(t testing.TB, config *tls.Config) *tls.Conn {
	t.Helper()
	if got := v.say(t, "STLS"); got != "+OK begin TLS" {
		t.Fatalf("STLS: %q", got)
	}
	return v.handshake(t, config)
}

// underTLS closes without a close_notify, which could block on a pipe.
type underTLS struct {
	*tls.Conn
	below net.Conn
}

func (u underTLS) Close() error { return u.below.Close() }

// serveTLS lets the bench's server serve one more listener, by ServeTLS.
func (b *bench) serveTLS(t *testing.T) *bench {
	t.Helper()
	implicit := &bench{listener: newListener(), srv: b.srv, mail: b.mail, log: b.log, end: b.end}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := b.srv.ServeTLS(implicit.listener); !errors.Is(err, pop3server.ErrServerClosed) {
			t.Errorf("ServeTLS returned %v", err)
		}
	}()
	implicit.end = sync.OnceFunc(func() { b.end(); <-done })
	t.Cleanup(implicit.end)
	return implicit
}

// truncated says how the visitor's TLS connection ended: io.EOF is a close_notify.
func (v *visitor) rest(t testing.TB) (string, error) {
	t.Helper()
	var got []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := v.in.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil {
			return string(got), err
		}
	}
}

// closedClean says that nothing more came but a close_notify.
func (v *visitor) closedClean(t testing.TB) {
	t.Helper()
	if got, err := v.rest(t); got != "" || err != io.EOF {
		t.Errorf("%q, %v; want a close_notify alone", got, err)
	}
}

// ends lets a bench tell how its sessions ended.
func ends(s *pop3server.Server) chan pop3server.End {
	c := make(chan pop3server.End, 100)
	s.Hooks.Closed = func(_ pop3server.Session, e pop3server.End) { c <- e }
	return c
}
