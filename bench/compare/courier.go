package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

// courierPackages can't be installed beside dovecot-pop3d: they are unpacked, and run with their folder as the root.
var courierPackages = []string{"courier-pop", "courier-base", "courier-authlib", "courier-authlib-userdb", "libcourier-unicode4"}

var courierPrograms = []string{
	"usr/sbin/couriertcpd", "usr/bin/couriertls", "usr/lib/courier/courier/courierpop3login", "usr/lib/courier/courier/courierpop3d",
	"usr/lib/courier/courier-authlib/authdaemond", "usr/lib/courier/courier-authlib/makedatprog", "usr/lib/courier-authlib/libauthuserdb.so.0",
}

// courierSettings is what /etc/courier has for Debian, with room for as many sessions as there are.
const courierSettings = `couriertcpd -nodnslookup -noidentlookup -maxprocs=%[1]d -maxperip=%[1]d
authmodulelist="authuserdb" daemons=5
TLS_PRIORITY=NORMAL:-VERS-ALL:+VERS-TLS1.3:-GROUP-ALL:+GROUP-X25519:-CIPHER-ALL:+AES-128-GCM
`

// courier sets up Debian's Courier: POP3 alone, since its LMTP is part of its mail server. It wants to be root.
func (e *environment) courier(ctx context.Context, s *server) error {
	if os.Getuid() != 0 {
		return fmt.Errorf("%w: Courier's logins become other users, and this is not root", errAbsent)
	}
	s.lmtp, s.sessionsAreProcess, s.part = "", true, e.scale.Slow
	root := filepath.Join(s.dir, "root")
	s.mail = filepath.Join(root, "mail")
	if err := os.MkdirAll(filepath.Join(root, "tmp"), 0o755); err != nil { //nolint:gosec // a root folder
		return fmt.Errorf("the root folder of Courier: %w", err)
	}
	for _, name := range courierPackages {
		file, err := e.download(ctx, name)
		if err != nil {
			return fmt.Errorf("%w: Debian's package %s is not to be had: %w", errAbsent, name, err)
		}
		if _, err := output(ctx, root, "dpkg-deb", "--extract", file, root); err != nil {
			_ = os.Remove(file) // it may be damaged
			return err
		}
		if name == "courier-pop" {
			if s.version, err = output(ctx, root, "dpkg-deb", "-f", file, "Version"); err != nil {
				return err
			}
			s.version = "Courier " + strings.TrimSpace(s.version)
		}
	}
	if err := e.libraries(ctx, root); err != nil {
		return err
	}
	write := func(name, text string) error {
		path := filepath.Join(root, name)
		return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)) //nolint:gosec // read by other users
	}
	device := func(name string, minor int) error {
		path := filepath.Join(root, "dev", name)
		return errors.Join(syscall.Mknod(path, syscall.S_IFCHR|0o666, 1<<8|minor), os.Chmod(path, 0o666)) //nolint:gosec // as it is elsewhere
	}
	certificate, err := os.ReadFile(e.certificate)
	if err != nil {
		return fmt.Errorf("the certificate: %w", err)
	}
	key, err := os.ReadFile(e.key)
	if err != nil {
		return fmt.Errorf("the key: %w", err)
	}
	most := e.mostIdle(true) + 200
	s.settings = fmt.Sprintf(courierSettings, most)
	pem := "etc/courier/pop3d.pem"
	err = errors.Join(
		os.MkdirAll(filepath.Join(root, "run/courier/authdaemon"), 0o755), os.MkdirAll(filepath.Join(root, "dev"), 0o755), //nolint:gosec // as Debian has it
		device("null", 3), device("urandom", 9), e.makeFolders(s.mail),
		write("etc/passwd", "root:x:0:0::/:/bin/false\nnobody:x:65534:65534::/:/bin/false\n"), write("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
		write("etc/courier/authdaemonrc", "authmodulelist=\"authuserdb\"\nauthmodulelistorig=\"authuserdb\"\ndaemons=5\nauthdaemonvar=/run/courier/authdaemon\nDEBUG_LOGIN=0\n"),
		write(pem, string(key)+string(certificate)), os.Chown(filepath.Join(root, pem), e.owner, e.owner), os.Chmod(filepath.Join(root, pem), 0o600),
	)
	if err != nil {
		return fmt.Errorf("files of Courier: %w", err)
	}
	var users, secrets strings.Builder
	for _, name := range e.users {
		fmt.Fprintf(&users, "%[1]s\tuid=%[2]d|gid=%[2]d|home=/mail/%[1]s|mail=/mail/%[1]s\n", name, e.owner)
		fmt.Fprintf(&secrets, "%s\tsystempw=%s\n", name, hashed())
	}
	for file, lines := range map[string]string{"userdb": users.String(), "userdbshadow": secrets.String()} { // as makeuserdb does
		cmd := inRoot(root, "/usr/lib/courier/courier-authlib/makedatprog", "-", "/etc/courier/"+file+".tmp", "/etc/courier/"+file+".dat")
		cmd.Stdin = strings.NewReader(lines + ".\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("users of Courier: %w\n%s", err, out)
		}
	}
	s.launch = func(s *server) error {
		if err := s.begin(inRoot(root, "/usr/lib/courier/courier-authlib/authdaemond")); err != nil {
			return err
		}
		tcpd := []string{"-address=127.0.0.1", "-nodnslookup", "-noidentlookup", fmt.Sprint("-maxprocs=", most), fmt.Sprint("-maxperip=", most)}
		session := []string{"/usr/lib/courier/courier/courierpop3login", "/usr/lib/courier/courier/courierpop3d", "."}
		plain := inRoot(root, "/usr/sbin/couriertcpd", join(tcpd, []string{port(s.pop3)}, session)...)
		plain.Env = []string{"POP3_STARTTLS=NO"}
		secure, err := reaping(root, "/usr/sbin/couriertcpd", join(tcpd, []string{port(s.pop3s), "/usr/bin/couriertls", "-server", "-tcpd", "-user=nobody"}, session)...)
		if err != nil {
			return err
		}
		secure.Env = []string{
			"POP3_TLS=1", "POP3_STARTTLS=NO", "POP3_TLS_REQUIRED=0", "TLS_VERIFYPEER=NONE", "TLS_CERTFILE=/" + pem,
			strings.TrimSpace(s.settings[strings.Index(s.settings, "TLS_PRIORITY="):]),
		}
		err = errors.Join(s.begin(plain), s.begin(secure))
		s.apart = true
		return err
	}
	return nil
}

func join(lists ...[]string) (all []string) {
	for _, list := range lists {
		all = append(all, list...)
	}
	return all
}

// inRoot is a command for which a folder is the root of everything.
func inRoot(root, program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...) //nolint:gosec // of the package
	cmd.Path, cmd.Err = program, nil      // it is not there outside
	cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	return cmd
}

// download fetches a package, unless the file is kept from the last time.
func (e *environment) download(ctx context.Context, name string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = e.dir // no home: it is fetched each time
	}
	cache = filepath.Join(cache, "dewey-bench-compare")
	if err := os.MkdirAll(cache, 0o755); err != nil { //nolint:gosec // nothing secret
		return "", fmt.Errorf("a cache: %w", err)
	}
	// It says nothing of files that are in the current folder. Else: 'http://…' courier-pop_1.0.16-3+b6_amd64.deb 12345 SHA256:…
	uris, err := output(ctx, e.dir, "apt-get", "download", "--print-uris", name)
	if err != nil {
		return "", err
	}
	fields := strings.Fields(uris)
	if len(fields) < 3 {
		return "", fmt.Errorf("apt-get download --print-uris: %q", uris)
	}
	file := filepath.Join(cache, fields[1])
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	whole, err := os.MkdirTemp(cache, "download") // nobody finds a part of it
	if err != nil {
		return "", fmt.Errorf("a cache: %w", err)
	}
	defer os.RemoveAll(whole)
	if _, err := output(ctx, whole, "apt-get", "download", "-q", name); err != nil {
		return "", err
	}
	return file, os.Rename(filepath.Join(whole, fields[1]), file) //nolint:wrapcheck // names both
}

func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // of this program
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "LC_ALL=C")
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%s: %w\n%s", name, err, exit.Stderr)
	}
	return string(out), err
}

var (
	libraryLine = regexp.MustCompile(`(?m)^\s*(?:\S+ => )?(/\S+) \(0x`)
	missingLine = regexp.MustCompile(`(?m)^\s*(\S+) => not found`)
)

// libraries puts the shared libraries of this machine beside Courier's programs.
func (e *environment) libraries(ctx context.Context, root string) error {
	own, err := filepath.Glob(filepath.Join(root, "usr/lib/*-linux-gnu"))
	if err != nil || len(own) == 0 {
		return fmt.Errorf("the packages of Courier have no libraries (%w)", err)
	}
	path := "LD_LIBRARY_PATH=" + filepath.Join(root, "usr/lib") + ":" + own[0]
	for _, program := range courierPrograms {
		out, err := output(ctx, root, "env", path, "ldd", filepath.Join(root, program))
		if err != nil {
			return err
		}
		if m := missingLine.FindStringSubmatch(out); m != nil {
			return fmt.Errorf("%w: Courier needs %s (bench/compare/packages.txt)", errAbsent, m[1])
		}
		for _, m := range libraryLine.FindAllStringSubmatch(out, -1) {
			to := filepath.Join(root, m[1])
			if _, err := os.Stat(to); err == nil || strings.HasPrefix(m[1], root) {
				continue
			}
			content, err := os.ReadFile(m[1])
			if err != nil {
				return fmt.Errorf("a library: %w", err)
			}
			if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, content, fs.FileMode(0o755))); err != nil { //nolint:gosec // programs
				return fmt.Errorf("a library: %w", err)
			}
		}
	}
	return nil
}
