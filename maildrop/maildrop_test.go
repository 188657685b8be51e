package maildrop_test

import (
	"strings"
	"testing"

	"dewey/maildrop"
)

// RFC 1939 section 7; trap 27.
func TestValidUID(t *testing.T) {
	for id, want := range map[string]bool{
		"x": true, "!~": true, strings.Repeat("x", 70): true,
		"": false, strings.Repeat("x", 71): false, "a b": false, "\x7f": false, "\xc3\xbc": false, "a\x00": false,
	} {
		if got := maildrop.ValidUID(id); got != want {
			t.Errorf("ValidUID(%q) = %v", id, got)
		}
	}
}
