package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/term"
)

// maxLine is the most octets of standard input that are read for a password.
const maxLine = 4096

// readPassword reads a new password: from a terminal without echo and twice, else the first line.
func readPassword(in io.Reader, prompts io.Writer, user string) (string, error) {
	if f, ok := in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return askPassword(f, prompts, user)
	}
	return firstLine(in)
}

// firstLine returns the first line without its LF or CRLF. Nothing else is taken off: blanks may be
// a part of the password.
func firstLine(in io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(in, maxLine+1)).ReadString('\n')
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return "", fmt.Errorf("read the password: %w", err)
	case len(line) > maxLine:
		return "", fmt.Errorf("the first line of standard input is longer than %d octets; write the password on it", maxLine)
	case line == "":
		return "", errors.New("standard input is empty; write the password on its first line")
	}
	if bare, found := strings.CutSuffix(line, "\n"); found {
		line = strings.TrimSuffix(bare, "\r")
	}
	return line, nil
}

// askPassword asks twice at a terminal.
func askPassword(f *os.File, prompts io.Writer, user string) (string, error) {
	typed, err := askTyped(f, prompts, "Password for "+user+": ", "The same again: ")
	if err != nil {
		return "", err
	}
	if typed[0] != typed[1] {
		return "", errors.New("the two passwords differ; nothing was changed")
	}
	return typed[0], nil
}

// askTyped asks for secrets at a terminal. The echo is turned on again, also if the person gives up.
func askTyped(f *os.File, prompts io.Writer, questions ...string) (typed []string, err error) {
	fd := int(f.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return nil, fmt.Errorf("read the password: %w", err)
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, syscall.SIGINT, syscall.SIGTERM)
	done := make(chan struct{})
	defer func() {
		signal.Stop(interrupted)
		close(done)
	}()
	go func() {
		select {
		case <-interrupted:
			_ = term.Restore(fd, before) // the process ends: there is nobody to tell
			fmt.Fprintln(prompts)
			os.Exit(1)
		case <-done:
		}
	}()
	for _, question := range questions {
		fmt.Fprint(prompts, question)
		line, err := term.ReadPassword(fd)
		fmt.Fprintln(prompts)
		if err != nil {
			return nil, fmt.Errorf("read the password: %w", err)
		}
		typed = append(typed, string(line))
	}
	return typed, nil
}
