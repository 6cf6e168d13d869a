package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// figures is what one measurement found. The server's CPU is that of its own
// process: the evaluation of configurations, in children, is not in it.
type figures struct {
	Agents int  `json:"agents"`
	Tasks  int  `json:"tasks"`
	Shared bool `json:"shared_connections"`
	TLS    bool `json:"tls,omitempty"`
	// The store is PostgreSQL, and there may be several servers: then all other
	// figures are those of the one that leads.
	Postgres bool   `json:"postgres,omitempty"`
	Servers  int    `json:"servers"`
	Cores    int    `json:"cores"`
	Load     string `json:"load_average"`

	JoinSeconds    float64 `json:"join_seconds"`     // until every agent had joined and said hello
	JoinCPU        float64 `json:"join_cpu_seconds"` // of the server
	HeapPerMachine float64 `json:"bytes_per_machine"`
	// The part of it that is stacks of goroutines.
	StackPerMachine float64 `json:"stack_bytes_per_machine"`

	IdleCores   float64 `json:"idle_cores"` // of the server: all agents connected, no task
	IdleCommits float64 `json:"idle_commits_per_second"`

	RunSeconds  float64 `json:"run_seconds"` // from the first submit to the last acknowledged RUNNING
	RunCPU      float64 `json:"run_cpu_seconds"`
	RSS         int64   `json:"rss_bytes"`                    // of the server then
	FollowerRSS int64   `json:"follower_rss_bytes,omitempty"` // the largest
	HeapPerTask float64 `json:"bytes_per_task"`
	DiskPerTask float64 `json:"disk_bytes_per_task"`

	FullCores float64 `json:"full_cores"` // all tasks run, nothing changes

	ChurnCores      float64 `json:"churn_cores"`
	ChurnCommits    float64 `json:"churn_commits_per_second"`
	Replaced        float64 `json:"replaced_per_second"`
	DiskPerReplaced float64 `json:"disk_bytes_per_replaced_task"`

	ReadySeconds  float64 `json:"ready_seconds,omitempty"`  // from kill -9 to an answer
	PlacedSeconds float64 `json:"placed_seconds,omitempty"` // and to the next placement
	BackSeconds   float64 `json:"back_seconds,omitempty"`   // from then until all agents were back and every task ran
	Anew          int64   `json:"begun_anew,omitempty"`     // tasks that were replaced meanwhile
}

func (f *figures) print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(what, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", what, fmt.Sprintf(format, args...)) }
	way := "a connection each"
	if f.Shared {
		way = fmt.Sprintf("%d to a connection", perConnection)
	}
	if f.TLS {
		way += ", by TLS"
	}
	line("agents", "%d, %s", f.Agents, way)
	line("tasks", "%d", f.Tasks)
	line("joined and connected", "%.1f s, %.1f s of the server's CPU", f.JoinSeconds, f.JoinCPU)
	line("memory of a machine", "%.1f KiB, %.1f of it stacks", f.HeapPerMachine/1024, f.StackPerMachine/1024)
	line("at rest, no task", "%.3f cores, %.1f commits/s", f.IdleCores, f.IdleCommits)
	line("submit to RUNNING", "%.1f s, %.0f tasks/s", f.RunSeconds, float64(f.Tasks)/f.RunSeconds)
	line("server's CPU for 1,000 tasks", "%.3f s", f.RunCPU*1000/float64(f.Tasks))
	line("memory of a task", "%.0f B; RSS %d MiB", f.HeapPerTask, f.RSS>>20)
	if f.Servers > 1 {
		line("servers", "%d on PostgreSQL; RSS of one that follows %d MiB", f.Servers, f.FollowerRSS>>20)
	}
	line("disk of a new task", "%.0f B", f.DiskPerTask)
	line("at rest, all tasks run", "%.3f cores", f.FullCores)
	line("churn", "%.0f tasks/s replaced, %.3f cores, %.1f commits/s, %.0f B of disk for each", f.Replaced, f.ChurnCores, f.ChurnCommits, f.DiskPerReplaced)
	if f.PlacedSeconds > 0 {
		how := fmt.Sprintf("started again, answers after %.1f s", f.ReadySeconds)
		if f.Servers > 1 {
			how = "another takes over"
		}
		line("killed", "%s, places after %.1f s; all agents back and all tasks there %.1f s later, %d of them begun anew", how, f.PlacedSeconds, f.BackSeconds, f.Anew)
	}
	line("cores, load average", "%d, %s", f.Cores, f.Load)
	_ = w.Flush()
	fmt.Fprintln(out)
}
