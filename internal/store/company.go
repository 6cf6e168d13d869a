package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"

	"github.com/pressly/goose/v3"

	"github.com/covey-platform/covey/internal/fault"
)

//go:embed company_migrations/*.sql
var companyMigrations embed.FS

// companyApplication marks a database as a company store; see 0001_company.sql.
const companyApplication = 0x436f7643

// A Company is the company's store, in one SQLite file or in a PostgreSQL
// database: what every cluster had, reserved and used, hour by hour. A step of
// a meter is one transaction, which survives a crash of the program and a cut of
// the power. Its methods may be called by several goroutines at once.
type Company struct {
	name  string // of the database, for people
	log   *slog.Logger
	lock  *os.File // nil: several servers may use it
	read  *sql.DB
	write *sql.DB
	words words
	bind  func(query string) string // turns question marks into what the database wants
	claim string                    // locks a cluster's meter; empty: there is no need
	// What a transaction sees stays as it was when it began.
	reading, writing *sql.TxOptions
}

// words are how the errors of a database are told.
type words interface {
	explain(doing string, err error) error
	damaged(doing string, err error) error
}

// OpenCompany opens the database, which it creates or upgrades if needed, and
// keeps every other server out until [Company.Close]. A nil log logs nothing.
// Its errors are of the kinds that those of [Open] are.
func OpenCompany(ctx context.Context, path string, log *slog.Logger) (*Company, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fault.Denied.Errorf("the path of the database cannot be followed: %w", err)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if err = usable(path); err != nil {
		return nil, err
	}
	lock, err := acquire(path + ".lock")
	if err != nil {
		return nil, err
	}
	private(path)
	c := &Company{
		name: path, log: log, lock: lock, words: &SQLite{cfg: Config{Path: path, Log: log}},
		bind: func(q string) string { return q }, reading: &sql.TxOptions{ReadOnly: true},
	}
	ctx, cancel := context.WithTimeout(ctx, openDeadline)
	defer cancel()
	if err := c.open(ctx); err != nil {
		return nil, errors.Join(c.words.explain("open", err), c.Close())
	}
	return c, nil
}

func (c *Company) open(ctx context.Context) (err error) {
	if c.write, err = c.pool(1, "immediate"); err != nil {
		return err
	}
	if err = c.upgrade(ctx); err != nil {
		return err
	}
	if c.read, err = c.pool(readers, "deferred", "query_only(1)"); err != nil {
		return err
	}
	return syncDir(filepath.Dir(c.name))
}

// pool returns connections to the database.
func (c *Company) pool(size int, begin string, pragmas ...string) (*sql.DB, error) {
	q := url.Values{
		"_txlock": {begin},
		"_pragma": append([]string{"busy_timeout(" + ms(busy) + ")", "journal_mode(WAL)", "synchronous(FULL)"}, pragmas...),
	}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: c.name}).EscapedPath()+"?"+q.Encode())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(size)
	db.SetMaxIdleConns(size)
	return db, nil
}

// upgrade creates the tables or brings them up to this program's version. A
// database that is one version ahead is used as it is: a version only adds.
func (c *Company) upgrade(ctx context.Context) error {
	if err := c.recognise(ctx); err != nil {
		return err
	}
	return migrate(ctx, goose.DialectSQLite3, c.write, companyMigrations, "company_migrations", c.name, c.log)
}

// recognise refuses a database of something else.
func (c *Company) recognise(ctx context.Context) error {
	var tables, id int
	err := c.write.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_master WHERE name <> ? AND name NOT LIKE 'sqlite_%'", schemaVersion).Scan(&tables)
	if err == nil {
		err = c.write.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id)
	}
	switch {
	case err != nil:
		return err
	case tables > 0 && id == application:
		return fault.Invalid.Errorf("%s is the database of a cluster, not of the company; name another path", c.name)
	case tables > 0 && id != companyApplication:
		return fault.Invalid.Errorf("%s is a database of some other program (application %#x; want %#x); name another path", c.name, id, companyApplication)
	}
	return versioned(ctx, c.write, c.words)
}

// Close ends the store. What was taken in stays.
func (c *Company) Close() error {
	var errs []error
	for _, db := range []*sql.DB{c.read, c.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	if c.lock != nil {
		if err := c.lock.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return c.words.explain("close", err)
	}
	return nil
}
