package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// hostname is a name as DNS has them: the greeting shows it, and APOP's timestamp has it after the @.
var hostname = textual{"mail.example.org", func(s string) *fault {
	if why := badHost(s); why != "" {
		return faultf(`write a host name, such as "mail.example.org"`, "%s %s", quote(s), why)
	}
	return nil
}}

// badHost says what is wrong with a host name; "" if nothing is. RFC 1123 section 2.1; an underscore
// is let pass, because names in use have it.
func badHost(s string) string {
	if s == "" {
		return "is empty"
	}
	if len(s) > 253 {
		return "is longer than 253 octets"
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return "is not a host name"
		}
		for _, r := range label {
			if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' {
				return fmt.Sprintf("is not a host name: it has %q in it", r)
			}
		}
	}
	return ""
}

// file is the name of a file, or nothing.
var file = textual{"/etc/dewey/key.pem", func(s string) *fault { return badPath(s) }}

// present is the name of a file.
var present = textual{file.example, func(s string) *fault {
	if s == "" {
		return faultf("write a file, such as "+quoteTOML(file.example), "is empty")
	}
	return badPath(s)
}}

// certificates are files, none twice: the later one would never be shown. Keys may be shared.
var (
	certificates = orOne(list(text(present), `["/etc/dewey/cert.pem"]`, func(s string) string { return s }))
	keyFiles     = orOne(list(text(present), `["/etc/dewey/key.pem"]`, nil))
)

// folder is the name of a folder.
var folder = textual{"/var/lib/dewey", func(s string) *fault {
	if s == "" {
		return faultf(`write a folder, such as "/var/lib/dewey"`, "is empty")
	}
	return badPath(s)
}}

func badPath(s string) *fault {
	if i := strings.IndexFunc(s, isControl); i >= 0 {
		return faultf("write it without", "%s has a control character in it", quote(s))
	}
	return nil
}

func isControl(r rune) bool { return r < 0x20 || r == 0x7f }

// addresses are what a listener binds.
var addresses = list(word(aString, `"127.0.0.1:1110"`, address, quoteTOML), `["127.0.0.1:1110"]`,
	func(a string) string { return a })

// address checks host:port and returns it in one spelling, so that equal ones compare equal.
func address(s string) (string, *fault) {
	const right = `write host:port, such as "127.0.0.1:1110", ":110" or "[::1]:110"`
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		why := "is not an address with a port"
		if strings.Count(s, ":") > 1 && !strings.Contains(s, "[") {
			why = "is an IPv6 address without brackets or without a port"
		}
		return "", faultf(right, "%s %s", quote(s), why)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return "", faultf("write a port from 0 to 65535 after the host; 0 lets the system choose",
			"%s is not a port, in %s", quote(port), quote(s))
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.String()
	} else if why := badHost(host); host != "" && why != "" {
		return "", faultf(right, "%s %s, in %s", quote(host), why, quote(s))
	}
	return net.JoinHostPort(strings.ToLower(host), strconv.FormatUint(n, 10)), nil
}

// lmtpAddresses are addresses, and UNIX sockets' paths.
var lmtpAddresses = list(word(aString, `"127.0.0.1:1024"`, func(s string) (string, *fault) {
	path, unix := strings.CutPrefix(s, UnixPrefix)
	switch {
	case strings.HasPrefix(s, "/"):
		return "", faultf("write "+quoteTOML(UnixPrefix+cut(s)), "%s is not an address with a port", quote(s))
	case !unix:
		return address(s)
	case !filepath.IsAbs(path) || strings.HasSuffix(path, "/"):
		return "", faultf(`write an absolute path, such as "unix:/run/dewey/lmtp"`, "%s names no file from the root on", quote(s))
	case len(filepath.Clean(path)) > maxSocketPath: // unix(7)
		return "", faultf(fmt.Sprintf("write one of at most %d", maxSocketPath), "%s is a path of %d octets, too long for a socket", quote(s), len(path))
	}
	return UnixPrefix + filepath.Clean(path), badPath(s)
}, quoteTOML), `["unix:/run/dewey/lmtp", "127.0.0.1:1024"]`, func(a string) string { return a })

// maxSocketPath is what sun_path holds, but for its last octet.
const maxSocketPath = 107

// rules are recipients.rules: "detail" finds nobody by itself.
var rules = func() kind[[]string] {
	quoted := make([]string, len(RecipientRules))
	for i, r := range RecipientRules {
		quoted[i] = quoteTOML(r)
	}
	of := list(choice(RecipientRules...), "["+strings.Join(quoted, ", ")+"]", func(s string) string { return s })
	read := of.read
	of.read = func(r raw) ([]string, []fault) {
		v, faults := read(r)
		if len(faults) == 0 && !slices.Contains(v, "exact") && !slices.Contains(v, "local") {
			return nil, []fault{{line: r.line, wrong: "finds no user", right: "list exact or local, or both"}}
		}
		return v, faults
	}
	return of
}()

// delimiter is what parts a name from a detail: octets that can be in a local part, and that names hardly have.
var delimiter = textual{"+", func(s string) *fault {
	for i, r := range s {
		if !strings.ContainsRune("!#$%&'*+-/=?^_`{|}~.", r) || strings.ContainsRune(s[:i], r) {
			return faultf(`write "+", or some of + - = _ . and the like, or "" for none`, "%s has %q in it, which can't part an address, or twice", quote(s), r)
		}
	}
	return nil
}}

// mailDomains are the names after the @. RFC 5321 sections 4.1.2 and 4.1.3, RFC 6531 section 3.3.
var mailDomains = list(word(aString, `"example.org"`, func(s string) (string, *fault) {
	const right = `write a domain, such as "example.org"`
	name := foldASCII(s)
	switch {
	case strings.HasPrefix(name, "[") && strings.HasSuffix(name, "]") && !strings.ContainsFunc(name, func(r rune) bool { return r == ' ' || isControl(r) }):
		return name, nil
	case strings.HasPrefix(name, "@"):
		return "", faultf("write it without the @", "%s is not a domain", quote(s))
	case strings.HasSuffix(name, "."):
		return "", faultf("write it without the last dot, as mail addresses have it", "%s is not a domain", quote(s))
	}
	ascii := strings.Map(func(r rune) rune {
		if r >= utf8.RuneSelf {
			return 'x'
		}
		return r
	}, name)
	if why := badHost(ascii); why != "" {
		return "", faultf(right, "%s is not a domain", quote(s))
	}
	return name, nil
}, quoteTOML), `["example.org", "example.net"]`, func(s string) string { return s })

// domains are the names that a certificate is for. HTTP-01 proves neither wildcards nor, with most
// authorities, addresses. RFC 8555 sections 7.1.3 and 8.3.
var domains = list(word(aString, `"mail.example.org"`, func(s string) (string, *fault) {
	name := strings.ToLower(strings.TrimSuffix(s, "."))
	switch _, err := netip.ParseAddr(name); {
	case err == nil:
		return "", faultf("write a host name", "%s is an address", quote(s))
	case strings.HasPrefix(name, "*."):
		return "", faultf("write each name by itself", "%s is a wildcard: HTTP-01 can't prove it", quote(s))
	}
	return name, hostname.check(name)
}, quoteTOML), `["mail.example.org"]`, func(s string) string { return s })

// email is an address to write to, or nothing.
var email = textual{"postmaster@example.org", func(s string) *fault {
	if s == "" {
		return nil
	}
	local, domain, found := strings.Cut(s, "@")
	if !found || local == "" || badHost(domain) != "" || strings.ContainsFunc(s, func(r rune) bool { return isControl(r) || strings.ContainsRune(" ,:;<>\"", r) }) {
		return faultf(`write one address, such as "postmaster@example.org"`, "%s is not a mail address", quote(s))
	}
	return nil
}}

// directory is where an ACME server says what it has. RFC 8555 sections 6.1 and 7.1.1.
var directory = textual{"https://acme-v02.api.letsencrypt.org/directory", func(s string) *fault {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
		return faultf(`write a URL such as "https://acme-v02.api.letsencrypt.org/directory"`, "%s is not an https URL", quote(s))
	}
	return nil
}}

// account is a user's or a group's name or number, or nothing. Whether there is one is known at start.
var account = textual{"dewey", func(s string) *fault {
	if strings.ContainsFunc(s, func(r rune) bool { return isControl(r) || strings.ContainsRune(" :/", r) }) {
		return faultf(`write a name or a number, such as "dewey"`, "%s is no name of a user or a group", quote(s))
	}
	return nil
}}

// networks are addresses and prefixes.
var networks = list(word(aString, `"192.0.2.0/24"`, network, func(p netip.Prefix) string {
	if p.IsSingleIP() {
		return quoteTOML(p.Addr().String())
	}
	return quoteTOML(p.String())
}), `["192.0.2.0/24", "2001:db8::/32"]`, nil)

func network(s string) (netip.Prefix, *fault) {
	const right = `write an address or a prefix, such as "192.0.2.1", "192.0.2.0/24" or "2001:db8::/32"`
	if ip, err := netip.ParseAddr(s); err == nil {
		if ip.Zone() != "" {
			return netip.Prefix{}, faultf(right, "%s has a zone", quote(s))
		}
		ip = ip.Unmap()
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, faultf(right, "%s is neither an address nor a prefix", quote(s))
	}
	if p.Addr().Is4In6() {
		return netip.Prefix{}, faultf("write it as an IPv4 prefix", "%s is an IPv4 prefix in IPv6's dress", quote(s))
	}
	if p != p.Masked() {
		return netip.Prefix{}, faultf(fmt.Sprintf("write %q, or %q for the one address", p.Masked(), p.Addr()),
			"%s has bits set after the first %d", quote(s), p.Bits())
	}
	return p, nil
}
