package certificate

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Name returns the user that a client certificate was made for, from its subject alternative names
// alone: what a subject's common name means, each CA decides for itself. The rules are:
//
//	email   the rfc822Name, whole
//	local   what is before the @ of the rfc822Name
//	dns     the dNSName, in lower case
//
// It is an error if there is no name of that kind, or several different ones (also where they have the
// local part in common), or one that is empty, has control octets, or is a wildcard or a quoted local
// part, which name nobody. Whether the certificate is to be trusted is not asked here.
func Name(rule string, c *x509.Certificate) (string, error) {
	if c == nil {
		return "", errors.New("there is no client certificate")
	}
	var list []string
	var kind string
	switch rule {
	case "email", "local":
		list, kind = c.EmailAddresses, "rfc822Name"
	case "dns":
		kind = "dNSName"
		for _, name := range c.DNSNames {
			list = append(list, strings.ToLower(name))
		}
	default:
		return "", fmt.Errorf("%q is no rule for names in client certificates: there are email, local and dns", rule)
	}
	if len(list) == 0 {
		return "", fmt.Errorf("the client certificate has no %s", kind)
	}
	name := list[0]
	for _, other := range list[1:] {
		if other != name {
			return "", fmt.Errorf("the client certificate has several names of the kind %s", kind)
		}
	}
	if name == "" || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return "", fmt.Errorf("the %s of the client certificate is empty or has control octets", kind)
	}
	if kind == "dNSName" {
		if strings.Contains(name, "*") {
			return "", errors.New("the dNSName of the client certificate is a wildcard")
		}
		return name, nil
	}
	// A quoted local part may have an @ of its own: "root@a"@b is not root.
	local, domain, ok := strings.Cut(name, "@")
	if !ok || local == "" || domain == "" || strings.Contains(domain, "@") || strings.ContainsAny(local, `"\`) {
		return "", errors.New("the rfc822Name of the client certificate is no plain address")
	}
	if rule == "local" {
		return local, nil
	}
	return name, nil
}
