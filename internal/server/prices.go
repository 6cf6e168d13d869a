package server

import (
	"context"
	"log/slog"
	"time"

	"github.com/covey-platform/covey/internal/ledger"
	"github.com/covey-platform/covey/internal/rate"
	"github.com/covey-platform/covey/internal/unit"
)

// pricesAhead is for how long before the prices of a book run out the log says
// so.
const pricesAhead = 7 * 24 * unit.Hour

// watchPrices says in the log, at the start and at every hour until ctx ends,
// that there is no price for now, or soon will be none. It ends nothing: jobs
// are not to stand still because a price ran out while a server was restarted,
// and no bill is wrong, since each hour without a price is refused.
func watchPrices(ctx context.Context, book rate.Book, file string, wall func() time.Time, log *slog.Logger) error {
	for {
		now := unit.TickAt(wall()).FloorHour()
		if text, bad := lacks(book, now); bad {
			log.ErrorContext(ctx, "the price book does not cover the present hour: what is used is metered, and no bill that has this hour can be made", "file", file, "missing", text)
		} else if text != "" {
			log.WarnContext(ctx, "the prices of the price book run out soon", "file", file, "missing", text)
		}
		next := time.NewTimer((now + unit.Hour).Time().Sub(wall()))
		select {
		case <-ctx.Done():
			next.Stop()
			return nil
		case <-next.C:
		}
	}
}

// lacks says what a book has no price for, now or soon; nothing when it has.
func lacks(book rate.Book, now unit.Tick) (text string, bad bool) {
	if _, err := book.At(now); err != nil {
		return err.Error(), true
	}
	if until := book.Until(now); until <= now+pricesAhead {
		return "a price from " + ledger.Stamp(until) + " on", false
	}
	return "", false
}
