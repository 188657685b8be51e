package certificate

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// maxFile bounds what is read of a PEM file: all CAs that browsers trust come to about 250 KiB.
const maxFile = 4 << 20

// errMismatch is what a pair reads as while a renewal has replaced one file of two.
var errMismatch = errors.New("do not belong together")

// readFile reads a whole file, and refuses one that is no regular file (a FIFO would block for ever).
func readFile(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: is no regular file", name)
	}
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("%w: the server's user must be able to read it", err)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s: has over %d octets", name, maxFile)
	}
	return data, nil
}

// blocks returns all PEM blocks of a file. A block that can't be read is an error, not skipped, so that
// a file that is cut or half-written is never taken for a shorter one.
func blocks(data []byte, name string) ([]*pem.Block, error) {
	begun := bytes.Count(append([]byte("\n"), data...), []byte("\n-----BEGIN "))
	var list []*pem.Block
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		list = append(list, block)
	}
	switch {
	case len(list) < begun:
		return nil, fmt.Errorf("%s: only %d of %d PEM blocks can be read: the file is damaged, cut, or still being written", name, len(list), begun)
	case len(list) == 0 && len(data) > 0 && data[0] == 0x30:
		return nil, fmt.Errorf("%s: is binary (DER or PKCS #12), PEM is wanted: convert it with openssl x509 -inform DER, openssl pkey -inform DER, or openssl pkcs12 -nodes", name)
	case len(list) == 0:
		return nil, fmt.Errorf("%s: has no PEM block", name)
	}
	return list, nil
}

// certificates returns those of the blocks that are certificates.
func certificates(list []*pem.Block, name string) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for _, b := range list {
		if b.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: certificate %d can't be read: %w", name, len(certs)+1, err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%s: has no certificate, only %s", name, types(list))
	}
	return certs, nil
}

// keys returns those of the blocks that are private keys. No error says anything of a key.
func keys(list []*pem.Block, name string) ([]crypto.Signer, error) {
	var found []crypto.Signer
	for _, b := range list {
		switch {
		case b.Type == "ENCRYPTED PRIVATE KEY" || strings.HasSuffix(b.Type, "PRIVATE KEY") && strings.Contains(b.Headers["Proc-Type"], "ENCRYPTED"):
			return nil, fmt.Errorf("%s: the key is encrypted, and nobody is asked for its passphrase: decrypt it with openssl pkey -in %s -out …, readable by the server alone", name, name)
		case !strings.HasSuffix(b.Type, "PRIVATE KEY"):
			continue
		}
		key := parseKey(b.Bytes)
		if key == nil {
			return nil, fmt.Errorf("%s: the key (%q) can't be read: RSA, ECDSA and Ed25519 keys can, as PKCS #8, PKCS #1 or SEC 1", name, b.Type)
		}
		found = append(found, key)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s: has no private key, only %s", name, types(list))
	}
	return found, nil
}

// parseKey returns nil for what is no key that TLS can use.
func parseKey(der []byte) crypto.Signer {
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		switch key := key.(type) {
		case *rsa.PrivateKey:
			return key
		case *ecdsa.PrivateKey:
			return key
		case ed25519.PrivateKey:
			return key
		}
		return nil
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key
	}
	return nil
}

func types(list []*pem.Block) string {
	var quoted []string
	for _, b := range list {
		if q := fmt.Sprintf("%q", b.Type); !slices.Contains(quoted, q) {
			quoted = append(quoted, q)
		}
	}
	return strings.Join(quoted, ", ")
}

// parsePair makes a pair of the contents of its files.
func parsePair(certPEM, keyPEM []byte, p Pair) (*tls.Certificate, error) {
	certBlocks, certErr := blocks(certPEM, p.Certificate)
	keyBlocks, keyErr := blocks(keyPEM, p.Key)
	if p.Key == p.Certificate {
		keyErr = nil
	}
	if err := errors.Join(certErr, keyErr); err != nil {
		return nil, err
	}
	chain, certErr := certificates(certBlocks, p.Certificate)
	signers, keyErr := keys(keyBlocks, p.Key)
	if err := errors.Join(certErr, keyErr); err != nil {
		return nil, err
	}
	fits := func(c *x509.Certificate, key crypto.Signer) bool {
		public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
		return ok && public.Equal(c.PublicKey)
	}
	for _, key := range signers {
		if !fits(chain[0], key) {
			continue
		}
		cert := &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
		for _, c := range chain {
			cert.Certificate = append(cert.Certificate, c.Raw)
		}
		return cert, nil
	}
	for i, c := range chain[1:] {
		for _, key := range signers {
			if fits(c, key) {
				return nil, fmt.Errorf("%s: the server's own certificate must be the first in the file, it is number %d", p.Certificate, i+2)
			}
		}
	}
	return nil, fmt.Errorf("the certificate in %s and the key in %s %w: name the two that were made together", p.Certificate, p.Key, errMismatch)
}
