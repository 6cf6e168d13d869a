package store

import (
	"context"
	"database/sql"
	"embed"
	"log/slog"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/stdlib"
)

//go:embed pg_company_migrations/*.sql
var pgCompanyMigrations embed.FS

// pgCompanySchema is where the tables of a company are. They may be in the
// database of a cluster, or in one of their own.
const pgCompanySchema = "covey_company"

// OpenCompanyPostgres opens a company's store in a PostgreSQL database, which
// it creates or upgrades if needed. Several servers may use it. cfg's Now and
// TTL mean nothing here; its errors are of the kinds that those of
// [OpenPostgres] are.
func OpenCompanyPostgres(ctx context.Context, cfg PostgresConfig) (*Company, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	conf, name, err := pgConfig(cfg.URL, cfg.Name, pgCompanySchema)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, openDeadline)
	defer cancel()
	if err = pgUpgrade(ctx, conf.ConnConfig, pgCompanySchema, name, pgCompanyMigrations, "pg_company_migrations", cfg.Log); err != nil {
		return nil, err
	}
	c := &Company{
		name: name, log: cfg.Log, words: pgWords(name), bind: numberedMarks,
		read: stdlib.OpenDB(*conf.ConnConfig), write: stdlib.OpenDB(*conf.ConnConfig),
		reading: &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead},
		// Of two servers that meter the same records, the database refuses one.
		writing: &sql.TxOptions{Isolation: sql.LevelRepeatableRead},
		claim:   `INSERT INTO meter VALUES ($1, 0, '') ON CONFLICT (cluster) DO UPDATE SET seq = meter.seq`,
	}
	c.read.SetMaxOpenConns(readers)
	c.write.SetMaxOpenConns(1)
	return c, nil
}

// numberedMarks turns the question marks of a query into $1, $2 and so on.
func numberedMarks(query string) string {
	var out strings.Builder
	for n := 1; ; n++ {
		before, after, found := strings.Cut(query, "?")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		out.WriteString("$" + strconv.Itoa(n))
		query = after
	}
}

// pgWords tells the errors of the database that it names.
type pgWords string

func (w pgWords) explain(doing string, err error) error { return pgExplain(string(w), doing, err) }
func (w pgWords) damaged(doing string, err error) error { return pgDamaged(string(w), doing, err) }
