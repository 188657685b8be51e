package pop3server

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"dewey/internal/popwire"
	"dewey/sasl"
)

// handshakeTimeout bounds a TLS handshake.
const handshakeTimeout = 30 * time.Second

// tlsConfig makes a configuration that notes, for each connection, what certificate it serves: nothing else
// tells, and tls-server-end-point is of it.
func tlsConfig(original *tls.Config) *tls.Config {
	config := original.Clone()
	config.DynamicRecordSizingDisabled = true // small records are for who shows the first octets of a page
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		serving := original
		var other *tls.Config
		if original.GetConfigForClient != nil {
			var err error
			if other, err = original.GetConfigForClient(hello); err != nil {
				return nil, err
			}
			if other != nil {
				serving = other
			}
		}
		if c, ok := hello.Conn.(*conn); ok {
			c.served = endPoint(served(serving, hello))
		}
		return other, nil
	}
	return config
}

// served is the certificate that crypto/tls serves: the same steps as its own.
func served(config *tls.Config, hello *tls.ClientHelloInfo) *tls.Certificate {
	if config.GetCertificate != nil && (len(config.Certificates) == 0 || hello.ServerName != "") {
		if c, err := config.GetCertificate(hello); c != nil || err != nil {
			return c
		}
	}
	for i := range config.Certificates {
		if hello.SupportsCertificate(&config.Certificates[i]) == nil {
			return &config.Certificates[i]
		}
	}
	if len(config.Certificates) > 0 {
		return &config.Certificates[0]
	}
	return nil
}

// endPoint is the channel binding tls-server-end-point: the certificate's digest, by the digest of its own
// signature, SHA-256 instead of a weak one; nil where the signature has none. RFC 5929 section 4.1.
func endPoint(c *tls.Certificate) []byte {
	if c == nil || len(c.Certificate) == 0 {
		return nil
	}
	leaf := c.Leaf
	if leaf == nil {
		var err error
		if leaf, err = x509.ParseCertificate(c.Certificate[0]); err != nil {
			return nil
		}
	}
	switch leaf.SignatureAlgorithm {
	case x509.SHA384WithRSA, x509.ECDSAWithSHA384, x509.SHA384WithRSAPSS:
		sum := sha512.Sum384(leaf.Raw)
		return sum[:]
	case x509.SHA512WithRSA, x509.ECDSAWithSHA512, x509.SHA512WithRSAPSS:
		sum := sha512.Sum512(leaf.Raw)
		return sum[:]
	case x509.PureEd25519, x509.UnknownSignatureAlgorithm:
		return nil
	}
	sum := sha256.Sum256(leaf.Raw)
	return sum[:]
}

// stls begins TLS after its +OK. RFC 2595 section 4.
func (s *session) stls(context.Context, []string) (response, error) {
	switch {
	case s.secure: // trap 31
		return response{}, errTLS
	case s.srv.tls == nil:
		return response{}, errUnknown
	}
	return response{text: s.lang.say("begin TLS"), after: s.startTLS}, nil
}

// startTLS does the handshake. All that the client sent or set before is forgotten: what is in the reader was sent
// in plain, by whoever. RFC 2595 section 4; trap 30.
func (s *session) startTLS() error {
	s.conn.until = s.deadline(handshakeTimeout)
	_ = s.conn.SetReadDeadline(s.conn.until) // of a closed one the handshake tells
	t := tls.Server(s.conn, s.srv.tls)
	if err := t.Handshake(); err != nil { // s.ctx closes the connection
		s.log.Info("TLS handshake failed", "error", err)
		return fmt.Errorf("TLS handshake: %w", err)
	}
	s.conn.until = s.loginUntil()
	s.tls, s.secure, s.info.TLS = t, true, true
	s.in, s.out = popwire.NewReader(&promptReader{t, s.conn.Conn}), popwire.NewWriter(&recordWriter{t, s.conn})
	s.user, s.utf8, s.lang = "", false, nil
	state := t.ConnectionState()
	s.log.Debug("TLS", "version", tls.VersionName(state.Version), "cipher", tls.CipherSuiteName(state.CipherSuite),
		"resumed", state.DidResume, "name", state.ServerName)
	return nil
}

// bindings are the connection's channel bindings: tls-exporter (RFC 9266 section 4) and
// tls-server-end-point (RFC 5929 section 4); nil where there is none.
func (s *session) bindings() (exporter, endPoint []byte) {
	if s.tls == nil {
		return nil, nil
	}
	state := s.tls.ConnectionState()
	// Without TLS 1.3 or the extended master secret there is an error, and rightly no binding.
	exporter, _ = state.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32)
	return exporter, s.conn.served
}

// channel is what a mechanism must know of the connection.
func (s *session) channel(m sasl.Mechanism) sasl.Channel {
	c := sasl.Channel{Hostname: s.settings.Hostname}
	c.Exporter, c.EndPoint = s.bindings()
	if c.Exporter != nil {
		c.Unique = s.tls.ConnectionState().TLSUnique
	}
	if plus, ok := sasl.Find(m.Name + "-PLUS"); ok {
		c.Plus = s.offered(plus)
	}
	return c
}
