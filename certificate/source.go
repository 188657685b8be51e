package certificate

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// stamp is what shows that a file has changed.
type stamp struct {
	size     int64
	modified time.Time
	device   uint64
	inode    uint64
}

// watched are files that are read together.
type watched struct {
	files  []string
	stamps []stamp
	young  bool   // changed so lately when they were read that their times prove nothing
	failed int    // how often in a row they could not be read
	told   string // the error that the log has
}

func (w *watched) stat() ([]stamp, error) {
	var list []stamp
	for _, name := range w.files {
		info, err := os.Stat(name) // follows links: certbot's change, not what they point at
		if err != nil {
			return nil, err
		}
		st := stamp{size: info.Size(), modified: info.ModTime()}
		if sys, ok := info.Sys().(*syscall.Stat_t); ok {
			st.device, st.inode = uint64(sys.Dev), sys.Ino
		}
		list = append(list, st)
	}
	return list, nil
}

// unchanged says that there is nothing to read.
func (w *watched) unchanged() bool {
	stamps, err := w.stat()
	return err == nil && w.failed == 0 && !w.young && slices.Equal(stamps, w.stamps)
}

// load reads the files with f. An error leaves everything but the count of failures as it was.
func (w *watched) load(f func(contents [][]byte) error) error {
	err := w.tryLoad(f)
	if err != nil {
		w.failed++
		return err
	}
	w.failed = 0
	return nil
}

func (w *watched) tryLoad(f func(contents [][]byte) error) error {
	before, err := w.stat()
	var errs []error
	var contents [][]byte
	for _, name := range w.files {
		data, err := readFile(name)
		errs = append(errs, err)
		contents = append(contents, data)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err != nil {
		return err
	}
	if err := f(contents); err != nil {
		return err
	}
	now := time.Now()
	if after, err := w.stat(); err != nil || !slices.Equal(before, after) {
		return fmt.Errorf("%s changed while it was read", w.files[0])
	}
	w.stamps, w.young = before, false
	for _, st := range before {
		// Two changes within a tick of the file system's clock have the same time.
		w.young = w.young || now.Sub(st.modified) < 2*time.Second
	}
	return nil
}

// source is where one certificate comes from.
type source struct {
	watched
	pair        Pair
	self        bool
	acme        string           // the domain, if it comes by ACME
	certificate *tls.Certificate // what was last read well
}

func newSource(p Pair) *source {
	s := &source{pair: p}
	s.files = []string{p.Certificate}
	if p.Key != p.Certificate {
		s.files = append(s.files, p.Key)
	}
	return s
}

func (s *source) present() bool {
	_, err := s.stat()
	return !errors.Is(err, fs.ErrNotExist)
}

// read reads the files and says whether there is something new.
func (s *source) read() (changed bool, err error) {
	var c *tls.Certificate
	err = s.load(func(contents [][]byte) (err error) {
		c, err = parsePair(contents[0], contents[len(contents)-1], s.pair)
		return err
	})
	if err != nil || same(c, s.certificate) {
		return false, err
	}
	s.certificate = c
	return true, nil
}

// warnings lists what an administrator should know of a pair that is served all the same.
func (s *source) warnings(now time.Time) []string {
	var list []string
	leaf := s.certificate.Leaf
	if info, err := os.Stat(s.pair.Key); err == nil && info.Mode().Perm()&0o004 != 0 {
		list = append(list, "the private key can be read by everyone on this machine: chmod o-r, and think of a new key")
	}
	list = append(list, expiry(leaf, now)...)
	if len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) > 0 &&
		!slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny) {
		list = append(list, "the certificate is not meant for servers (extended key usage): clients will refuse it")
	}
	if len(leaf.DNSNames)+len(leaf.IPAddresses) == 0 {
		list = append(list, "the certificate has no subject alternative name: clients will refuse it")
	}
	signed := leaf
	for i, der := range s.certificate.Certificate[1:] {
		next, err := x509.ParseCertificate(der)
		if err == nil && signed.CheckSignatureFrom(next) != nil {
			list = append(list, fmt.Sprintf("certificate %d in the file does not sign the one before it: clients may not find their way to a CA they know", i+2))
			break
		}
		signed = next
	}
	// The commonest mistake with certbot: the file beside the right one.
	if full := filepath.Join(filepath.Dir(s.pair.Certificate), "fullchain.pem"); len(s.certificate.Certificate) == 1 && s.pair.Certificate != full && !s.self {
		if _, err := os.Stat(full); err == nil {
			list = append(list, "the file has no chain, which clients need to find their way to a CA they know; "+full+" may have it")
		}
	}
	return list
}

// expiry warns of a certificate that is not valid, or not for long: one from a CA should have been renewed by now.
func expiry(c *x509.Certificate, now time.Time) []string {
	soon := min(14*24*time.Hour, c.NotAfter.Sub(c.NotBefore)/5)
	switch {
	case now.Before(c.NotBefore):
		return []string{"the certificate is not valid before " + c.NotBefore.UTC().Format(time.DateTime) + ": it is served, but clients will refuse it; is this machine's clock right?"}
	case now.After(c.NotAfter):
		return []string{"the certificate has been invalid since " + c.NotAfter.UTC().Format(time.DateTime) + ": it is served, but clients will refuse it"}
	case c.NotAfter.Sub(now) < soon:
		return []string{"the certificate ends on " + c.NotAfter.UTC().Format(time.DateTime) + " and was not renewed yet"}
	}
	return nil
}

// clientCAs are the CAs whose client certificates are asked for.
type clientCAs struct {
	watched
	pool *x509.CertPool
	raw  [][]byte
}

func newClientCAs(file string) *clientCAs { return &clientCAs{watched: watched{files: []string{file}}} }

// read reads the file; pool is another one if there is something new.
func (c *clientCAs) read() (warnings []string, err error) {
	pool := x509.NewCertPool()
	var raw [][]byte
	err = c.load(func(contents [][]byte) error {
		list, err := readCAs(contents[0], c.files[0])
		if err != nil {
			return err
		}
		for _, ca := range list {
			pool.AddCert(ca)
			raw = append(raw, ca.Raw)
			if !ca.IsCA {
				warnings = append(warnings, fmt.Sprintf("%s is no CA: no client certificate that it signed will be taken", ca.Subject))
			} else if !validAt(ca, time.Now()) {
				warnings = append(warnings, fmt.Sprintf("the CA %s is valid from %s to %s only", ca.Subject, ca.NotBefore.Format(time.DateOnly), ca.NotAfter.Format(time.DateOnly)))
			}
		}
		return nil
	})
	if err != nil || slices.EqualFunc(raw, c.raw, bytes.Equal) {
		return nil, err
	}
	c.pool, c.raw = pool, raw
	return warnings, nil
}

func readCAs(data []byte, name string) ([]*x509.Certificate, error) {
	list, err := blocks(data, name)
	if err != nil {
		return nil, err
	}
	return certificates(list, name)
}
