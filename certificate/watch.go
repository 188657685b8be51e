package certificate

import (
	"context"
	"errors"
	"time"
)

// Reload reads all files now, changed or not. Each source that can't be read keeps what it had, and the
// others are taken over; the error joins what is wrong. A self-made certificate whose files were both
// removed is made anew.
func (k *Keeper) Reload() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	changed := false
	fail := func(w *watched, err error) {
		w.told = err.Error() // the caller tells it
		errs = append(errs, err)
	}
	for _, s := range k.sources {
		if s.acme != "" && (k.acme != nil || !s.present()) {
			continue // certmagic looks after it, or there is nothing yet
		}
		if s.self {
			if _, err := k.keepSelf(); err != nil {
				fail(&s.watched, err)
				continue
			}
		}
		replaced, err := s.read()
		if err != nil {
			fail(&s.watched, err)
			continue
		}
		s.told = ""
		if replaced {
			changed = true
			k.warn(s)
		}
	}
	if k.clients != nil {
		before := k.clients.pool
		warnings, err := k.clients.read()
		if err != nil {
			fail(&k.clients.watched, err)
		}
		for _, w := range warnings {
			k.log.Warn(w, "file", k.clients.files[0])
		}
		changed = changed || k.clients.pool != before
	}
	if changed {
		errs = append(errs, k.publish())
	}
	return errors.Join(errs...)
}

// Run looks after the files and ACME until ctx ends. Nothing that goes wrong ends it.
func (k *Keeper) Run(ctx context.Context) error {
	if k.options.ACME != nil {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		m := k.startACME(ctx)
		k.mu.Lock()
		k.acme = m
		k.mu.Unlock()
		defer func() {
			cancel()
			k.mu.Lock()
			k.acme = nil
			k.mu.Unlock()
			m.stop()
		}()
	}
	ticker := time.NewTicker(k.every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-k.kick:
		}
		k.look(ctx)
	}
}

// look takes over what has changed since the last look.
func (k *Keeper) look(ctx context.Context) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	changed := false
	for _, s := range k.sources {
		if s.acme != "" {
			if k.acme == nil {
				continue
			}
			if c := k.acme.certificate(s.acme); c != nil && !same(c, s.certificate) {
				s.certificate = c
				changed = true
			}
			continue
		}
		if s.self && now.After(s.certificate.Leaf.NotAfter.Add(-selfRenew)) {
			if _, err := k.keepSelf(); err != nil {
				s.failed++
				k.tell(&s.watched, err)
				continue
			}
		}
		if s.unchanged() {
			continue
		}
		replaced, err := s.read()
		k.tell(&s.watched, err)
		if replaced {
			changed = true
			k.warn(s)
		}
	}
	if k.clients != nil && !k.clients.unchanged() {
		before := k.clients.pool
		warnings, err := k.clients.read()
		k.tell(&k.clients.watched, err)
		for _, w := range warnings {
			k.log.Warn(w, "file", k.clients.files[0])
		}
		if k.clients.pool != before {
			changed = true
			k.log.Info("other CAs for client certificates are in use", "file", k.clients.files[0])
		}
	}
	if k.acme != nil {
		k.acme.askAgain(ctx, now)
	}
	if changed {
		if err := k.publish(); err != nil {
			k.log.Error("serving new certificates", "error", err)
		}
	}
	k.warnDaily(now)
}

// tell logs an error once, and only if it lasts: a renewal replaces one file after the other, and what
// is seen in between is nothing that anyone must know.
func (k *Keeper) tell(w *watched, err error) {
	switch {
	case err == nil && w.told != "":
		w.told = ""
		k.log.Info("the files can be read again", "files", w.files)
	case err != nil && w.failed > 1 && err.Error() != w.told:
		w.told = err.Error()
		k.log.Warn("what was read before stays in use", "error", err)
	}
}

// warnDaily tells of certificates that are running out. Open has just done it when Run begins.
func (k *Keeper) warnDaily(now time.Time) {
	if k.warned.IsZero() {
		k.warned = now
	}
	if now.Sub(k.warned) < 24*time.Hour {
		return
	}
	k.warned = now
	for _, e := range k.now.Load().entries {
		for _, w := range expiry(e.certificate.Leaf, now) {
			k.log.Warn(w, "names", e.info.Names, "file", e.info.File)
		}
	}
}
