package ldap_test

import (
	"strings"
	"testing"
	"time"

	"dewey/auth/ldap"
)

// Everything that is wrong with a configuration is told at once, with what would be right, and nothing secret.
func TestConfigErrors(t *testing.T) {
	for what, try := range map[string]struct {
		change func(*ldap.Config)
		says   string // empty: it is good
	}{
		"good":                    {func(*ldap.Config) {}, ""},
		"no URL":                  {func(c *ldap.Config) { c.URLs = nil }, "urls is empty"},
		"an empty URL":            {func(c *ldap.Config) { c.URLs = []string{""} }, "not ldap://"},
		"no scheme":               {func(c *ldap.Config) { c.URLs = []string{"ldap.example.org"} }, "not ldap://"},
		"another scheme":          {func(c *ldap.Config) { c.URLs = []string{"http://ldap.example.org"} }, "not ldap://"},
		"UDP":                     {func(c *ldap.Config) { c.URLs = []string{"cldap://ldap.example.org"} }, "not ldap://"},
		"no URL at all":           {func(c *ldap.Config) { c.URLs = []string{"ldaps://%zz"} }, "is no URL"},
		"no host":                 {func(c *ldap.Config) { c.URLs = []string{"ldaps://"} }, "has no host"},
		"no slashes":              {func(c *ldap.Config) { c.URLs = []string{"ldaps:ldap.example.org"} }, "has no host"},
		"a port alone":            {func(c *ldap.Config) { c.URLs = []string{"ldaps://:636"} }, "has no host"},
		"a bad port":              {func(c *ldap.Config) { c.URLs = []string{"ldaps://x:70000"} }, "1 to 65535"},
		"port 0":                  {func(c *ldap.Config) { c.URLs = []string{"ldaps://x:0"} }, "1 to 65535"},
		"a base in the URL":       {func(c *ldap.Config) { c.URLs = []string{"ldaps://x/dc=example"} }, "more than a host"},
		"a query in the URL":      {func(c *ldap.Config) { c.URLs = []string{"ldaps://x??sub"} }, "more than a host"},
		"a password in the URL":   {func(c *ldap.Config) { c.URLs = []string{"ldaps://x:secret@y"} }, "bind_password_file"},
		"an IPv6 address":         {func(c *ldap.Config) { c.URLs = []string{"ldaps://[2001:db8::1]:636/"} }, ""},
		"a socket":                {func(c *ldap.Config) { c.URLs = []string{"ldapi://%2Frun%2Fldapi"} }, ""},
		"a socket that is none":   {func(c *ldap.Config) { c.URLs = []string{"ldapi:///"} }, "absolute path"},
		"a socket without a name": {func(c *ldap.Config) { c.URLs = []string{"ldapi://"} }, "absolute path"},
		"a relative socket":       {func(c *ldap.Config) { c.URLs = []string{"ldapi://run%2Fldapi"} }, "absolute path"},
		"a socket of nonsense":    {func(c *ldap.Config) { c.URLs = []string{"ldapi://%2"} }, "absolute path"},
		"two bad URLs":            {func(c *ldap.Config) { c.URLs = []string{"http://one", "ftp://two"} }, "two"},

		"in the clear":               {func(c *ldap.Config) { c.URLs = []string{"ldap://ldap.example.org"} }, "in the clear"},
		"in the clear, wanted":       {func(c *ldap.Config) { c.URLs, c.Plaintext = []string{"ldap://ldap.example.org"}, true }, ""},
		"in the clear, here":         {func(c *ldap.Config) { c.URLs = []string{"ldap://[::1]", "ldap://localhost", "ldap://127.0.0.2"} }, ""},
		"in the clear, in TLS":       {func(c *ldap.Config) { c.URLs, c.StartTLS = []string{"ldap://ldap.example.org"}, true }, ""},
		"TLS in TLS":                 {func(c *ldap.Config) { c.StartTLS = true }, "starttls is for ldap://"},
		"TLS in a socket":            {func(c *ldap.Config) { c.URLs, c.StartTLS = []string{"ldapi:///run/ldapi"}, true }, "starttls is for ldap://"},
		"no certificate":             {func(c *ldap.Config) { c.CA = []byte("no PEM") }, "BEGIN CERTIFICATE"},
		"an empty certificate":       {func(c *ldap.Config) { c.CA = []byte{} }, "BEGIN CERTIFICATE"},
		"a name without a password":  {func(c *ldap.Config) { c.BindPassword = "" }, "belong together"},
		"a password without a name":  {func(c *ldap.Config) { c.BindDN = "" }, "belong together"},
		"a bind_dn that is none":     {func(c *ldap.Config) { c.BindDN = "admin" }, "bind_dn"},
		"a userPrincipalName":        {func(c *ldap.Config) { c.BindDN = "dewey@example.org" }, ""},
		"no base":                    {func(c *ldap.Config) { c.Base = "" }, "base and filter"},
		"no filter":                  {func(c *ldap.Config) { c.Filter = "" }, "base and filter"},
		"a base that is none":        {func(c *ldap.Config) { c.Base = "example.org" }, "base"},
		"a scope":                    {func(c *ldap.Config) { c.Scope = "tree" }, "sub, one or base"},
		"a mode":                     {func(c *ldap.Config) { c.Mode = "compare" }, `"bind" or "lookup"`},
		"a filter without brackets":  {func(c *ldap.Config) { c.Filter = "uid={user}" }, "(uid={user}) would be right"},
		"a filter that is not ended": {func(c *ldap.Config) { c.Filter = "(&(uid={user})" }, "is no filter"},
		"a filter with more":         {func(c *ldap.Config) { c.Filter = "(uid={user})(a=b)" }, "is no filter"},
		"a filter of any user":       {func(c *ldap.Config) { c.Filter = "(objectClass=person)" }, "same for every user"},
		"Dovecot's words":            {func(c *ldap.Config) { c.Filter = "(uid=%u)" }, "same for every user"},
		"another placeholder":        {func(c *ldap.Config) { c.Filter = "(uid={name})" }, "{user}, {local}, {domain} would be right"},
		"a placeholder not ended":    {func(c *ldap.Config) { c.Filter = "(uid={user)" }, "placeholder"},
		"a bracket too many":         {func(c *ldap.Config) { c.Filter = "(uid={user}})" }, "} without {"},
		"a placeholder as attribute": {func(c *ldap.Config) { c.Filter = "({user}=x)" }, "where no value is"},
		"a long filter":              {func(c *ldap.Config) { c.Filter = "(uid={user}" + strings.Repeat("x", 5000) + ")" }, "4096"},
		"a deep filter":              {func(c *ldap.Config) { c.Filter = strings.Repeat("(!", 2000) + "(uid={user})" }, "is no filter"},
		"a filter for mail":          {func(c *ldap.Config) { c.RecipientFilter = "(mail=x" }, "recipient_filter"},
		"a group without a base":     {func(c *ldap.Config) { c.GroupFilter = "(member={dn})" }, "group_base"},
		"a group filter":             {func(c *ldap.Config) { c.GroupBase, c.GroupFilter = "dc=x", "(member={DN})" }, "group_filter"},
		"a group":                    {func(c *ldap.Config) { c.GroupBase = "ou=groups,dc=x" }, ""},
		"an attribute":               {func(c *ldap.Config) { c.HomeAttribute = "home dir" }, "home_attribute"},
		"all attributes":             {func(c *ldap.Config) { c.QuotaAttribute = "*" }, "quota_attribute"},
		"an attribute by number":     {func(c *ldap.Config) { c.QuotaAttribute = "1.2.3;binary" }, ""},
		"connections":                {func(c *ldap.Config) { c.Connections = -1 }, "negative"},
		"a time":                     {func(c *ldap.Config) { c.Timeout = -time.Second }, "negative"},
		"a scheme":                   {func(c *ldap.Config) { c.DefaultScheme = "ROT13" }, "default_scheme"},
		"a weak scheme":              {func(c *ldap.Config) { c.DefaultScheme = "SSHA" }, "default_scheme"},
		"a weak scheme, wanted":      {func(c *ldap.Config) { c.DefaultScheme, c.Weak = "SSHA", true }, ""},

		"a lookup with a template": {func(c *ldap.Config) { c.Mode, c.DN = ldap.ModeLookup, "uid={user},dc=x" }, "dn is for mode"},
		"a lookup as nobody":       {func(c *ldap.Config) { c.Mode, c.BindDN, c.BindPassword = ldap.ModeLookup, "", "" }, "bind_dn"},
		"a template":               {func(c *ldap.Config) { c.Base, c.Filter, c.DN = "", "", "uid={user},dc=x" }, ""},
		"a template of no user":    {func(c *ldap.Config) { c.DN = "uid=x,dc=x" }, "same for every user"},
		"a template without end":   {func(c *ldap.Config) { c.DN = "uid={user}" }, "fixed name"},
		"a template with no value": {func(c *ldap.Config) { c.DN = "{user},dc=x" }, "where no value is"},
		"a template that is none":  {func(c *ldap.Config) { c.DN = "uid={user},example" }, "is no name of an entry"},

		"half a name":                    {func(c *ldap.Config) { c.UserAttribute, c.Filter = "", "(uid={local})" }, "many names are one user"},
		"half a name, and its attribute": {func(c *ldap.Config) { c.Filter = "(uid={local})" }, ""},
		"both halves":                    {func(c *ldap.Config) { c.UserAttribute, c.Filter = "", "(&(uid={local})(o={domain}))" }, ""},
		"capitals":                       {func(c *ldap.Config) { c.UserAttribute, c.KeepCase = "", true }, "user_attribute"},
		"capitals of an attribute":       {func(c *ldap.Config) { c.KeepCase = true }, ""},
		"two ways to a user":             {func(c *ldap.Config) { c.UserAttribute, c.RecipientFilter = "", "(mail={user})" }, "user_attribute"},
	} {
		c := ldap.Config{
			URLs: []string{"ldaps://ldap.example.org"}, BindDN: service, BindPassword: servicePassword,
			Base: people, Filter: "(uid={user})", UserAttribute: "uid",
		}
		try.change(&c)
		b, err := ldap.New(c)
		switch {
		case try.says == "" && err != nil, try.says != "" && (err == nil || !strings.Contains(err.Error(), try.says)):
			t.Errorf("%s: %v", what, err)
		case err == nil:
			b.Close()
		default:
			for line := range strings.Lines(err.Error()) {
				if !strings.HasPrefix(line, "ldap: ") || !strings.Contains(line, "would be right") || strings.Contains(line, "secret") || strings.Contains(line, servicePassword) {
					t.Errorf("%s: the error reads %q", what, line)
				}
			}
		}
	}
	_, err := ldap.New(ldap.Config{URLs: []string{"http://x", "ldap://y"}, Scope: "x", Mode: "x", Filter: "x", BindDN: "x", HomeAttribute: "?", DefaultScheme: "x"})
	if n := len(strings.Split(err.Error(), "\n")); n < 8 {
		t.Errorf("%d errors: %v", n, err)
	}
}
