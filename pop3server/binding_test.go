package pop3server_test

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"fmt"
	"hash"
	"net"
	"slices"
	"strings"
	"testing"

	"dewey/pop3server"
)

var plusForms = map[string]func() hash.Hash{"SCRAM-SHA-1-PLUS": sha1.New, "SCRAM-SHA-256-PLUS": sha256.New}

// exporter is tls-exporter as the client computes it. RFC 9266 section 4.
func exporter(t testing.TB, c *tls.Conn) []byte {
	t.Helper()
	state := c.ConnectionState()
	key, err := state.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// endPoint is tls-server-end-point of what the client was shown. RFC 5929 section 4.1.
func endPoint(c *tls.Conn, h func() hash.Hash) []byte {
	return digest(h, c.ConnectionState().PeerCertificates[0].Raw)
}

func bound(name string, h func() hash.Hash, data []byte) *scramClient {
	return &scramClient{hash: h, gs2: "p=" + name + ",,", user: "user", password: "pencil", binding: data}
}

// tcpBench listens on a socket too, by ServeTLS.
func tcpBench(t *testing.T, change func(*pop3server.Server)) (b *bench, addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b = newBench(t, newShelf(), change)
	served := make(chan error, 1)
	go func() { served <- b.srv.ServeTLS(l) }()
	t.Cleanup(func() { b.end(); <-served })
	return b, l.Addr().String()
}

func dialTLS(t *testing.T, addr string, config *tls.Config) (*visitor, *tls.Conn) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	v := &visitor{Conn: c}
	under := v.handshake(t, config)
	if got := v.line(t); !strings.HasPrefix(got, "+OK ") {
		t.Fatalf("greeting %q", got)
	}
	return v, under
}

// -PLUS with both bindings, over sockets, by each kind of certificate, however the server comes to it, with both
// versions of TLS, and resumed; with another connection's binding it fails. RFC 5802 section 6, RFC 5929 section
// 4.1, RFC 9266 section 4.
func TestChannelBinding(t *testing.T) {
	for _, kind := range []struct {
		name string
		cert tls.Certificate
		hash func() hash.Hash // nil: the signature has none
	}{
		{"RSA SHA-256", rsaCert(), sha256.New},
		{"RSA SHA-512", rsa512(), sha512.New},
		{"ECDSA SHA-256", p256Cert(), sha256.New},
		{"ECDSA SHA-384", p384Cert(), sha512.New384},
		{"Ed25519", edCert(), nil},
	} {
		for how, config := range map[string]*tls.Config{
			"list":           {Certificates: []tls.Certificate{kind.cert}},
			"list, unparsed": {Certificates: []tls.Certificate{{Certificate: kind.cert.Certificate, PrivateKey: kind.cert.PrivateKey}}},
			"list of two":    {Certificates: []tls.Certificate{timsCert(), kind.cert}},
			"function":       {GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &kind.cert, nil }},
			"function before list": {
				Certificates:   []tls.Certificate{timsCert()},
				GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &kind.cert, nil },
			},
			"function without an answer": {
				Certificates:   []tls.Certificate{kind.cert},
				GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil },
			},
			"configuration": {
				Certificates: []tls.Certificate{timsCert()},
				GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
					return &tls.Config{Certificates: []tls.Certificate{kind.cert}}, nil
				},
			},
			"no configuration of its own": {
				Certificates:       []tls.Certificate{kind.cert},
				GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, nil },
			},
		} {
			t.Run(kind.name+", "+how, func(t *testing.T) {
				_, addr := tcpBench(t, func(s *pop3server.Server) { withRoster(newRoster())(s); s.TLS = config })
				for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
					config := clientTLS()
					config.MaxVersion, config.ClientSessionCache = version, tls.NewLRUClientSessionCache(9)
					for n := range 3 {
						v, c := dialTLS(t, addr, config)
						if resumed := c.ConnectionState().DidResume; resumed != (n > 0) {
							t.Errorf("connection %d, %s: resumed: %v", n+1, tls.VersionName(version), resumed)
						}
						bindings := map[string][]byte{"tls-exporter": exporter(t, c)}
						if kind.hash != nil {
							bindings["tls-server-end-point"] = endPoint(c, kind.hash)
						}
						v.checkBindings(t, bindings)
					}
				}
			})
		}
	}
}

// checkBindings logs in by one of them, after trying what must fail.
func (v *visitor) checkBindings(t *testing.T, bindings map[string][]byte) {
	t.Helper()
	mechanism, h := "SCRAM-SHA-256-PLUS", plusForms["SCRAM-SHA-256-PLUS"]
	for name, data := range bindings {
		spoilt := bytes.Clone(data)
		spoilt[0] ^= 1
		for _, c := range []*scramClient{
			bound(name, h, spoilt), bound(name, h, nil), bound(name, h, data[1:]), bound("tls-other", h, data), bound("tls-server-end-points", h, data),
		} {
			if got := v.scram(t, mechanism, c); got != refused {
				t.Errorf("%s, %x: %q", c.gs2, c.binding, got)
			}
		}
	}
	if _, ok := bindings["tls-server-end-point"]; !ok {
		if got := v.scram(t, mechanism, bound("tls-server-end-point", h, endPoint(v.Conn.(underTLS).Conn, sha256.New))); got != refused {
			t.Errorf("where there is none: %q", got)
		}
	}
	for name, data := range bindings { // the second one does not get so far: it is logged in
		if got := v.scram(t, mechanism, bound(name, h, data)); got != "+OK 0 messages (0 octets)" {
			t.Errorf("%s: %q", name, got)
		}
		v.ask(t, "QUIT", "+OK bye")
		return
	}
}

// Both forms take either binding, and a connection's binding is worth nothing on another.
func TestChannelBindingOfAnotherConnection(t *testing.T) {
	_, addr := tcpBench(t, withRoster(newRoster()))
	for mechanism, h := range plusForms {
		v, c := dialTLS(t, addr, clientTLS())
		other, d := dialTLS(t, addr, clientTLS())
		if got := other.scram(t, mechanism, bound("tls-exporter", h, exporter(t, c))); got != refused {
			t.Errorf("%s: %q", mechanism, got)
		}
		if got := v.scram(t, mechanism, bound("tls-exporter", h, exporter(t, c))); got != "+OK 0 messages (0 octets)" {
			t.Errorf("%s: %q", mechanism, got)
		}
		v.ask(t, "QUIT", "+OK bye")
		if got := other.scram(t, mechanism, bound("tls-server-end-point", h, endPoint(d, sha256.New))); got != "+OK 0 messages (0 octets)" {
			t.Errorf("%s: %q", mechanism, got)
		}
		other.ask(t, "QUIT", "+OK bye")
	}
}

// Whoever asks for another name is shown the first certificate, and can bind to it. RFC 5929 section 4.1.
func TestChannelBindingOfAnotherName(t *testing.T) {
	_, addr := tcpBench(t, func(s *pop3server.Server) {
		withRoster(newRoster())(s)
		s.TLS.Certificates = append(s.TLS.Certificates, timsCert())
	})
	for _, name := range []string{"pop.example.org", "192.0.2.1"} { // for an address there is no name
		v, c := dialTLS(t, addr, &tls.Config{ServerName: name, InsecureSkipVerify: true})
		if got := v.scram(t, "SCRAM-SHA-256-PLUS", bound("tls-server-end-point", sha256.New, endPoint(c, sha256.New))); got != "+OK 0 messages (0 octets)" {
			t.Errorf("%s: %q", name, got)
		}
		v.ask(t, "QUIT", "+OK bye")
	}
}

// A client that could bind and saw no -PLUS says "y": where -PLUS was offered, someone has cut it out of the list. It
// is right where none was. "n" is any client's right, and a binding without -PLUS nobody's. RFC 5802 section 6.
func TestDowngrade(t *testing.T) {
	const in = "+OK 0 messages (0 octets)"
	for _, c := range []struct {
		name       string
		mechanisms []string
		tls        bool
		want       map[string]string
	}{
		{"TLS", nil, true, map[string]string{"y,,": refused, "n,,": in, "p=tls-exporter,,": refused}},
		{"no TLS", nil, false, map[string]string{"y,,": in, "n,,": in, "p=tls-exporter,,": refused}},
		{"no -PLUS", []string{"SCRAM-SHA-256"}, true, map[string]string{"y,,": in, "n,,": in, "p=tls-exporter,,": refused}},
		{"-PLUS of another", []string{"SCRAM-SHA-256", "SCRAM-SHA-1-PLUS"}, true, map[string]string{"y,,": in, "n,,": in}}, // it saw no SCRAM-SHA-256-PLUS
	} {
		b := newBench(t, newShelf(), func(s *pop3server.Server) { withRoster(newRoster())(s); s.Settings.Mechanisms = c.mechanisms })
		for gs2, want := range c.want {
			v := b.visit(t, remote)
			_ = v.line(t)
			if c.tls {
				v.stls(t, clientTLS())
			}
			if got := v.scram(t, "SCRAM-SHA-256", &scramClient{hash: sha256.New, gs2: gs2, user: "user", password: "pencil"}); got != want {
				t.Errorf("%s, %s: %q, want %q", c.name, gs2, got, want)
			}
			_ = v.Close()
			b.settle(t)
		}
		v := b.visit(t, remote)
		_ = v.line(t)
		if c.tls && c.mechanisms == nil {
			v.stls(t, clientTLS())
			for _, gs2 := range []string{"n,,", "y,,"} { // -PLUS without a binding
				if got := v.scram(t, "SCRAM-SHA-256-PLUS", &scramClient{hash: sha256.New, gs2: gs2, user: "user", password: "pencil"}); got != refused {
					t.Errorf("-PLUS with %s: %q", gs2, got)
				}
			}
		}
		b.end()
	}
}

// Under TLS up to a proxy there is no binding to this connection, and no -PLUS.
func TestNoPlusBehindAProxy(t *testing.T) {
	b := newBench(t, newShelf(), func(s *pop3server.Server) { withRoster(newRoster())(s); s.Wrap = wrapSecured })
	v := b.visit(t, remote)
	_ = v.line(t)
	if names := v.multi(t, "AUTH"); slices.ContainsFunc(names, func(n string) bool { return strings.HasSuffix(n, "-PLUS") }) {
		t.Errorf("%q", names)
	}
	v.ask(t, "AUTH SCRAM-SHA-256-PLUS", "-ERR unknown mechanism")
	if got := v.scram(t, "SCRAM-SHA-256", &scramClient{hash: sha256.New, gs2: "y,,", user: "user", password: "pencil"}); !strings.HasPrefix(got, "+OK") {
		t.Error(fmt.Sprint(got))
	}
}
