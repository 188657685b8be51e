package ldap

import "time"

// Later lets the servers' time to rest pass.
func Later(b *Backend) {
	b.pool.mu.Lock()
	defer b.pool.mu.Unlock()
	for _, s := range b.pool.servers {
		if !s.failed.IsZero() {
			s.failed = s.failed.Add(-time.Hour)
		}
	}
}
