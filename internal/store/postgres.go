package store

import (
	"context"
	"embed"
	"errors"
	"hash/fnv"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/unit"
)

//go:embed pg_migrations/*.sql
var pgMigrations embed.FS

// pgSchema is where the tables of a cluster are in its database.
const pgSchema = "covey"

// A PostgresConfig says where a store is. URL and Name must be set. What the
// URL leaves out, such as the password, comes from the environment and the
// files that libpq reads: PGPASSWORD, PGPASSFILE, PGSERVICEFILE.
type PostgresConfig struct {
	URL  string           // postgres://USER@HOST:PORT/DATABASE, or a list of keywords as libpq reads it
	Name string           // of this server: the database shows it, and whoever takes the lead ends its transactions
	Now  func() time.Time // for leases; nil: the clock of the database, which all servers share
	TTL  time.Duration    // how long a lease lasts; 0: [DefaultTTL]
	Log  *slog.Logger     // nil: nothing is logged
}

const (
	pgLock    = 5 * time.Second  // how long a statement waits for another transaction
	pgCommit  = 10 * time.Second // after which nobody knows whether a commit happened
	pgConnect = 5 * time.Second
	pgAsk     = 30 * time.Second // to read a page of records or of history
	pgConns   = 6                // of each pool
)

// Postgres is a [state.Store] and a [state.Lease] in a PostgreSQL database, or
// in one that speaks its protocol, for several servers: all of them read, and
// the leader commits. Its methods may be called by several goroutines at once.
type Postgres struct {
	cfg  PostgresConfig
	conf *pgxpool.Config
	name string        // of the database, for people: without secrets
	pool *pgxpool.Pool // for the lease, the feed and upkeep
	read *pgxpool.Pool // for what users ask: however much that is, the lease does not wait for a connection

	mu     sync.Mutex // serialises commits
	write  *pgWriter  // nil until a connection is opened anew
	days   map[int64]bool
	sweep  []byte // the job where the next Trim goes on
	closed bool

	followed atomic.Bool // other servers live: commits go into the feed
}

var (
	_ state.Store = (*Postgres)(nil)
	_ state.Lease = (*Postgres)(nil)
)

// IsPostgres reports whether a store's place is a PostgreSQL database, not a file.
func IsPostgres(place string) bool {
	return strings.HasPrefix(place, "postgres://") || strings.HasPrefix(place, "postgresql://")
}

// OpenPostgres opens the store, which it creates or upgrades if needed. An
// error is of kind Unavailable if the database is not reached, Denied if it
// does not let this server in, and Invalid if the URL makes no sense, the
// database is not there or its tables are too new for this program.
func OpenPostgres(ctx context.Context, cfg PostgresConfig) (*Postgres, error) {
	if cfg.TTL == 0 {
		cfg.TTL = DefaultTTL
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	conf, name, err := pgConfig(cfg.URL, cfg.Name, pgSchema)
	if err != nil {
		return nil, err
	}
	s := &Postgres{cfg: cfg, conf: conf, name: name, days: map[int64]bool{}}
	ctx, cancel := context.WithTimeout(ctx, openDeadline)
	defer cancel()
	if err = pgUpgrade(ctx, conf.ConnConfig, pgSchema, name, pgMigrations, "pg_migrations", cfg.Log); err != nil {
		return nil, err
	}
	if s.pool, err = pgxpool.NewWithConfig(ctx, conf); err != nil {
		return nil, pgExplain(name, "open", err)
	}
	if s.read, err = pgxpool.NewWithConfig(ctx, conf.Copy()); err != nil {
		s.pool.Close()
		return nil, pgExplain(name, "open", err)
	}
	return s, nil
}

// pgConfig reads the URL of a database whose tables are in a schema, and
// returns what people call the database.
func pgConfig(url, server, schema string) (*pgxpool.Config, string, error) {
	conf, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, "", fault.Invalid.Errorf("the database cannot be named so: %w; want postgres://USER@HOST:PORT/DATABASE", err)
	}
	c := conf.ConnConfig
	name := c.Host + "/" + c.Database
	c.ConnectTimeout = pgConnect
	c.RuntimeParams["application_name"] = "covey " + server
	c.RuntimeParams["search_path"] = schema
	c.RuntimeParams["lock_timeout"] = ms(pgLock)
	c.RuntimeParams["idle_in_transaction_session_timeout"] = ms(openDeadline)
	// A server that is only read from would serve the past, and take no commit.
	c.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	conf.MaxConns = pgConns
	conf.MaxConnIdleTime = time.Minute
	// A connection that broke while nobody used it is no reason to fail.
	conf.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return true }
	return conf, name, nil
}

// pgUpgrade brings the tables up to date. Of servers that start at the same
// time one does it, and the others wait.
func pgUpgrade(ctx context.Context, conf *pgx.ConnConfig, schema, name string, files embed.FS, dir string, log *slog.Logger) (err error) {
	const doing = "bring the tables up to date"
	conn, err := pgx.ConnectConfig(ctx, conf)
	if err != nil {
		return pgExplain(name, "open", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	h := fnv.New32()
	_, _ = h.Write([]byte("covey " + schema))
	if _, err = conn.Exec(ctx, "SET lock_timeout = 0"); err == nil {
		_, err = conn.Exec(ctx, "SELECT pg_advisory_lock($1)", int64(h.Sum32()))
	}
	if err != nil {
		return pgExplain(name, doing, err)
	}
	if err = pgRecognise(ctx, conn, schema, name); err != nil {
		return err
	}
	db := stdlib.OpenDB(*conf)
	defer func() { err = errors.Join(err, db.Close()) }()
	return pgExplain(name, doing, migrate(ctx, goose.DialectPostgres, db, files, dir, name, log))
}

// pgRecognise makes the schema, or refuses one of some other program.
func pgRecognise(ctx context.Context, conn *pgx.Conn, schema, name string) error {
	var tables, own int
	err := conn.QueryRow(ctx, "SELECT count(*), count(*) FILTER (WHERE tablename = $2) FROM pg_tables WHERE schemaname = $1",
		schema, schemaVersion).Scan(&tables, &own)
	if err != nil {
		return pgExplain(name, "open", err)
	}
	if tables > 0 && own == 0 {
		return fault.Invalid.Errorf("the schema %s of the database %s holds tables of some other program; name another database", schema, name)
	}
	// Asked for only when it is missing: not every user may.
	var there bool
	if err = conn.QueryRow(ctx, "SELECT to_regnamespace($1) IS NOT NULL", schema).Scan(&there); err == nil && !there {
		_, err = conn.Exec(ctx, "CREATE SCHEMA "+schema)
	}
	return pgExplain(name, "open", err)
}

// Close ends the store. What was committed stays; a second call does nothing.
func (s *Postgres) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.drop()
	s.pool.Close()
	s.read.Close()
	return nil
}

// pgNow is the time in microseconds since 1970, as the database has it.
const pgNow = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"

// now returns the time of leases, given that of the database.
func (s *Postgres) now(micros int64) unit.Tick {
	if s.cfg.Now != nil {
		return unit.TickAt(s.cfg.Now())
	}
	return unit.TickAt(time.UnixMicro(micros))
}

func (s *Postgres) explain(doing string, err error) error { return pgExplain(s.name, doing, err) }
