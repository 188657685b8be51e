//go:build race

package maildir_test

const raceEnabled = true
