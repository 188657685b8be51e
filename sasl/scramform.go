package sasl

import (
	"encoding/base64"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Bounds of what a SCRAM client sends, in octets: a message, with two names that may treble, and its nonce.
const (
	maxMessage = 8 << 10
	maxNonce   = 1 << 10
)

func malformed(what string) error { return fmt.Errorf("%w: SCRAM: %s", ErrForm, what) }

// split cuts a message at its commas, of which it must have at least n-1.
func split(message string, n int) ([]string, error) {
	switch {
	case len(message) > maxMessage:
		return nil, malformed("too long")
	case !utf8.ValidString(message) || strings.IndexByte(message, 0) >= 0:
		return nil, malformed("NUL, or no UTF-8")
	}
	fields := strings.Split(message, ",")
	if len(fields) < n {
		return nil, malformed("too few attributes")
	}
	return fields, nil
}

// parseClientFirst returns gs2-cbind-flag and the channel binding's name of a client-first-message. The
// escapes in names are left to the library. RFC 5802 section 7.
func parseClientFirst(message string) (flag, name string, err error) {
	fields, err := split(message, 4)
	if err != nil {
		return "", "", err
	}
	flag, name, found := strings.Cut(fields[0], "=")
	switch {
	case flag == "p" && bindingName(name), (flag == "n" || flag == "y") && !found:
	default:
		return "", "", malformed("gs2-cbind-flag")
	}
	if as := fields[1]; as != "" && !has(as, 'a') {
		return "", "", malformed("authzid")
	}
	if !has(fields[2], 'n') { // "m=" would be here
		return "", "", malformed("username")
	}
	if !nonce(fields[3]) {
		return "", "", malformed("nonce")
	}
	return flag, name, extensions(fields[4:])
}

// parseClientFinal looks at a client-final-message, whose proof has size octets. RFC 5802 section 7.
func parseClientFinal(message string, size int) error {
	fields, err := split(message, 3)
	if err != nil {
		return err
	}
	last := len(fields) - 1
	if _, ok := decode(fields[0], 'c'); !ok {
		return malformed("channel-binding")
	}
	if !nonce(fields[1]) {
		return malformed("nonce")
	}
	if proof, ok := decode(fields[last], 'p'); !ok || len(proof) != size {
		return malformed("proof")
	}
	return extensions(fields[2:last])
}

// has says whether a field is an attribute of that name with a value.
func has(field string, name byte) bool {
	return len(field) > 2 && field[0] == name && field[1] == '='
}

// decode reads an attribute in base64, and nothing else: the library skips CR and LF.
func decode(field string, name byte) ([]byte, bool) {
	if !has(field, name) || strings.ContainsAny(field, "\r\n") {
		return nil, false
	}
	octets, err := base64.StdEncoding.Strict().DecodeString(field[2:])
	return octets, err == nil
}

// nonce says whether a field is a nonce: printable ASCII. The client's own part must be there.
func nonce(field string) bool {
	if !has(field, 'r') || len(field) > 2*maxNonce {
		return false
	}
	for i := range len(field) {
		if field[i] < '!' || field[i] > '~' {
			return false
		}
	}
	return true
}

const maxBindingName = 64

func bindingName(name string) bool {
	for i := range len(name) {
		if c := name[i]; !letter(c) && (c < '0' || c > '9') && c != '.' && c != '-' {
			return false
		}
	}
	return name != "" && len(name) <= maxBindingName
}

// extensions are attributes that are ignored if their names mean nothing. Those that RFC 5802 section 5.1
// defines have their places elsewhere, and "m", which would have to be understood, none.
func extensions(fields []string) error {
	for _, field := range fields {
		if field == "" || !letter(field[0]) || !has(field, field[0]) || strings.IndexByte("amnrcsipve", field[0]) >= 0 {
			return malformed("extensions")
		}
	}
	return nil
}

func letter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
