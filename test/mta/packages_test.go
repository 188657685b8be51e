package mta

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

var workDir string // of all machines

func TestMain(m *testing.M) {
	flag.Parse()
	dir, err := os.MkdirTemp("", "mta")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	workDir = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// baseOf makes, once, a folder with a package's programs, the libraries that they need, and dewey.
func baseOf(pkg string, programs ...string) func() (string, error) {
	return sync.OnceValues(func() (string, error) {
		base := filepath.Join(workDir, pkg)
		if err := unpack(pkg, base); err != nil {
			return "", err
		}
		if err := copyFile(base, "/bin/sh"); err != nil { // of a pipe
			return "", err
		}
		if err := addLibraries(base, append(programs, "bin/sh")); err != nil {
			return "", err
		}
		dewey, err := buildDewey()
		if err != nil {
			return "", err
		}
		bin := filepath.Join(base, "usr/local/bin")
		if err := os.MkdirAll(bin, 0o755); err != nil {
			return "", err
		}
		return base, os.Link(dewey, filepath.Join(bin, "dewey"))
	})
}

// buildDewey builds cmd/dewey, once, and returns the program's path.
var buildDewey = sync.OnceValues(func() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	path := filepath.Join(workDir, "dewey")
	build := exec.CommandContext(ctx, "go", "build", "-o", path, "dewey/cmd/dewey")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as it is shipped: only so can it give up its rights
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build dewey/cmd/dewey: %w\n%s", err, out)
	}
	return path, nil
})

// unpack gets a package from Debian and unpacks it.
func unpack(pkg, into string) error {
	if err := os.MkdirAll(into, 0o755); err != nil {
		return err
	}
	file, err := download(pkg)
	if err != nil { // apt's lists are old, or there are none
		var options []string
		if options, err = freshLists(); err == nil {
			file, err = download(pkg, options...)
		}
	}
	if err != nil {
		return fmt.Errorf("Debian's package %s is needed, and not to be had: %w", pkg, err)
	}
	if _, err := output(workDir, "dpkg-deb", "--extract", file, into); err != nil {
		_ = os.Remove(file) // it may be damaged
		return fmt.Errorf("unpacking: %w", err)
	}
	return nil
}

// download fetches a package, unless the file is kept from the last time.
func download(pkg string, options ...string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = workDir // no home: it is fetched each time
	}
	cache = filepath.Join(cache, "dewey-test-mta")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	// It says nothing of files that are in the current folder. Else:
	// 'http://…/postfix_3.7.11-0+deb12u1_amd64.deb' postfix_3.7.11-0+deb12u1_amd64.deb 1510172 SHA256:…
	uris, err := output(workDir, "apt-get", append(options, "download", "--print-uris", pkg)...)
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
		return "", err
	}
	defer os.RemoveAll(whole)
	if _, err := output(whole, "apt-get", append(options, "download", "-q", pkg)...); err != nil {
		return "", err
	}
	return file, os.Rename(filepath.Join(whole, fields[1]), file)
}

// freshLists gets apt's lists into a folder of our own, and returns the options that make apt-get use them.
var freshLists = sync.OnceValues(func() ([]string, error) {
	lists := filepath.Join(workDir, "lists")
	if err := os.MkdirAll(filepath.Join(lists, "partial"), 0o755); err != nil {
		return nil, err
	}
	options := []string{"-o", "Dir::State::lists=" + lists}
	_, err := output(workDir, "apt-get", append(options, "update", "-q")...)
	return options, err
})

func output(dir, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
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

// addLibraries puts the shared libraries of programs beside them, from the machine on which the test runs.
func addLibraries(base string, programs []string) error {
	own := filepath.Join(base, "usr/lib/postfix")
	for _, pattern := range programs {
		found, err := filepath.Glob(filepath.Join(base, pattern))
		if err != nil || len(found) == 0 {
			return fmt.Errorf("no %s in the package: %w", pattern, err)
		}
		for _, program := range found {
			out, err := output(base, "env", "LD_LIBRARY_PATH="+own, "ldd", program)
			if err != nil {
				continue // a script
			}
			if missing := missingLine.FindStringSubmatch(out); missing != nil {
				return fmt.Errorf("%s needs %s: install the libraries that test/packages.txt names for test/mta (make test does)", program, missing[1])
			}
			for _, m := range libraryLine.FindAllStringSubmatch(out, -1) {
				if err := copyFile(base, m[1]); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func copyFile(base, path string) error {
	to := filepath.Join(base, path)
	if strings.HasPrefix(path, base) {
		return nil // the package's own
	}
	if _, err := os.Stat(to); err == nil {
		return nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, content, fs.FileMode(0o755))
}
