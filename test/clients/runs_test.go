package clients

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// script runs one of the scripts in testdata, which take the account as arguments and the way to log
// in from the environment.
func script(interpreter, name string) func(*testing.T, *account) outcome {
	return func(t *testing.T, a *account) outcome {
		t.Helper()
		return a.command(t, a.wayEnv(), interpreter, a.script(t, name), a.port, user, a.password, a.home, a.mode())
	}
}

// wayEnv tells a script how to log in.
func (a *account) wayEnv() []string {
	return []string{
		"POP_TLS=" + string(a.way.tls), "POP_MECHANISM=" + a.way.mechanism,
		"POP_CA=" + a.ca, "POP_CERT=" + a.cert, "POP_KEY=" + a.key,
	}
}

// curlOptions is what curl must know of an account, for its configuration file.
func (a *account) curlOptions() string {
	options := fmt.Sprintf("user=%q\n", user+":"+a.password)
	if m := a.way.mechanism; m != "" && m != itself { // USER and PASS are no option of it
		if m == "APOP" {
			m = "+APOP"
		}
		options += "login-options=AUTH=" + m + "\n"
	}
	if a.way.initial {
		options += "sasl-ir\n"
	}
	if a.way.tls == stls || a.way.tls == implicit {
		options += fmt.Sprintf("ssl-reqd\ncacert=%q\n", a.ca)
	}
	if a.cert != "" {
		options += fmt.Sprintf("cert=%q\nkey=%q\n", a.cert, a.key)
	}
	return options
}

// runCurl does what a person with a shell script does: UIDL, then all new messages over one
// connection, then one DELE for each.
func runCurl(t *testing.T, a *account) outcome {
	t.Helper()
	base := fmt.Sprintf("pop3://127.0.0.1:%s/", a.port)
	if a.way.tls == implicit {
		base = fmt.Sprintf("pop3s://127.0.0.1:%s/", a.port)
	}
	options := a.curlOptions()
	list := a.command(t, nil, "curl", "-sS", "--max-time", "60", "-K", a.write(t, "curlrc", options), "-X", "UIDL", base)
	if list.exit != 0 {
		return list
	}
	seen := a.remembered(t)
	var config strings.Builder
	var numbers []string
	for line := range strings.Lines(list.stdout) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue // curl prints an empty list as an empty line
		}
		if len(fields) != 2 {
			t.Fatalf("UIDL line %q", line)
		}
		if seen[fields[1]] {
			continue
		}
		numbers = append(numbers, fields[0])
		a.remember(t, fields[1])
		fmt.Fprintf(&config, "url=%s%s\noutput=%s/%06s\n", base, fields[0], a.out(), fields[0])
	}
	if len(numbers) == 0 {
		return list
	}
	config.WriteString(options)
	if !a.keep {
		for _, number := range numbers {
			fmt.Fprintf(&config, "next\n%shead\nrequest=DELE\nurl=%s%s\n", options, base, number)
		}
	}
	return a.command(t, nil, "curl", "-sS", "-K", a.write(t, "curlrc", config.String()))
}

func runFetchmail(t *testing.T, a *account) outcome {
	t.Helper()
	keep := "nokeep fetchall"
	if a.keep {
		keep = "keep"
	}
	protocol, auth, tls := "pop3", "password", `sslproto ""`
	switch a.way.mechanism {
	case "APOP":
		protocol = "apop"
	case "CRAM-MD5":
		auth = "cram-md5"
	case itself:
		auth = "any"
	}
	switch a.way.tls {
	case stls:
		tls = fmt.Sprintf(`sslproto "TLS1.2+" sslcertck sslcertfile %q`, a.ca)
	case implicit:
		tls = fmt.Sprintf(`ssl sslproto "auto" sslcertck sslcertfile %q`, a.ca)
	}
	// localhost, since fetchmail looks for names only in a certificate, not for addresses.
	rc := a.write(t, "fetchmailrc", fmt.Sprintf(`set no bouncemail
set no spambounce
set pidfile %[1]q
set idfile %[2]q
poll localhost service %[3]s protocol %[8]s uidl auth %[9]s timeout 60 bad-header accept:
  user %[4]q password %[5]q is "nobody" here
  %[6]s %[10]s no rewrite no stripcr pass8bits
  mda "/bin/sh -c 'cat > %[7]s/$$'"
`, filepath.Join(a.home, "pid"), filepath.Join(a.home, "ids"), a.port, user, a.password, keep, a.out(), protocol, auth, tls))
	return a.command(t, nil, "fetchmail", "-f", rc, "--nosyslog", "--nodetach", "-v")
}

func runGetmail(t *testing.T, a *account) outcome {
	t.Helper()
	a.makeMaildir(t)
	retriever := "SimplePOP3Retriever"
	if a.way.tls == implicit {
		retriever = "SimplePOP3SSLRetriever\nca_certs = " + a.ca
	}
	a.write(t, "getmailrc", fmt.Sprintf(`[retriever]
type = %s
use_apop = %t
server = 127.0.0.1
port = %s
username = %s
password = %s
timeout = 60
[destination]
type = Maildir
path = %s/
[options]
read_all = false
delete = %t
received = false
delivered_to = false
`, retriever, a.way.mechanism == "APOP", a.port, user, a.password, a.out(), !a.keep))
	return a.command(t, nil, "/usr/bin/python3", a.script(t, "getmail.py"), "--getmaildir", a.home, "--rcfile", "getmailrc")
}

func runMpop(t *testing.T, a *account) outcome {
	t.Helper()
	a.makeMaildir(t)
	keep := "off"
	if a.keep {
		keep = "on"
	}
	auth, tls := "user", "tls off"
	switch m := a.way.mechanism; m {
	case "", "PASS":
	case itself:
		auth = "on"
	default:
		auth = strings.ToLower(m)
	}
	switch a.way.tls {
	case stls:
		tls = "tls on\ntls_starttls on\ntls_trust_file " + a.ca
	case implicit:
		tls = "tls on\ntls_starttls off\ntls_trust_file " + a.ca
	}
	if a.cert != "" {
		tls += fmt.Sprintf("\ntls_cert_file %s\ntls_key_file %s", a.cert, a.key)
	}
	rc := a.write(t, "mpoprc", fmt.Sprintf(`account default
host 127.0.0.1
port %s
%s
auth %s
user %s
password %q
timeout 60
keep %s
uidls_file %s
received_header off
delivery maildir %s
`, a.port, tls, auth, user, a.password, keep, filepath.Join(a.home, "uidls"), a.out()))
	return a.command(t, nil, "mpop", "-C", rc)
}

func runFdm(t *testing.T, a *account) outcome {
	t.Helper()
	keep := ""
	if a.keep {
		keep = fmt.Sprintf("new-only cache %q keep", filepath.Join(a.home, "cache"))
	}
	protocol := "pop3"
	switch a.way.tls {
	case stls:
		keep += " starttls"
	case implicit:
		protocol = "pop3s"
	}
	if a.way.mechanism == "PASS" {
		keep = "no-apop " + keep // the cache's options come first
	}
	rc := a.write(t, "fdm.conf", fmt.Sprintf(`set no-received
set lock-file %q
set timeout 60
set verify-certificates
account "a" %s server "127.0.0.1" port %s user %q pass %q %s
action "store" maildir %q
match all action "store"
`, filepath.Join(a.home, "lock"), protocol, a.port, user, a.password, keep, a.out()))
	return a.command(t, []string{"SSL_CERT_FILE=" + a.ca}, "fdm", "-f", rc, "fetch")
}

// runMovemail moves mail to an mbox, the only form in which movemail finds the unique-ids again that it
// has seen, and then takes the mbox apart.
func runMovemail(t *testing.T, a *account) outcome {
	t.Helper()
	mbox := filepath.Join(a.home, "mbox")
	before := len(splitMbox(t, mbox))
	auth, protocol := "", "pop"
	if a.way.mechanism == "APOP" {
		auth = ";AUTH=+APOP"
	}
	if a.way.tls == implicit {
		protocol = "pops"
	}
	url := fmt.Sprintf("%s://%s:%s%s@127.0.0.1:%s", protocol, user, strings.ReplaceAll(a.password, " ", "%20"), auth, a.port)
	args := []string{"--no-config", url, mbox}
	if a.keep {
		args = append(args, "--preserve", "--uidl")
	}
	o := a.command(t, nil, "movemail", args...)
	for i, message := range splitMbox(t, mbox)[before:] {
		writeFile(t, filepath.Join(a.out(), fmt.Sprintf("%06d", i)), string(message))
	}
	return o
}

var (
	mboxFrom   = regexp.MustCompile(`(?m)^From \S+@\S+ .*\n`)
	mboxQuote  = regexp.MustCompile(`(?m)^>(>*From )`)
	mboxHeader = regexp.MustCompile(`(?m)^X-(UIDL|UID|IMAPbase):.*\n`)
)

// splitMbox returns the messages of an mbox: without the line before and the empty line after each,
// without the quoting of "From " lines, and without the header lines that hold movemail's notes.
func splitMbox(t *testing.T, path string) [][]byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || len(content) == 0 {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	pieces := mboxFrom.Split(string(content), -1)[1:]
	messages := make([][]byte, len(pieces))
	for i, piece := range pieces {
		piece = strings.TrimSuffix(piece, "\n")
		piece = mboxHeader.ReplaceAllString(piece, "")
		messages[i] = []byte(mboxQuote.ReplaceAllString(piece, "$1"))
	}
	return messages
}

func runEmacs(t *testing.T, a *account) outcome {
	t.Helper()
	env := []string{
		"POP_PORT=" + a.port, "POP_USER=" + user, "POP_PASSWORD=" + a.password,
		"POP_HOME=" + a.home, "POP_MODE=" + a.mode(),
	}
	return a.command(t, append(env, a.wayEnv()...), "emacs", "--batch", "-Q", "-l", a.script(t, "fetch.el"))
}

// runMutt has mutt or neomutt open the maildrop as a folder, in a terminal that script(1) provides, and
// press the keys that pipe each message to a file and delete it.
func runMutt(program string) func(*testing.T, *account) outcome {
	return func(t *testing.T, a *account) outcome {
		t.Helper()
		authenticators := strings.ToLower(a.way.mechanism)
		switch {
		case authenticators == "pass":
			authenticators = "user"
		case authenticators == itself, program == "neomutt" && authenticators != "apop":
			authenticators = "" // it takes no mechanism's name: it always uses the strongest that there is
		}
		protocol, required, started := "pop", "no", "no"
		switch a.way.tls {
		case stls:
			required, started = "yes", "yes"
		case implicit:
			protocol = "pops"
		}
		rc := a.write(t, "muttrc", fmt.Sprintf(`set pop_user=%q
set pop_pass=%q
set pop_authenticators=%q
set certificate_file=%q
set ssl_force_tls=%s
set ssl_starttls=%s
set pop_delete=yes delete=yes quit=yes
set sleep_time=0
set pipe_split=yes pipe_sep=""
set folder=%q
push "<tag-pattern>~A<enter><tag-prefix><pipe-message>sh %s<enter><delete-pattern>~A<enter><quit>"
`, user, a.password, authenticators, a.ca, required, started, a.home,
			a.write(t, "store", fmt.Sprintf("cat > %s/$$\n", a.out()))))
		open := fmt.Sprintf("%s -n -F %s -f %s://%s@127.0.0.1:%s/", program, rc, protocol, user, a.port)
		return a.command(t, []string{"TERM=xterm"}, "script", "-qec", open, "/dev/null")
	}
}
