package config

import (
	"fmt"
	"slices"
	"strings"
)

// check finds what is wrong between values that are right each by itself.
func (c *Config) check() Problems {
	var problems Problems
	report := func(key, right, wrong string, args ...any) {
		problems = append(problems, Problem{Source: c.Source(key), Key: key, Wrong: fmt.Sprintf(wrong, args...), Right: right})
	}
	c.checkTLS(report)
	problems = append(problems, c.checkAuth()...)
	if !c.Login.UserPass && c.Login.Mechanisms != nil && len(c.Login.Mechanisms) == 0 {
		report("login.mechanisms", `write "auto", or login.user_pass = true`, "is empty, and login.user_pass is false: nobody could log in")
	}
	if c.Process.Group != "" && c.Process.User == "" {
		report("process.group", "set process.user too", "is set, but process.user is not")
	}
	// Two listeners can't have one address. A default gives way in silence: its listener may be one
	// that is not served at all.
	at := map[string]string{}
	for _, l := range []struct {
		key    string
		listen []string
		unused bool
	}{
		{"pop3.listen", c.POP3.Listen, false},
		{"pop3s.listen", c.POP3S.Listen, false},
		{"lmtp.listen", c.LMTP.Listen, false},
		{"tls.acme_listen", c.TLS.ACMEListen, len(c.TLS.ACMEDomains) == 0},
	} {
		if c.Source(l.key).IsDefault() || l.unused {
			continue
		}
		for _, a := range l.listen {
			if other, taken := at[a]; taken && !strings.HasSuffix(a, ":0") {
				report(l.key, "give each listener an address of its own", "%s is also in %s", quote(a), other)
			}
			at[a] = l.key
		}
	}
	byLine(problems)
	return problems
}

func (c *Config) checkTLS(report func(key, right, wrong string, args ...any)) {
	certificates, keys := len(c.TLS.Certificate), len(c.TLS.Key)
	switch {
	case certificates == keys:
	case keys == 0:
		report("tls.certificate", "set both or none", "is set, but tls.key is not")
	case certificates == 0:
		report("tls.key", "set both or none", "is set, but tls.certificate is not")
	default:
		report("tls.key", "write the key of each certificate, in the same order", "has %s, but tls.certificate has %d", files(keys), certificates)
	}
	if len(c.TLS.ACMEDomains) > 0 && certificates > 0 {
		report("tls.acme_domains", "set one of the two", "is set, and so is tls.certificate")
	}
	if len(c.TLS.ACMEDomains) > 0 && len(c.TLS.ACMEListen) == 0 {
		report("tls.acme_listen", `write the address of port 80, such as [":80"]`,
			"is empty, so that the names in tls.acme_domains can't be proved")
	}
	if slices.Contains(c.Login.Mechanisms, "EXTERNAL") && c.TLS.ClientCA == "" {
		report("login.mechanisms", "name the file with who signs the clients' certificates in tls.client_ca", "EXTERNAL needs tls.client_ca")
	}
}

func files(n int) string {
	if n == 1 {
		return "1 file"
	}
	return fmt.Sprintf("%d files", n)
}
