package clients

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"
)

// An authority signs certificates for the tests. Clients are told to believe it, and nobody else.
type authority struct {
	template *x509.Certificate
	key      *ecdsa.PrivateKey
	pem      string // the authority's own certificate
}

// A certificate is one with its private key, both in PEM.
type certificate struct{ chain, key string }

// authorities makes two, once: the tests' own, and one that no client knows.
var authorities = sync.OnceValues(func() (own, unknown *authority) {
	return newAuthority("Tests of dewey"), newAuthority("Unknown to the clients")
})

func newAuthority(name string) *authority {
	a := &authority{template: template(name), key: newKey()}
	a.template.IsCA = true
	a.template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	a.pem = a.sign(a.template, &a.key.PublicKey)
	return a
}

// forServer makes a certificate for the names under which the tests reach a server.
func (a *authority) forServer() certificate {
	t := template("localhost")
	t.DNSNames = []string{"localhost"}
	t.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	return a.issue(t)
}

// forUser makes a certificate with which the owner of an address logs in.
func (a *authority) forUser(address string) certificate {
	t := template(address)
	t.EmailAddresses = []string{address}
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return a.issue(t)
}

func (a *authority) issue(t *x509.Certificate) certificate {
	key := newKey()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err) // of a key that was just made
	}
	return certificate{a.sign(t, &key.PublicKey), block("PRIVATE KEY", der)}
}

func (a *authority) sign(t *x509.Certificate, key *ecdsa.PublicKey) string {
	der, err := x509.CreateCertificate(rand.Reader, t, a.template, key, a.key)
	if err != nil {
		panic(err) // the templates are those above
	}
	return block("CERTIFICATE", der)
}

func template(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber:          big.NewInt(time.Now().UnixNano()),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
	}
}

func newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err) // cannot happen: rand.Reader does not fail
	}
	return key
}

func block(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// certify gives the client the authority that it is to believe.
func (a *account) certify(t *testing.T, pem string) { t.Helper(); a.ca = a.write(t, "ca.pem", pem) }

// present gives the client a certificate of its own.
func (a *account) present(t *testing.T, c certificate) {
	t.Helper()
	a.cert, a.key = a.write(t, "cert.pem", c.chain), a.write(t, "key.pem", c.key)
}
