package main

import (
	"context"
	"crypto/tls"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"dewey/auth/oidc/oidctest"
)

// page returns the configurations of a page of docs/, with what stands in them for the machine put in.
func page(t *testing.T, name string, replace ...string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, m := range regexp.MustCompile("(?s)\n```toml\n(.*?)\n```\n").FindAllStringSubmatch(string(text), -1) {
		blocks = append(blocks, strings.NewReplacer(replace...).Replace(m[1])+"\n")
	}
	if len(blocks) == 0 {
		t.Fatalf("%s has no configuration", name)
	}
	return blocks
}

// curl fetches the list of messages with a bearer token.
func curl(t *testing.T, address, user, mechanism, token string) (out string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "curl", "-sS", "-k", "--ssl-reqd", "-u", user+":", "--login-options", "AUTH="+mechanism, "--oauth2-bearer", token, "pop3://"+address+"/")
	got, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatalf("curl (Debian package curl): %v", err)
	}
	return string(got), cmd.ProcessState.ExitCode()
}

// docs/OAUTH.md as it stands, but for the machine's names, with curl.
func TestOAuthPage(t *testing.T) {
	provider := oidctest.New(t)
	folder := t.TempDir()
	data := filepath.Join(folder, "data")
	write(t, filepath.Join(folder, "users"), "ann@example.org:{PLAIN}x\n")
	write(t, filepath.Join(folder, "id-ca.pem"), string(provider.Certificate()))
	write(t, filepath.Join(folder, "id-secret"), oidctest.Secret+"\n")
	blocks := page(t, "OAUTH.md", "https://id.example.org", provider.Issuer(), "/etc/dewey/", folder+"/", "/var/lib/dewey", data, `":110"`, `"127.0.0.1:0"`, `":995"`, `"127.0.0.1:0"`)
	if len(blocks) != 2 {
		t.Fatalf("%d configurations", len(blocks))
	}
	deliver(t, data, "ann@example.org", "1.a", "Subject: one\n\nbody\n")
	file := filepath.Join(folder, "dewey.toml")
	write(t, file, blocks[0])
	tokenFor := func(user string, changes map[string]any) string {
		claims := map[string]any{"aud": "dewey"}
		for k, v := range changes {
			claims[k] = v
		}
		return provider.Token(provider.Claims(user, claims))
	}
	provider.Fail(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	p := start(t, "dewey", []string{"serve", "--config", file, "--set", "login.failure_delay=0s"})
	address := field(p.wait("msg=listening", "key=pop3.listen"), "address")
	good := tokenFor("ann@example.org", nil)
	check := func(user, token string, code int, words string) {
		t.Helper()
		for _, mechanism := range []string{"OAUTHBEARER", "XOAUTH2"} {
			if out, got := curl(t, address, user, mechanism, token); got != code || !strings.Contains(out, words) {
				t.Errorf("%s with %s: %d, %s", user, mechanism, got, out)
			}
		}
	}
	check("ann@example.org", good, 67, "") // the provider is away: [SYS/TEMP]
	p.wait(`an auth backend can't tell`, "backend=oauth")
	if p.saw("login refused") {
		t.Error("a provider that is away refuses nobody")
	}
	// A password is good meanwhile.
	c := secure(t, address, true, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // its own certificate
	c.ok("USER ann@example.org")
	c.ok("PASS x", "1 message")
	c.ok("QUIT")
	provider.Fail(nil)
	for end := time.Now().Add(patience); ; { // it is asked again after a while
		if _, code := curl(t, address, "ann@example.org", "XOAUTH2", good); code == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the provider is back, and nobody comes in")
		}
	}
	check("ann@example.org", good, 0, "1 ")
	check("ann@example.org", tokenFor("ann@example.org", map[string]any{"aud": "another"}), 67, "")
	check("ann@example.org", tokenFor("bob@example.org", nil), 67, "") // nobody's
	check("ann@example.org", tokenFor("ann@example.net", nil), 67, "")

	// Its keys are known now.
	provider.Fail(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	check("ann@example.org", good, 0, "1 ")
	provider.Fail(nil)

	// A reload takes the second configuration: tokens are asked about.
	write(t, file, strings.Split(blocks[0], "[[auth]]")[0]+blocks[1]+"ca_file = \""+folder+"/id-ca.pem\"\n")
	write(t, filepath.Join(folder, "users"), "zoe@example.org:{PLAIN}x\n")
	deliver(t, data, "zoe@example.org", "1.a", "Subject: one\n\nbody\n")
	p.signal(syscall.SIGHUP)
	p.wait("msg=reloaded")
	if !p.saw(`msg="auth backend"`, "backend=oauth", "accepted=5", "rejected=6") {
		t.Error("the reload does not say what the backends have done")
	}
	provider.Issue("opaque", map[string]any{"aud": "dewey", "email": "zoe@example.org", "email_verified": true})
	check("zoe@example.org", "opaque", 0, "1 ")
	check("ann@example.org", good, 67, "")
	p.signal(syscall.SIGTERM)
	if code := p.end(); code != 0 {
		t.Errorf("code %d", code)
	}
}

// Without an identity provider nobody is offered to send a token; with one that a reload brings, all are.
func TestTokensAreOfferedAfterReload(t *testing.T) {
	provider := oidctest.New(t)
	folder := t.TempDir()
	file := filepath.Join(folder, "dewey.toml")
	write(t, filepath.Join(folder, "ca.pem"), string(provider.Certificate()))
	write(t, file, "pop3.listen = ['127.0.0.1:0']\npop3s.listen = []\ndata = '"+folder+"/data'\n")
	p := start(t, "dewey", []string{"serve", "--config", file})
	address := field(p.wait("msg=listening"), "address")
	offered := func() bool {
		c := dial(t, address)
		c.ok("CAPA")
		for line := ""; line != "."; {
			if line = c.read(); strings.HasPrefix(line, "SASL") {
				return strings.Contains(line, "OAUTHBEARER")
			}
		}
		return false
	}
	if offered() {
		t.Error("tokens are offered without a provider")
	}
	write(t, file, "pop3.listen = ['127.0.0.1:0']\npop3s.listen = []\ndata = '"+folder+"/data'\n[[auth]]\nkind = 'passwd-file'\n[[auth]]\nkind = 'oauth'\naudiences = ['dewey']\nissuer = '"+provider.Issuer()+"'\nca_file = '"+folder+"/ca.pem'\n")
	p.signal(syscall.SIGHUP)
	p.wait("msg=reloaded")
	if !offered() {
		t.Error("tokens are not offered after the reload")
	}
}
