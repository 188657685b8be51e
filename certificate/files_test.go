package certificate

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A pair that can't be served is an error that names the file and says what would be right; all are told
// at once.
func TestFileErrors(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	good := ca.pair(t, dir, "good", newKey(t), "a.example.org")
	other := ca.pair(t, dir, "other", newKey(t), "b.example.org")
	file := func(name string, data []byte) string {
		name = filepath.Join(dir, name)
		write(t, name, data)
		return name
	}
	certPEM, keyPEM := read(t, good.Certificate), read(t, good.Key)
	block, _ := pem.Decode(keyPEM)
	openssl := func(out string, args ...string) string {
		t.Helper()
		out = filepath.Join(dir, out)
		if o, err := exec.CommandContext(t.Context(), "openssl", append(args, "-out", out)...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, o)
		}
		return out
	}
	der, _ := pem.Decode(certPEM)
	half := func(data []byte) []byte { return data[:len(data)/2] }
	var wants []string
	var all Options
	for _, test := range []struct {
		pair  Pair
		wants []string
	}{
		{Pair{good.Certificate, other.Key}, []string{good.Certificate, other.Key, "do not belong together", "made together"}},
		{Pair{filepath.Join(dir, "none.pem"), filepath.Join(dir, "none-key.pem")}, []string{"none.pem: no such file", "none-key.pem: no such file"}},
		{Pair{dir, good.Key}, []string{dir + ": is no regular file"}},
		{Pair{file("empty", nil), good.Key}, []string{"empty: has no PEM block"}},
		{Pair{good.Key, good.Certificate}, []string{"good-key.pem: has no certificate, only \"PRIVATE KEY\"", "good.pem: has no private key, only \"CERTIFICATE\""}},
		{Pair{file("der", der.Bytes), good.Key}, []string{"der: is binary", "openssl x509"}},
		{Pair{file("cut", half(certPEM)), good.Key}, []string{"cut: only", "still being written"}},
		{Pair{good.Certificate, file("cut-key", half(keyPEM))}, []string{"cut-key: only 0 of 1"}},
		{Pair{file("junk", []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")), good.Key}, []string{"junk: certificate 1 can't be read"}},
		{Pair{good.Certificate, file("junk-key", []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))}, []string{"junk-key: the key", "can't be read"}},
		{Pair{good.Certificate, openssl("locked", "pkey", "-in", good.Key, "-aes128", "-passout", "pass:x")}, []string{"locked: the key is encrypted", "openssl pkey -in"}},
		{Pair{good.Certificate, openssl("locked-old", "ec", "-in", good.Key, "-aes128", "-passout", "pass:x")}, []string{"locked-old: the key is encrypted"}},
		{Pair{file("order", append(bytes.Clone(ca.pem), certPEM...)), good.Key}, []string{"order: the server's own certificate must be the first in the file, it is number 2"}},
		{Pair{file("huge", bytes.Repeat([]byte{'\n'}, maxFile+1)), good.Key}, []string{"huge: has over"}},
	} {
		_, err := Open(Options{Pairs: []Pair{test.pair}})
		for _, want := range test.wants {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v: %v, want %s", test.pair, err, want)
			}
		}
		if err != nil && strings.Contains(err.Error(), string(half(pem.EncodeToMemory(block))[30:80])) {
			t.Errorf("a key in %v", err)
		}
		all.Pairs = append(all.Pairs, test.pair)
		wants = append(wants, test.wants...)
	}
	all.ClientCA, all.MinVersion = file("no-ca", keyPEM), tls.VersionTLS10
	all.ACME = &ACME{Directory: "http://ca.example", Domains: []string{"*.example.org", "a b"}, Email: "x", Roots: filepath.Join(dir, "no-roots")}
	_, err := Open(all)
	for _, want := range append(wants, "no-ca: has no certificate", "the lowest TLS version", "https URL", "no wildcards", "is no host name", "is no mail address", "no-roots", "a folder", "TCP listener") {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("not among all errors: %s", want)
		}
	}
}

// All common forms of keys are read, alone or in the certificate's file.
func TestKeyForms(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, rs := ca.pair(t, dir, "ec", newKey(t), "a.example.org"), ca.pair(t, dir, "rsa", testRSA(), "b.example.org")
	ed := ca.pair(t, dir, "ed", edwards, "c.example.org")
	sec1, pkcs1 := filepath.Join(dir, "sec1"), filepath.Join(dir, "pkcs1")
	for _, args := range [][]string{{"ec", "-in", ec.Key, "-out", sec1}, {"rsa", "-in", rs.Key, "-traditional", "-out", pkcs1}} {
		if o, err := exec.CommandContext(t.Context(), "openssl", args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, o)
		}
	}
	// As openssl ecparam -genkey writes it, and the key before the certificate.
	one := filepath.Join(dir, "one")
	parameters := "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
	write(t, one, []byte(parameters+string(read(t, sec1))+"some text\n"+string(read(t, ec.Certificate))))
	crlf := filepath.Join(dir, "crlf")
	write(t, crlf, bytes.ReplaceAll(read(t, one), []byte("\n"), []byte("\r\n")))
	both := filepath.Join(dir, "both") // the key that fits is taken
	write(t, both, append(read(t, rs.Key), read(t, ec.Key)...))
	for _, p := range []Pair{ec, rs, ed, {ec.Certificate, sec1}, {rs.Certificate, pkcs1}, {one, one}, {crlf, crlf}, {ec.Certificate, both}} {
		k, l := mustOpen(t, Options{Pairs: []Pair{p}})
		mustShake(t, k.TLS(), &tls.Config{ServerName: k.Describe()[0].Names[0], RootCAs: ca.pool()})
		if l.String() != "" {
			t.Error(l.String())
		}
	}
}

// What is odd but can be served is served, with a warning.
func TestFileWarnings(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	day := 24 * time.Hour
	for _, test := range []struct {
		name     string
		template x509.Certificate
		prepare  func(Pair)
		want     string // empty: none
	}{
		{"nothing", x509.Certificate{DNSNames: []string{"a.example.org"}}, nil, ""},
		{"expired", x509.Certificate{DNSNames: []string{"a.example.org"}, NotBefore: time.Now().Add(-9 * day), NotAfter: time.Now().Add(-day)}, nil, "has been invalid since"},
		{"early", x509.Certificate{DNSNames: []string{"a.example.org"}, NotBefore: time.Now().Add(day), NotAfter: time.Now().Add(90 * day)}, nil, "is not valid before"},
		{"ending", x509.Certificate{DNSNames: []string{"a.example.org"}, NotBefore: time.Now().Add(-80 * day), NotAfter: time.Now().Add(10 * day)}, nil, "was not renewed yet"},
		{"short", x509.Certificate{DNSNames: []string{"a.example.org"}, NotBefore: time.Now().Add(-day), NotAfter: time.Now().Add(5 * day)}, nil, ""},
		{"client", x509.Certificate{DNSNames: []string{"a.example.org"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, nil, "not meant for servers"},
		{"old", x509.Certificate{Subject: pkix.Name{CommonName: "a.example.org"}}, nil, "no subject alternative name"},
		{"open", x509.Certificate{DNSNames: []string{"a.example.org"}}, func(p Pair) { _ = os.Chmod(p.Key, 0o644) }, "can be read by everyone"},
		{"group", x509.Certificate{DNSNames: []string{"a.example.org"}}, func(p Pair) { _ = os.Chmod(p.Key, 0o640) }, ""},
		{"chain", x509.Certificate{DNSNames: []string{"a.example.org"}}, func(p Pair) {
			write(t, p.Certificate, append(read(t, p.Certificate), stranger.pem...))
		}, "does not sign the one before it"},
		{"certbot", x509.Certificate{DNSNames: []string{"a.example.org"}}, func(p Pair) {
			write(t, filepath.Join(filepath.Dir(p.Certificate), "fullchain.pem"), nil)
		}, "fullchain.pem may have it"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			p := Pair{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
			cert, key := ca.issue(t, newKey(t), &test.template)
			write(t, p.Certificate, cert)
			write(t, p.Key, key)
			if test.prepare != nil {
				test.prepare(p)
			}
			k, l := mustOpen(t, Options{Pairs: []Pair{p}})
			mustShake(t, k.TLS(), &tls.Config{ServerName: "a.example.org", InsecureSkipVerify: true})
			if test.want == "" && l.String() != "" || !strings.Contains(l.String(), test.want) {
				t.Errorf("%q, want %q", l.String(), test.want)
			}
			l.noSecrets(t, p.Key)
		})
	}
}

// certbot keeps archive/pop/cert1.pem and so on, and changes the links in live/pop one after the other.
// Whatever is seen in between, a pair that fits is served.
func TestRenewalByLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, dir := newAuthority(t), t.TempDir()
		p := Pair{filepath.Join(dir, "fullchain.pem"), filepath.Join(dir, "privkey.pem")}
		link := func(target, name string) {
			t.Helper()
			if err := os.Symlink(target, name+".tmp"); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(name+".tmp", name); err != nil {
				t.Fatal(err)
			}
		}
		var pairs []Pair
		for _, stem := range []string{"one", "two", "three"} {
			pairs = append(pairs, ca.pair(t, dir, stem, newKey(t), stem+".example.org"))
		}
		link(pairs[0].Certificate, p.Certificate)
		link(pairs[0].Key, p.Key)
		k, l := mustOpen(t, Options{Pairs: []Pair{p}})
		run(t, k)
		look := func(want string) {
			t.Helper()
			time.Sleep(k.every)
			synctest.Wait()
			if got := k.Leaf("").DNSNames[0]; got != want+".example.org" {
				t.Errorf("served: %s, want %s", got, want)
			}
		}
		look("one")
		// Quick enough to be seen halfway at most once: nothing to tell but the new certificate.
		link(pairs[1].Certificate, p.Certificate)
		look("one")
		link(pairs[1].Key, p.Key)
		look("two")
		if l.count("") != 1 || l.count("a new certificate is served") != 1 {
			t.Error(l.String())
		}
		// It stays halfway for an hour: told once.
		link(pairs[2].Key, p.Key)
		for range 720 {
			look("two")
		}
		if l.count("") != 2 || l.count("do not belong together") != 1 {
			t.Error(l.String())
		}
		if err := k.Reload(); err == nil || !strings.Contains(err.Error(), "do not belong together") {
			t.Errorf("Reload: %v", err)
		}
		look("two")
		link(pairs[2].Certificate, p.Certificate)
		look("three")
		if l.count("can be read again") != 1 || l.count("") != 4 {
			t.Error(l.String())
		}
		// The files go away, are damaged, and come back.
		os.Remove(p.Certificate)
		look("three")
		look("three")
		write(t, p.Certificate, []byte("x"))
		look("three")
		os.Remove(p.Certificate)
		link(pairs[2].Certificate, p.Certificate)
		look("three")
		if l.count("no such file") != 1 || l.count("has no PEM block") != 1 || l.count("can be read again") != 2 {
			t.Error(l.String())
		}
		l.noSecrets(t, pairs[0].Key, pairs[1].Key, pairs[2].Key)
	})
}

// A file that is written in place, to the same size within a tick of the clock, is noticed too.
func TestRenewalInPlace(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	key := newKey(t)
	p := ca.pair(t, dir, "pop", key, "one.example.org")
	k, _ := mustOpen(t, Options{Pairs: []Pair{p}})
	before, err := os.Stat(p.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	for {
		ca.pair(t, dir, "pop", key, "two.example.org")
		if after, _ := os.Stat(p.Certificate); after.Size() == before.Size() {
			break // the length of a signature varies
		}
	}
	_ = os.Chtimes(p.Certificate, time.Time{}, before.ModTime())
	k.look(t.Context())
	if got := k.Leaf("").DNSNames[0]; got != "two.example.org" {
		t.Errorf("served: %s", got)
	}
}

// Other sources go on when one is broken.
func TestReloadTakesOverWhatItCan(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	one := ca.pair(t, dir, "one", newKey(t), "one.example.org")
	two := ca.pair(t, dir, "two", newKey(t), "two.example.org")
	clients := filepath.Join(dir, "clients")
	write(t, clients, ca.pem)
	k, _ := mustOpen(t, Options{Pairs: []Pair{one, two}, ClientCA: clients})
	old := k.Describe()
	write(t, one.Certificate, nil)
	write(t, clients, nil)
	ca.pair(t, dir, "two", newKey(t), "two.example.org")
	err := k.Reload()
	if err == nil || !strings.Contains(err.Error(), one.Certificate) || !strings.Contains(err.Error(), clients) {
		t.Error(err)
	}
	now := k.Describe()
	if old[0].Fingerprint != now[0].Fingerprint || old[1].Fingerprint == now[1].Fingerprint || k.now.Load().clients == nil {
		t.Errorf("%+v, %+v", old, now)
	}
}

// The file of CAs for client certificates is looked after like the others.
func TestClientCAIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, other, dir := newAuthority(t), newAuthority(t), t.TempDir()
		file := filepath.Join(dir, "clients")
		write(t, file, ca.pem)
		k, l := mustOpen(t, Options{Pairs: []Pair{ca.pair(t, dir, "pop", newKey(t), "pop.example.org")}, ClientCA: file})
		run(t, k)
		for _, step := range []struct {
			data []byte
			want *authority
			log  string
		}{
			{ca.pem, ca, ""},
			{ca.pem[:50], ca, "clients: only 0 of 1 PEM blocks"},
			{other.pem, other, "other CAs for client certificates are in use"},
			{read(t, k.options.Pairs[0].Certificate), ca, "no client certificate that it signed will be taken"},
		} {
			write(t, file, step.data)
			time.Sleep(3 * k.every)
			synctest.Wait()
			if _, err := step.want.cert.Verify(x509.VerifyOptions{Roots: k.now.Load().clients}); err != nil {
				t.Error(err)
			}
			if step.log == "" && l.String() != "" || step.log != "" && l.count(step.log) != 1 {
				t.Errorf("want %q: %s", step.log, l)
			}
		}
	})
}

// An expiring certificate is told once a day, and a self-made one whose files were removed is made anew
// by Reload alone.
func TestDailyWarning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, dir := newAuthority(t), t.TempDir()
		cert, key := ca.issue(t, newKey(t), &x509.Certificate{DNSNames: []string{"a.example.org"}, NotBefore: time.Now(), NotAfter: time.Now().Add(10 * 24 * time.Hour)})
		p := Pair{filepath.Join(dir, "cert"), filepath.Join(dir, "key")}
		write(t, p.Certificate, cert)
		write(t, p.Key, key)
		k, l := mustOpen(t, Options{Pairs: []Pair{p}})
		k.every = time.Hour
		run(t, k)
		time.Sleep(11*24*time.Hour + time.Hour)
		synctest.Wait()
		if l.count("was not renewed yet") != 2 || l.count("has been invalid") != 2 || l.count("") != 4 {
			t.Error(l.String())
		}
	})
}

func TestReloadMakesASelfMadeOneAnew(t *testing.T) {
	dir := t.TempDir()
	k, _ := mustOpen(t, Options{SelfDir: dir})
	first := k.Leaf("")
	os.Remove(filepath.Join(dir, "cert.pem"))
	os.Remove(filepath.Join(dir, "key.pem"))
	k.look(t.Context())
	if !k.Leaf("").Equal(first) {
		t.Error("changed without being told to")
	}
	if err := k.Reload(); err != nil || k.Leaf("").Equal(first) {
		t.Errorf("not made anew: %v", err)
	}
}

// While files are replaced and handshakes go on, every client is served a pair that works.
func TestHandshakesDuringRenewals(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	p := ca.pair(t, dir, "pop", newKey(t), "pop.example.org")
	k, _ := mustOpen(t, Options{Pairs: []Pair{p}})
	k.every = time.Millisecond
	end := run(t, k)
	stop := make(chan struct{})
	renewed := make(chan struct{})
	go func() {
		defer close(renewed)
		for {
			select {
			case <-stop:
				return
			default:
				ca.pair(t, dir, "pop", newKey(t), "pop.example.org")
			}
		}
	}()
	client := &tls.Config{ServerName: "pop.example.org", RootCAs: ca.pool(), ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	for range 200 {
		mustShake(t, k.TLS(), client)
		k.Describe()
	}
	close(stop)
	<-renewed
	end()
}

func FuzzPair(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), []byte("-----BEGIN PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END PRIVATE KEY-----\n"))
	if s, err := temporary([]string{"pop.example.org"}); err == nil {
		der, _ := x509.MarshalPKCS8PrivateKey(s.certificate.PrivateKey)
		f.Add(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.certificate.Certificate[0]}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	}
	f.Fuzz(func(t *testing.T, cert, key []byte) {
		for _, p := range []Pair{{"cert", "key"}, {"one", "one"}} {
			c, err := parsePair(cert, key, p)
			if (c == nil) == (err == nil) {
				t.Fatalf("%v, %v", c, err)
			}
			if err != nil {
				continue
			}
			// What we take, crypto/tls takes: the key signs what the certificate verifies.
			if c.Leaf == nil || len(c.Certificate) == 0 || !bytes.Equal(c.Leaf.Raw, c.Certificate[0]) {
				t.Fatalf("%+v", c)
			}
		}
		readCAs(cert, "file")
	})
}
