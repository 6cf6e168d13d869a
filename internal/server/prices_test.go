package server

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/covey-platform/covey/internal/rate"
	"github.com/covey-platform/covey/internal/unit"
)

// A server whose price book has no price for now says so, with the file and what
// is missing, and runs on.
func TestWatchPrices(t *testing.T) {
	at := func(s string) unit.Tick {
		v, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return unit.TickAt(v)
	}
	summer := rate.Price{From: at("2026-06-01T00:00:00Z"), To: at("2026-09-01T00:00:00Z"), CPU: 1}
	autumn := rate.Price{From: at("2026-09-01T00:00:00Z"), To: rate.Forever, CPU: 2}
	for _, c := range []struct {
		name   string
		prices []rate.Price
		now    string
		want   []string // in the log; none: it says nothing
	}{
		{"covered", []rate.Price{summer}, "2026-07-01T10:30:00Z", nil},
		{"covered by the next one too", []rate.Price{summer, autumn}, "2026-08-31T23:59:59Z", nil},
		{"not yet", []rate.Price{summer}, "2026-05-31T23:59:59Z", []string{
			"level=ERROR", "no bill that has this hour", "file=prices.json", "no price for 2026-05-31T23:00:00Z: the one after it begins at 2026-06-01T00:00:00Z; add an entry",
		}},
		{"no more", []rate.Price{summer}, "2026-09-01T00:00:00Z", []string{
			"level=ERROR", "no price for 2026-09-01T00:00:00Z: the entry before it ends at 2026-09-01T00:00:00Z; add an entry",
		}},
		{"a gap", []rate.Price{summer, {From: at("2027-01-01T00:00:00Z"), To: rate.Forever}}, "2026-10-01T00:00:00Z", []string{
			"level=ERROR", "ends at 2026-09-01T00:00:00Z, the one after it begins at 2027-01-01T00:00:00Z",
		}},
		{"soon no more", []rate.Price{summer}, "2026-08-25T00:30:00Z", []string{
			"level=WARN", "run out soon", "file=prices.json", "a price from 2026-09-01T00:00:00Z on",
		}},
		{"in a week and an hour", []rate.Price{summer}, "2026-08-24T22:30:00Z", nil},
		{"the default", rate.Default().Prices, "2026-08-24T22:30:00Z", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // it looks once
			wall := func() time.Time { return at(c.now).Time() }
			if err := watchPrices(ctx, rate.Book{Currency: "USD", Prices: c.prices}, "prices.json", wall, slog.New(slog.NewTextHandler(&out, nil))); err != nil {
				t.Fatal(err)
			}
			for _, w := range c.want {
				if !strings.Contains(out.String(), w) {
					t.Errorf("the log says %q; want %q in it", out.String(), w)
				}
			}
			if c.want == nil && out.Len() > 0 {
				t.Errorf("the log says %q; want nothing", out.String())
			}
		})
	}
}
