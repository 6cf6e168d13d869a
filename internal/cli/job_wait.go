package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "github.com/covey-platform/covey/api/covey/v1"
	"github.com/covey-platform/covey/internal/job"
)

const (
	lookEvery = 2 * time.Second        // a job that is waited for is looked at so often, and at every step of it
	lookPause = 100 * time.Millisecond // but not more often
)

// await waits until every instance of a job is in a state, or never will be.
func (a *app) await(cmd *cobra.Command, c *client, key, until string, limit time.Duration, seq uint64) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), limit)
	defer cancel()
	p := a.progress(cmd)
	defer p.end()
	news := c.watch(ctx, key, seq)
	for {
		r, err := ask(ctx, c.jobs.GetJob, &pb.GetJobRequest{Key: key})
		if ctx.Err() != nil && cmd.Context().Err() == nil {
			return exitf(TimedOut, "%s is not %s after %v; it is accepted and may still get there, see covey job status %s", key, until, limit, key)
		}
		if err != nil {
			return err
		}
		v := judge(r, until)
		p.show(key + ": " + v.text)
		switch {
		case v.good:
			p.end()
			return a.print(cmd, struct {
				Job   jobJSON    `json:"job"`
				Tasks []taskJSON `json:"tasks"`
			}{jobOf(r.GetJob()), tasksOf(r.GetTasks())}, func(w io.Writer) {
				_, _ = fmt.Fprintf(w, "%s: %s\n", key, v.text)
				tasksTable(w, r.GetTasks())
			})
		case v.bad != nil:
			p.end()
			return a.badEnd(cmd, c, key, v)
		}
		select {
		case <-ctx.Done():
		case <-news:
		case <-time.After(lookEvery):
		}
		select { // many steps at once are one look
		case <-ctx.Done():
		case <-time.After(lookPause):
		}
	}
}

// watch returns a channel on which something comes whenever a job's task made
// a step. It is a hint: who waits looks now and then by itself.
func (c *client) watch(ctx context.Context, key string, seq uint64) <-chan struct{} {
	news := make(chan struct{}, 1)
	go func() {
		for ctx.Err() == nil {
			seq = c.watchOnce(ctx, key, seq, news)
			select { // the server was lost, and another one goes on
			case <-ctx.Done():
			case <-time.After(retryPause):
			}
		}
	}()
	return news
}

// watchOnce watches until the stream ends, and returns where to go on.
func (c *client) watchOnce(ctx context.Context, key string, seq uint64, news chan<- struct{}) uint64 {
	s, err := c.jobs.WatchJob(ctx, connect.NewRequest(&pb.WatchJobRequest{Key: key, AfterSeq: seq}))
	if err != nil {
		return seq
	}
	defer func() { _ = s.Close() }()
	for s.Receive() {
		seq = s.Msg().GetSeq()
		if s.Msg().GetEvent() == nil {
			continue
		}
		select {
		case news <- struct{}{}:
		default:
		}
	}
	return seq
}

// verdict is how far a job is.
type verdict struct {
	text string
	good bool
	bad  *pb.Task // the instance that will not get there; nil: none
	why  string
}

// judge says whether all instances are in a state, or one of them will not be
// without somebody's help.
func judge(r *pb.GetJobResponse, until string) verdict {
	by := map[string]int32{}
	v := verdict{good: len(r.GetTasks()) > 0}
	waits, patient := "", until == "FINISHED" || limited(r.GetJob())
	for _, t := range r.GetTasks() {
		s := t.GetStatus()
		if t.GetCreatedUnixNanos() < r.GetJob().GetCreatedUnixNanos() { // what became of it is another job's story
			by["yet to come"]++
			v.good = false
			continue
		}
		by[s]++
		done := s == "FINISHED" || s == "RUNNING" && until == "RUNNING"
		v.good = v.good && done
		if why := hopeless(t, patient); why != "" && v.bad == nil && !done {
			v.bad, v.why = t, why
		}
		if s == "PENDING" && waits == "" {
			waits = t.GetReason()
		}
	}
	v.text = states(by)
	if waits != "" {
		v.text += "; " + waits
	}
	return v
}

// limited reports whether a job's instances have a last attempt, after which
// they fail for good. The others are tried again for ever.
func limited(j *pb.Job) bool {
	c, err := job.Decode(j.GetConfigJson())
	return err == nil && !c.Service && c.MaxTaskFailures >= 0
}

// hopelessAfter is how many early ends in a row make a task hopeless that is
// tried again for ever: one that comes up at its fourth start is waited for.
const hopelessAfter = 4

// hopeless says why a task will not get anywhere by itself, or nothing. A
// patient one waits as long as there are tries left.
func hopeless(t *pb.Task, patient bool) string {
	switch s := t.GetStatus(); s {
	case "FAILED", "KILLED", "LOST":
		return "is " + s + because(t.GetReason())
	case "KILLING":
		return "is being killed" + because(t.GetReason())
	case "THROTTLED":
		if patient || earlyEnds(t.GetReason()) < hopelessAfter {
			return ""
		}
		return "failed again and again" + because(t.GetReason())
	case "PENDING":
		if strings.HasPrefix(t.GetReason(), "larger than any machine") {
			return "fits on no machine: " + t.GetReason()
		}
	}
	return ""
}

// earlyEnds reads how many early ends in a row a throttled task waits for.
// There are none if a machine would not have the task before: that is nobody's
// failure, and it is tried elsewhere.
func earlyEnds(reason string) (n int) {
	if _, err := fmt.Sscanf(reason, "ended early %d times in a row", &n); err != nil {
		return 0
	}
	return n
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// badLines is how much of a log a bad end shows.
const badLines = 10

// badEnd says what went wrong, with the end of the log.
func (a *app) badEnd(cmd *cobra.Command, c *client, key string, v verdict) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), 10*time.Second)
	defer cancel()
	s, err := c.tasks.ReadLog(ctx, connect.NewRequest(&pb.ReadLogRequest{Key: key, Instance: v.bad.GetInstance(), Tail: badLines}))
	if err == nil {
		var lines []string
		for s.Receive() {
			for l := range strings.Lines(string(s.Msg().GetData())) {
				lines = append(lines, s.Msg().GetProcess()+" "+s.Msg().GetStream()+": "+strings.TrimRight(l, "\n"))
			}
			if over := len(lines) - 4*badLines; over > 0 {
				lines = slices.Delete(lines, 0, over)
			}
		}
		_ = s.Close()
		for _, l := range lines {
			_, _ = fmt.Fprintln(cmd.ErrOrStderr(), printable(l))
		}
	}
	return exitf(CommandFailed, "%s/%d %s; the job stays accepted, see covey job explain %s and covey task logs %s/%d",
		key, v.bad.GetInstance(), v.why, key, key, v.bad.GetInstance())
}
