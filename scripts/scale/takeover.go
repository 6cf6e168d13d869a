package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"connectrpc.com/connect"

	pb "github.com/covey-platform/covey/api/covey/v1"
	api "github.com/covey-platform/covey/api/covey/v1/coveyv1connect"
	"github.com/covey-platform/covey/internal/store/storetest"
)

// postgresSettings are those of a database that has a machine's memory to
// itself as little as Covey has; what makes a commit durable stays as it is.
var postgresSettings = []string{"shared_buffers=512MB", "max_wal_size=4GB", "checkpoint_timeout=15min"}

// startServers starts the first server, which leads, and then those that follow.
func (r *run1) startServers(ctx context.Context) error {
	db := ""
	if r.o.postgres {
		pg, err := storetest.RunPostgres(ctx, r.o.dir, postgresSettings...)
		if err != nil {
			return err
		}
		r.pg = pg
		if db, err = pg.NewDatabase(); err != nil {
			return err
		}
	}
	for i := range r.o.servers {
		dir, err := os.MkdirTemp(r.o.dir, "covey-scale-*")
		if err != nil {
			return err
		}
		r.dirs = append(r.dirs, dir)
		s, err := newServer(ctx, r.o.covey, dir, db, r.o.tls)
		if err != nil {
			return err
		}
		if i == 0 {
			r.srv = s
		} else {
			r.others = append(r.others, s)
		}
		if err = s.start(ctx); err != nil {
			return fmt.Errorf("%w\n%s", err, r.logs())
		}
	}
	return nil
}

// tidy ends what was started, and removes its data.
func (r *run1) tidy() {
	for _, s := range append(r.others, r.srv) {
		if s != nil && s.cmd != nil {
			s.stop()
		}
	}
	for _, d := range r.dirs {
		_ = os.RemoveAll(d)
	}
	if r.pg != nil {
		r.pg.Stop()
	}
}

// logs returns the last that each server has said.
func (r *run1) logs() string {
	var text strings.Builder
	for _, d := range r.dirs {
		b, _ := os.ReadFile(filepath.Join(d, "server.log")) //nolint:gosec // a path of our own making
		text.Write(append(tail(b, 2000), '\n'))
	}
	return text.String()
}

// otherURLs is where the servers are that follow.
func (r *run1) otherURLs() (urls []string) {
	for _, s := range r.others {
		urls = append(urls, s.url())
	}
	return urls
}

// restart kills the server that leads and measures until a new job has a
// machine: by the same server, started again, or by the one that takes over.
// Then it sees that no task was lost or doubled.
func (r *run1) restart(ctx context.Context) error {
	if !r.o.restart {
		return nil
	}
	if err := r.stillLeads(ctx); err != nil {
		return err
	}
	before, err := r.whole(ctx)
	if err != nil {
		return err
	}
	if err = r.srv.kill(); err != nil {
		return err
	}
	began := time.Now()
	if len(r.others) > 0 {
		r.srv, r.others = r.others[0], r.others[1:]
	} else if err := r.srv.start(ctx); err != nil {
		return err
	}
	r.out.ReadySeconds = time.Since(began).Seconds()
	defer r.profiled(ctx, "restart.pprof")()
	if err := r.placed(ctx, "afterwards"); err != nil {
		return err
	}
	r.out.PlacedSeconds = time.Since(began).Seconds()
	return r.unharmed(ctx, before)
}

// stillLeads refuses to measure the loss of a leader that is none.
func (r *run1) stillLeads(ctx context.Context) error {
	if len(r.others) == 0 {
		return nil
	}
	c := api.NewClusterServiceClient(http.DefaultClient, r.srv.url())
	got, err := c.GetCluster(ctx, authorised(r, &pb.GetClusterRequest{}))
	if err != nil {
		return err
	}
	for _, s := range got.Msg.GetServers() {
		if s.GetLeads() && s.GetUrl() == r.srv.url() {
			return nil
		}
	}
	return errors.New("another server leads than the one that led first: this machine is too slow for so many")
}

func authorised[T any](r *run1, m *T) *connect.Request[T] {
	req := connect.NewRequest(m)
	req.Header().Set("Authorization", "Bearer "+r.srv.token)
	return req
}

// placed creates a job of one task and waits until that has a machine.
func (r *run1) placed(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if err := r.createJob(ctx, name, 1); err != nil {
		return err
	}
	for {
		got, err := r.jobs().GetJob(ctx, authorised(r, &pb.GetJobRequest{Key: cluster + "/www-data/prod/" + name}))
		if err == nil && len(got.Msg.GetTasks()) == 1 && got.Msg.GetTasks()[0].GetMachine() != "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the task of %s has no machine: %w", name, errors.Join(err, ctx.Err()))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// fleet sums up what the processes of agents say.
func (r *run1) fleet() (all fleetState) {
	for _, p := range r.fleets {
		if s := p.last.Load(); s != nil {
			all.Connected += s.Connected
			all.Running += s.Running
			all.Ended += s.Ended
			all.Begun += s.Begun
		}
	}
	return all
}

// whole waits until all tasks run and none has been begun for two rounds of
// what the fleets say: churn leaves some that wait for their next attempt.
func (r *run1) whole(ctx context.Context) (fleetState, error) {
	const quiet = 2500 * time.Millisecond
	since, last := time.Now(), r.fleet()
	for began := time.Now(); time.Since(began) < 5*time.Minute; {
		select {
		case <-ctx.Done():
			return last, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
		now := r.fleet()
		switch {
		case now.Begun != last.Begun || now.Running != r.out.Tasks:
			since, last = time.Now(), now
		case time.Since(since) >= quiet:
			return now, nil
		}
	}
	return last, fmt.Errorf("before the restart %d tasks run; want %d", last.Running, r.out.Tasks)
}

// unharmed waits until every agent is back and as many tasks run as before, and
// the new one, by the agents and by the server: none was lost or doubled. Tasks
// of agents that were silent for too long may have been replaced; those are counted.
func (r *run1) unharmed(ctx context.Context, before fleetState) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	began, alike := time.Now(), time.Time{}
	for {
		now := r.fleet()
		m, err := r.srv.metrics(ctx)
		switch {
		case err != nil || now.Connected < r.out.Agents || now.Running != before.Running+1 || int(m["covey_tasks"]) != now.Running:
			alike = time.Time{}
		case alike.IsZero():
			alike = time.Now()
			r.out.BackSeconds = time.Since(began).Seconds()
		case time.Since(alike) >= r.o.steady:
			r.out.Anew = now.Begun - before.Begun - 1
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("after the restart %d of %d agents are back, %d tasks run, and the server knows %d; want %d: %w", now.Connected, r.out.Agents, now.Running, int(m["covey_tasks"]), before.Running+1, errors.Join(err, ctx.Err()))
		case <-time.After(pollEvery * time.Duration(1+r.out.Agents/2000)):
		}
	}
}
