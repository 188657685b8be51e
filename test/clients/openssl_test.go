package clients

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var openssl = program{name: "openssl", pkg: "openssl", version: []string{"openssl", "version"}}

// A dial is one run of openssl s_client.
type dial struct {
	name    string
	options []string
	says    []string // patterns, all of which must be there
}

var dials = []dial{
	{"TLS 1.2", []string{"-tls1_2"}, []string{`(?m)^New, TLSv1\.2, Cipher is ECDHE-`}},
	{"TLS 1.3", []string{"-tls1_3"}, []string{`(?m)^New, TLSv1\.3, Cipher is TLS_`}},
	{"ALPN", []string{"-alpn", "pop3"}, []string{`ALPN protocol: pop3`}},
	{"no ALPN", nil, []string{`No ALPN negotiated`}},
	{"client certificate", []string{"-cert", "cert.pem", "-key", "key.pem"}, []string{`(?m)^SASL .*\bEXTERNAL\b`}},
}

// TestOpenSSL has openssl s_client, which checks what others hide, look at both ports.
func TestOpenSSL(t *testing.T) {
	if testing.Short() {
		t.Skip("starts programs; -short")
	}
	t.Parallel()
	openssl.mustExist(t)
	s := startForLogins(t)
	for _, tls := range []transport{stls, implicit} {
		t.Run(string(tls), func(t *testing.T) {
			for _, d := range dials {
				t.Run(d.name, func(t *testing.T) {
					o := s.as(t, way{tls: tls, mechanism: "EXTERNAL"}, true).dialTLS(t, d.options...)
					o.mustBeServed(t)
					for _, pattern := range d.says {
						if !regexp.MustCompile(pattern).MatchString(o.stdout) {
							t.Errorf("says nothing like %q", pattern)
						}
					}
				})
			}
			t.Run("client certificate of an unknown authority", func(t *testing.T) {
				a := s.as(t, way{tls: tls}, true)
				_, unknown := authorities()
				a.present(t, unknown.forUser(user+"@example.org"))
				o := a.dialTLS(t, "-cert", "cert.pem", "-key", "key.pem")
				if o.exit == 0 || !strings.Contains(o.stderr, "alert unknown ca") {
					t.Errorf("certificate not refused\n%s", o.text())
				}
				s.as(t, way{tls: tls}, true).dialTLS(t).mustBeServed(t)
			})
			t.Run("resumption", func(t *testing.T) {
				for _, version := range []string{"-tls1_2", "-tls1_3"} {
					a := s.as(t, way{tls: tls}, true)
					o := a.dialTLS(t, version, "-sess_out", "session.pem")
					o.mustBeServed(t)
					if _, err := os.Stat(filepath.Join(a.home, "session.pem")); err != nil {
						t.Fatalf("%s: no session ticket: %v", version, err)
					}
					o = a.dialTLS(t, version, "-sess_in", "session.pem")
					o.mustBeServed(t)
					if !regexp.MustCompile(`(?m)^Reused, TLSv1\.`).MatchString(o.stdout) {
						t.Errorf("%s: session not resumed\n%s", version, o.text())
					}
				}
			})
			t.Run("too old", func(t *testing.T) {
				o := s.as(t, way{tls: tls}, true).dialTLS(t, "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")
				if o.exit == 0 || !strings.Contains(o.stderr, "alert protocol version") {
					t.Errorf("TLS 1.1 is not refused\n%s", o.text())
				}
			})
			t.Run("foreign ALPN", func(t *testing.T) { // RFC 7301 section 3.2
				o := s.as(t, way{tls: tls}, true).dialTLS(t, "-alpn", "h2")
				if o.exit == 0 || !strings.Contains(o.stderr, "alert no application protocol") {
					t.Errorf("another protocol is not refused\n%s", o.text())
				}
			})
			t.Run("unknown authority", func(t *testing.T) {
				_, unknown := authorities()
				a := s.as(t, way{tls: tls}, true)
				a.certify(t, unknown.pem)
				if o := a.dialTLS(t); o.exit == 0 || !strings.Contains(o.stderr, "verify error") {
					t.Errorf("certificate not refused\n%s", o.text())
				}
				s.as(t, way{tls: tls}, true).dialTLS(t).mustBeServed(t)
			})
		})
	}
}

// dialTLS runs openssl s_client, verifying, and in it a short session.
func (a *account) dialTLS(t *testing.T, options ...string) outcome {
	t.Helper()
	args := []string{
		"s_client", "-connect", "127.0.0.1:" + a.port, "-CAfile", a.ca, "-verify_return_error", "-verify_ip", "127.0.0.1",
		"-crlf", "-nocommands", "-ign_eof",
	}
	if a.way.tls == stls {
		args = append(args, "-starttls", "pop3")
	}
	a.input = "CAPA\nUSER " + user + "\nPASS " + password + "\nSTAT\nQUIT\n"
	return a.command(t, nil, "openssl", append(args, options...)...)
}

// mustBeServed checks that the certificate was verified and the session went to its end.
func (o outcome) mustBeServed(t *testing.T) {
	t.Helper()
	for _, pattern := range []string{`Verify return code: 0 \(ok\)`, `(?m)^\+OK \d+ \d+\r?$`, `(?m)^\+OK bye`} {
		if !regexp.MustCompile(pattern).MatchString(o.stdout) {
			t.Errorf("says nothing like %q", pattern)
		}
	}
	if o.exit != 0 || t.Failed() {
		t.Fatal(o.text())
	}
}
