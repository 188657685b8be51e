//go:build cgo

package confine

import (
	"errors"
	"testing"
)

// A program with cgo is told so, rather than left half done.
func TestCgo(t *testing.T) {
	if err := Seal(); !errors.Is(err, ErrCgo) {
		t.Error(err)
	}
	if abi, err := Restrict(Cage{}); abi > 0 && !errors.Is(err, ErrCgo) {
		t.Error(err)
	}
}
