package surrogate

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// convertible are the letters whose A-label is sure without tables of normalization: lower case,
// allowed in a U-label (RFC 5892), and in NFC whatever stands beside them, since nothing that
// combines is among them. A domain with any other letter is not converted: a wrong A-label would
// be an address of somebody else.
var convertible = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0x00DF, Hi: 0x00F6, Stride: 1}, // Latin
		{Lo: 0x00F8, Hi: 0x0131, Stride: 1},
		{Lo: 0x0134, Hi: 0x013E, Stride: 1},
		{Lo: 0x0141, Hi: 0x0148, Stride: 1},
		{Lo: 0x014A, Hi: 0x017E, Stride: 1},
		{Lo: 0x0180, Hi: 0x01BF, Stride: 1},
		{Lo: 0x01CD, Hi: 0x01EF, Stride: 1},
		{Lo: 0x01F8, Hi: 0x024F, Stride: 1},
		{Lo: 0x03AC, Hi: 0x03CE, Stride: 1}, // Greek, monotonic
		{Lo: 0x0430, Hi: 0x045F, Stride: 1}, // Cyrillic
		{Lo: 0x048B, Hi: 0x052F, Stride: 1},
		{Lo: 0x0561, Hi: 0x0586, Stride: 1}, // Armenian
		{Lo: 0x05D0, Hi: 0x05EA, Stride: 1}, // Hebrew, without points
		{Lo: 0x0620, Hi: 0x063F, Stride: 1}, // Arabic, without points
		{Lo: 0x0641, Hi: 0x064A, Stride: 1},
		{Lo: 0x0E01, Hi: 0x0E30, Stride: 1}, // Thai, without marks
		{Lo: 0x0E40, Hi: 0x0E46, Stride: 1},
		{Lo: 0x10D0, Hi: 0x10F0, Stride: 1}, // Georgian
		{Lo: 0x3041, Hi: 0x3096, Stride: 1}, // Kana
		{Lo: 0x30A1, Hi: 0x30FA, Stride: 1},
		{Lo: 0x30FC, Hi: 0x30FC, Stride: 1},
		{Lo: 0x3400, Hi: 0x4DBF, Stride: 1}, // Han
		{Lo: 0x4E00, Hi: 0x9FFF, Stride: 1},
		{Lo: 0xAC00, Hi: 0xD7A3, Stride: 1}, // Hangul syllables
	},
	LatinOffset: 2,
}

// maxLabel and maxDomain are in octets. RFC 1035 section 2.3.4, RFC 5321 section 4.5.3.1.2.
const (
	maxLabel  = 63
	maxDomain = 255
)

// asciiDomain returns the domain with A-labels for its U-labels; ok is false if there is none that
// is sure, or if s is no domain. Upper case is lowered first. RFC 5891 section 5, RFC 5890 section
// 2.3.2.1, RFC 5895 section 2.
func asciiDomain(s string) (domain string, ok bool) {
	if len(s) > 4*maxDomain {
		return "", false
	}
	labels := strings.Split(s, ".")
	for i, label := range labels {
		if !isASCII(label) {
			encoded, ok := punycode(strings.ToLower(label))
			if !ok {
				return "", false
			}
			label = "xn--" + encoded
			labels[i] = label
		}
		if label == "" || len(label) > maxLabel || !isHost(label) {
			return "", false
		}
	}
	domain = strings.Join(labels, ".")
	return domain, len(domain) <= maxDomain
}

// isHost says whether an ASCII label has letters, digits and hyphens alone. RFC 1035 section 2.3.1.
func isHost(label string) bool {
	for i := range len(label) {
		if !isAlphanumeric(label[i]) && label[i] != '-' {
			return false
		}
	}
	return label[0] != '-' && label[len(label)-1] != '-'
}

// punycode encodes a label, RFC 3492 section 6.3. ok is false if it has characters that are not sure.
func punycode(label string) (encoded string, ok bool) {
	const initialN, initialBias = 128, 72 // section 5, like the rest of the parameters
	runes := []rune(label)
	var out []byte
	for _, r := range runes {
		switch {
		case r < utf8.RuneSelf && (isAlphanumeric(byte(r)) || r == '-'):
			out = append(out, byte(r))
		case r < utf8.RuneSelf || !unicode.Is(convertible, r) || !unicode.IsLetter(r) || unicode.IsUpper(r):
			return "", false
		}
	}
	hyphens := len(runes) >= 4 && runes[2] == '-' && runes[3] == '-' // RFC 5891 section 4.2.3.1
	if runes[0] == '-' || runes[len(runes)-1] == '-' || hyphens || len(runes) > maxLabel {
		return "", false
	}
	basic := len(out)
	if basic > 0 {
		out = append(out, '-')
	}
	n, delta, bias := rune(initialN), 0, initialBias
	for handled := basic; handled < len(runes); n++ {
		next := rune(unicode.MaxRune)
		for _, r := range runes {
			if r >= n {
				next = min(next, r)
			}
		}
		delta += int(next-n) * (handled + 1)
		n = next
		for _, r := range runes {
			if r < n {
				delta++
			}
			if r == n {
				out = appendInteger(out, delta, bias)
				bias = adapt(delta, handled+1, handled == basic)
				delta = 0
				handled++
			}
		}
		delta++
	}
	return string(out), true
}

// Parameters of the encoding. RFC 3492 section 5.
const (
	punyBase = 36
	punyTMin = 1
	punyTMax = 26
	punySkew = 38
	punyDamp = 700
)

// appendInteger writes a generalized variable-length integer. RFC 3492 section 3.3.
func appendInteger(out []byte, q, bias int) []byte {
	const digits = "abcdefghijklmnopqrstuvwxyz0123456789"
	for k := punyBase; ; k += punyBase {
		t := min(max(k-bias, punyTMin), punyTMax)
		if q < t {
			return append(out, digits[q])
		}
		out = append(out, digits[t+(q-t)%(punyBase-t)])
		q = (q - t) / (punyBase - t)
	}
}

// adapt is the bias for the next delta. RFC 3492 section 3.4.
func adapt(delta, points int, first bool) int {
	if first {
		delta /= punyDamp
	} else {
		delta /= 2
	}
	delta += delta / points
	k := 0
	for delta > (punyBase-punyTMin)*punyTMax/2 {
		delta /= punyBase - punyTMin
		k += punyBase
	}
	return k + (punyBase-punyTMin+1)*delta/(delta+punySkew)
}
