package main

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A server that hangs does not hold `dewey deliver` until its caller kills it: before the greeting half a minute, after
// it less than the 960 seconds of procmail and the 1000 of Postfix in all, and ten minutes for the last reply (RFC
// 5321 section 4.5.3.2.6) however long the server took before.
func TestDeliverPatience(t *testing.T) {
	const (
		greeting = "220 x\r\n"
		lhlo     = "250-x\r\n250 CHUNKING\r\n"
		ok       = "250 2.0.0 ok\r\n"
	)
	for name, c := range map[string]struct {
		replies     []string // each a while after its command
		pause       time.Duration
		least, most time.Duration
	}{
		"no greeting":       {nil, 0, 10 * time.Second, time.Minute},
		"nothing more":      {[]string{greeting}, 0, 5 * time.Minute, 15 * time.Minute},
		"no last reply":     {[]string{greeting, lhlo, ok, ok}, 0, 10 * time.Minute, 15 * time.Minute},
		"slow all the time": {[]string{greeting, lhlo, ok, ok}, 29 * time.Second, 11 * time.Minute, 15 * time.Minute},
		"slower still":      {[]string{greeting, lhlo, ok, ok}, 4 * time.Minute, 12 * time.Minute, 15 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				defer theirs.Close()
				go func() {
					commands := bufio.NewReader(theirs)
					for i, reply := range c.replies {
						if i > 0 {
							if _, err := commands.ReadString('\n'); err != nil {
								return
							}
							time.Sleep(c.pause) // in the bubble's time
						}
						if _, err := io.WriteString(theirs, reply); err != nil {
							return
						}
					}
					_, _ = io.Copy(io.Discard, commands) // and hangs
				}()
				conn := bounded(ours)
				client := &mailClient{conn: conn, in: bufio.NewReader(conn)}
				began := time.Now()
				err := client.begin("host", "ann@example.org", []string{"mrose"})
				if err == nil {
					err = client.deliver([]string{"mrose"}, strings.NewReader("a: b\n\nc\n"))
				}
				if took := time.Since(began); errorCode(err) != exitTempFail || took < c.least || took > c.most {
					t.Errorf("%v after %v", err, took)
				}
				ours.Close()
			})
		})
	}
}
