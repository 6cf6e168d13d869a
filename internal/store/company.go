package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"io/fs"
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

// A Company is the company's store in one SQLite file: what every cluster had,
// reserved and used, hour by hour. A step of a meter is one transaction, which
// survives a crash of the program and a cut of the power. Its methods may be
// called by several goroutines at once.
type Company struct {
	path  string
	log   *slog.Logger
	lock  *os.File
	read  *sql.DB
	write *sql.DB
	errs  *SQLite // for the words of its errors: they are the same ones
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
	c := &Company{path: path, log: log, lock: lock, errs: &SQLite{cfg: Config{Path: path, Log: log}}}
	ctx, cancel := context.WithTimeout(ctx, openDeadline)
	defer cancel()
	if err := c.open(ctx); err != nil {
		return nil, errors.Join(c.errs.explain("open", err), c.Close())
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
	return syncDir(filepath.Dir(c.path))
}

// pool returns connections to the database.
func (c *Company) pool(size int, begin string, pragmas ...string) (*sql.DB, error) {
	q := url.Values{
		"_txlock": {begin},
		"_pragma": append([]string{"busy_timeout(" + ms(busy) + ")", "journal_mode(WAL)", "synchronous(FULL)"}, pragmas...),
	}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: c.path}).EscapedPath()+"?"+q.Encode())
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
	files, err := fs.Sub(companyMigrations, "company_migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, c.write, files,
		goose.WithTableName(schema), goose.WithDisableGlobalRegistry(true), goose.WithSlog(c.log))
	if err != nil {
		return err
	}
	have, want, err := p.GetVersions(ctx)
	switch {
	case err != nil:
		return err
	case have > want+1:
		return fault.Invalid.Errorf("the database %s has tables of version %d; this program wants %d, and can use %d: start a newer one, or restore a backup that this one made", c.path, have, want, want+1)
	case have >= want:
		return nil
	}
	if _, err = p.Up(ctx); err != nil {
		return err
	}
	c.log.InfoContext(ctx, "database upgraded", "path", c.path, "from", have, "to", want)
	return nil
}

// recognise refuses a database of something else.
func (c *Company) recognise(ctx context.Context) error {
	var tables, id int
	err := c.write.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_master WHERE name <> ? AND name NOT LIKE 'sqlite_%'", schema).Scan(&tables)
	if err == nil {
		err = c.write.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id)
	}
	switch {
	case err != nil:
		return err
	case tables > 0 && id == application:
		return fault.Invalid.Errorf("%s is the database of a cluster, not of the company; name another path", c.path)
	case tables > 0 && id != companyApplication:
		return fault.Invalid.Errorf("%s is a database of some other program (application %#x; want %#x); name another path", c.path, id, companyApplication)
	}
	return nil
}

// Close ends the store. What was taken in stays.
func (c *Company) Close() error {
	var errs []error
	for _, db := range []*sql.DB{c.read, c.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	if err := c.lock.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return c.errs.explain("close", err)
	}
	return nil
}
