package auth

import "strings"

// Lower changes A to Z to small letters and no other octet: names may be of any, also such as are no UTF-8.
func Lower(name string) string {
	if strings.IndexFunc(name, func(r rune) bool { return 'A' <= r && r <= 'Z' }) < 0 {
		return name
	}
	octets := []byte(name)
	for i, c := range octets {
		if 'A' <= c && c <= 'Z' {
			octets[i] = c + 'a' - 'A'
		}
	}
	return string(octets)
}
