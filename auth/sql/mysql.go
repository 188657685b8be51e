package sqlauth

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"syscall"
	"time"

	"github.com/go-sql-driver/mysql"
)

// mysql reads a DSN, in which nothing may be on that sends files, plain passwords or names as a part of the query. TLS is
// as in postgres: tls=false in so many words forbids it.
func (link *connector) mysql(c Config, pool *x509.CertPool) error {
	config, err := parseMySQL(c.DSN)
	if err != nil || c.DSN == "" {
		return errors.New("the dsn can't be read; dewey:password@tcp(db.example.org:3306)/mail or dewey@unix(/run/mysqld/mysqld.sock)/mail would be right")
	}
	for name, on := range map[string]bool{
		"multiStatements": config.MultiStatements, "allowAllFiles": config.AllowAllFiles, "interpolateParams": config.InterpolateParams,
		"allowCleartextPasswords": config.AllowCleartextPasswords, "allowOldPasswords": config.AllowOldPasswords, "columnsWithAlias": config.ColumnsWithAlias,
	} {
		if on {
			return fmt.Errorf("the dsn has %s, which is not for logins; leave it out", name)
		}
	}
	if err := mysqlTLS(config, pool); err != nil {
		return err
	}
	seconds := math.Ceil(link.timeout.Seconds())
	if config.Params == nil {
		config.Params = make(map[string]string)
	}
	if _, said := config.Params["lock_wait_timeout"]; !said {
		// A server goes on with a query though its client has left. MariaDB reads the first comment, MySQL the other.
		config.Params["lock_wait_timeout"] = fmt.Sprintf("%.0f /*M!100101 , max_statement_time=%.0f */ /*!50708 , max_execution_time=%.0f */", seconds, seconds, 1000*seconds)
	}
	if err := config.Apply(mysql.Charset("utf8mb4", config.Collation)); err != nil {
		return errors.New("the dsn's charset can't be utf8mb4")
	}
	for _, limit := range []*time.Duration{&config.Timeout, &config.ReadTimeout, &config.WriteTimeout} {
		if *limit <= 0 || *limit > link.timeout {
			*limit = link.timeout
		}
	}
	config.Logger = &mysql.NopLogger{}
	config.DialFunc = func(ctx context.Context, kind, address string) (net.Conn, error) {
		conn, err := link.net.dial(ctx, kind, address)
		if err != nil {
			return nil, err
		}
		return greeted(ctx, conn)
	}
	link.secret = config.Passwd
	link.Connector, err = mysql.NewConnector(config)
	return err
}

// mysqlTLS says how a server is to prove who it is.
func mysqlTLS(config *mysql.Config, pool *x509.CertPool) error {
	host := "/"
	switch config.Net {
	case "tcp", "tcp4", "tcp6":
		var err error
		if host, _, err = net.SplitHostPort(config.Addr); err != nil {
			return errors.New("the dsn has an address without a port; tcp(db.example.org:3306) would be right")
		}
	case "unix":
	default:
		return errors.New("the dsn names neither tcp(host:port) nor unix(/socket); dewey:password@tcp(db.example.org:3306)/mail would be right")
	}
	switch {
	case config.TLSConfig == "false":
		if pool != nil {
			return errPlain
		}
	case host != "/" && (!local(host) || pool != nil):
		config.TLS, config.AllowFallbackToPlaintext = verifying(config.TLS, host, pool), false
	}
	return nil
}

func parseMySQL(dsn string) (config *mysql.Config, err error) {
	defer func() {
		if recover() != nil { // strict=true
			err = errNonsense
		}
	}()
	return mysql.ParseDSN(dsn)
}

const (
	mostGreeting  = 1 << 10 // octets
	leastGreeting = 44      // behind the version: MySQL's since 4.1
	errorPacket   = 0xff
)

// greeted looks whether a server's first packet is one that the driver can read: of others it would panic, and leave its
// goroutine behind.
func greeted(ctx context.Context, conn net.Conn) (net.Conn, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	packet := make([]byte, 4, 4+mostGreeting)
	_, err := io.ReadFull(conn, packet)
	size := int(packet[0]) | int(packet[1])<<8 | int(packet[2])<<16
	if err == nil && (size == 0 || size > mostGreeting || packet[3] != 0) {
		err = errNonsense
	}
	if err == nil {
		packet = packet[:4+size]
		_, err = io.ReadFull(conn, packet[4:])
	}
	if err == nil {
		body := packet[4:]
		_, rest, whole := bytes.Cut(body[1:], []byte{0})
		if body[0] == errorPacket && size < 9 || body[0] != errorPacket && (!whole || len(rest) < leastGreeting) {
			err = errNonsense
		}
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("its greeting: %w", err)
	}
	return &replayed{conn, packet}, nil
}

// A replayed connection gives once more what was read of it.
type replayed struct {
	net.Conn
	again []byte
}

func (r *replayed) Read(p []byte) (int, error) {
	if len(r.again) == 0 {
		return r.Conn.Read(p)
	}
	n := copy(p, r.again)
	r.again = r.again[n:]
	return n, nil
}

// SyscallConn lets the driver look whether the server has hung up.
func (r *replayed) SyscallConn() (syscall.RawConn, error) {
	c, ok := r.Conn.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return c.SyscallConn()
}
