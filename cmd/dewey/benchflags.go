package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"dewey/bench"
)

// benchFlags are those of `dewey bench`; the ones that need no work are bench's own.
type benchFlags struct {
	bench.Options

	user, userFile         string
	users                  int
	password, passwordFile string
	source, handshake      string
	ca, serverName         string
	insecure               bool
	curve, version, cipher string
	json, yes              bool
}

// benchPassword is the variable that may have the password, which ps does not show.
const benchPassword = "DEWEY_BENCH_PASSWORD" //nolint:gosec // its name

func (f *benchFlags) register(flags *pflag.FlagSet, name string) {
	flags.StringVar(&f.Address, "address", "", "where the server is: an `IP:PORT`, or unix:/path; needed, since it has no default")
	flags.BoolVar(&f.Remote, "remote", false, "the address may be another machine's, and whoever runs it agrees")
	flags.IntVarP(&f.Connections, "connections", "c", 1, "`connections` at the same time")
	flags.DurationVarP(&f.Duration, "duration", "d", 0, "begin no session after this `time` (10s, unless there is a --count)")
	flags.DurationVar(&f.Timeout, "timeout", 30*time.Second, "the longest `time` for a reply")
	flags.Float64Var(&f.Rate, "rate", 0, "begin so `many` a second, whether replies have come or not; latencies count from when each was due")
	flags.BoolVar(&f.KeepGoing, "keep-going", false, "count errors instead of ending at the first")
	flags.StringVar(&f.source, "source", "", "`addresses` that connections come from, in turns: 127.0.0.2-127.0.0.20")
	flags.IntSliceVar(&f.Watch.PIDs, "pid", nil, "measure the process `ID` and its descendants; may be repeated")
	flags.StringSliceVar(&f.Watch.Names, "name", nil, "measure the processes with this `NAME` and their descendants; may be repeated")
	flags.BoolVar(&f.json, "json", false, "print JSON")
	flags.IntVar(&f.users, "users", 1, "`how many` users there are")
	if name != "idle" {
		flags.Int64VarP(&f.Count, "count", "n", 0, "end after so `many` sessions, or messages to deliver")
	}
	if name != "idle" && name != "update" {
		flags.DurationVar(&f.Warmup, "warmup", 0, "`time` of load before anything is measured")
	}
	if name == "deliver" {
		return
	}
	flags.StringVarP(&f.user, "user", "u", "", "users' `name`s; %d in it, or %05d, is a number from 1 to --users")
	flags.StringVar(&f.userFile, "user-file", "", "a `FILE` of name:password lines, instead of --user")
	flags.StringVar(&f.password, "password", "", "the `password` of all users; ps shows it, the following do not")
	flags.StringVar(&f.passwordFile, "password-file", "", "a `FILE` whose first line is the password; else $"+benchPassword+", else it is asked for")
	flags.StringVar(&f.Auth, "auth", bench.AuthUser, "`how` to log in: user, apop or plain")
	flags.StringVar(&f.TLS, "tls", bench.Plain, "`mode`: plain, stls, or tls from the first octet")
	flags.StringVar(&f.handshake, "handshake", "new", "of TLS: `new` each time, or resume")
	flags.StringVar(&f.ca, "ca", "", "a `FILE` of certificates, in PEM, that the server's is held against, instead of the system's")
	flags.StringVar(&f.serverName, "server-name", "", "the `name` that the server's certificate must have (that of the address)")
	flags.BoolVar(&f.insecure, "insecure", false, "take any certificate")
	flags.StringVar(&f.curve, "curve", "", "the only `curve` of TLS to offer: "+strings.Join(names(curves), ", "))
	flags.StringVar(&f.version, "tls-version", "", "the only `version` of TLS to offer: 1.2 or 1.3")
	flags.StringVar(&f.cipher, "cipher", "", "the only cipher `suite` to offer, of TLS 1.2; in 1.3 the server chooses")
}

var curves = map[string]tls.CurveID{
	"x25519": tls.X25519, "p256": tls.CurveP256, "p384": tls.CurveP384, "p521": tls.CurveP521, "x25519mlkem768": tls.X25519MLKEM768,
}

func names[T any](m map[string]T) []string {
	var list []string
	for name := range m {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// finish makes Options of the flags, and asks for the password if there is none.
func (f *benchFlags) finish(cmd *cobra.Command, in io.Reader, prompts io.Writer) (err error) {
	if f.Address == "" {
		return errors.New("no --address: load goes only where it is told to, such as --address 127.0.0.1:110")
	}
	if f.source != "" {
		if f.Sources, err = bench.ParseSources(f.source); err != nil {
			return err //nolint:wrapcheck // quotes it
		}
	}
	if cmd.Name() == "update" {
		if !f.yes {
			return errors.New("update removes all mail of these users; if it may, say --yes")
		}
		if f.Count == 0 && f.Duration == 0 {
			f.Count = 1 << 62 // each user has one session
		}
	}
	if f.Count == 0 && !cmd.Flags().Changed("duration") {
		f.Duration = 10 * time.Second
	}
	for i, c := range f.Commands {
		f.Commands[i] = strings.ToUpper(c)
	}
	if err := f.secure(); err != nil {
		return err
	}
	if cmd.Name() == "deliver" {
		if f.user == "" {
			return errors.New("no --recipient; write --recipient ADDRESS, such as u%d@example.org with --users 100")
		}
		f.Users, err = numbered(f.user, f.users, "")
		return err
	}
	if !slices.Contains([]string{bench.AuthUser, bench.AuthAPOP, bench.AuthPlain}, f.Auth) {
		return fmt.Errorf("--auth %q: it is user, apop or plain", f.Auth)
	}
	if cmd.Name() == "idle" && !f.Login {
		return nil
	}
	return f.who(in, prompts)
}

// who finds the users and their passwords.
func (f *benchFlags) who(in io.Reader, prompts io.Writer) (err error) {
	switch {
	case f.userFile != "" && f.user == "":
		f.Users, err = usersOf(f.userFile)
		return err
	case f.userFile != "" || f.user == "":
		return errors.New("who logs in? write --user NAME, such as u%d with --users 100, or --user-file FILE")
	}
	password := f.password
	if password == "" && f.passwordFile != "" {
		file, err := os.Open(f.passwordFile)
		if err != nil {
			return fmt.Errorf("--password-file: %w", err)
		}
		defer file.Close()
		if password, err = firstLine(file); err != nil {
			return fmt.Errorf("--password-file %s: %w", f.passwordFile, err)
		}
	}
	if password == "" {
		password = os.Getenv(benchPassword)
	}
	if password == "" {
		if password, err = askOnce(in, prompts); err != nil {
			return err
		}
	}
	f.Users, err = numbered(f.user, f.users, password)
	return err
}

// askOnce asks for a password at the terminal, or takes the first line.
func askOnce(in io.Reader, prompts io.Writer) (string, error) {
	file, ok := in.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return firstLine(in)
	}
	typed, err := askTyped(file, prompts, "Password of the users: ")
	if err != nil {
		return "", err
	}
	return typed[0], nil
}

// maxUsers bounds the users of a run.
const maxUsers = 1_000_000

var numberIn = regexp.MustCompile(`%(0[1-9])?d`)

// numbered makes users by a pattern.
func numbered(pattern string, count int, password string) ([]bench.User, error) {
	place := numberIn.FindStringIndex(pattern)
	switch {
	case count < 1 || count > maxUsers:
		return nil, fmt.Errorf("--users %d: it is from 1 to %d", count, maxUsers)
	case place == nil && count > 1:
		return nil, fmt.Errorf("%q has no %%d, and so it is not the name of %d users", pattern, count)
	case place == nil:
		return []bench.User{{Name: pattern, Password: password}}, nil
	}
	users := make([]bench.User, count)
	for i := range users {
		users[i] = bench.User{Name: pattern[:place[0]] + fmt.Sprintf(pattern[place[0]:place[1]], i+1) + pattern[place[1]:], Password: password}
	}
	return users, nil
}

// usersOf reads name:password lines. A name has no colon, a password may.
func usersOf(path string) ([]bench.User, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("--user-file: %w", err)
	}
	defer file.Close()
	var users []bench.User
	for lines := bufio.NewScanner(file); ; {
		if !lines.Scan() {
			if err := lines.Err(); err != nil {
				return nil, fmt.Errorf("--user-file %s: %w", path, err)
			}
			break
		}
		line := strings.TrimSuffix(lines.Text(), "\r")
		if line == "" || line[0] == '#' {
			continue
		}
		name, password, found := strings.Cut(line, ":")
		if !found || name == "" || len(users) == maxUsers {
			return nil, fmt.Errorf("--user-file %s: behind %d users is a line that is no name:password, or one too many", path, len(users))
		}
		users = append(users, bench.User{Name: name, Password: password})
	}
	return users, nil
}

// secure makes the TLS configuration.
func (f *benchFlags) secure() error {
	switch f.TLS {
	case "", bench.Plain:
		if f.ca+f.serverName+f.curve+f.version+f.cipher != "" || f.insecure || f.handshake == "resume" {
			return errors.New("there are flags for TLS, and no --tls stls or --tls tls")
		}
		return nil
	case bench.STLS, bench.Implicit:
	default:
		return fmt.Errorf("--tls %q: it is plain, stls or tls", f.TLS)
	}
	c := &tls.Config{ServerName: f.serverName, InsecureSkipVerify: f.insecure} //nolint:gosec // --insecure says so
	if c.ServerName == "" {
		at, err := netip.ParseAddrPort(f.Address)
		if err != nil && !f.insecure {
			return errors.New("whose certificate is it? write --server-name NAME, or --insecure")
		}
		c.ServerName = at.Addr().String()
	}
	if f.ca != "" {
		pem, err := os.ReadFile(f.ca)
		if err != nil {
			return fmt.Errorf("--ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("--ca %s has no certificate in PEM", f.ca)
		}
	}
	if f.curve != "" {
		id, ok := curves[f.curve]
		if !ok {
			return fmt.Errorf("--curve %q: it is one of %s", f.curve, strings.Join(names(curves), ", "))
		}
		c.CurvePreferences = []tls.CurveID{id}
	}
	switch f.version {
	case "":
	case "1.2":
		c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	case "1.3":
		c.MinVersion = tls.VersionTLS13
	default:
		return fmt.Errorf("--tls-version %q: it is 1.2 or 1.3", f.version)
	}
	if f.cipher != "" {
		i := slices.IndexFunc(tls.CipherSuites(), func(s *tls.CipherSuite) bool {
			return s.Name == f.cipher && slices.Contains(s.SupportedVersions, tls.VersionTLS12)
		})
		if i < 0 || f.version != "1.2" {
			return fmt.Errorf("--cipher %q: it goes with --tls-version 1.2, and is a name such as TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", f.cipher)
		}
		c.CipherSuites = []uint16{tls.CipherSuites()[i].ID}
	}
	switch f.handshake {
	case "new", "resume":
		f.Resume = f.handshake == "resume"
	default:
		return fmt.Errorf("--handshake %q: it is new or resume", f.handshake)
	}
	f.TLSConfig = c
	return nil
}
