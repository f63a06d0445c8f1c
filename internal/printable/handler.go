package printable

import (
	"context"
	"fmt"
	"log/slog"
)

// Handler returns a handler of logs that passes names and errors on to h as Name shows them.
func Handler(h slog.Handler) slog.Handler { return handler{h} }

type handler struct{ slog.Handler }

func (h handler) Handle(ctx context.Context, r slog.Record) error {
	seen := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		seen.AddAttrs(attr(a))
		return true
	})
	return h.Handler.Handle(ctx, seen)
}

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	seen := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		seen[i] = attr(a)
	}
	return handler{h.Handler.WithAttrs(seen)}
}

func (h handler) WithGroup(name string) slog.Handler { return handler{h.Handler.WithGroup(name)} }

// attr is a with its text fit to be seen. What is no text stays as it is, and so does an error that needs no change.
func attr(a slog.Attr) slog.Attr {
	switch v := a.Value; v.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(Name(v.String()))
	case slog.KindAny:
		var text string
		switch v := v.Any().(type) {
		case error:
			text = v.Error()
		case fmt.Stringer:
			text = v.String()
		}
		if seen := Name(text); seen != text {
			a.Value = slog.StringValue(seen)
		}
	}
	return a
}
