package sqlauth

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"dewey/auth"
)

// The columns that count.
const (
	colUser     = "user"
	colPassword = "password"
	colHome     = "home"
	colOctets   = "quota_octets"
	colMessages = "quota_messages"
	colDisabled = "disabled"
)

var columnNames = []string{colUser, colPassword, colHome, colOctets, colMessages, colDisabled}

// A record is what a row says.
type record struct {
	identity auth.Identity
	password string // as it is stored; empty if there is none
	disabled bool
	columns  []string // in lower case
}

func (r record) has(column string) bool { return slices.Contains(r.columns, column) }

// read makes a record of a row. A NULL says nothing, as if its column were not there.
func read(columns []string, values []any, asked string) (record, error) {
	rec := record{columns: make([]string, len(columns))}
	texts := make(map[string]string, len(columns))
	null := make(map[string]bool)
	var errs []error
	for i, column := range columns {
		name := auth.Lower(column)
		switch {
		case !slices.Contains(columnNames, name):
			errs = append(errs, fmt.Errorf("a column %q; %s would be right (SELECT … AS user)", column, strings.Join(columnNames, ", ")))
			continue
		case rec.has(name):
			errs = append(errs, fmt.Errorf("two columns %q; one would be right", name))
			continue
		}
		rec.columns[i] = name
		var err error
		if texts[name], null[name], err = text(values[i]); err != nil {
			errs = append(errs, fmt.Errorf("the column %s %w", name, err))
		}
	}
	rec.password = texts[colPassword]
	for _, fill := range []error{
		rec.setUser(asked, texts[colUser]),
		rec.setHome(texts[colHome]),
		number(&rec.identity.Quota.Octets, colOctets, texts[colOctets], null[colOctets], func(s string) (int64, bool) { return auth.ParseOctets(s, 1) }),
		number(&rec.identity.Quota.Messages, colMessages, texts[colMessages], null[colMessages], auth.ParseMessages),
		rec.setDisabled(texts[colDisabled], values),
	} {
		if fill != nil && len(errs) == 0 {
			errs = append(errs, fill)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return record{}, err
	}
	return rec, nil
}

// text is a value as text.
func text(value any) (string, bool, error) {
	switch v := value.(type) {
	case nil:
		return "", true, nil
	case string:
		return v, false, nil
	case []byte:
		return string(v), false, nil
	case int64:
		return strconv.FormatInt(v, 10), false, nil
	case uint64:
		return strconv.FormatUint(v, 10), false, nil
	case float32:
		return strconv.FormatFloat(float64(v), 'f', -1, 32), false, nil
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), false, nil
	case bool:
		return strconv.FormatBool(v), false, nil
	}
	return "", false, fmt.Errorf("is a %T; a text or a number would be right", value)
}

// setUser takes the name of the row, or else that which was asked for. The latter must be one that no database takes for
// another: MySQL finds bob for "bob ", and with an accent or a control octet in it.
func (r *record) setUser(asked, name string) error {
	switch {
	case !r.has(colUser):
		if strings.ContainsFunc(asked, func(c rune) bool { return c <= ' ' || c > '~' }) {
			return errors.New("no column user, and the name that was asked for is not of ASCII alone, so that the user's own may be another; SELECT name AS user would be right")
		}
		name = asked
	case !askable(name) || strings.ContainsFunc(name, func(c rune) bool { return c < ' ' || c == 0x7f }):
		return fmt.Errorf("a user %.300q; a name of 1 to %d octets without control octets would be right", name, maxName)
	}
	r.identity.User = name
	return nil
}

func (r *record) setHome(home string) error {
	if home == "" {
		return nil
	}
	if home[0] != '/' || strings.IndexByte(home, 0) >= 0 || slices.Contains(strings.Split(home, "/"), "..") {
		return fmt.Errorf("a home %.300q; an absolute path without .. would be right", home)
	}
	r.identity.Home = path.Clean(home)
	return nil
}

func (r *record) setDisabled(value string, values []any) error {
	i := slices.Index(r.columns, colDisabled)
	if i < 0 {
		return nil
	}
	if bits, ok := values[i].([]byte); ok && len(bits) == 1 && bits[0] <= 1 { // MySQL's BIT(1)
		value = strconv.Itoa(int(bits[0]))
	}
	switch auth.Lower(strings.TrimSpace(value)) {
	case "", "0", "f", "n", "no", "off", "false":
	case "1", "t", "y", "on", "yes", "true":
		r.disabled = true
	default:
		return fmt.Errorf("disabled is %.40q; true or false, 1 or 0, Y or N would be right", value)
	}
	return nil
}

// number reads a quota: NULL says nothing; 0 and -1 are no limit, as in a passwd-file.
func number(to *int64, column, value string, null bool, parse func(string) (int64, bool)) error {
	value = strings.TrimSpace(value)
	if null || value == "" {
		return nil
	}
	if whole, zeros, point := strings.Cut(value, "."); point && strings.Trim(zeros, "0") == "" { // DECIMAL(20,2)
		value = whole
	}
	n, ok := parse(value)
	switch {
	case value == "-1":
		*to = auth.Unlimited
	case !ok:
		return fmt.Errorf("%s is %.40q; 2G, 500M, 1000000 (octets), 0 (no limit) or NULL would be right", column, value)
	default:
		*to = n
	}
	return nil
}
