package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"dewey/config"
)

// A swept is what is kept of the last night.
type swept struct {
	at    time.Time
	wary  int       // how many nights more leave out the work, since the clock was in doubt
	since time.Time // in which night that was; it counts if wary is not 0
}

// sweptFile keeps when the last night was.
func sweptFile(c *config.Config) string { return filepath.Join(c.Data, "swept") }

// The first line of the file. Version 1 had the time alone after it.
const (
	sweptHead  = "dewey swept 2"
	sweptHead1 = "dewey swept 1"
)

func readSwept(name string) (swept, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return swept{}, err //nolint:wrapcheck // names it
	}
	s, ok := parseSwept(string(data))
	if !ok {
		head, _, _ := strings.Cut(string(data), "\n")
		return swept{}, fmt.Errorf("%s does not hold when the last night was: it begins with %.40q, %q would be right", name, head, sweptHead)
	}
	return s, nil
}

func parseSwept(text string) (s swept, ok bool) {
	lines := strings.Split(text, "\n")
	if lines[0] == sweptHead1 && len(lines) == 3 {
		lines = []string{sweptHead, lines[1], "0", lines[2]}
	}
	if len(lines) != 4 || lines[0] != sweptHead || lines[3] != "" {
		return swept{}, false
	}
	var err error
	if s.at, err = time.Parse(time.RFC3339, lines[1]); err != nil {
		return swept{}, false
	}
	count, since, found := strings.Cut(lines[2], " since ")
	if s.wary, err = strconv.Atoi(count); err != nil || s.wary < 0 || s.wary > waryNights || found != (s.wary > 0) {
		return swept{}, false
	}
	if found {
		s.since, err = time.Parse(time.RFC3339, since)
	}
	return s, err == nil
}

func writeSwept(name string, s swept) error {
	wary := strconv.Itoa(s.wary)
	if s.wary > 0 {
		wary += " since " + s.since.UTC().Format(time.RFC3339)
	}
	return replaceFile(name, []byte(sweptHead+"\n"+s.at.UTC().Format(time.RFC3339)+"\n"+wary+"\n"))
}
