package sqlauth

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"
	"time"

	"modernc.org/sqlite"
)

var errPlain = errors.New("the dsn forbids TLS, but there is a CA; one of the two would be right")

// connect makes what connects, and connects to nobody yet.
func connect(c Config, timeout time.Duration) (*connector, error) {
	link := &connector{net: newNetwork(), timeout: timeout}
	pool, err := roots(c.CA)
	if err != nil {
		return nil, err
	}
	switch c.Driver {
	case Postgres:
		err = link.postgres(c, pool)
	case MySQL:
		err = link.mysql(c, pool)
	default:
		err = link.sqlite(c.DSN)
	}
	return link, err
}

// sqlite opens a file to read it, and nothing else. A name in double quotes is a column or an error, never a text.
func (link *connector) sqlite(dsn string) error {
	file := strings.TrimPrefix(dsn, "file:")
	if !strings.HasPrefix(file, "/") || strings.ContainsAny(file, "?\x00") || path.Clean(file) == "/" {
		return errors.New("the dsn of sqlite is the absolute path of a file, without parameters; /var/lib/mail/users.sqlite would be right")
	}
	values := url.Values{
		"mode": {"ro"}, "_dqs": {"0"}, "_error_rc": {"1"},
		"_pragma": {fmt.Sprintf("busy_timeout(%d)", link.timeout.Milliseconds()), "query_only(1)"},
	}
	var err error
	link.Connector, err = sqlite.NewConnector("file:" + (&url.URL{Path: file}).EscapedPath() + "?" + values.Encode())
	return err
}
