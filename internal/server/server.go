package server

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/covey-platform/covey/internal/control"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/rpc"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/store"
	"github.com/covey-platform/covey/internal/tenant"
	"github.com/covey-platform/covey/internal/unit"
)

// Run runs a server until ctx ends. Running tasks never depend on it.
func Run(ctx context.Context, cfg Config) (err error) {
	if err = cfg.complete(); err != nil {
		return err
	}
	book, err := cfg.book()
	if err != nil {
		return err
	}
	lock, err := store.LockDir(cfg.DataDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	holder := "server-" + rand.Text()[:8]
	cluster, err := cfg.openCluster(ctx, holder)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.Close()) }()
	company, err := cfg.openCompany(ctx, holder)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, company.Close()) }()
	if err = cfg.secure(); err != nil {
		return err
	}
	l, err := cfg.listen(ctx)
	if err != nil {
		return err
	}
	defer l.Close() //nolint:errcheck // the HTTP server closes it first
	b := backend{looper: newLooper(cluster, cfg.Cluster, holder, newStats(), cfg.Log), book: book, eval: newEvaluator(cfg.Self)}
	return serve(ctx, cfg, company, b, l)
}

func serve(ctx context.Context, cfg Config, company *store.Company, b backend, l net.Listener) error {
	st := b.stats
	secret, who, err := adminToken(filepath.Join(cfg.DataDir, TokenFile))
	if err != nil {
		return err
	}
	if b.ring.me, err = cfg.member(b.holder, l.Addr().String(), rpc.HashToken(secret), who); err != nil {
		return err
	}
	b.witness = witness{run: runDir(), database: cfg.ClusterStore}
	b.witness.tidy()
	if err = b.start(ctx); err != nil {
		return err
	}
	b.metering = &metering{records: &b, company: company, log: cfg.Log, head: func() (string, state.Head, bool) {
		v := b.View()
		s := v.Snapshot
		return s.Cluster.UID, state.Head{Rev: s.Rev, Seq: s.Seq, At: s.At}, v.Following == nil
	}}
	b.metering.stands = func(ctx context.Context) (state.Head, error) {
		if b.shared != nil {
			return b.shared.Head(ctx)
		}
		_, head, _ := b.metering.head()
		return head, nil
	}
	st.watch(b.View)
	st.registry.MustRegister(room{b.store.Size}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	admin, err := adminSocket(ctx, filepath.Join(cfg.DataDir, "admin.sock"))
	if err != nil {
		return err
	}
	defer admin.Close() //nolint:errcheck // the HTTP server closes it first
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return b.run(ctx) })
	g.Go(func() error { return b.metering.run(ctx, b.Published) })
	g.Go(func() error { return b.housekeep(ctx) })
	g.Go(func() error { return b.eval.run(ctx) })
	g.Go(func() error { return watchPrices(ctx, b.book, cfg.PriceBook, b.wall, cfg.Log) })
	if b.shared == nil {
		if err := b.addToken(ctx, b.ring.me.Token, who); err != nil {
			return err
		}
	} else {
		g.Go(func() error { return b.admit(ctx) })
	}
	g.Go(func() error { return serveHTTP(ctx, cfg.http(b.routes(cfg)), l) })
	g.Go(func() error {
		return serveHTTP(ctx, &http.Server{Handler: profiles(), ReadHeaderTimeout: 10 * time.Second}, admin)
	})
	cfg.Log.InfoContext(ctx, "serving", "address", l.Addr().String(), "tls", cfg.present != nil, "data", cfg.DataDir)
	if cfg.Ready != nil {
		cfg.Ready(l.Addr().String())
	}
	return g.Wait()
}

// routes is everything on the port. Only health needs no token.
func (b *backend) routes(cfg Config) http.Handler {
	opt := rpc.Options{Version: cfg.Version, Hosts: cfg.Hosts, Now: b.wall, Log: cfg.Log, TLS: cfg.present, Crowded: func() { b.crowded.Store(true) }}
	mux := http.NewServeMux()
	if b.shared == nil {
		mux.Handle("/", rpc.Handler(b, opt))
	} else {
		f := newFront(b, cfg.root())
		opt.Route = f.route
		f.here = rpc.Handler(b, opt)
		mux.Handle("/", f.age(f.here))
	}
	mux.Handle("GET /metrics", rpc.Protect(b, opt, tenant.MetricsRead, promhttp.HandlerFor(b.stats.registry, promhttp.HandlerOpts{})))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if machinesUp(b.View().Snapshot) == 0 {
			http.Error(w, "no agent is registered", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
	return mux
}

// serveHTTP serves until ctx ends; calls that run then get a moment to end.
func serveHTTP(ctx context.Context, s *http.Server, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
		defer cancel()
		if s.Shutdown(late) != nil {
			_ = s.Close()
		}
	})
	defer stop()
	serve := s.Serve
	if s.TLSConfig != nil {
		serve = func(l net.Listener) error { return rpc.ServeTLS(s, l) }
	}
	if err := serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fault.Unavailable.Errorf("serve: %w", err)
	}
	return nil
}

// adminSocket listens where only this user can connect.
func adminSocket(ctx context.Context, path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, writeError(filepath.Dir(path), err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, writeError(filepath.Dir(path), err)
	}
	defer dir.Close() //nolint:errcheck // only read
	var lc net.ListenConfig
	// A socket's address is short, whatever the directory is called.
	l, err := lc.Listen(ctx, "unix", "/proc/self/fd/"+itoa(dir.Fd())+"/"+filepath.Base(path))
	if err != nil {
		return nil, fault.Unavailable.Errorf("admin socket %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, writeError(filepath.Dir(path), err)
	}
	return l, nil
}

func profiles() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

// adminToken returns the secret in the file, which is made if need be, and
// whom it lets in.
func adminToken(file string) (secret, who string, err error) {
	data, err := os.ReadFile(file) //nolint:gosec // a path of our own making
	secret = strings.TrimSpace(string(data))
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && secret == "":
		secret = rpc.NewToken(tenant.Admin)
		if err = writeFile(file, []byte(secret+"\n")); err != nil {
			return "", "", err
		}
	case err != nil:
		return "", "", fault.Denied.Errorf("admin token: %w", err)
	}
	who = "admin"
	if u, err := user.Current(); err == nil {
		who = u.Username
	}
	return secret, who, nil
}

// admit lets the admins of all servers in, for as long as this one leads: each
// has a token in its own data directory.
func (b *backend) admit(ctx context.Context) error {
	for {
		if b.View().Following == nil {
			for _, m := range b.ring.all() {
				if m.Token == "" {
					continue
				}
				if err := b.addToken(ctx, m.Token, m.Owner); err != nil && ctx.Err() == nil {
					b.log.WarnContext(ctx, "the admin of another server is not let in yet", "server", m.Name, "error", err)
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(renewal):
		}
	}
}

// Retention of the cluster's store.
const (
	keepRecords = 7 * 24 * unit.Hour
	keepEnded   = 48 * unit.Hour // at the longest
	keepLeast   = unit.Hour      // at the least, however many there are
	perJob      = 100
	trimStep    = 5000
	trimEvery   = 10 * time.Minute
)

// housekeep forgets what nobody needs any more, and audits the indexes.
func (b *backend) housekeep(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(trimEvery):
		}
		if b.View().Following != nil {
			continue
		}
		b.trim(ctx)
		if _, _, err := b.Do(ctx, control.DropUnused{Limit: trimStep}); err != nil && ctx.Err() == nil {
			b.log.WarnContext(ctx, "configs that nothing runs were not removed", "error", err)
		}
		b.audit(ctx)
	}
}

func (b *backend) trim(ctx context.Context) {
	now := unit.TickAt(b.wall())
	q := state.TrimQuery{
		RecordsBefore: now - keepRecords, UpTo: b.metering.at(ctx), EndedBefore: now - keepEnded, PerJob: perJob, KeepEnded: now - keepLeast, Limit: trimStep,
	}
	for more := true; more && ctx.Err() == nil; {
		var err error
		if more, err = b.store.Trim(ctx, q); err != nil {
			b.log.WarnContext(ctx, "old records were not removed", "error", err)
			return
		}
	}
}

// audit compares the loop's indexes with fresh ones, which are made beside it.
func (b *backend) audit(ctx context.Context) {
	var a *control.Audit
	if !b.between(ctx, func(l *control.Loop) { a = l.BeginAudit() }) {
		return
	}
	a.Build()
	var wrong error
	if !b.between(ctx, func(l *control.Loop) { wrong = l.EndAudit(a) }) {
		return
	}
	b.stats.audited(wrong)
	if wrong != nil {
		b.log.ErrorContext(ctx, "the loop's memory was wrong and was made anew", "error", wrong)
	}
}

// between does something between two turns, and waits until it is done. It is
// false when ctx ends before.
func (b *backend) between(ctx context.Context, do func(*control.Loop)) bool {
	done := make(chan struct{})
	in := input{beat: func(l *control.Loop, _ unit.Tick) {
		do(l)
		close(done)
	}, done: func(error) {}}
	select {
	case b.inputs <- in:
	case <-ctx.Done():
		return false
	}
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}
