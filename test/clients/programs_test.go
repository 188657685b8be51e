package clients

import (
	"bytes"
	"regexp"
	"slices"
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
var fetchmailReceived = regexp.MustCompile(`\AReceived: from localhost.*\r?\n(?:\t.*\r?\n)+`)

var programs = []program{
	{
		name: "curl", pkg: "curl", version: []string{"curl", "--version"},
		run:      runCurl,
		rejected: ending{67, says(`denied|Authentication failed`)},
		busy:     ending{67, says(`denied|Authentication failed`)},
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
		rejected: ending{77, says(`\[AUTH\]|authentication failed`)},
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

// folderReaders open the maildrop as a folder: what is there is there, there is no fetching of what is
// new. So they only log in, read everything and delete it.
var folderReaders = []program{
	{
		name: "mutt", pkg: "mutt", version: []string{"mutt", "-v"},
		run: runMutt("mutt"), changes: []change{unixLineEnds, cutAtNUL, endHeader("\n")},
		damages:  []string{"starts with a dot line"}, // an empty line comes before it
		rejected: ending{0, says(`authentication failed|Login failed`)},
	},
	{
		name: "neomutt", pkg: "neomutt", version: []string{"neomutt", "-v"},
		run: runMutt("neomutt"), changes: []change{unixLineEnds, cutAtNUL, endHeader("\n")},
		damages:  []string{"starts with a dot line"}, // an empty line comes before it
		rejected: ending{0, says(`authentication failed|Login failed`)},
	},
}

func programNamed(name string) *program {
	all := slices.Concat(programs, folderReaders)
	return &all[slices.IndexFunc(all, func(p program) bool { return p.name == name })]
}
