package store

import (
	"context"
	"errors"
	"io"
	"net"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/covey-platform/covey/internal/fault"
)

// pgExplain gives err a kind, and says what was being done and what to do. It
// is for errors after which nothing has happened; one that has a kind already
// is returned as it is. It never shows a password.
func pgExplain(name, doing string, err error) error {
	if err == nil || fault.Of(err) != fault.Internal {
		return err
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pgRefusal(name, doing, e)
	}
	_, unreached := errors.AsType[*pgconn.ConnectError](err)
	_, network := errors.AsType[net.Error](err)
	switch {
	case unreached:
		return fault.Unavailable.Errorf("%s: the database %s is not reached: %w; see that it runs and lets this machine in", doing, name, err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fault.Unavailable.Errorf("%s: it was ended early: %w", doing, err)
	case network, pgconn.SafeToRetry(err), pgconn.Timeout(err), errors.Is(err, net.ErrClosed), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fault.Unavailable.Errorf("%s: the connection to the database %s broke: %w", doing, name, err)
	default:
		return fault.Internal.Errorf("%s: the database %s: %w", doing, name, err)
	}
}

// pgRefusal explains what the database itself said. The codes are those of
// https://www.postgresql.org/docs/15/errcodes-appendix.html.
func pgRefusal(name, doing string, e *pgconn.PgError) error {
	switch e.Code {
	case "CV001":
		return fault.Conflict.Errorf("%s: the database %s refused it: %s; load it again", doing, name, e.Message)
	case "3D000":
		return fault.Invalid.Errorf("%s: there is no database %s: %w; make it with createdb", doing, name, e)
	case "25006":
		return fault.Unavailable.Errorf("%s: the database %s takes no writes: %w; name the one that does", doing, name, e)
	case "42501":
		return fault.Denied.Errorf("%s: in the database %s this user may not: %w; make it the owner of the database", doing, name, e)
	case "XX001", "XX002":
		return pgDamaged(name, doing, e)
	}
	switch e.Code[:min(2, len(e.Code))] {
	case "28":
		return fault.Denied.Errorf("%s: the database %s lets nobody in with this: %w; give the password in PGPASSWORD or in the file that PGPASSFILE names", doing, name, e)
	case "53":
		if e.Code == "53300" {
			return fault.Unavailable.Errorf("%s: the database %s has too many connections: %w", doing, name, e)
		}
		return fault.Exhausted.Errorf("%s: the database %s has no room: %w; nothing was changed. Make room there, and it works again", doing, name, e)
	case "08", "40", "55", "57", "58":
		return fault.Unavailable.Errorf("%s: the database %s: %w; nothing was changed", doing, name, e)
	}
	return fault.Internal.Errorf("%s: the database %s: %w", doing, name, e)
}

func pgDamaged(name, doing string, err error) error {
	return fault.Internal.Errorf("%s: the database %s is damaged: %w; stop the servers and restore the database from a backup", doing, name, err)
}
