package sasl

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"dewey/auth"
)

const patience = 20 * time.Second // for gsasl, which is done in tens of milliseconds

// GNU SASL's program (Debian's package gsasl) against this package. It speaks no POP3, so it is served just
// enough SMTP, where the exchange in base64 is the same: RFC 4954. Its channel bindings are GnuTLS's.
func TestGNUSASL(t *testing.T) {
	certificate := selfSigned(t)
	for _, c := range []struct {
		name, mechanism, password string
		args                      []string
		version                   uint16 // of TLS; 0: none
		first                     string // how the client's first response begins
		ok                        bool
	}{
		{"PLAIN", "PLAIN", "tanstaaftanstaaf", nil, 0, "\x00tim\x00", true},
		{"PLAIN, wrong", "PLAIN", "wrong", nil, 0, "\x00tim\x00", false},
		{"LOGIN", "LOGIN", "tanstaaftanstaaf", nil, 0, "tim", true},
		{"LOGIN, wrong", "LOGIN", "wrong", nil, 0, "tim", false},
		{"CRAM-MD5", "CRAM-MD5", "tanstaaftanstaaf", nil, 0, "tim ", true},
		{"CRAM-MD5, wrong", "CRAM-MD5", "wrong", nil, 0, "tim ", false},
		{"EXTERNAL as another", "EXTERNAL", "", []string{"--authorization-id=user"}, 0, "user", true},
		{"SHA-1", "SCRAM-SHA-1", "tanstaaftanstaaf", nil, 0, "n,,n=tim,", true},
		{"SHA-1, wrong", "SCRAM-SHA-1", "wrong", nil, 0, "n,,n=tim,", false},
		{"SHA-256", "SCRAM-SHA-256", "tanstaaftanstaaf", nil, 0, "n,,n=tim,", true},
		{"SHA-256 as another", "SCRAM-SHA-256", "tanstaaftanstaaf", []string{"--authorization-id=us,er"}, 0, "n,a=us=2Cer,n=tim,", true},
		{"SHA-256 over TLS", "SCRAM-SHA-256", "tanstaaftanstaaf", []string{"--no-cb"}, tls.VersionTLS13, "n,,n=tim,", true},
		{"-PLUS", "SCRAM-SHA-256-PLUS", "tanstaaftanstaaf", nil, tls.VersionTLS13, "p=tls-exporter,,n=tim,", true},
		{"-PLUS, wrong", "SCRAM-SHA-256-PLUS", "wrong", nil, tls.VersionTLS13, "p=tls-exporter,,n=tim,", false},
		{"-PLUS, SHA-1", "SCRAM-SHA-1-PLUS", "tanstaaftanstaaf", nil, tls.VersionTLS13, "p=tls-exporter,,n=tim,", true},
		{"-PLUS, TLS 1.2", "SCRAM-SHA-256-PLUS", "tanstaaftanstaaf", nil, tls.VersionTLS12, "p=tls-unique,,n=tim,", true},
	} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := &smtp{mechanism: c.mechanism, host: newHost()}
		args := []string{"--smtp", "--connect=" + listener.Addr().String(), "--mechanism=" + c.mechanism, "--authentication-id=tim", "--password=" + c.password, "--x509-ca-file="}
		if c.version != 0 {
			server.tls = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: c.version, MaxVersion: c.version}
			args = append(args, "--starttls")
		}
		served := make(chan struct{})
		go func() {
			defer close(served)
			server.serve(listener)
		}()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		out, err := exec.CommandContext(ctx, "gsasl", append(args, c.args...)...).CombinedOutput()
		cancel()
		listener.Close()
		<-served
		if (err == nil) != c.ok || server.done != c.ok || !c.ok && !errors.Is(server.err, auth.ErrRejected) || !strings.HasPrefix(server.first, c.first) {
			t.Errorf("%s: %v; done %v, %v, after %q\n%s", c.name, err, server.done, server.err, server.first, out)
		}
	}
}

// An smtp serves one connection, as far as gsasl needs it.
type smtp struct {
	mechanism string
	host      *testHost
	tls       *tls.Config

	first string // the client's first response
	done  bool
	err   error
}

func (s *smtp) serve(listener net.Listener) {
	conn, err := listener.Accept()
	if err != nil {
		s.err = err
		return
	}
	defer func() { conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(patience))
	s.host.external = "tim"
	var channel Channel
	lines := bufio.NewScanner(conn)
	fmt.Fprint(conn, "220 test\r\n")
	for lines.Scan() {
		switch verb, _, _ := strings.Cut(lines.Text(), " "); verb {
		case "EHLO":
			fmt.Fprintf(conn, "250-test\r\n250 AUTH %s\r\n", s.mechanism)
		case "STARTTLS":
			fmt.Fprint(conn, "220 go\r\n")
			secure := tls.Server(conn, s.tls)
			if s.err = secure.Handshake(); s.err != nil {
				return
			}
			state := secure.ConnectionState()
			channel.Plus = strings.HasSuffix(s.mechanism, "-PLUS")
			if channel.Exporter, s.err = state.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32); s.err != nil { // RFC 9266 section 2
				return
			}
			end := sha256.Sum256(s.tls.Certificates[0].Certificate[0]) // RFC 5929 section 4.1
			channel.EndPoint = end[:]
			channel.Unique = state.TLSUnique
			conn, lines = secure, bufio.NewScanner(secure)
		case "AUTH":
			s.auth(conn, lines, channel)
		case "QUIT":
			fmt.Fprint(conn, "221 bye\r\n")
			return
		default:
			fmt.Fprint(conn, "502 what?\r\n")
		}
	}
}

// auth runs an exchange; gsasl sends no initial response.
func (s *smtp) auth(conn net.Conn, lines *bufio.Scanner, channel Channel) {
	m, _ := Find(s.mechanism)
	server := m.NewServer(s.host, channel)
	var response []byte
	for {
		var challenge []byte
		if challenge, s.done, s.err = server.Next(response); s.err != nil {
			fmt.Fprint(conn, "535 no\r\n")
			return
		}
		if s.done {
			fmt.Fprint(conn, "235 yes\r\n")
			return
		}
		fmt.Fprintf(conn, "334 %s\r\n", base64.StdEncoding.EncodeToString(challenge))
		if !lines.Scan() {
			s.err = errors.New("the client went away")
			return
		}
		if response, s.err = base64.StdEncoding.DecodeString(lines.Text()); s.err != nil {
			return
		}
		if s.first == "" {
			s.first = string(response)
		}
	}
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
