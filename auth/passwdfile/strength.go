package passwdfile

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

const minPassword = 8 // characters

// ErrWeak is what CheckStrength wraps.
var ErrWeak = errors.New("weak password")

// common holds passwords that everybody tries first, in lower case and without digits and signs at
// their end. Shorter ones stand here for their longer forms: welcome2024!
var common = " abc abcd abcdef abcdefgh access admin administrator asdf asdfgh asdfghjkl baseball batman " +
	"changeit changeme computer default dragon football freedom geheim guest hallo hello iloveyou " +
	"internet letmein login mail master monkey mustang mypass nothing passw passwd password passwort p@ssw0rd p@ssword " +
	"passw0rd pokemon princess qazwsx qwer qwert qwertz qwerty qwertyui qwertyuiop qwertzuiop root secret " +
	"shadow starwars summer winter spring autumn sunshine superman system temp test tester test1234 " +
	"trustno user welcome whatever zxcvbn zxcvbnm "

// CheckStrength says why a password is weak; nil if it knows no reason. The rules are few, so that
// they can be told to a user: at least eight characters, four of them different; not the user's name,
// or a part of an address that is one, nor that with something around it; no row like 12345678; none
// of some that everybody tries, whatever digits and signs follow. The error wraps ErrWeak and does
// not hold the password.
func CheckStrength(user, password string) error {
	weak := func(why string) error { return fmt.Errorf("%w: %s", ErrWeak, why) }
	small := strings.ToLower(password)

	if utf8.RuneCountInString(password) < minPassword {
		return weak(fmt.Sprintf("shorter than %d characters", minPassword))
	}
	seen := map[rune]bool{}
	for _, r := range small {
		seen[r] = true
	}
	if len(seen) < 4 {
		return weak("made of fewer than four different characters")
	}
	name := strings.ToLower(user)
	for part := range strings.SplitSeq(name, "@") {
		if part != "" && (small == part || len(part) >= 3 && strings.Contains(small, part)) {
			return weak("contains the user's name")
		}
	}
	if name != "" && strings.Contains(name, small) {
		return weak("is a part of the user's name")
	}
	if row(small) {
		return weak("a row of neighbours in the alphabet or among the digits")
	}
	base := strings.TrimRight(small, "0123456789!?.,;:-_+*#$%&/=@ ")
	if base == "" && len(small) < 12 {
		return weak("only digits and signs, and fewer than twelve")
	}
	if base != "" && !strings.Contains(base, " ") && strings.Contains(common, " "+base+" ") {
		return weak("one of those that everybody tries first")
	}
	return nil
}

// row says that each octet follows the one before it, up or down.
func row(text string) bool {
	for _, step := range []int{1, -1} {
		n := 0
		for i := 1; i < len(text); i++ {
			if d := int(text[i]) - int(text[i-1]); d == step || d == -9*step { // after 9 comes 0
				n++
			}
		}
		if n == len(text)-1 {
			return true
		}
	}
	return false
}
