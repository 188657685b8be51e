package main

import (
	"testing"
	"time"

	"dewey/config"
)

// Who shortens the delay of one failure shortens those of several, unless he says how long these may be.
func TestLimitsFollowFailureDelay(t *testing.T) {
	for _, c := range []struct {
		sets []string
		want time.Duration
	}{
		{nil, 8 * time.Second},
		{[]string{"login.failure_delay=0s"}, 0},
		{[]string{"login.failure_delay=10ms"}, 80 * time.Millisecond},
		{[]string{"login.failure_delay=5s"}, 8 * time.Second},
		{[]string{"login.failure_delay=0s", "login.max_delay=8s"}, 8 * time.Second},
		{[]string{"login.max_delay=0s"}, 0},
	} {
		conf, err := config.Load("", c.sets)
		if err != nil {
			t.Fatal(err)
		}
		if got := limits(conf).MaxDelay; got != c.want {
			t.Errorf("%q: %v, want %v", c.sets, got, c.want)
		}
	}
}
