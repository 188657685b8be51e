package clients

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A program is a mail client that Debian ships.
type program struct {
	name    string
	pkg     string   // the Debian package that brings it
	version []string // the command that tells its version, and that it is there

	// run fetches what is new to the client from an account, and then, unless the account says keep,
	// deletes it. Messages lie in account.out afterwards, one a file.
	run func(t *testing.T, a *account) outcome

	// changes is what the client itself does to a message. nil: nothing, it keeps every octet.
	changes []change
	// arrived undoes what the client adds to each message, for instance a Received header.
	arrived func(message []byte) []byte

	// damages names the messages that the client spoils, whoever sends them. They are counted only.
	damages []string
	// avoids names the messages that keep the client from fetching any others, whoever sends them.
	// They are not delivered.
	avoids []string

	rejected, busy ending
	// quiet is the exit code when there is nothing new, if it is not 0.
	quiet int
}

// An ending is how a client tells that something is wrong.
type ending struct {
	exit int
	text *regexp.Regexp // what it prints
}

func says(pattern string) *regexp.Regexp { return regexp.MustCompile(pattern) }

// A change is something that a client does to every message, and why that is no fault of a server's.
type change func(wire []byte) []byte

// unixLineEnds: a client that delivers on Unix stores LF, not CRLF. A CR elsewhere stays.
func unixLineEnds(wire []byte) []byte { return bytes.ReplaceAll(wire, []byte("\r\n"), []byte("\n")) }

// cutAtNUL: a client that handles lines as C strings loses what follows a NUL in its line.
func cutAtNUL(message []byte) []byte {
	var kept []byte
	for line := range bytes.Lines(message) {
		text, end, found := bytes.Cut(line, []byte{0})
		if found && bytes.HasSuffix(end, []byte("\n")) {
			text = append(bytes.Clone(text), '\n')
		}
		kept = append(kept, text...)
	}
	return kept
}

// crIsLineEnd: a client that parses mail by Python's rules takes each CR for a line end.
func crIsLineEnd(message []byte) []byte {
	return bytes.ReplaceAll(unixLineEnds(message), []byte("\r"), []byte("\n"))
}

// emptyLine: a client that takes the CRLF before the final dot for a part of the message makes an
// empty line of a message that has nothing.
func emptyLine(message []byte) []byte {
	if len(message) == 0 {
		return []byte("\r\n")
	}
	return message
}

// endHeader: a client that parses mail writes a header back with the empty line that ends it.
func endHeader(lineEnd string) change {
	return func(message []byte) []byte {
		if bytes.Contains(message, []byte(lineEnd+lineEnd)) || bytes.HasPrefix(message, []byte(lineEnd)) {
			return message
		}
		return append(message, lineEnd...)
	}
}

// emptyBody: a client that writes an mbox puts an empty line where there is no body.
func emptyBody(message []byte) []byte {
	if string(message) == "\n" || bytes.Index(message, []byte("\n\n")) == len(message)-2 {
		return append(message, '\n')
	}
	return message
}

// trimCRs: a client that takes CRs off the end of each line takes them all.
var trimCRs change = func(message []byte) []byte {
	return regexp.MustCompile(`\r+\n`).ReplaceAll(message, []byte("\n"))
}

// withoutHeader takes away a header line that the client puts before each message.
func withoutHeader(line string) func([]byte) []byte {
	return func(message []byte) []byte { return bytes.TrimPrefix(message, []byte(line)) }
}

// fetchmailReceived is the trace header that fetchmail puts before each message.
var fetchmailReceived = regexp.MustCompile(`\AReceived: from 127\.0\.0\.1.*\r?\n(?:\t.*\r?\n)+`)

var programs = []program{
	{
		name: "curl", pkg: "curl", version: []string{"curl", "--version"},
		run:      runCurl,
		rejected: ending{67, says(`denied`)},
		busy:     ending{67, says(`denied`)},
		changes:  []change{emptyLine},
	},
	{
		name: "poplib", pkg: "python3", version: []string{"/usr/bin/python3", "-c", "import poplib, sys; print('Python', sys.version)"},
		run:      script("/usr/bin/python3", "fetch.py"),
		rejected: ending{1, says(`\[AUTH\]`)},
		busy:     ending{1, says(`\[IN-USE\]`)},
	},
	{
		name: "fetchmail", pkg: "fetchmail", version: []string{"fetchmail", "--version"},
		run:     runFetchmail,
		arrived: func(message []byte) []byte { return fetchmailReceived.ReplaceAll(message, nil) },
		changes: []change{endHeader("\r\n")},
		// It reads lines of up to 8,191 octets; into a longer one it writes line ends and whatever lies
		// behind its buffer, and it takes a dot away wherever a piece begins with one.
		// To a message of no octets it writes a header.
		damages:  []string{"a long line", "a long line of dots", "no octets"},
		rejected: ending{3, says(`Authorization failure`)},
		busy:     ending{9, says(`\[IN-USE\]`)},
		quiet:    1,
	},
	{
		name: "getmail6", pkg: "getmail6", version: []string{"getmail", "--version"},
		run: runGetmail, changes: []change{unixLineEnds, crIsLineEnd, endHeader("\n")},
		arrived:  withoutHeader("Return-Path: <unknown>\n"),
		rejected: ending{127, says(`\[AUTH\]`)},
		busy:     ending{127, says(`\[IN-USE\]`)},
		// Python's parser ends the header before a line that belongs to none, and writes that end out.
		damages: []string{"starts with a dot line"},
	},
	{
		name: "mpop", pkg: "mpop", version: []string{"mpop", "--version"},
		run: runMpop, changes: []change{unixLineEnds},
		rejected: ending{77, says(`\[AUTH\]`)},
		busy:     ending{77, says(`\[IN-USE\]`)},
	},
	{
		name: "fdm", pkg: "fdm", version: []string{"sh", "-c", "command -v fdm"},
		run: runFdm, changes: []change{unixLineEnds, cutAtNUL},
		// fdm goes on to the next account, and ends well.
		rejected: ending{0, says(`-ERR \[AUTH\]`)},
		busy:     ending{0, says(`-ERR \[IN-USE\]`)},
		avoids:   []string{"no octets"}, // "empty message": it gives up
	},
	{
		name: "movemail", pkg: "mailutils", version: []string{"movemail", "--version"},
		run: runMovemail, changes: []change{trimCRs, endHeader("\n"), emptyBody},
		// Where the header should be is a dot on a line of its own: movemail drops that and the next line.
		damages:  []string{"starts with a dot line"},
		rejected: ending{1, says(`Authentication failed`)},
		busy:     ending{1, says(`Authentication failed`)},
	},
	{
		name: "perl", pkg: "perl", version: []string{"perl", "-MNet::POP3", "-e", `print "Net::POP3 $Net::POP3::VERSION"`},
		run: script("perl", "fetch.pl"), changes: []change{unixLineEnds},
		rejected: ending{1, says(`\[AUTH\]`)},
		busy:     ending{1, says(`\[IN-USE\]`)},
	},
	{
		name: "ruby", pkg: "ruby", version: []string{"ruby", "-rnet/pop", "-e", `puts "net-pop #{Net::POP3::VERSION}"`},
		run:      script("ruby", "fetch.rb"),
		rejected: ending{1, says(`\[AUTH\]`)},
		busy:     ending{1, says(`\[IN-USE\]`)},
	},
	{
		name: "tcllib", pkg: "tcllib", version: []string{"sh", "-c", "echo 'puts [package require pop3]' | tclsh"},
		run: script("tclsh", "fetch.tcl"), changes: []change{trimCRs},
		rejected: ending{1, says(`\[AUTH\]`)},
		busy:     ending{1, says(`\[IN-USE\]`)},
	},
	{
		name: "emacs", pkg: "emacs-nox", version: []string{"emacs", "--batch", "-Q", "--eval", `(progn (require 'pop3) (princ emacs-version))`},
		run: runEmacs, changes: []change{unixLineEnds},
		rejected: ending{255, says(`\[AUTH\]`)},
		// Dovecot sends empty lines while it waits for the lock, and pop3.el shows the first.
		busy: ending{255, says(`\[IN-USE\]|"\\15\\n"`)},
	},
}

// script runs one of the scripts in testdata, which take the account as arguments.
func script(interpreter, name string) func(*testing.T, *account) outcome {
	return func(t *testing.T, a *account) outcome {
		t.Helper()
		return a.command(t, nil, interpreter, a.script(t, name), a.port, user, a.password, a.home, a.mode())
	}
}

// runCurl does what a person with a shell script does: UIDL, then all new messages over one
// connection, then one DELE for each.
func runCurl(t *testing.T, a *account) outcome {
	t.Helper()
	base := fmt.Sprintf("pop3://127.0.0.1:%s/", a.port)
	login := user + ":" + a.password
	list := a.command(t, nil, "curl", "-sS", "--max-time", "60", "-u", login, "-X", "UIDL", base)
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
	fmt.Fprintf(&config, "user=%q\n", login)
	if !a.keep {
		for _, number := range numbers {
			fmt.Fprintf(&config, "next\nuser=%q\nhead\nrequest=DELE\nurl=%s%s\n", login, base, number)
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
	rc := a.write(t, "fetchmailrc", fmt.Sprintf(`set no bouncemail
set no spambounce
set pidfile %[1]q
set idfile %[2]q
poll 127.0.0.1 service %[3]s protocol pop3 uidl auth password timeout 60 bad-header accept:
  user %[4]q password %[5]q is "nobody" here
  %[6]s sslproto "" no rewrite no stripcr pass8bits
  mda "/bin/sh -c 'cat > %[7]s/$$'"
`, filepath.Join(a.home, "pid"), filepath.Join(a.home, "ids"), a.port, user, a.password, keep, a.out()))
	return a.command(t, nil, "fetchmail", "-f", rc, "--nosyslog", "--nodetach", "-v")
}

func runGetmail(t *testing.T, a *account) outcome {
	t.Helper()
	a.makeMaildir(t)
	a.write(t, "getmailrc", fmt.Sprintf(`[retriever]
type = SimplePOP3Retriever
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
`, a.port, user, a.password, a.out(), !a.keep))
	return a.command(t, nil, "/usr/bin/python3", a.script(t, "getmail.py"), "--getmaildir", a.home, "--rcfile", "getmailrc")
}

func runMpop(t *testing.T, a *account) outcome {
	t.Helper()
	a.makeMaildir(t)
	keep := "off"
	if a.keep {
		keep = "on"
	}
	rc := a.write(t, "mpoprc", fmt.Sprintf(`account default
host 127.0.0.1
port %s
tls off
auth user
user %s
password %q
timeout 60
keep %s
uidls_file %s
received_header off
delivery maildir %s
`, a.port, user, a.password, keep, filepath.Join(a.home, "uidls"), a.out()))
	return a.command(t, nil, "mpop", "-C", rc)
}

func runFdm(t *testing.T, a *account) outcome {
	t.Helper()
	keep := ""
	if a.keep {
		keep = fmt.Sprintf("new-only cache %q keep", filepath.Join(a.home, "cache"))
	}
	rc := a.write(t, "fdm.conf", fmt.Sprintf(`set no-received
set lock-file %q
set timeout 60
account "a" pop3 server "127.0.0.1" port %s user %q pass %q %s
action "store" maildir %q
match all action "store"
`, filepath.Join(a.home, "lock"), a.port, user, a.password, keep, a.out()))
	return a.command(t, nil, "fdm", "-f", rc, "fetch")
}

// runMovemail moves mail to an mbox, the only form in which movemail finds the unique-ids again that it
// has seen, and then takes the mbox apart.
func runMovemail(t *testing.T, a *account) outcome {
	t.Helper()
	mbox := filepath.Join(a.home, "mbox")
	before := len(splitMbox(t, mbox))
	url := fmt.Sprintf("pop://%s:%s@127.0.0.1:%s", user, strings.ReplaceAll(a.password, " ", "%20"), a.port)
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
	return a.command(t, env, "emacs", "--batch", "-Q", "-l", a.script(t, "fetch.el"))
}
