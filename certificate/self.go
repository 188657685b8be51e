package certificate

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

const (
	// selfValid is long, because each new self-made certificate has to be accepted anew by every client,
	// and people who are used to that accept anything.
	selfValid = 10 * 365 * 24 * time.Hour
	// selfRenew is how long before its end a self-made certificate is made anew.
	selfRenew = 30 * 24 * time.Hour
)

// asciiName is a host name as a certificate has it.
func asciiName(name string) (string, error) {
	if ip := net.ParseIP(name); ip != nil {
		return ip.String(), nil
	}
	ascii := strings.ToLower(strings.TrimSuffix(name, "."))
	if strings.ContainsFunc(ascii, func(r rune) bool { return r >= utf8.RuneSelf }) {
		var err error
		if ascii, err = idna.Lookup.ToASCII(ascii); err != nil {
			return "", fmt.Errorf("%q is no host name: %w", name, err)
		}
	}
	// Machines have names with underscores, whatever RFC 1123 says.
	for label := range strings.SplitSeq(ascii, ".") {
		if label == "" || len(label) > 63 || len(ascii) > 253 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return "", fmt.Errorf("%q is no host name", name)
		}
	}
	return ascii, nil
}

// makeSelf makes a certificate that signs itself.
//
// It is no CA: whoever trusts it trusts this server, not all that this server's key could sign, and
// Mozilla's library refuses a CA as a server's certificate. OpenSSL, GnuTLS, curl and Go take it as it
// is in a file of CAs. Without CA, no keyCertSign either (RFC 5280 section 4.2.1.3).
func makeSelf(key crypto.Signer, hosts []string, from, now time.Time) ([]byte, error) {
	template := &x509.Certificate{ // without a SerialNumber: CreateCertificate makes a random one
		NotBefore:             from,
		NotAfter:              now.Add(selfValid),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for _, host := range slices.Concat(hosts, []string{"localhost", "127.0.0.1", "::1"}) {
		name, err := asciiName(host)
		if err != nil {
			return nil, err
		}
		if template.Subject.CommonName == "" && len(name) <= 64 { // RFC 5280 appendix A: ub-common-name
			template.Subject = pkix.Name{CommonName: name}
		}
		if ip := net.ParseIP(name); ip == nil && !slices.Contains(template.DNSNames, name) {
			template.DNSNames = append(template.DNSNames, name)
		} else if ip != nil && !slices.ContainsFunc(template.IPAddresses, ip.Equal) {
			template.IPAddresses = append(template.IPAddresses, ip)
		}
	}
	return x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
}

// sinceYesterday is when a first certificate begins to hold: clients' clocks differ.
func sinceYesterday(now time.Time) time.Time { return now.Add(-24 * time.Hour) }

// temporary makes a certificate that is never stored.
func temporary(hosts []string) (*source, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	der, err := makeSelf(key, hosts, sinceYesterday(now), now)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &source{self: true, certificate: &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}}, nil
}

// keepSelf sees to it that there is a self-made pair that will not expire soon, and says in words what it
// did, if anything. A renewal keeps the key, for those who pinned that.
//
// Both files are written whole and synced under other names, then renamed, key first. So a crash leaves
// neither file, or one of them and the other under its other name, or both: the first is begun anew, the
// second finished. One file alone is nothing that a crash leaves, and no reason to change in silence a
// certificate that people have accepted.
func keepSelf(p Pair, hostname string, now time.Time) (what string, err error) {
	dir := filepath.Dir(p.Certificate)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("the folder for the self-made certificate: %w", err)
	}
	lock, err := os.Open(dir)
	if err != nil {
		return "", fmt.Errorf("the folder for the self-made certificate: %w", err)
	}
	defer lock.Close() // and so the lock; two servers that start at once must not both make a pair
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("locking %s: %w", dir, err)
	}
	hasCert, certErr := exists(p.Certificate)
	hasKey, keyErr := exists(p.Key)
	if err := errors.Join(certErr, keyErr); err != nil {
		return "", err
	}
	var hosts []string
	if hostname != "" {
		hosts = []string{hostname}
	}
	if !hasCert && !hasKey {
		return makePair(p, hosts, now, lock)
	}
	if hasCert != hasKey {
		if err := finish(p, hasCert, lock); err != nil {
			return "", err
		}
	}
	s := newSource(p)
	if _, err := s.read(); err != nil {
		return "", fmt.Errorf("%w (the self-made certificate: put the files back from a backup, or remove both %s and %s to have a new one, which clients must accept anew)", err, p.Certificate, p.Key)
	}
	leaf := s.certificate.Leaf
	if now.Before(leaf.NotAfter.Add(-selfRenew)) {
		return "", nil
	}
	// It holds from when the old one did: the clock may be wrong now, and right again tomorrow.
	der, err := makeSelf(s.certificate.PrivateKey.(crypto.Signer), hosts, leaf.NotBefore, now)
	if err != nil {
		return "", err
	}
	if err := writeSynced(p.Certificate+".new", "CERTIFICATE", der); err != nil {
		return "", err
	}
	err = errors.Join(os.Rename(p.Certificate+".new", p.Certificate), lock.Sync())
	return fmt.Sprintf("the self-made certificate, which ends on %s, was renewed: clients must accept the new one", leaf.NotAfter.Format(time.DateOnly)), err
}

func makePair(p Pair, hosts []string, now time.Time, dir *os.File) (string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", err
	}
	certDER, err := makeSelf(key, hosts, sinceYesterday(now), now)
	if err != nil {
		return "", err
	}
	if err := writeSynced(p.Key+".new", "PRIVATE KEY", keyDER); err != nil {
		return "", err
	}
	if err := writeSynced(p.Certificate+".new", "CERTIFICATE", certDER); err != nil {
		return "", err
	}
	if err := dir.Sync(); err != nil { // before one is renamed, both are there
		return "", err
	}
	if err := os.Rename(p.Key+".new", p.Key); err != nil {
		return "", err
	}
	if err := os.Rename(p.Certificate+".new", p.Certificate); err != nil {
		return "", err
	}
	return "no certificate is configured: a self-made one was made, which clients must be told to accept", dir.Sync()
}

// finish does the second rename of a pair whose making was cut off after the first.
func finish(p Pair, hasCert bool, dir *os.File) error {
	there, missing := p.Key, p.Certificate
	half := Pair{missing + ".new", there}
	if hasCert {
		there, missing = missing, there
		half = Pair{there, missing + ".new"}
	}
	if _, err := newSource(half).read(); err != nil {
		return fmt.Errorf("%s is there, but %s is missing: put it back from a backup, or remove %s too to have a new self-made certificate, which clients must accept anew", there, missing, there)
	}
	return errors.Join(os.Rename(missing+".new", missing), dir.Sync())
}

func exists(name string) (bool, error) {
	_, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// writeSynced writes a new file that is on the disk when it returns, a key readable by its owner alone.
func writeSynced(name, kind string, der []byte) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) { // left by a crash
		return err
	}
	mode := fs.FileMode(0o600)
	if kind == "CERTIFICATE" {
		mode = 0o644
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	err = pem.Encode(f, &pem.Block{Type: kind, Bytes: der})
	return errors.Join(err, f.Sync(), f.Close())
}
