package pop3server_test

import "time"

const maxDelay = 8 * time.Second

func elapsed(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}
