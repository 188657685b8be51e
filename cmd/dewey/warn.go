package main

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	"dewey/auth"
	"dewey/config"
	"dewey/sasl"
)

// warn tells what is configured and will not be as the administrator may think.
func (d *daemon) warn(c *config.Config) {
	if slices.ContainsFunc(c.LMTP.Listen, func(a string) bool { return !strings.HasPrefix(a, config.UnixPrefix) && reachable(a) }) {
		d.log.Warn("whoever can reach lmtp.listen can deliver to every user, from any sender: LMTP asks for no password; unix:/path, or an address of this machine alone, would be safer")
	}
	if n := d.users.plain(); n > 0 {
		d.log.Warn("whoever can read the users file can read passwords in it: {PLAIN}, or one of its other names; only APOP and CRAM-MD5 need that; to change one: dewey user passwd NAME",
			"users", n)
	}
	if _, unlisted, _ := d.users.users(); len(unlisted) > 0 && (c.Mail.Retention > 0 || c.Mail.Undelete > 0) {
		d.log.Warn("the night's work is not done for users of backends that can't list them: their old mail stays, and what was removed and kept", "backends", strings.Join(unlisted, " "))
	}
	if names := needSecrets(c.Login.Mechanisms); len(names) > 0 && !d.users.KeepsSecrets() {
		d.log.Warn("login.mechanisms lists what is not offered: only passwd-files keep the secrets that it needs; auto offers what all users can log in by", "mechanisms", strings.Join(names, " "))
	}
	d.warnOfNames(c)
	if c.Login.Plaintext == config.PlaintextAlways && slices.ContainsFunc(c.POP3.Listen, reachable) {
		d.log.Warn("passwords may cross the network as they are: login.plaintext is always; loopback would ask for TLS")
	}
}

// warnOfNames tells of backends that know their users by passwords alone and stand before others. Asked for a name they
// know nobody: the secret, certificate or token of a later backend's user lets him in where theirs has the maildrop.
func (d *daemon) warnOfNames(c *config.Config) {
	external := c.TLS.ClientCA != "" && (c.Login.Mechanisms == nil || slices.Contains(c.Login.Mechanisms, "EXTERNAL"))
	tokens := slices.ContainsFunc(c.Auth, func(a config.Auth) bool { return a.Kind == config.KindOAuth && a.Users == config.UsersChain })
	for i, a := range c.Auth {
		if !nameless(&a) {
			continue
		}
		for _, later := range c.Auth[i+1:] {
			byName := (external || tokens) && later.Kind != config.KindOAuth && !nameless(&later)
			bySecret := later.Kind == config.KindPasswdFile && len(needSecrets(c.Login.Mechanisms)) > 0
			if (byName || bySecret) && sharedNames(&a, &later) {
				d.log.Warn("a backend can't look up names and is not the last: who proves himself without a password is a later backend's user, also by a name of this one's; list it last, or give both domains",
					"backend", a.Name, "later", later.Name)
				break
			}
		}
	}
}

// nameless says that a backend knows users by their passwords alone.
func nameless(a *config.Auth) bool {
	return a.Kind == config.KindPAM && a.Recipients == "none" || a.Kind == config.KindDovecot && a.UserdbSocket == ""
}

// sharedNames says whether a name may be asked of both.
func sharedNames(a, b *config.Auth) bool {
	return len(a.Domains) == 0 || len(b.Domains) == 0 ||
		slices.ContainsFunc(a.Domains, func(d string) bool { return slices.Contains(b.Domains, d) })
}

// needSecrets are those ways to log in that need more than a password to be checked.
func needSecrets(mechanisms []string) []string {
	return slices.DeleteFunc(slices.Clone(mechanisms), func(name string) bool {
		m, _ := sasl.Find(name)
		return name != auth.APOP && m.Secret == ""
	})
}

// reachable tells whether an address can be reached from another machine, as far as one can see.
func reachable(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil || host == "localhost" {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err != nil || !ip.IsLoopback()
}
