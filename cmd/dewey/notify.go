package main

import (
	"log/slog"
	"strings"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

// A manager is the service manager that started us, if one did. sd_notify(3).
type manager struct {
	log *slog.Logger
}

func (m manager) notify(state ...string) {
	if _, err := sd.SdNotify(false, strings.Join(state, "\n")); err != nil {
		m.log.Warn("cannot notify the service manager", "error", err)
	}
}

func (m manager) ready(status string) { m.notify(sd.SdNotifyReady, "STATUS="+status) }

// reloading is answered by ready. Type=notify-reload wants the time in the same message.
func (m manager) reloading() {
	m.notify(sd.SdNotifyReloading, strings.TrimSuffix(sd.SdNotifyMonotonicUsec(), "\n"), "STATUS=reloading")
}

func (m manager) stopping() { m.notify(sd.SdNotifyStopping, "STATUS=waiting for sessions to end") }

func (m manager) alive() { m.notify(sd.SdNotifyWatchdog) }

// watchdog ticks when alive is due, at half the interval that the manager allows. Without a watchdog
// the channel is nil.
func (m manager) watchdog() (ticks <-chan time.Time, stop func()) {
	interval, err := sd.SdWatchdogEnabled(false)
	if err != nil {
		m.log.Warn("cannot read the watchdog's interval", "error", err)
	}
	if interval <= 0 {
		return nil, func() {}
	}
	t := time.NewTicker(max(interval/2, time.Millisecond))
	return t.C, t.Stop
}
