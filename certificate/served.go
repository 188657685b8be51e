package certificate

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// entry is one certificate as it is served.
type entry struct {
	certificate *tls.Certificate
	fingerprint [sha256.Size]byte
	info        Info
	tickets     *tls.Config // holds the keys of this certificate's tickets, which crypto/tls rotates
	config      *tls.Config // serves this certificate and no other
}

// served is all that is served at one time. It never changes.
type served struct {
	entries []*entry            // as configured
	names   map[string][]*entry // by lower-case name, "*.example.org" among them; preferred ones first
	clients *x509.CertPool
}

// suites are those of TLS 1.2 that encrypt and authenticate in one step, with forward secrecy: Go's own
// choice adds CBC ones. Those of TLS 1.3 are Go's. RFC 9325 section 4.2.
var suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// newServed takes over the tickets of those certificates that were served before, for a look at the
// files must not cost every client a full handshake. Tickets carry client certificates too, so other
// CAs for those mean other tickets.
func newServed(sources []*source, clients *x509.CertPool, minVersion uint16, before *served) *served {
	sv := &served{names: make(map[string][]*entry), clients: clients}
	for _, s := range sources {
		leaf := s.certificate.Leaf
		e := &entry{certificate: s.certificate, fingerprint: sha256.Sum256(leaf.Raw), tickets: &tls.Config{MinVersion: tls.VersionTLS12}}
		e.info = Info{
			Names: names(leaf), NotAfter: leaf.NotAfter, Fingerprint: hex(e.fingerprint),
			SelfMade: s.self, File: s.pair.Certificate,
		}
		if before != nil && before.clients == clients {
			if old := before.find(e.fingerprint); old != nil {
				e.tickets = old.tickets
			}
		}
		e.config = &tls.Config{
			MinVersion:     minVersion,
			CipherSuites:   suites,
			NextProtos:     []string{"pop3"},
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return e.certificate, nil },
			WrapSession:    e.tickets.EncryptTicket,
			UnwrapSession:  e.tickets.DecryptTicket,

			DynamicRecordSizingDisabled: true, // as the server has it for what it is given
		}
		if clients != nil {
			// RFC 8314 section 4.2: asked for only where the server can make use of one.
			e.config.ClientAuth = tls.VerifyClientCertIfGiven
			e.config.ClientCAs = clients
		}
		sv.entries = append(sv.entries, e)
		for _, name := range e.info.Names {
			name = normal(name)
			if !slices.Contains(sv.names[name], e) {
				sv.names[name] = append(sv.names[name], e)
			}
		}
	}
	for _, list := range sv.names {
		// Signing with ECDSA costs a tenth of RSA, and is what all but very old clients take.
		slices.SortStableFunc(list, func(a, b *entry) int { return usesRSA(a) - usesRSA(b) })
	}
	return sv
}

func usesRSA(e *entry) int {
	if _, ok := e.certificate.Leaf.PublicKey.(*rsa.PublicKey); ok {
		return 1
	}
	return 0
}

func (sv *served) find(fingerprint [sha256.Size]byte) *entry {
	for _, e := range sv.entries {
		if e.fingerprint == fingerprint {
			return e
		}
	}
	return nil
}

func (sv *served) has(fingerprint [sha256.Size]byte) bool { return sv.find(fingerprint) != nil }

// choose finds the certificate for a client: for the same hello always the same one.
func (sv *served) choose(hello *tls.ClientHelloInfo) *entry {
	nameless := *hello // SupportsCertificate would check the name too, and by stricter rules
	nameless.ServerName = ""
	return sv.forName(hello.ServerName, func(c *tls.Certificate) bool { return nameless.SupportsCertificate(c) == nil })
}

// forName finds the certificate for a name: the exact name wins over a wildcard, one that is valid now
// over one that is not, ECDSA over RSA, the earlier over the later. If there is none, the first of all
// is served, or else the first that the client supports.
func (sv *served) forName(name string, supports func(*tls.Certificate) bool) *entry {
	usable := func(e *entry) bool { return supports == nil || supports(e.certificate) }
	name = normal(name)
	list := sv.names[name]
	if _, parent, ok := strings.Cut(name, "."); ok {
		list = append(slices.Clip(list), sv.names["*."+parent]...)
	}
	fits := len(list) > 0
	if !fits {
		list = sv.entries
	}
	if len(list) == 1 {
		return list[0] // no need to ask whether it is the best
	}
	if fits {
		now := time.Now()
		if e := pick(list, func(e *entry) bool { return usable(e) && validAt(e.certificate.Leaf, now) }); e != nil {
			return e
		}
	}
	if e := pick(list, usable); e != nil {
		return e
	}
	return list[0]
}

func pick(list []*entry, ok func(*entry) bool) *entry {
	if i := slices.IndexFunc(list, ok); i >= 0 {
		return list[i]
	}
	return nil
}

func validAt(c *x509.Certificate, now time.Time) bool {
	return !now.Before(c.NotBefore) && !now.After(c.NotAfter)
}

// normal is how names are compared.
func normal(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// names are those of a server's certificate. Only one that has none at all, as some made by hand, is
// known by its common name.
func names(c *x509.Certificate) []string {
	list := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		list = append(list, ip.String())
	}
	if len(list) == 0 && c.Subject.CommonName != "" {
		list = append(list, c.Subject.CommonName)
	}
	return list
}

func hex(sum [sha256.Size]byte) string {
	return strings.ReplaceAll(fmt.Sprintf("% X", sum[:]), " ", ":")
}

// same says whether two certificates are served alike: chain and OCSP staple too.
func same(a, b *tls.Certificate) bool {
	return a != nil && b != nil && slices.EqualFunc(a.Certificate, b.Certificate, bytes.Equal) && bytes.Equal(a.OCSPStaple, b.OCSPStaple)
}

// isTCP says whether a port can be told of an address.
func isTCP(l net.Listener) bool {
	_, ok := l.Addr().(*net.TCPAddr)
	return ok
}
