package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "github.com/covey-platform/covey/api/covey/v1"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/unit"
)

func (a *app) tasks() *cobra.Command {
	return group("work", "task", "Look into tasks", a.taskLogs(), a.taskEvents(), a.taskExplain(), a.taskLs())
}

// instanceOf reads KEY[/INSTANCE]; -1 is all instances.
func instanceOf(s string) (key string, instance int32, err error) {
	key, some, err := split(s)
	if err != nil || some == "" {
		return key, -1, err
	}
	n, err := strconv.ParseInt(some, 10, 32)
	if err != nil {
		return "", 0, badParameter("%.200q names instances %s; want one, such as %s/0", s, some, key)
	}
	return key, int32(n), nil
}

// logsOf has a request ask for KEY[/INSTANCES]. One instance is asked for in
// the way that servers know which cannot merge some.
func logsOf(m *pb.ReadLogRequest, s string) (err error) {
	if m.Key, m.Instances, err = split(s); err != nil {
		return err
	}
	m.Instance = -1
	if n, err := strconv.ParseInt(m.GetInstances(), 10, 32); err == nil {
		m.Instance, m.Instances = int32(n), ""
	}
	return nil
}

// silence is how long a stream may be silent: a server that lives says so
// every ten seconds.
const silence = 45 * time.Second

func (a *app) taskLogs() *cobra.Command {
	m := &pb.ReadLogRequest{}
	c := &cobra.Command{
		Use: "logs KEY[/INSTANCES]", Short: "Print what a job's tasks write, of some instances or all of them merged", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if err = logsOf(m, args[0]); err != nil {
				return err
			}
			c, err := a.dialKey(m.GetKey())
			if err != nil {
				return err
			}
			return a.readLog(cmd, c, m)
		},
	}
	f := c.Flags()
	f.BoolVarP(&m.Follow, "follow", "f", false, "go on with what is written from now on, until Ctrl-C")
	f.BoolVar(&m.Previous, "previous", false, "of the attempt before the present one")
	f.StringVar(&m.Process, "process", "", "only of this process")
	f.StringVar(&m.Stream, "stream", "", "only stdout or only stderr")
	f.Int32Var(&m.Tail, "tail", 0, "only the last so many lines of each log; 0 is all")
	_ = c.RegisterFlagCompletionFunc("stream", cobra.FixedCompletions([]string{"stdout", "stderr"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// readLog prints logs. When the server is lost in the middle, another one goes
// on where this one was.
func (a *app) readLog(cmd *cobra.Command, c *client, m *pb.ReadLogRequest) error {
	out := &logWriter{w: cmd.OutOrStdout(), json: a.output == "json", names: m.GetInstance() < 0, at: map[string]*pb.LogPosition{}}
	return goOn(cmd.Context(), cmd.ErrOrStderr(), out, m.GetFollow(), func() error {
		m.After = slices.Collect(maps.Values(out.at))
		return a.readLogOnce(cmd, c, m, out)
	})
}

// followPatience is how long logs that are followed may be out of reach: as long
// as it takes to bring a database back. Who does not want to wait has Ctrl-C.
const followPatience = 10 * time.Minute

// goOn reads once, and again when the server was lost meanwhile. A short loss
// is not spoken of; before a longer one is waited for, says is told.
func goOn(ctx context.Context, says io.Writer, out *logWriter, follow bool, once func() error) error {
	var lost time.Time // when nothing came since
	told := false
	for {
		began := time.Now()
		err := once()
		if !passes(err) || ctx.Err() != nil {
			return err
		}
		if out.wrote.After(began) || lost.IsZero() {
			lost, told = time.Now(), false
		}
		limit, gone := patience, time.Since(lost)
		if follow && !out.wrote.IsZero() {
			limit = followPatience
		}
		if gone > limit || len(out.at) == 0 && !follow {
			return err
		}
		if gone > patience && !told {
			told = true
			_, _ = fmt.Fprintf(says, "covey: no logs for %v, waiting for %v at most: %s\n", gone.Round(time.Second), limit, printable(message(err)))
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(retryPause):
		}
	}
}

func (a *app) readLogOnce(cmd *cobra.Command, c *client, m *pb.ReadLogRequest, out *logWriter) error {
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	dead := time.AfterFunc(silence, cancel)
	defer dead.Stop()
	s, err := c.tasks.ReadLog(ctx, connect.NewRequest(m))
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	for s.Receive() {
		dead.Reset(silence)
		if err = out.write(s.Msg()); err != nil {
			return err
		}
	}
	err = s.Err()
	if err != nil && ctx.Err() != nil && cmd.Context().Err() == nil {
		return exitf(NetworkError, "the server was silent for %v", silence)
	}
	return err
}

// logWriter prints pieces of logs: the bytes as they are, with the instance
// before each line where several are merged, or one JSON object for each piece.
type logWriter struct {
	w     io.Writer
	json  bool
	names bool
	last  string // whose line is not complete
	// at is how far each log was printed, and wrote when.
	at    map[string]*pb.LogPosition
	wrote time.Time
}

func (l *logWriter) write(m *pb.ReadLogResponse) error {
	l.wrote = time.Now()
	if len(m.GetData()) == 0 {
		return nil
	}
	if m.GetLog() != "" {
		l.at[m.GetTaskId()+" "+m.GetLog()] = &pb.LogPosition{TaskId: m.GetTaskId(), Log: m.GetLog(), Offset: m.GetNext()}
	}
	if l.json {
		return jsonLine(l.w, struct {
			Task    string `json:"id"`
			Process string `json:"process"`
			Stream  string `json:"stream"`
			Data    string `json:"data"`
		}{m.GetTaskId(), m.GetProcess(), m.GetStream(), string(bytes.ToValidUTF8(m.GetData(), []byte("\uFFFD")))})
	}
	if !l.names {
		_, err := l.w.Write(m.GetData())
		return err
	}
	_, slot, _ := cutLast(m.GetTaskId(), "/")
	instance, _, _ := strings.Cut(slot, ".")
	name := "[" + instance + " " + m.GetProcess() + "] "
	var b bytes.Buffer
	if l.last != "" && l.last != name {
		b.WriteByte('\n')
		l.last = ""
	}
	for line := range bytes.Lines(m.GetData()) {
		if l.last == "" {
			b.WriteString(printable(name))
		}
		b.Write(line)
		l.last = name
		if line[len(line)-1] == '\n' {
			l.last = ""
		}
	}
	_, err := l.w.Write(b.Bytes())
	return err
}

func cutLast(s, sep string) (before, after string, ok bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

func (a *app) taskEvents() *cobra.Command {
	var limit int32
	c := &cobra.Command{
		Use: "events KEY[/INSTANCE]", Short: "Print the steps of a job's tasks, oldest first", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, instance, err := instanceOf(args[0])
			if err != nil {
				return err
			}
			if limit < 1 || limit > 1000 {
				return badParameter("--limit %d; want 1 to 1000", limit)
			}
			c, err := a.dialKey(key)
			if err != nil {
				return err
			}
			r, err := ask(cmd.Context(), c.tasks.ListTaskEvents, &pb.ListTaskEventsRequest{Key: key, Instance: instance, Limit: limit})
			if err != nil {
				return err
			}
			return a.printEvents(cmd, r)
		},
	}
	c.Flags().Int32Var(&limit, "limit", 200, "the newest so many")
	return c
}

// eventJSON is a step as commands print it.
type eventJSON struct {
	Seq     uint64 `json:"seq"`
	At      string `json:"at"`
	Task    string `json:"id"`
	From    string `json:"from"`
	To      string `json:"to"`
	Machine string `json:"machine"`
	Reason  string `json:"reason"`
	By      string `json:"by"`

	Left *resourcesJSON `json:"left,omitempty"` // on the machine after the step
}

func eventOf(e *pb.TaskEvent) eventJSON {
	return eventJSON{e.GetSeq(), moment(e.GetAtUnixNanos()), e.GetTaskId(), e.GetFrom(), e.GetTo(), e.GetMachine(), e.GetReason(), e.GetBy(), resourcesOf(e.GetLeft())}
}

func (a *app) printEvents(cmd *cobra.Command, r *pb.ListTaskEventsResponse) error {
	out := []eventJSON{}
	var rows [][]string
	for _, e := range r.GetEvents() {
		x := eventOf(e)
		out = append(out, x)
		rows = append(rows, []string{x.At, x.Task, x.From + " -> " + x.To, x.Machine, x.Reason, x.By})
	}
	return a.print(cmd, struct {
		Events    []eventJSON `json:"events"`
		Truncated bool        `json:"truncated"`
	}{out, r.GetTruncated()}, func(w io.Writer) {
		if r.GetTruncated() {
			_, _ = fmt.Fprintln(w, "(there were older steps)")
		}
		table(w, []string{"AT", "TASK", "STEP", "MACHINE", "REASON", "BY"}, rows)
	})
}

func (a *app) taskExplain() *cobra.Command {
	return &cobra.Command{
		Use: "explain KEY/INSTANCE[.ATTEMPT]", Short: "Say where a task is and why there, what became of it, or why it waits", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, instance, attempt, err := attemptOf(args[0])
			if err != nil {
				return err
			}
			c, err := a.dialKey(key)
			if err != nil {
				return err
			}
			r, err := ask(cmd.Context(), c.tasks.ExplainTask, &pb.ExplainTaskRequest{Key: key, Instance: instance, Attempt: attempt})
			if err != nil {
				return err
			}
			v := struct {
				Task   string       `json:"id"`
				Status string       `json:"status"`
				Text   string       `json:"text"`
				Why    *explainJSON `json:"why,omitempty"`
				Events []eventJSON  `json:"events"`
				All    int32        `json:"machines,omitempty"` // of the cluster now
				May    int32        `json:"allowed,omitempty"`  // that may run it
				Room   int32        `json:"room,omitempty"`     // that would take one more
				Place  string       `json:"placement,omitempty"`
				Scores []scoreJSON  `json:"scores,omitempty"`
			}{r.GetTaskId(), r.GetStatus(), r.GetText(), nil, []eventJSON{}, r.GetMachines(), r.GetAllowed(), r.GetRoom(), r.GetPlacement(), scoresOf(r.GetScores())}
			if x := r.GetWaits(); x != nil {
				e := explainOf(x)
				v.Why = &e
			}
			for _, e := range r.GetEvents() {
				v.Events = append(v.Events, eventOf(e))
			}
			return a.print(cmd, v, func(w io.Writer) { explainTaskTable(w, r) })
		},
	}
}

// scoreJSON is how well a task fits on a machine; the least score fits best. For
// a job that spreads it is the greatest, of the machines with the fewest tasks of it.
type scoreJSON struct {
	Machine string `json:"machine"`
	Score   string `json:"score"`
	Tasks   int32  `json:"tasks,omitempty"` // others of the job that are there, if it spreads
	Last    bool   `json:"last"`            // maintenance is scheduled: those without come first
	GPUs    bool   `json:"gpus,omitempty"`  // it has GPUs, which the task does not want: those without come first
	Kept    string `json:"kept,omitempty"`  // what tasks insist on that wait for room on it: others with GPUs come first
	Avoided bool   `json:"avoided,omitempty"`
	Avoid   string `json:"avoid,omitempty"` // why it is avoided
	Here    bool   `json:"here"`
}

func scoresOf(list []*pb.MachineScore) (out []scoreJSON) {
	for _, x := range list {
		out = append(out, scoreJSON{x.GetMachine(), thousandths(x.GetThousandths()), x.GetTasks(), x.GetLast(), x.GetGpus(), x.GetKept(), x.GetAvoided(), x.GetAvoid(), x.GetHere()})
	}
	return out
}

func thousandths(n int64) string { return fmt.Sprintf("%d.%03d", n/1000, n%1000) }

// scoreTable shows where a task would go if it were placed now, best first.
func scoreTable(w io.Writer, list []*pb.MachineScore, placement string) {
	if len(list) == 0 {
		return
	}
	_, _ = fmt.Fprintln(w, "placed now, it would go to the first of these: score = what is free, each measure as a part of the largest machine's, summed")
	spreads := placement == job.Spread
	if spreads {
		_, _ = fmt.Fprintln(w, "its job spreads: machines with the fewest tasks of it come first, and of these the greatest score")
	}
	var rows [][]string
	for _, x := range list {
		row := []string{x.GetMachine(), thousandths(x.GetThousandths())}
		if spreads {
			row = append(row, fmt.Sprint(x.GetTasks()))
		}
		rows = append(rows, append(row, noteOf(x)))
	}
	head := []string{"MACHINE", "SCORE", "NOTE"}
	if spreads {
		head = []string{"MACHINE", "SCORE", "OTHER TASKS", "NOTE"}
	}
	table(w, head, rows)
}

// noteOf says what else there is to a score.
func noteOf(x *pb.MachineScore) string {
	var notes []string
	if x.GetHere() {
		notes = append(notes, "it is here")
	}
	if x.GetLast() {
		notes = append(notes, "maintenance is scheduled")
	}
	if x.GetAvoided() {
		notes = append(notes, strings.TrimSuffix("it is avoided: "+printable(x.GetAvoid()), ": "))
	}
	if x.GetGpus() {
		notes = append(notes, "it has GPUs")
	}
	if x.GetKept() != "" {
		notes = append(notes, "tasks wait that insist on "+printable(x.GetKept()))
	}
	return strings.Join(notes, "; ")
}

func explainTaskTable(w io.Writer, r *pb.ExplainTaskResponse) {
	_, _ = fmt.Fprintf(w, "%s  %s\n", printable(r.GetTaskId()), printable(r.GetText()))
	if r.GetTruncated() {
		_, _ = fmt.Fprintln(w, "(there were older steps)")
	}
	for _, e := range r.GetEvents() {
		line := moment(e.GetAtUnixNanos()) + "  " + e.GetTo()
		if e.GetMachine() != "" {
			line += " on " + e.GetMachine()
		}
		if e.GetReason() != "" {
			line += ": " + e.GetReason()
		}
		if e.GetBy() != "" {
			line += " (by " + e.GetBy() + ")"
		}
		if l := e.GetLeft(); l != nil && e.GetTo() == "ASSIGNED" {
			line += "; left there: " + unit.Resources{CPU: l.GetCpuMilli(), RAM: l.GetRamBytes(), Disk: l.GetDiskBytes(), GPU: l.GetGpuMilli(), Net: l.GetNetBps()}.String()
		}
		_, _ = fmt.Fprintf(w, "  %s\n", printable(line))
	}
	if n := r.GetMachines(); n > 0 {
		_, _ = fmt.Fprintf(w, "now %d of %s may run it, and %d would take one more like it\n", r.GetAllowed(), many(int(n), "machine"), r.GetRoom())
	}
	scoreTable(w, r.GetScores(), r.GetPlacement())
	if x := r.GetWaits(); x != nil {
		explainRows(w, x)
	}
}

// attemptOf reads KEY/INSTANCE or KEY/INSTANCE.ATTEMPT.
func attemptOf(s string) (key string, instance int32, attempt uint32, err error) {
	if i := strings.LastIndexByte(s, '/'); i >= 0 && strings.Count(s, "/") == 4 {
		if in, at, ok := strings.Cut(s[i+1:], "."); ok {
			n, bad := strconv.ParseUint(at, 10, 32)
			if bad != nil || n == 0 {
				return "", 0, 0, badParameter("task %.100q; want KEY/INSTANCE or KEY/INSTANCE.ATTEMPT, such as dev/www-data/prod/hello/0.1", s)
			}
			s, attempt = s[:i+1]+in, uint32(n)
		}
	}
	if key, instance, err = instanceOf(s); err == nil && instance < 0 {
		err = badParameter("%s names no task; want KEY/INSTANCE or KEY/INSTANCE.ATTEMPT, such as %s/0", s, s)
	}
	return key, instance, attempt, err
}

func (a *app) taskLs() *cobra.Command {
	return &cobra.Command{
		Use: "ls KEY/INSTANCE [PATH]", Short: "List files of a task's sandbox", Args: between(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, instance, err := instanceOf(args[0])
			if err != nil {
				return err
			}
			if instance < 0 {
				return badParameter("%s names no instance; want one, such as %s/0", args[0], args[0])
			}
			path := ""
			if len(args) == 2 {
				path = args[1]
			}
			c, err := a.dialKey(key)
			if err != nil {
				return err
			}
			r, err := ask(cmd.Context(), c.tasks.ListFiles, &pb.ListFilesRequest{Key: key, Instance: instance, Path: path})
			if err != nil {
				return err
			}
			return a.printFiles(cmd, r)
		},
	}
}

func (a *app) printFiles(cmd *cobra.Command, r *pb.ListFilesResponse) error {
	type file struct {
		Name     string `json:"name"`
		Size     int64  `json:"size"`
		Dir      bool   `json:"dir"`
		Mode     string `json:"mode"`
		Modified string `json:"modified"`
	}
	out := []file{}
	var rows [][]string
	for _, f := range r.GetFiles() {
		x := file{f.GetName(), f.GetSize(), f.GetDir(), f.GetMode(), moment(f.GetModifiedUnixNanos())}
		out = append(out, x)
		name := x.Name
		if x.Dir {
			name += "/"
		}
		rows = append(rows, []string{x.Mode, strconv.FormatInt(x.Size, 10), x.Modified, name})
	}
	return a.print(cmd, struct {
		Files []file `json:"files"`
	}{out}, func(w io.Writer) { table(w, []string{"MODE", "SIZE", "MODIFIED", "NAME"}, rows) })
}
