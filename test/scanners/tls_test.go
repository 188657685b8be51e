package scanners

import (
	"encoding/json"
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	sslscan = tool{"sslscan", "sslscan"}
	testssl = tool{"testssl", "testssl.sh"}
	nmap    = tool{"nmap", "nmap"}
	openssl = tool{"openssl", "openssl"}
)

// way says how a client comes to TLS: both ways must be the same.
type way struct {
	name    string
	address func(*server) string
	stls    bool
}

var ways = []way{
	{"STLS", func(s *server) string { return s.pop3 }, true},
	{"pop3s", func(s *server) string { return s.pop3s }, false},
}

// suites are those that may be offered: with a key that is made for the connection, and authenticated
// encryption. RFC 9325 sections 4.1 and 4.2.
var suites = []string{
	"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", // all that 1.3 has here
	"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305",
	"ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305",
}

// sslscan: versions, suites, compression, renegotiation, heartbleed, the certificate.
func TestSSLScan(t *testing.T) {
	t.Parallel()
	s := startDewey(t, user)
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			args := []string{"--xml=-", "--no-colour"}
			if w.stls {
				args = append(args, "--starttls-pop3")
			}
			stdout, stderr, exit := sslscan.run(t, nil, append(args, w.address(s))...)
			var result struct {
				Test struct {
					Protocols []struct {
						Type    string `xml:"type,attr"`
						Version string `xml:"version,attr"`
						Enabled bool   `xml:"enabled,attr"`
					} `xml:"protocol"`
					Ciphers []struct {
						Version  string `xml:"sslversion,attr"`
						Name     string `xml:"cipher,attr"`
						Bits     int    `xml:"bits,attr"`
						Strength string `xml:"strength,attr"`
					} `xml:"cipher"`
					Groups []struct {
						Name string `xml:"name,attr"`
						Bits int    `xml:"bits,attr"`
					} `xml:"group"`
					Heartbleed []struct {
						Vulnerable bool `xml:"vulnerable,attr"`
					} `xml:"heartbleed"`
					Compression struct {
						Supported bool `xml:"supported,attr"`
					} `xml:"compression"`
					Renegotiation struct {
						Supported bool `xml:"supported,attr"`
					} `xml:"renegotiation"`
					Certificate struct {
						Signature string `xml:"signature-algorithm"`
						Key       struct {
							Error bool `xml:"error,attr"`
						} `xml:"pk"`
						Expired bool `xml:"expired"`
					} `xml:"certificates>certificate"`
				} `xml:"ssltest"`
			}
			if err := xml.Unmarshal([]byte(stdout), &result); err != nil || exit != 0 {
				t.Fatalf("exit code %d, %v\n%s%s", exit, err, stdout, stderr)
			}
			r := result.Test
			var enabled []string
			for _, p := range r.Protocols {
				if p.Enabled {
					enabled = append(enabled, p.Type+" "+p.Version)
				}
			}
			if len(r.Protocols) != 6 || !slices.Equal(enabled, []string{"tls 1.2", "tls 1.3"}) {
				t.Errorf("of %d versions enabled: %q", len(r.Protocols), enabled)
			}
			offered := map[string]int{}
			for _, c := range r.Ciphers {
				offered[c.Version]++
				if !slices.Contains(suites, c.Name) || c.Bits < 128 || c.Strength != "strong" && c.Strength != "acceptable" {
					t.Errorf("offers %s %s: %d bits, %s", c.Version, c.Name, c.Bits, c.Strength)
				}
			}
			if offered["TLSv1.2"] != 3 || offered["TLSv1.3"] != 3 {
				t.Errorf("suites offered: %v", offered)
			}
			for _, g := range r.Groups {
				if g.Bits < 128 {
					t.Errorf("offers the group %s", g.Name)
				}
			}
			for _, h := range r.Heartbleed {
				if h.Vulnerable {
					t.Error("heartbleed")
				}
			}
			if len(r.Groups) == 0 || len(r.Heartbleed) == 0 || r.Compression.Supported || r.Renegotiation.Supported ||
				r.Certificate.Signature == "" || r.Certificate.Key.Error || r.Certificate.Expired {
				t.Errorf("%+v", r)
			}
			if t.Failed() {
				t.Log(stdout)
			}
		})
	}
}

// allowed are the findings of testssl.sh that may be of severity MEDIUM or more, and why. Each is about a
// certificate that the server made for itself, as it does where nobody gave it one, and would be none of
// a certificate by an authority.
var allowed = map[string]string{
	"cert_chain_of_trust": "the certificate is signed by itself",
	"cert_revocation":     "nobody could revoke it: there is neither a CRL nor OCSP",
	"cert_validityPeriod": "it lasts ten years, as each new one has to be accepted anew by every client",
}

// testssl.sh: versions, suites, forward secrecy, what the server says, the known vulnerabilities.
func TestTestSSL(t *testing.T) {
	t.Parallel()
	s := startDewey(t, user)
	path := filepath.Join(t.TempDir(), "findings.json")
	stdout, stderr, _ := testssl.run(t, nil, "--quiet", "--warnings", "off", "--color", "0", "--nodns", "none",
		"--connect-timeout", "10", "--openssl-timeout", "10", "--jsonfile", path,
		"--protocols", "--std", "--pfs", "--server-defaults", "--vulnerable", "--starttls", "pop3", s.pop3)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v\n%s%s", err, stdout, stderr)
	}
	var findings []struct{ ID, Severity, Finding string }
	if err := json.Unmarshal(content, &findings); err != nil {
		t.Fatalf("%v\n%s", err, content)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s%s", stdout, stderr)
		}
	})
	looked := map[string]string{}
	for _, f := range findings {
		looked[f.ID] = f.Severity
		switch f.Severity {
		case "OK", "INFO", "DEBUG":
		case "WARN":
			t.Logf("%s: %s", f.ID, f.Finding) // of the scanner, about itself
		case "LOW":
			t.Logf("LOW: %s: %s", f.ID, f.Finding)
		default:
			if _, ok := allowed[f.ID]; !ok {
				t.Errorf("%s: %s: %s", f.Severity, f.ID, f.Finding)
			}
		}
	}
	// That it has looked at all.
	for _, id := range strings.Fields("SSLv2 SSLv3 TLS1_2 TLS1_3 cipherlist_NULL cipherlist_aNULL cipherlist_EXPORT cipherlist_LOW PFS heartbleed CCS ROBOT secure_renego secure_client_renego CRIME_TLS POODLE_SSL SWEET32 FREAK DROWN LOGJAM BEAST LUCKY13 RC4") {
		if looked[id] != "OK" {
			t.Errorf("%s: %q", id, looked[id])
		}
	}
	for _, id := range strings.Fields("TLS1 TLS1_1 cipherlist_3DES_IDEA cipherlist_AVERAGE") {
		if looked[id] != "INFO" { // not offered
			t.Errorf("%s: %q", id, looked[id])
		}
	}
}

// An nmapScript is what a script of nmap's found.
type nmapScript struct {
	ID     string `xml:"id,attr"`
	Output string `xml:"output,attr"`
}

// nmap takes both ports for POP3 and gives TLS the grade A on both; it knows nothing more.
func TestNmap(t *testing.T) {
	t.Parallel()
	s := startDewey(t, user)
	stdout, stderr, exit := nmap.run(t, nil, "-n", "-Pn", "-sT", "-sV", "--version-light", "-oX", "-", "-p", port(s.pop3)+","+port(s.pop3s),
		"--script", "pop3-capabilities,ssl-enum-ciphers,ssl-cert,pop3-ntlm-info", "127.0.0.1")
	var result struct {
		Ports []struct {
			Number  string `xml:"portid,attr"`
			Service struct {
				Name   string `xml:"name,attr"`
				Method string `xml:"method,attr"`
				Tunnel string `xml:"tunnel,attr"`
			} `xml:"service"`
			Scripts []nmapScript `xml:"script"`
		} `xml:"host>ports>port"`
	}
	if err := xml.Unmarshal([]byte(stdout), &result); err != nil || exit != 0 || len(result.Ports) != 2 {
		t.Fatalf("exit code %d, %v\n%s%s", exit, err, stdout, stderr)
	}
	for _, p := range result.Ports {
		stls := p.Number == port(s.pop3)
		if p.Service.Name != "pop3" || p.Service.Method != "probed" || (p.Service.Tunnel == "ssl") == stls {
			t.Errorf("port %s: service %+v", p.Number, p.Service)
		}
		found := map[string]string{}
		for _, script := range p.Scripts {
			found[script.ID] = script.Output
		}
		capabilities := strings.Fields(found["pop3-capabilities"])
		for _, want := range []string{"TOP", "UIDL", "USER", "PIPELINING", "RESP-CODES"} {
			if !slices.Contains(capabilities, want) {
				t.Errorf("port %s: no %s in %q", p.Number, want, capabilities)
			}
		}
		if slices.Contains(capabilities, "STLS") != stls {
			t.Errorf("port %s: capabilities %q", p.Number, capabilities)
		}
		if ciphers := found["ssl-enum-ciphers"]; !strings.Contains(ciphers, "least strength: A") || strings.Contains(ciphers, "warnings:") ||
			strings.Contains(ciphers, "TLSv1.1") || !strings.Contains(ciphers, "TLSv1.2") || !strings.Contains(ciphers, "TLSv1.3") {
			t.Errorf("port %s: ciphers%s", p.Number, ciphers)
		}
		if cert := found["ssl-cert"]; !strings.Contains(cert, "Subject Alternative Name: DNS:localhost") {
			t.Errorf("port %s: certificate %s", p.Number, cert)
		}
		if ntlm, ok := found["pop3-ntlm-info"]; ok {
			t.Errorf("port %s: NTLM: %s", p.Number, ntlm)
		}
	}
}

// openssl's client speaks 1.2 and 1.3 and nothing older, cannot renegotiate, and cannot compress.
func TestOpenSSL(t *testing.T) {
	t.Parallel()
	s := startDewey(t, user)
	for _, w := range ways {
		args := []string{"s_client", "-connect", w.address(s), "-cipher", "ALL:@SECLEVEL=0"}
		if w.stls {
			args = append(args, "-starttls", "pop3")
		}
		for version, spoken := range map[string]bool{"-tls1": false, "-tls1_1": false, "-tls1_2": true, "-tls1_3": true} {
			t.Run(w.name+version, func(t *testing.T) {
				t.Parallel()
				stdout, stderr, exit := openssl.run(t, nil, slices.Concat(args, []string{version})...)
				if (exit == 0) != spoken || !spoken && !strings.Contains(stderr, "alert protocol version") {
					t.Errorf("exit code %d\n%s%s", exit, stdout, stderr)
				}
				if spoken && !strings.Contains(stdout, "Compression: NONE") {
					t.Errorf("compression:\n%s", stdout)
				}
			})
		}
		t.Run(w.name+" renegotiation", func(t *testing.T) {
			t.Parallel()
			ready := "+OK" // the greeting, or it comes between
			if w.stls {
				ready = "Verify return code" // nothing else comes
			}
			typist := func(said func() string, keys io.Writer) {
				for began := time.Now(); !strings.Contains(said(), ready) && time.Since(began) < 20*time.Second; {
					time.Sleep(10 * time.Millisecond) // between two looks
				}
				_, _ = io.WriteString(keys, "R\n") // asks for renegotiation: s_client(1)
			}
			stdout, stderr, exit := openssl.runWith(t, typist, nil, slices.Concat(args, []string{"-tls1_2"})...)
			if exit == 0 || !strings.Contains(stdout+stderr, "RENEGOTIATING") || !strings.Contains(stderr, " alert ") {
				t.Errorf("exit code %d\n%s%s", exit, stdout, stderr)
			}
			s.login(t, "127.0.0.1", user) // it has done no harm
		})
	}
}
