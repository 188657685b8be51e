package config

import (
	"strings"
	"testing"
	"time"
)

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0d": 0, "1d": 24 * time.Hour, "30d": 720 * time.Hour, "1d12h": 36 * time.Hour, "2d0s": 48 * time.Hour, "1d1h1m1s": 25*time.Hour + 61*time.Second,
		"36h": 36 * time.Hour, "0": 0, "1.5h": 90 * time.Minute,
	} {
		if got, err := ParseDuration(text); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
		if got, err := ParseDuration(showDuration(want)); err != nil || got != want {
			t.Errorf("%q comes back as %v, %v", showDuration(want), got, err)
		}
	}
	for _, text := range []string{"", "d", "1.5d", "-1d", "+1d", "1d-1h", "1d+", "1h1d", "1d1", "1dd", "106751d24h", "106752d", "99999999999d", "30 d", "day"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestHistoryKeep(t *testing.T) {
	for text, want := range map[string]string{"30d": "30d", "720h": "30d", "24h": "24h", "1d": "24h", "0s": "0s", "0d": "0s", "3650d": "3650d", "1d12h": "36h"} {
		c, err := Load("", []string{"history.keep=" + text})
		if err != nil || showDuration(c.History.Keep) != want {
			t.Errorf("%s: %v, %v", text, c, err)
		}
	}
	for _, text := range []string{"", "30", "3651d", "-1d", "forever"} {
		if _, err := Load("", []string{"history.keep=" + text}); err == nil || !strings.Contains(err.Error(), `write a time from 0s to 3650d, such as "30d"`) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
