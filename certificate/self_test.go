package certificate

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestSelfMade(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "tls")
	o := Options{SelfDir: dir, Hostname: "Pop.Example.ORG"}
	k, l := mustOpen(t, o)
	for name, mode := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, "key.pem"): 0o600} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("in the folder: %v", entries)
	}
	if l.count("a self-made one was made") != 1 {
		t.Error(l.String())
	}
	info := k.Describe()
	if len(info) != 1 || !info[0].SelfMade || strings.Join(info[0].Names, " ") != "pop.example.org localhost 127.0.0.1 ::1" || time.Until(info[0].NotAfter) < 9*365*24*time.Hour {
		t.Errorf("%+v", info)
	}
	leaf := k.Leaf("")
	if leaf.SerialNumber.BitLen() < 64 || leaf.IsCA || leaf.KeyUsage != x509.KeyUsageDigitalSignature {
		t.Errorf("serial %v, CA %v, usage %v", leaf.SerialNumber, leaf.IsCA, leaf.KeyUsage)
	}
	k2, l2 := mustOpen(t, o)
	if !k2.Leaf("").Equal(leaf) || l2.String() != "" {
		t.Errorf("another certificate at the next start: %s", l2.String())
	}
	l.noSecrets(t, filepath.Join(dir, "key.pem"))
}

// Those who are given the file as a CA take the certificate: Go, OpenSSL and curl.
func TestSelfMadeIsTrustedWhereItIsGiven(t *testing.T) {
	dir := t.TempDir()
	k, _ := mustOpen(t, Options{SelfDir: dir, Hostname: "pop.example.org"})
	file := filepath.Join(dir, "cert.pem")
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(read(t, file))
	for _, name := range []string{"pop.example.org", "localhost", "127.0.0.1", "::1"} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			mustShake(t, k.TLS(), &tls.Config{ServerName: name, RootCAs: pool, MaxVersion: version})
		}
	}
	if _, err := shake(k.TLS(), &tls.Config{ServerName: "www.example.org", RootCAs: pool}); err == nil {
		t.Error("it is trusted for another name")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				conn := tls.Server(c, k.TLS())
				_, _ = io.WriteString(conn, "+OK\r\n") // enough of POP3 for curl to see a certificate
				_, _ = conn.Read(make([]byte, 1))
			}()
		}
	}()
	addr := l.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	run := func(want string, command ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		c := exec.CommandContext(ctx, command[0], command[1:]...)
		out, err := c.CombinedOutput()
		if !strings.Contains(string(out), want) {
			t.Errorf("%s: %v\n%s", strings.Join(command, " "), err, out)
		}
	}
	run(file+": OK", "openssl", "verify", "-CAfile", file, file)
	run(file+": OK", "openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "pop.example.org", "-CAfile", file, file)
	run("Verify return code: 0 (ok)", "openssl", "s_client", "-connect", addr, "-servername", "pop.example.org",
		"-CAfile", file, "-verify_hostname", "pop.example.org", "-verify_return_error")
	run("SSL certificate verify ok", "curl", "-v", "--max-time", "2", "--cacert", file,
		"--resolve", "pop.example.org:"+port+":127.0.0.1", "pop3s://pop.example.org:"+port)
	run("self", "curl", "-v", "--max-time", "2", "pop3s://localhost:"+port)
	run("sha256 Fingerprint="+k.Describe()[0].Fingerprint, "openssl", "x509", "-in", file, "-noout", "-fingerprint", "-sha256")
}

// What a crash leaves is begun anew or finished. All else that is odd is an error that says what to do.
func TestSelfMadeAfterACrash(t *testing.T) {
	whole := t.TempDir()
	k, _ := mustOpen(t, Options{SelfDir: whole})
	leaf := k.Leaf("")
	cert, key := read(t, filepath.Join(whole, "cert.pem")), read(t, filepath.Join(whole, "key.pem"))
	other, _ := mustOpen(t, Options{SelfDir: t.TempDir()})
	otherKey := read(t, filepath.Join(other.options.SelfDir, "key.pem"))
	for _, test := range []struct {
		name  string
		files map[string][]byte
		want  string // "new", "same", or part of the error
	}{
		{"before anything", nil, "new"},
		{"a key half-written", map[string][]byte{"key.pem.new": key[:50]}, "new"},
		{"a key written", map[string][]byte{"key.pem.new": key}, "new"},
		{"both written", map[string][]byte{"key.pem.new": key, "cert.pem.new": cert}, "new"},
		{"the key renamed", map[string][]byte{"key.pem": key, "cert.pem.new": cert}, "same"},
		{"the certificate renamed", map[string][]byte{"key.pem.new": key, "cert.pem": cert}, "same"},
		{"both renamed", map[string][]byte{"key.pem": key, "cert.pem": cert}, "same"},
		{"a renewal begun", map[string][]byte{"key.pem": key, "cert.pem": cert, "cert.pem.new": cert[:70]}, "same"},
		{"no certificate", map[string][]byte{"key.pem": key}, "cert.pem is missing"},
		{"no key", map[string][]byte{"cert.pem": cert}, "key.pem is missing"},
		{"another key waiting", map[string][]byte{"cert.pem": cert, "key.pem.new": otherKey}, "key.pem is missing"},
		{"a cut certificate", map[string][]byte{"key.pem": key, "cert.pem": cert[:100]}, "cert.pem: only 0 of 1 PEM blocks"},
		{"an empty certificate", map[string][]byte{"key.pem": key, "cert.pem": {}}, "cert.pem: has no PEM block"},
		{"a cut key", map[string][]byte{"key.pem": key[:100], "cert.pem": cert}, "key.pem: only 0 of 1 PEM blocks"},
		{"another key", map[string][]byte{"key.pem": otherKey, "cert.pem": cert}, "do not belong together"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, data := range test.files {
				write(t, filepath.Join(dir, name), data)
			}
			k, err := Open(Options{SelfDir: dir})
			if err != nil {
				if !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "remove") {
					t.Errorf("%v, want %s", err, test.want)
				}
				for name, data := range test.files { // nothing is lost
					if !bytes.Equal(read(t, filepath.Join(dir, name)), data) {
						t.Errorf("%s was changed", name)
					}
				}
				return
			}
			if got := k.Leaf("").Equal(leaf); got != (test.want == "same") || test.want != "same" && test.want != "new" {
				t.Errorf("the same certificate %v, want %s", got, test.want)
			}
			if _, err := Open(Options{SelfDir: dir}); err != nil {
				t.Error(err)
			}
		})
	}
}

// Servers that start at once end up with the same certificate.
func TestSelfMadeByTwoAtOnce(t *testing.T) {
	dir := t.TempDir()
	leaves := make(chan *x509.Certificate, 8)
	for range cap(leaves) {
		go func() {
			k, err := Open(Options{SelfDir: dir})
			if err != nil {
				t.Error(err)
				leaves <- nil
				return
			}
			leaves <- k.Leaf("")
		}()
	}
	first := <-leaves
	for range cap(leaves) - 1 {
		if leaf := <-leaves; first == nil || !first.Equal(leaf) {
			t.Error("two servers made two certificates")
		}
	}
}

// A server that has another name now keeps what clients have accepted, and says so.
func TestSelfMadeKeepsItsFingerprint(t *testing.T) {
	dir := t.TempDir()
	k, _ := mustOpen(t, Options{SelfDir: dir, Hostname: "old.example.org"})
	k2, l := mustOpen(t, Options{SelfDir: dir, Hostname: "new.example.org"})
	if !k.Leaf("").Equal(k2.Leaf("")) || l.count("does not have the server's name") != 1 {
		t.Error(l.String())
	}
}

// Before it ends, it is renewed, with the same key, at the start or while the server runs.
func TestSelfMadeIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		o := Options{SelfDir: dir, Hostname: "pop.example.org"}
		k, l := mustOpen(t, o)
		first := k.Leaf("")
		k.every = 24 * time.Hour // ten years in steps of five seconds take a while
		stop := run(t, k)
		time.Sleep(selfValid - selfRenew - 48*time.Hour)
		synctest.Wait()
		if !k.Leaf("").Equal(first) {
			t.Error("renewed too early")
		}
		time.Sleep(96 * time.Hour)
		synctest.Wait()
		second := k.Leaf("")
		if second.Equal(first) || !bytes.Equal(second.RawSubjectPublicKeyInfo, first.RawSubjectPublicKeyInfo) || time.Until(second.NotAfter) < selfValid-97*time.Hour {
			t.Errorf("from %v to %v, %s", second.NotBefore, second.NotAfter, l.String())
		}
		if l.count("was renewed") != 1 || l.count("a new certificate is served") != 1 {
			t.Error(l.String())
		}
		if !second.NotBefore.Equal(first.NotBefore) { // or, made by a clock that had jumped ahead, it would not hold when that is put right
			t.Errorf("the new one holds from %v, the old one from %v", second.NotBefore, first.NotBefore)
		}
		stop()
		time.Sleep(selfValid)
		k, l = mustOpen(t, o)
		if k.Leaf("").Equal(second) || l.count("was renewed") != 1 {
			t.Error(l.String())
		}
	})
}

func TestSelfMadeErrors(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "file"), nil)
	for want, o := range map[string]Options{
		"no folder for a self-made one": {},
		`"a b" is no host name`:         {SelfDir: filepath.Join(dir, "x"), Hostname: "a b"},
		`"a..b" is no host name`:        {SelfDir: filepath.Join(dir, "x"), Hostname: "a..b"},
		`"*.example.org" is no`:         {SelfDir: filepath.Join(dir, "x"), Hostname: "*.example.org"},
		"not a directory":               {SelfDir: filepath.Join(dir, "file", "tls")},
	} {
		if _, err := Open(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	for host, want := range map[string]string{
		"pöp.example.org": "xn--pp-fka.example.org", "192.0.2.7": "192.0.2.7", "2001:DB8::7": "2001:db8::7", "Mail_1.": "mail_1",
		strings.Repeat("a", 60) + ".example.org": strings.Repeat("a", 60) + ".example.org", "": "localhost",
	} {
		k, _ := mustOpen(t, Options{SelfDir: filepath.Join(dir, "for "+want), Hostname: host})
		if err := k.Leaf("").VerifyHostname(want); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
}
