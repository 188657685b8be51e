package pam

import (
	"bufio"
	"io"
	"iter"
	"syscall"
)

// becomeNobody does what dewey does after its start.
func becomeNobody() error {
	const nobody = 65534
	if err := syscall.Setgroups([]int{nobody}); err != nil {
		return err
	}
	if err := syscall.Setresgid(nobody, nobody, nobody); err != nil {
		return err
	}
	return syscall.Setresuid(nobody, nobody, nobody)
}

// lines reads line after line; it can be ranged over again.
func lines(r io.Reader) iter.Seq[string] {
	s := bufio.NewScanner(r)
	return func(yield func(string) bool) {
		for s.Scan() {
			if !yield(s.Text()) {
				return
			}
		}
	}
}
