package certificate

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap/zapcore"
)

// repeat is how often the same fault of the same domain is told.
const repeat = time.Hour

// bridge is a zap core that writes to slog: certmagic speaks zap. What certmagic calls information is
// for those who look for faults, and what it calls an error is a warning here, for it tries again. Its
// debugging is left out: it has whole HTTP messages.
type bridge struct {
	*shared
	fields []zapcore.Field
}

type shared struct {
	log   *slog.Logger
	quiet atomic.Bool

	mu   sync.Mutex
	last map[string]time.Time // when a warning was last told
}

func newBridge(log *slog.Logger) *bridge {
	return &bridge{shared: &shared{log: log, last: make(map[string]time.Time)}}
}

func (b *bridge) Enabled(level zapcore.Level) bool {
	return level >= zapcore.InfoLevel && !b.quiet.Load()
}

func (b *bridge) With(fields []zapcore.Field) zapcore.Core {
	return &bridge{b.shared, slices.Concat(b.fields, fields)}
}

func (b *bridge) Check(e zapcore.Entry, to *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if !b.Enabled(e.Level) {
		return to
	}
	return to.AddCore(e, b)
}

func (b *bridge) Sync() error { return nil }

func (b *bridge) Write(e zapcore.Entry, fields []zapcore.Field) error {
	object := zapcore.NewMapObjectEncoder()
	for _, f := range slices.Concat(b.fields, fields) {
		f.AddTo(object)
	}
	level := slog.LevelDebug
	// What the ACME client finds is told again by what called it, with what comes next.
	if e.Level >= zapcore.ErrorLevel && !strings.HasSuffix(e.LoggerName, "acme_client") && b.first(e, object.Fields) {
		level = slog.LevelWarn
	}
	var attrs []slog.Attr
	if e.LoggerName != "" {
		attrs = append(attrs, slog.String("part", e.LoggerName))
	}
	for _, name := range slices.Sorted(maps.Keys(object.Fields)) {
		attrs = append(attrs, slog.Any(name, object.Fields[name]))
	}
	b.log.LogAttrs(context.Background(), level, "ACME: "+e.Message, attrs...)
	return nil
}

// first says whether this was not told within the last hour. Errors have numbers of orders in them, so
// only the message and the domain count.
func (b *bridge) first(e zapcore.Entry, fields map[string]any) bool {
	key := fmt.Sprint(e.Message, fields["identifier"], fields["subject"], fields["identifiers"])
	b.mu.Lock()
	defer b.mu.Unlock()
	if at, ok := b.last[key]; ok && e.Time.Sub(at) < repeat {
		return false
	}
	if len(b.last) > 1000 {
		clear(b.last)
	}
	b.last[key] = e.Time
	return true
}
