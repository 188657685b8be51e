package sqlauth

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const maxMessage = 1 << 20 // octets of one of PostgreSQL's: no row of a user's is longer

// postgres reads a DSN as libpq does, but for TLS: with a server elsewhere it is always used, and the certificate held
// against the host's name, unless sslmode=disable says in so many words that there is to be none.
func (link *connector) postgres(c Config, pool *x509.CertPool) error {
	config, err := pgconn.ParseConfig(c.DSN)
	if err != nil || c.DSN == "" {
		if bad := (*fs.PathError)(nil); errors.As(err, &bad) {
			return fmt.Errorf("the dsn names a file: %w", bad)
		}
		return errors.New("the dsn can't be read; postgres://dewey:password@db.example.org/mail?sslmode=verify-full would be right")
	}
	for _, pgx := range []string{"default_query_exec_mode", "statement_cache_capacity", "description_cache_capacity"} {
		if _, said := config.RuntimeParams[pgx]; said {
			return fmt.Errorf("the dsn has %s, which is of no use here; leave it out", pgx)
		}
	}
	all := append([]*pgconn.FallbackConfig{{Host: config.Host, Port: config.Port, TLSConfig: config.TLSConfig}}, config.Fallbacks...)
	plain, hosts := true, make(map[string]bool)
	for _, way := range all {
		plain = plain && (way.TLSConfig == nil || way.Host[0] == '/')
		hosts[way.Host] = true
	}
	var ways []*pgconn.FallbackConfig
	for _, way := range all {
		verify := way.Host[0] != '/' && (!local(way.Host) || pool != nil)
		switch {
		case verify && way.TLSConfig != nil:
			way.TLSConfig = verifying(way.TLSConfig, way.Host, pool)
		case verify && pool != nil && plain:
			return errPlain
		case verify && !plain: // sslmode=prefer falls back to this
			continue
		case verify && config.RequireAuth == "":
			config.RequireAuth = "!password"
		}
		ways = append(ways, way)
	}
	config.Host, config.Port, config.TLSConfig, config.Fallbacks = ways[0].Host, ways[0].Port, ways[0].TLSConfig, ways[1:]
	if config.ConnectTimeout == 0 && len(hosts) > 1 {
		config.ConnectTimeout = link.timeout / time.Duration(len(hosts))
	}
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "dewey"
	}
	config.DialFunc = link.net.dial
	config.MaxProtocolMessageBodyLen = maxMessage
	link.secret = config.Password
	link.Connector = pgLink{config}
	return nil
}
