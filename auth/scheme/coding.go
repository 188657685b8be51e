package scheme

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
)

// A coding is how the value is written, if not as it is: B64, BASE64, HEX.
type coding string

func (e coding) suffix() string {
	if e == "" {
		return ""
	}
	return "." + string(e)
}

func (e coding) encode(value string) string {
	switch e {
	case "":
		return value
	case "HEX":
		return hex.EncodeToString([]byte(value))
	default:
		return base64.StdEncoding.EncodeToString([]byte(value))
	}
}

func (e coding) decode(value string) (string, error) {
	var octets []byte
	var err error
	switch e {
	case "":
		return value, nil
	case "HEX":
		octets, err = hex.DecodeString(value)
	default:
		octets, err = base64.StdEncoding.Strict().DecodeString(value)
	}
	if err != nil { // not wrapped: it may quote the value
		return "", fmt.Errorf("%w: the value is no %s; padded base64 or pairs of hex digits would be right", ErrForm, string(e))
	}
	return string(octets), nil
}
