package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The story of docs/MAIL.md, of a client that has emptied a maildrop, goes as it is told there: its commands are run,
// and what they print is what stands there but for times, ports and unique-ids.
func TestStory(t *testing.T) {
	page, err := os.ReadFile("../../docs/MAIL.md")
	if err != nil {
		t.Fatal(err)
	}
	_, story, found := strings.Cut(string(page), "\n## A client has emptied a maildrop\n")
	story, _, whole := strings.Cut(story, "\n## ")
	setting := regexp.MustCompile("`(mail.undelete = .*?)`").FindStringSubmatch(story)
	if !found || !whole || setting == nil {
		t.Fatal("docs/MAIL.md has no such story")
	}
	var steps [][2]string // a command, and what it prints
	for line := range strings.Lines(story) {
		line, inside := strings.CutPrefix(line, "    ")
		switch command, is := strings.CutPrefix(line, "$ "); {
		case !inside:
		case is:
			steps = append(steps, [2]string{strings.TrimSpace(command)})
		default:
			steps[len(steps)-1][1] += line
		}
	}
	if len(steps) != 5 {
		t.Fatalf("%d commands", len(steps))
	}

	p := newPost(t, "mrose:{PLAIN}tanstaaf\n", setting[1]+"\n")
	folder := filepath.Join(p.data, "mail", "mrose", "new")
	for i, text := range []string{
		"From: Ann <ann@example.org>\nSubject: dinner at eight\n\nAt our place.\n",
		"From: Bob <bob@example.org>\nSubject: the minutes\n\nOf the meeting.\n",
		"From: Carol <carol@example.org>\nSubject: your ticket\n\nTo Bern.\n",
	} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(folder, "100000000"+string(rune('1'+i))+".M1P1.h")
		write(t, name, text)
		at := time.Now().Add(time.Duration(i-5) * time.Hour)
		if err := os.Chtimes(name, at, at); err != nil {
			t.Fatal(err)
		}
	}
	laptop := uids(p.listing("mrose", "UIDL"))
	visit(t, p.address, "USER mrose\r\nPASS tanstaaf\r\nRETR 1\r\nDELE 1\r\nRETR 2\r\nDELE 2\r\nRETR 3\r\nDELE 3\r\nQUIT\r\n") // the phone
	p.server.wait(`msg="handed out"`)

	work := t.TempDir()
	if err := os.Symlink(p.data, filepath.Join(work, "dewey-data")); err != nil {
		t.Fatal(err)
	}
	for _, step := range steps {
		line := strings.ReplaceAll(step[0], "127.0.0.1:1110", p.address)
		if strings.HasPrefix(line, "dewey ") {
			line += " --config " + p.file
		}
		cmd := exec.CommandContext(t.Context(), "sh", "-c", line)
		cmd.Dir = work
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
		if got, want := shapeOf(string(out)), shapeOf(step[1]); got != want {
			t.Errorf("%s prints\n%s\nwhich is, of its shape,\n%s\nwhere the document has\n%s", line, out, got, want)
		}
		if strings.HasPrefix(step[0], "curl ") {
			if got := uids(strings.Split(strings.TrimSpace(strings.ReplaceAll(string(out), "\r", "")), "\n")); strings.Join(got, " ") != strings.Join(laptop, " ") {
				t.Errorf("%q, but the laptop knows %q", got, laptop)
			}
		}
	}
}

// shapeOf is a text without what is different each time.
func shapeOf(text string) string {
	text = strings.ReplaceAll(text, "\r", "")
	for _, r := range [][2]string{
		{`\b0000000(\d)[0-9a-f]{8}\b`, "ID$1"},
		{`\d{4}-\d\d-\d\dT\S+`, "TIME"},
		{`\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?`, "TIME"},
		{`127\.0\.0\.1:\d+`, "ADDRESS"},
		{` +`, " "},
	} {
		text = regexp.MustCompile(r[0]).ReplaceAllString(text, r[1])
	}
	return text
}
