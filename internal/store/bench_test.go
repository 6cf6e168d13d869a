package store_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/store"
	"github.com/covey-platform/covey/internal/store/storetest"
	"github.com/covey-platform/covey/internal/task"
	"github.com/covey-platform/covey/internal/unit"
)

const (
	perBatch = 1000
	perJob   = 1000
)

// load makes batches of task steps as a busy cluster does.
type load struct {
	epoch machine.Epoch
	head  state.Head
	rnd   *rand.Rand
	tasks int
}

func (l *load) task(i int, s task.State) state.Task {
	at := l.head.At
	return state.Task{Rev: l.head.Rev + 1, Task: task.Task{
		ID:        task.ID{Job: job.Key(fmt.Sprintf("www-data/prod/service-%05d", i/perJob)), Instance: int32(i % perJob), Attempt: 1},
		Config:    job.HashOf([]byte{byte(i / perJob), byte(i / perJob >> 8)}),
		Resources: unit.Resources{CPU: 500, RAM: 128 * unit.MiB, Disk: 64 * unit.MiB}, State: s,
		Machine: machine.ID(fmt.Sprintf("machine-%05d", l.rnd.IntN(10_000))), Ports: []uint16{uint16(31000 + i%1000)},
		Created: at - 1_000_000, Since: at, Ran: at - 500_000,
	}}
}

// batch steps the tasks at ids, which are sorted.
func (l *load) batch(ids []int, s task.State) *state.Batch {
	b := &state.Batch{
		Epoch: l.epoch, Base: l.head.Rev, Rev: l.head.Rev + 1, At: l.head.At + 1000,
		Rows: make([]state.Row, 0, len(ids)), Records: make([]state.Record, 0, len(ids)),
	}
	for _, i := range ids {
		t := l.task(i, s)
		b.Rows = append(b.Rows, state.Row{Table: state.TaskTable, Key: state.TaskKey(t.ID), Value: state.EncodeTask(t)})
		b.Records = append(b.Records, state.Record{
			Seq: l.head.Seq + state.Seq(len(b.Records)) + 1, At: b.At, Kind: state.TaskRecord,
			Task: &state.TaskChange{Before: task.Starting, After: t.Task},
		})
	}
	return b
}

func (l *load) commit(tb testing.TB, s storetest.Subject, b *state.Batch) {
	tb.Helper()
	if err := s.Commit(context.Background(), b); err != nil {
		tb.Fatal(err)
	}
	l.head = state.Head{Rev: b.Rev, Seq: l.head.Seq + state.Seq(len(b.Records)), At: b.At}
}

// benchSQLite opens an empty store in a file, and returns its log's path.
func benchSQLite(tb testing.TB) (storetest.Subject, string) {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "cluster.db")
	s, err := store.Open(tb.Context(), store.Config{Path: path, Now: time.Now})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = s.Close() })
	return s, path + "-wal"
}

// benchPostgres opens an empty store in a server of its own, which syncs its
// log as an operator's does.
func benchPostgres(tb testing.TB) (storetest.Subject, string) {
	tb.Helper()
	server := storetest.StartPostgres(tb, "max_wal_size=4GB", "shared_buffers=1GB")
	s, err := store.OpenPostgres(tb.Context(), store.PostgresConfig{URL: server.Database(tb), Name: "bench"})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = s.Close() })
	return s, ""
}

// benchStores are the stores that are measured, each by the same work.
var benchStores = []struct {
	name string
	open func(testing.TB) (storetest.Subject, string)
}{{"SQLite", benchSQLite}, {"PostgreSQL", benchPostgres}}

// full returns a store in which so many tasks run.
func full(tb testing.TB, open func(testing.TB) (storetest.Subject, string), tasks int) (storetest.Subject, *load, string) {
	tb.Helper()
	s, wal := open(tb)
	e, err := s.Acquire(tb.Context(), "bench")
	if err != nil {
		tb.Fatal(err)
	}
	l := &load{epoch: e, rnd: rand.New(rand.NewPCG(1, 2)), head: state.Head{At: unit.TickAt(time.Now())}, tasks: tasks}
	ids := make([]int, perBatch)
	for i := 0; i < tasks; i += perBatch {
		for j := range ids {
			ids[j] = i + j
		}
		b := l.batch(ids, task.Pending)
		if i > 0 {
			b.Records = nil
		}
		l.commit(tb, s, b)
	}
	return s, l, wal
}

// BenchmarkTransitions commits steps of tasks with their records, encoded for
// each commit, while a watcher reads every record and somebody reads history
// and heads. One op is one commit of 1,000 tasks: of one job, or of tasks all
// over the cluster.
func BenchmarkTransitions(b *testing.B) {
	for _, kind := range benchStores {
		for _, bench := range []struct {
			name  string
			tasks int
			pick  func(l *load, ids []int)
		}{
			{"one job/100k tasks", 100_000, oneJob},
			{"20 jobs/100k tasks", 100_000, someJobs},
			{"scattered/100k tasks", 100_000, scattered},
			{"one job/1M tasks", 1_000_000, oneJob},
			{"scattered/1M tasks", 1_000_000, scattered},
		} {
			b.Run(kind.name+"/"+bench.name, func(b *testing.B) { transitions(b, kind.open, bench.tasks, bench.pick) })
		}
	}
}

func oneJob(l *load, ids []int) {
	at := l.rnd.IntN(l.tasks/perJob) * perJob
	for j := range ids {
		ids[j] = at + j
	}
}

// someJobs picks every twentieth task of 20 neighbouring jobs.
func someJobs(l *load, ids []int) {
	at, phase := l.rnd.IntN(l.tasks/perJob-20)*perJob, l.rnd.IntN(20)
	for j := range ids {
		ids[j] = at + 20*j + phase
	}
}

func scattered(l *load, ids []int) {
	step := l.tasks / len(ids)
	for j := range ids {
		ids[j] = j*step + l.rnd.IntN(step)
	}
}

func transitions(b *testing.B, open func(testing.TB) (storetest.Subject, string), tasks int, pick func(l *load, ids []int)) {
	s, l, wal := full(b, open, tasks)
	ctx, cancel := context.WithCancel(b.Context())
	var readers sync.WaitGroup
	var seen state.Seq
	first := l.head.Seq
	readers.Go(func() { seen = watch(ctx, b, s, first) })
	readers.Go(func() { browse(ctx, b, s) })
	ids := make([]int, perBatch)
	var rows, keys, blocks int
	var worst time.Duration
	b.ResetTimer()
	cpu := cpuTime(b)
	for n := range b.N {
		pick(l, ids)
		batch := l.batch(ids, task.State(4+n%2))
		if n == 0 {
			for _, r := range batch.Rows {
				rows, keys = rows+len(r.Value), keys+len(r.Key)
			}
			blocks = len(state.EncodeRecords(batch.Records))
		}
		began := time.Now()
		l.commit(b, s, batch)
		worst = max(worst, time.Since(began))
	}
	b.StopTimer()
	b.ReportMetric(float64((cpuTime(b)-cpu).Microseconds())/float64(b.N*perBatch), "cpu-µs/transition")
	b.ReportMetric(float64(b.N)*perBatch/b.Elapsed().Seconds(), "transitions/s")
	b.ReportMetric(float64(rows)/perBatch, "B/value")
	b.ReportMetric(float64(rows+keys)/perBatch, "B/row")
	b.ReportMetric(float64(blocks)/perBatch, "B/record")
	b.ReportMetric(float64(worst.Milliseconds()), "worst-ms")
	if info, err := os.Stat(wal); err == nil {
		b.ReportMetric(float64(info.Size())/(1<<20), "wal-MiB")
	}
	deadline := time.After(30 * time.Second)
	done := make(chan struct{})
	go func() { readers.Wait(); close(done) }()
	cancel()
	select {
	case <-done:
	case <-deadline:
		b.Fatal("the readers do not end")
	}
	b.ReportMetric(float64(seen-first)/float64(max(l.head.Seq-first, 1)), "watched")
}

// cpuTime returns what the process has used so far.
func cpuTime(tb testing.TB) time.Duration {
	tb.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// watch reads records as a watcher does and returns the last one it saw.
func watch(ctx context.Context, tb testing.TB, s storetest.Subject, after state.Seq) state.Seq {
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		records, err := s.Records(ctx, after, perBatch)
		if ctx.Err() != nil {
			return after
		}
		if err != nil {
			tb.Error(err)
			return after
		}
		if len(records) > 0 {
			after = records[len(records)-1].Seq
			continue
		}
		select {
		case <-ctx.Done():
			return after
		case <-poll.C:
		}
	}
}

// browse looks into the past of jobs, ten times a second.
func browse(ctx context.Context, tb testing.TB, s storetest.Subject) {
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
		}
		_, err := s.History(ctx, state.HistoryQuery{Job: "www-data/prod/service-00001", Instance: -1, Limit: 100})
		if err != nil && ctx.Err() == nil {
			tb.Error(err)
			return
		}
	}
}

// BenchmarkLoad reads a cluster back, as a new leader does.
func BenchmarkLoad(b *testing.B) {
	for _, kind := range benchStores {
		for _, tasks := range []int{100_000, 1_000_000} {
			b.Run(fmt.Sprintf("%s/%d tasks", kind.name, tasks), func(b *testing.B) { loading(b, kind.open, tasks) })
		}
	}
}

func loading(b *testing.B, open func(testing.TB) (storetest.Subject, string), tasks int) {
	s, _, _ := full(b, open, tasks)
	b.ResetTimer()
	for b.Loop() {
		snap, err := state.Restore(func(yield func(state.Row) error) (state.Head, error) { return s.Load(b.Context(), yield) })
		if err != nil {
			b.Fatal(err)
		}
		if _, n, _ := snap.Len(); n != tasks {
			b.Fatalf("%d tasks, want %d", n, tasks)
		}
	}
	b.ReportMetric(float64(b.N)*float64(tasks)/b.Elapsed().Seconds(), "tasks/s")
}

// BenchmarkRenew measures the smallest commit there is: one sync.
func BenchmarkRenew(b *testing.B) {
	for _, kind := range benchStores {
		b.Run(kind.name, func(b *testing.B) {
			s, l, _ := full(b, kind.open, perBatch)
			for b.Loop() {
				if err := s.Renew(b.Context(), "bench", l.epoch); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
