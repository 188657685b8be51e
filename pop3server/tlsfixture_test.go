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
	below := &records{Conn: v.Conn}
	c := tls.Client(below, config)
	if err := c.Handshake(); err != nil {
		t.Fatalf("handshake: %v", err)
	}
	v.Conn, v.in = underTLS{c, below}, bufio.NewReader(c)
	return c
}

// records looks at the TLS records that come, of which it remembers the last. crypto/tls reads io.EOF at the
// end of a record, with a close_notify or without.
type records struct {
	net.Conn
	header [5]byte
	have   int // octets of header
	left   int // octets of the record
}

func (r *records) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	for _, o := range p[:n] {
		if r.left > 0 {
			r.left--
			continue
		}
		r.have %= len(r.header)
		r.header[r.have] = o
		if r.have++; r.have == len(r.header) {
			r.left = int(r.header[3])<<8 | int(r.header[4])
		}
	}
	return n, err
}

// notified says whether the last record is an alert: under TLS 1.3, where its type is secret, by its 2 octets, a
// type and 16 octets of tag. RFC 8446 sections 5.2 and 6.
func (r *records) notified() bool {
	length := int(r.header[3])<<8 | int(r.header[4])
	return r.left == 0 && (r.header[0] == 21 || r.header[0] == 23 && length == 19)
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
	below *records
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

// rest is all that still comes, and how it ends: io.EOF after a close_notify.
func (v *visitor) rest(t testing.TB) (string, error) {
	t.Helper()
	got, err := io.ReadAll(v.in)
	u, ok := v.Conn.(underTLS)
	switch {
	case err != nil:
	case !ok || u.below.notified():
		err = io.EOF
	default:
		err = io.ErrUnexpectedEOF
	}
	return string(got), err
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
	c := make(chan pop3server.End, 1000)
	s.Hooks.Closed = func(_ pop3server.Session, e pop3server.End) { c <- e }
	return c
}
