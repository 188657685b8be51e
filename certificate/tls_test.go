package certificate

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

func TestSNI(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	k, _ := mustOpen(t, Options{Pairs: []Pair{
		ca.pair(t, dir, "first", newKey(t), "first.example.org"),
		ca.pair(t, dir, "wild", newKey(t), "*.example.net", "example.net"),
		ca.pair(t, dir, "exact", newKey(t), "POP.example.net", "192.0.2.1.example.com"),
		ca.pair(t, dir, "rsa", testRSA(), "two.example.org"),
		ca.pair(t, dir, "ecdsa", newKey(t), "two.example.org"),
	}})
	for name, want := range map[string]string{
		"":                      "first",
		"first.example.org":     "first",
		"FIRST.Example.ORG":     "first",
		"pop.example.net":       "exact",
		"pop.example.net.":      "exact",
		"a.example.net":         "wild",
		"A.EXAMPLE.NET.":        "wild",
		"a.b.example.net":       "first", // a wildcard stands for one label
		"example.net":           "wild",
		"*.example.net":         "wild",
		"net":                   "first",
		".":                     "first",
		"unknown.invalid":       "first",
		"two.example.org":       "ecdsa",
		"192.0.2.1.example.com": "exact",
	} {
		if got := stem(k, k.Leaf(name)); got != want {
			t.Errorf("%q: the certificate %s, want %s", name, got, want)
		}
		if len(name) > 0 && (name[len(name)-1] == '.' || name[0] == '*') {
			continue // crypto/tls lets no such name through, on either side
		}
		cs := mustShake(t, k.TLS(), &tls.Config{ServerName: name, InsecureSkipVerify: true})
		if got := stem(k, cs.PeerCertificates[0]); got != want {
			t.Errorf("%q: served %s, want %s", name, got, want)
		}
	}
}

// stem says which file a certificate is from.
func stem(k *Keeper, c *x509.Certificate) string {
	for _, e := range k.now.Load().entries {
		if e.certificate.Leaf.Equal(c) {
			base := filepath.Base(e.info.File)
			return base[:len(base)-len(filepath.Ext(base))]
		}
	}
	return "unknown"
}

// A client that lacks ECDSA gets the RSA certificate, and resumes with it.
func TestRSAAndECDSAForOneName(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	for _, order := range [][]string{{"rsa", "ecdsa"}, {"ecdsa", "rsa"}} {
		var pairs []Pair
		for _, kind := range order {
			key := newKey(t)
			if kind == "rsa" {
				key = testRSA()
			}
			pairs = append(pairs, ca.pair(t, dir, kind, key, "pop.example.org"))
		}
		k, _ := mustOpen(t, Options{Pairs: pairs})
		var seen *x509.Certificate
		server := wrapped(k.TLS(), func(c *x509.Certificate) { seen = c })
		for _, name := range []string{"pop.example.org", "other.example.org"} {
			for kind, suites := range map[string][]uint16{
				"rsa":   {tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256},
				"ecdsa": {tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
			} {
				client := &tls.Config{
					ServerName: name, InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, CipherSuites: suites,
					ClientSessionCache: tls.NewLRUClientSessionCache(1),
				}
				for again := range 2 {
					cs := mustShake(t, server, client)
					if got := stem(k, cs.PeerCertificates[0]); got != kind {
						t.Errorf("%v, %s: the certificate %s, want %s", order, name, got, kind)
					}
					if cs.DidResume != (again == 1) || !seen.Equal(cs.PeerCertificates[0]) {
						t.Errorf("%v, %s: resumed %v, seen %v", order, name, cs.DidResume, stem(k, seen))
					}
				}
			}
		}
	}
}

// While a certificate stays, tickets resume across connections, also after others were replaced and
// files were read again. When it goes, its tickets go (RFC 5929).
func TestTickets(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, wrap := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,wrapped=%v", tls.VersionName(version), wrap), func(t *testing.T) {
				ca, dir := newAuthority(t), t.TempDir()
				one := ca.pair(t, dir, "one", newKey(t), "one.example.org")
				two := ca.pair(t, dir, "two", newKey(t), "two.example.org")
				k, _ := mustOpen(t, Options{Pairs: []Pair{one, two}})
				server := k.TLS()
				var seen *x509.Certificate
				if wrap {
					server = wrapped(server, func(c *x509.Certificate) { seen = c })
				}
				client := func(name string) *tls.Config {
					return &tls.Config{
						ServerName: name + ".example.org", RootCAs: ca.pool(), MaxVersion: version, NextProtos: []string{"pop3"},
						ClientSessionCache: tls.NewLRUClientSessionCache(10),
					}
				}
				c1, c2 := client("one"), client("two")
				check := func(c *tls.Config, want bool) {
					t.Helper()
					cs := mustShake(t, server, c)
					if cs.DidResume != want || cs.Version != version || cs.NegotiatedProtocol != "pop3" {
						t.Errorf("resumed %v, want %v (%s)", cs.DidResume, want, tls.VersionName(cs.Version))
					}
					if seen != nil && !seen.Equal(cs.PeerCertificates[0]) {
						t.Error("the client sees another certificate than the server says")
					}
				}
				check(c1, false)
				check(c1, true)
				check(c1, true)
				check(c2, false)
				check(c2, true)
				// The ticket of one certificate is of no use for the other.
				stray := c1.Clone()
				stray.ServerName = "two.example.org"
				stray.ClientSessionCache = oneSession{c1.ClientSessionCache, c1.ServerName}
				check(stray, false)

				ca.pair(t, dir, "one", newKey(t), "one.example.org")
				if err := k.Reload(); err != nil {
					t.Fatal(err)
				}
				check(c1, false)
				check(c1, true)
				check(c2, true)
				if err := k.Reload(); err != nil {
					t.Fatal(err)
				}
				check(c1, true)
			})
		}
	}
}

// oneSession offers the session of another name.
type oneSession struct {
	tls.ClientSessionCache
	name string
}

func (o oneSession) Get(string) (*tls.ClientSessionState, bool) {
	return o.ClientSessionCache.Get(o.name)
}

// Ticket keys rotate: an old ticket resumes for a week, not longer, and a new connection gives a new one.
func TestTicketKeysRotate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newAuthority(t)
		k, _ := mustOpen(t, Options{Pairs: []Pair{ca.pair(t, t.TempDir(), "one", newKey(t), "one.example.org")}})
		client := &tls.Config{ServerName: "one.example.org", RootCAs: ca.pool(), ClientSessionCache: tls.NewLRUClientSessionCache(1)}
		handshake := func() tls.ConnectionState {
			t.Helper()
			a, b := net.Pipe() // TCP has no part in a bubble's time
			cs, err := shakeOver(a, b, k.TLS(), client)
			if err != nil {
				t.Fatal(err)
			}
			return cs
		}
		handshake()
		tickets := k.now.Load().entries[0].tickets
		ticket := func() []byte {
			session, _ := client.ClientSessionCache.Get("one.example.org")
			ticket, _, err := session.ResumptionState()
			if err != nil {
				t.Fatal(err)
			}
			return ticket
		}
		first := ticket()
		time.Sleep(25 * time.Hour)
		if cs := handshake(); !cs.DidResume {
			t.Error("a ticket of yesterday does not resume")
		}
		second := ticket()
		time.Sleep(6*24*time.Hour + time.Hour)
		handshake() // makes a new key, drops the first
		if s, err := tickets.DecryptTicket(first, tls.ConnectionState{}); s != nil || err != nil {
			t.Errorf("the first key still opens tickets after a week (%v)", err)
		}
		if s, err := tickets.DecryptTicket(second, tls.ConnectionState{}); s == nil || err != nil {
			t.Errorf("the second key does not open tickets (%v)", err)
		}
	})
}

// Without GetConfigForClient there is no resumption, which is safe, and the right certificate.
func TestBaseConfigAlone(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	k, _ := mustOpen(t, Options{Pairs: []Pair{
		ca.pair(t, dir, "one", newKey(t), "one.example.org"), ca.pair(t, dir, "two", newKey(t), "two.example.org"),
	}})
	server := k.TLS().Clone()
	server.GetConfigForClient = nil
	client := &tls.Config{ServerName: "two.example.org", RootCAs: ca.pool(), ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	for range 2 {
		if cs := mustShake(t, server, client); cs.DidResume || stem(k, cs.PeerCertificates[0]) != "two" {
			t.Errorf("resumed %v with %s", cs.DidResume, stem(k, cs.PeerCertificates[0]))
		}
	}
}

func TestVersionsAndProtocols(t *testing.T) {
	ca := newAuthority(t)
	pairs := []Pair{ca.pair(t, t.TempDir(), "one", newKey(t), "one.example.org")}
	client := func(min, max uint16, protos ...string) *tls.Config {
		return &tls.Config{ServerName: "one.example.org", RootCAs: ca.pool(), MinVersion: min, MaxVersion: max, NextProtos: protos}
	}
	k, _ := mustOpen(t, Options{Pairs: pairs})
	if _, err := shake(k.TLS(), client(tls.VersionTLS10, tls.VersionTLS11)); err == nil {
		t.Error("TLS 1.1 was taken (RFC 8314 section 4)")
	}
	if _, err := shake(k.TLS(), client(0, 0, "h2")); err == nil {
		t.Error("a client of another protocol was taken (RFC 7301)")
	}
	for range 2 {
		if cs := mustShake(t, k.TLS(), client(0, tls.VersionTLS12)); cs.NegotiatedProtocol != "" {
			t.Errorf("the protocol %q for one who asked for none", cs.NegotiatedProtocol)
		}
	}
	k, _ = mustOpen(t, Options{Pairs: pairs, MinVersion: tls.VersionTLS13})
	if _, err := shake(k.TLS(), client(0, tls.VersionTLS12)); err == nil {
		t.Error("TLS 1.2 was taken, though 1.3 is the lowest")
	}
	for _, v := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS13 + 1} {
		if _, err := Open(Options{Pairs: pairs, MinVersion: v}); err == nil {
			t.Errorf("the lowest version %#x was taken", v)
		}
	}
}

// Client certificates are asked for, not demanded; what is not from the CA ends the handshake. Other
// CAs end the sessions that were made under the old ones.
func TestClientCertificates(t *testing.T) {
	ca, clients, dir := newAuthority(t), newAuthority(t), t.TempDir()
	file := filepath.Join(dir, "clients.pem")
	write(t, file, clients.pem)
	k, _ := mustOpen(t, Options{Pairs: []Pair{ca.pair(t, dir, "one", newKey(t), "one.example.org")}, ClientCA: file})
	client := func(a *authority) *tls.Config {
		c := &tls.Config{ServerName: "one.example.org", RootCAs: ca.pool(), ClientSessionCache: tls.NewLRUClientSessionCache(1)}
		if a != nil {
			cert, key := a.issue(t, newKey(t), &x509.Certificate{EmailAddresses: []string{"u@example.org"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
			pair, err := tls.X509KeyPair(cert, key)
			if err != nil {
				t.Fatal(err)
			}
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
		}
		return c
	}
	// serve returns the user's name as the server sees it.
	serve := func(c *tls.Config) (string, bool, error) {
		a, b, err := connect()
		if err != nil {
			return "", false, err
		}
		done := make(chan struct{})
		defer func() { <-done }() // then it has its ticket
		defer a.Close()
		go func() {
			defer close(done)
			defer b.Close()
			conn := tls.Client(b, c)
			if conn.Handshake() == nil {
				_, _ = io.ReadFull(conn, make([]byte, 1))
			}
		}()
		conn := tls.Server(a, k.TLS())
		if err := conn.Handshake(); err != nil {
			return "", false, err
		}
		_, _ = conn.Write([]byte{'+'})
		cs := conn.ConnectionState()
		if len(cs.VerifiedChains) == 0 {
			return "", cs.DidResume, nil
		}
		name, err := Name("email", cs.PeerCertificates[0])
		return name, cs.DidResume, err
	}
	known := client(clients)
	for again := range 2 {
		if name, resumed, err := serve(known); name != "u@example.org" || resumed != (again == 1) || err != nil {
			t.Errorf("%q, resumed %v, %v", name, resumed, err)
		}
	}
	if name, _, err := serve(client(nil)); name != "" || err != nil {
		t.Errorf("without a certificate: %q, %v", name, err)
	}
	if _, _, err := serve(client(ca)); err == nil {
		t.Error("a certificate from another CA was taken")
	}
	// The CA is replaced: its clients are strangers, and so are their tickets.
	write(t, file, ca.pem)
	if err := k.Reload(); err != nil {
		t.Fatal(err)
	}
	if name, resumed, err := serve(known); err == nil || resumed {
		t.Errorf("after the CA changed: %q, resumed %v", name, resumed)
	}
	if _, _, err := serve(client(ca)); err != nil {
		t.Error(err)
	}
	k, _ = mustOpen(t, Options{Pairs: k.options.Pairs})
	if name, _, err := serve(known); name != "" || err != nil { // RFC 8314 section 4.2
		t.Errorf("asked for a certificate without ClientCA: %q, %v", name, err)
	}
}

func BenchmarkChoose(b *testing.B) {
	ca, dir := newAuthority(b), b.TempDir()
	var pairs []Pair
	for i := range 100 {
		pairs = append(pairs, ca.pair(b, dir, fmt.Sprint("ec", i), newKey(b), fmt.Sprintf("pop%d.example.org", i)))
	}
	pairs = append(pairs, ca.pair(b, dir, "rsa", testRSA(), "pop7.example.org"))
	k, err := Open(Options{Pairs: pairs})
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range []string{"pop6.example.org", "pop7.example.org", ""} {
		hello := &tls.ClientHelloInfo{
			ServerName: name, SupportedVersions: []uint16{tls.VersionTLS13},
			SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}, SupportedCurves: []tls.CurveID{tls.CurveP256},
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if c, err := k.TLS().GetConfigForClient(hello); c == nil || err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
