package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	pb "github.com/covey-platform/covey/api/covey/v1"
	"github.com/covey-platform/covey/internal/job"
)

func (a *app) clusters() *cobra.Command {
	return group("pool", "cluster", "Name clusters, and look after one",
		a.clusterAdd(), a.clusterList(), a.clusterUse(), a.clusterShow(), a.clusterRecover(), a.clusterResume())
}

// clusterName checks the name of a cluster as the first part of a key.
func clusterName(s string) error {
	if strings.Contains(s, "/") {
		return badParameter("the cluster's name %.80q holds '/'; want only letters a-z and A-Z, digits, '_', '-' or '.'", s)
	}
	_, _, err := job.ParseKey(s + "/role/prod/name")
	return err
}

func (a *app) clusterAdd() *cobra.Command {
	return &cobra.Command{
		Use: "add NAME URL", Short: "Remember where a cluster's server is, with --token-file and --ca-file", Args: exactly(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := clusterName(args[0]); err != nil {
				return err
			}
			c := cluster{Server: args[1]}
			for _, f := range []struct{ from, into *string }{{&a.tokenFile, &c.TokenFile}, {&a.caFile, &c.CAFile}} {
				if *f.from != "" {
					*f.into = *f.from
					if !filepath.IsAbs(*f.from) {
						*f.into = filepath.Join(a.env.Dir, *f.from)
					}
				}
			}
			if _, err := newClient(c.Server, "", c.CAFile); err != nil {
				return err
			}
			if c.TokenFile != "" {
				if _, err := os.Stat(c.TokenFile); err != nil {
					return badParameter("the token cannot be used later: %v; want the file that the server's administrator gave", err)
				}
			}
			f, err := a.readClusters()
			if err != nil {
				return err
			}
			f.Clusters[args[0]] = c
			if err := writeJSON(a.clusterPath(), f); err != nil {
				return err
			}
			return a.print(cmd, map[string]string{"name": args[0], "server": c.Server}, func(w io.Writer) {
				_, _ = fmt.Fprintf(w, "cluster %s is at %s\n", args[0], c.Server)
			})
		},
	}
}

func (a *app) clusterList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the clusters that have a name here, and the dev clusters that run", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := a.readClusters()
			if err != nil {
				return err
			}
			type entry struct {
				Name    string `json:"name"`
				Server  string `json:"server"`
				Dev     bool   `json:"dev"`
				Current bool   `json:"current"`
			}
			out := []entry{}
			for _, n := range slices.Sorted(maps.Keys(f.Clusters)) {
				out = append(out, entry{n, f.Clusters[n].Server, false, n == f.Current})
			}
			devs := a.devs()
			for _, n := range slices.Sorted(maps.Keys(devs)) {
				if _, both := f.Clusters[n]; !both {
					out = append(out, entry{n, devs[n].URL, true, n == f.Current})
				}
			}
			var rows [][]string
			for _, e := range out {
				kind, mark := "added", ""
				if e.Dev {
					kind = "dev"
				}
				if e.Current {
					mark = "*"
				}
				rows = append(rows, []string{mark, e.Name, kind, e.Server})
			}
			return a.print(cmd, struct {
				Clusters []entry `json:"clusters"`
			}{out}, func(w io.Writer) { table(w, []string{"USED", "CLUSTER", "KIND", "SERVER"}, rows) })
		},
	}
}

func (a *app) clusterUse() *cobra.Command {
	return &cobra.Command{
		Use: "use NAME", Short: "Choose the cluster for commands that name none", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := a.readClusters()
			if err != nil {
				return err
			}
			_, added := f.Clusters[args[0]]
			_, runs := a.devs()[args[0]]
			if !added && !runs {
				return badParameter("there is no cluster %.80q; covey cluster list shows those there are, covey cluster add NAME URL adds one", args[0])
			}
			f.Current = args[0]
			if err := writeJSON(a.clusterPath(), f); err != nil {
				return err
			}
			return a.print(cmd, map[string]string{"current": args[0]}, func(w io.Writer) {
				_, _ = fmt.Fprintf(w, "commands that name no cluster go to %s\n", args[0])
			})
		},
	}
}

// serverJSON is one of several servers of a cluster, as it knows them.
type serverJSON struct {
	Name  string `json:"name"`
	URL   string `json:"url"`
	Leads bool   `json:"leads"`
}

// askedJSON is one of several servers that the user named.
type askedJSON struct {
	URL     string `json:"url"`
	Answers bool   `json:"answers"`
	Error   string `json:"error,omitempty"` // why it does not
}

// clusterJSON is a cluster as commands print it.
type clusterJSON struct {
	Asked      []askedJSON  `json:"asked,omitempty"`   // when the user named several
	Servers    []serverJSON `json:"servers,omitempty"` // when several share a database
	Age        string       `json:"age,omitempty"`     // of all this, when nobody leads
	Name       string       `json:"name"`
	UID        string       `json:"uid"`
	Server     string       `json:"server"` // that answered
	Version    string       `json:"version"`
	Epoch      string       `json:"epoch"`
	Recovery   bool         `json:"recovery"`
	Paused     string       `json:"paused"`
	Held       []heldJSON   `json:"held"`
	Jobs       int32        `json:"jobs"`
	Tasks      int32        `json:"tasks"`
	Machines   int32        `json:"machines"`
	MachinesUp int32        `json:"machines_up"`
	Subject    string       `json:"subject"`
}

type heldJSON struct {
	ID      string `json:"id"`
	Machine string `json:"machine"`
	Reason  string `json:"reason"`
}

func (a *app) clusterShow() *cobra.Command {
	return &cobra.Command{
		Use: "show [NAME]", Short: "Show a cluster: its size, its leader, and tasks that are held", Args: between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			c, err := a.dial(name)
			if err != nil {
				return err
			}
			r, err := ask(cmd.Context(), c.cluster.GetCluster, &pb.GetClusterRequest{})
			if err != nil {
				return err
			}
			if name != "" && r.GetName() != name {
				return badParameter("the server %s is cluster %s, not %s; mend it with covey cluster add", c.servers.answered(), r.GetName(), name)
			}
			v := clusterOf(r, c.servers.answered())
			v.Asked = askedOf(cmd.Context(), c.servers)
			return a.print(cmd, v, func(w io.Writer) { clusterTable(w, v) })
		},
	}
}

func clusterOf(r *pb.GetClusterResponse, server string) clusterJSON {
	v := clusterJSON{
		Name: r.GetName(), UID: r.GetUid(), Server: server, Version: r.GetVersion(),
		Epoch: fmt.Sprintf("%d.%d", r.GetEpoch().GetIncarnation(), r.GetEpoch().GetN()), Recovery: r.GetRecovery(),
		Paused: r.GetPaused(), Held: []heldJSON{}, Jobs: r.GetJobs(), Tasks: r.GetTasks(),
		Machines: r.GetMachines(), MachinesUp: r.GetMachinesUp(), Subject: r.GetSubject(),
	}
	for _, h := range r.GetHeld() {
		v.Held = append(v.Held, heldJSON{h.GetId(), h.GetMachine(), h.GetReason()})
	}
	for _, x := range r.GetServers() {
		v.Servers = append(v.Servers, serverJSON{x.GetName(), x.GetUrl(), x.GetLeads()})
	}
	if age := r.GetAgeMillis(); age > 0 {
		v.Age = (time.Duration(age) * time.Millisecond).String()
	}
	return v
}

// askedOf says which of several servers answer; nothing when there is one.
func askedOf(ctx context.Context, s *several) (out []askedJSON) {
	if len(s.servers) == 1 {
		return nil
	}
	pulses := s.pulses(ctx)
	for _, u := range s.servers {
		x := askedJSON{URL: baseOf(u), Answers: true}
		if err := pulses[x.URL]; err != nil {
			x.Answers, x.Error = false, err.Error()
		}
		out = append(out, x)
	}
	return out
}

func clusterTable(w io.Writer, v clusterJSON) {
	lines := [][2]string{
		{"cluster", v.Name},
		{"uid", v.UID},
		{"server", v.Server + " " + v.Version},
		{"term", v.Epoch},
		{"you are", v.Subject},
		{"machines", fmt.Sprintf("%d, %d up", v.Machines, v.MachinesUp)},
		{"jobs", fmt.Sprintf("%d with %s", v.Jobs, many(int(v.Tasks), "task"))},
		{"paused", v.Paused},
	}
	for _, x := range v.Asked {
		switch {
		case !x.Answers:
			lines = append(lines, [2]string{"no answer", x.URL + ": " + x.Error})
		case x.URL != v.Server:
			lines = append(lines, [2]string{"answers", x.URL})
		}
	}
	for _, x := range v.Servers {
		what := "follower"
		if x.Leads {
			what = "leader"
		}
		lines = append(lines, [2]string{what, x.URL + " " + x.Name})
	}
	if v.Age != "" {
		lines = append(lines, [2]string{"age", v.Age + ": nobody leads, and this is the last that a follower knows"})
	}
	if v.Recovery {
		lines = append(lines, [2]string{"recovery", "the database was restored: unknown tasks are held until covey cluster recover"})
	}
	for _, l := range lines {
		if l[1] != "" {
			_, _ = fmt.Fprintf(w, "%-9s  %s\n", l[0], printable(l[1]))
		}
	}
	if len(v.Held) > 0 {
		var rows [][]string
		for _, h := range v.Held {
			rows = append(rows, []string{h.ID, h.Machine, h.Reason})
		}
		table(w, []string{"HELD TASK", "MACHINE", "WHY"}, rows)
	}
}

func (a *app) clusterRecover() *cobra.Command {
	return &cobra.Command{
		Use: "recover", Short: "Stop the tasks that are held, and end the recovery of a restored cluster", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.dial("")
			if err != nil {
				return err
			}
			r, err := ask(cmd.Context(), c.cluster.EndRecovery, &pb.EndRecoveryRequest{})
			if err != nil {
				return err
			}
			return a.print(cmd, map[string]int32{"tasks": r.GetTasks()}, func(w io.Writer) {
				_, _ = fmt.Fprintf(w, "%s stopped; the cluster is in no recovery now\n", many(int(r.GetTasks()), "held task"))
			})
		},
	}
}

func (a *app) clusterResume() *cobra.Command {
	return &cobra.Command{
		Use: "resume", Short: "Start the tasks of vanished machines elsewhere after all, and stop surplus tasks that wait", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.dial("")
			if err != nil {
				return err
			}
			r, err := ask(cmd.Context(), c.cluster.Resume, &pb.ResumeRequest{})
			if err != nil {
				return err
			}
			v := struct {
				Resumed bool   `json:"resumed"`
				Text    string `json:"text"`
				Stopped int32  `json:"stopped"`
			}{true, first(r.GetText(), "rescheduling goes on"), r.GetStopped()} // an earlier server says nothing
			return a.print(cmd, v, func(w io.Writer) { _, _ = fmt.Fprintln(w, printable(v.Text)) })
		},
	}
}
