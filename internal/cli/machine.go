package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/covey-platform/covey/api/covey/v1"
	"github.com/covey-platform/covey/internal/unit"
)

// jsonLine writes one value on one line.
func jsonLine(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

func (a *app) machines() *cobra.Command {
	var limit int
	list := &cobra.Command{
		Use: "list", Short: "List the machines of the pool", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 || limit > maxList {
				return badParameter("--limit %d; want 1 to %d", limit, maxList)
			}
			c, err := a.dial("")
			if err != nil {
				return err
			}
			return a.listMachines(cmd, c, limit)
		},
	}
	list.Flags().IntVar(&limit, "limit", 1000, "at most so many")
	show := &cobra.Command{
		Use: "show MACHINE", Short: "Show a machine and the tasks on it", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.dial("")
			if err != nil {
				return err
			}
			r, err := ask(cmd.Context(), c.machines.GetMachine, &pb.GetMachineRequest{Id: args[0]})
			if err != nil {
				return err
			}
			return a.print(cmd, struct {
				Machine machineJSON `json:"machine"`
				Tasks   []taskJSON  `json:"tasks"`
				Strays  []strayJSON `json:"strays"`
			}{machineOf(r.GetMachine()), tasksOf(r.GetTasks()), straysOf(r.GetStrays())}, func(w io.Writer) { machineTable(w, r) })
		},
	}
	return group("pool", "machine", "Show the machines of the pool", list, show)
}

// machineJSON is a machine as commands print it.
type machineJSON struct {
	ID         string              `json:"id"`
	Host       string              `json:"host"`
	Up         bool                `json:"up"`
	Leaving    bool                `json:"leaving,omitempty"`
	Mode       string              `json:"mode"`
	Avoid      string              `json:"avoid,omitempty"` // why it is avoided, if it is
	AvoidUntil string              `json:"avoid_until,omitempty"`
	Since      string              `json:"since,omitempty"`
	Tasks      int32               `json:"tasks"`
	Attributes map[string][]string `json:"attributes"`
	Capacity   *resourcesJSON      `json:"capacity"`
	Overhead   *resourcesJSON      `json:"overhead"`
	Owed       *resourcesJSON      `json:"owed"` // overhead that tasks hold
	Foreign    *resourcesJSON      `json:"foreign"`
	Free       *resourcesJSON      `json:"free"`
	PortFrom   uint32              `json:"port_from"`
	PortTo     uint32              `json:"port_to"`
	Limits     []string            `json:"limits"`
	Boot       string              `json:"boot,omitempty"`
}

func machineOf(m *pb.Machine) machineJSON {
	out := machineJSON{
		ID: m.GetId(), Host: m.GetHost(), Up: m.GetUp(), Leaving: m.GetLeaving(), Mode: m.GetMode(), Avoid: m.GetAvoid(), AvoidUntil: moment(m.GetAvoidUntilUnixNanos()), Since: moment(m.GetSinceUnixNanos()),
		Tasks: m.GetTasks(), Attributes: map[string][]string{}, Capacity: resourcesOf(m.GetCapacity()),
		Overhead: resourcesOf(m.GetOverhead()), Owed: resourcesOf(m.GetOwed()), Foreign: resourcesOf(m.GetForeign()), Free: resourcesOf(m.GetFree()),
		PortFrom: m.GetPortFrom(), PortTo: m.GetPortTo(), Limits: append([]string{}, m.GetLimits()...), Boot: m.GetBoot(),
	}
	for _, x := range m.GetAttributes() {
		out.Attributes[x.GetName()] = append(out.Attributes[x.GetName()], x.GetValue())
	}
	return out
}

// amounts writes resources for people.
func amounts(r *pb.Resources) string {
	return unit.Resources{
		CPU: r.GetCpuMilli(), RAM: r.GetRamBytes(), Disk: r.GetDiskBytes(), GPU: r.GetGpuMilli(), Net: r.GetNetBps(),
	}.String()
}

// owed says what the agent and the supervisors take of room that tasks hold.
func owed(m *pb.Machine) string {
	if o := amounts(m.GetOwed()); o != amounts(nil) {
		return o + "; kept back as soon as tasks leave it, and no task is placed here until then"
	}
	return ""
}

// avoided says until when and why tasks are put on a machine last; empty: they
// are not.
func avoided(m *pb.Machine) string {
	if m.GetAvoid() == "" {
		return ""
	}
	if until := moment(m.GetAvoidUntilUnixNanos()); until != "" {
		return "until " + until + ": " + m.GetAvoid()
	}
	return m.GetAvoid()
}

func upOrDown(m *pb.Machine) string {
	s := "down"
	switch {
	case m.GetUp() && m.GetLeaving():
		s = "leaving"
	case m.GetUp():
		s = "up"
	case m.GetLeaving():
		s = "stopped"
	}
	if m.GetMode() != "" && m.GetMode() != "NONE" {
		s += " " + m.GetMode()
	}
	if m.GetAvoid() != "" {
		s += " avoided"
	}
	return s
}

func (a *app) listMachines(cmd *cobra.Command, c *client, limit int) error {
	out := []machineJSON{}
	var rows [][]string
	var why []string
	page := ""
	for {
		n := min(limit-len(out), 1000)
		r, err := ask(cmd.Context(), c.machines.ListMachines, &pb.ListMachinesRequest{Limit: int32(n), Page: page})
		if err != nil {
			return err
		}
		for _, m := range r.GetMachines() {
			out = append(out, machineOf(m))
			if m.GetAvoid() != "" && len(why) < mostReasons {
				how := " is avoided "
				if m.GetAvoidUntilUnixNanos() == 0 {
					how = " is avoided: "
				}
				why = append(why, m.GetId()+how+avoided(m))
			}
			rows = append(rows, []string{
				m.GetId(), upOrDown(m), ago(m.GetSinceUnixNanos()), fmt.Sprint(m.GetTasks()), amounts(m.GetFree()), amounts(m.GetCapacity()),
			})
		}
		page = r.GetNextPage()
		if page == "" || len(out) >= limit {
			break
		}
	}
	return a.print(cmd, struct {
		Machines []machineJSON `json:"machines"`
		More     bool          `json:"more"`
	}{out, page != ""}, func(w io.Writer) {
		table(w, []string{"MACHINE", "STATE", "FOR", "TASKS", "FREE", "CAPACITY"}, rows)
		if page != "" {
			_, _ = fmt.Fprintln(w, "... and more; see --limit")
		}
		for _, line := range why {
			_, _ = fmt.Fprintln(w, printable(line))
		}
	})
}

// mostReasons bounds the machines of a list of which it is told why they are avoided.
const mostReasons = 10

func machineTable(w io.Writer, r *pb.GetMachineResponse) {
	m := r.GetMachine()
	var attributes []string
	for _, x := range m.GetAttributes() {
		attributes = append(attributes, x.GetName()+"="+x.GetValue())
	}
	for _, l := range [][2]string{
		{"machine", m.GetId()},
		{"state", upOrDown(m) + " for " + ago(m.GetSinceUnixNanos())},
		{"avoided", avoided(m)},
		{"host", m.GetHost()},
		{"attributes", strings.Join(attributes, " ")},
		{"capacity", amounts(m.GetCapacity())},
		{"overhead", amounts(m.GetOverhead())},
		{"owed", owed(m)},
		{"foreign", amounts(m.GetForeign())},
		{"free", amounts(m.GetFree())},
		{"ports", fmt.Sprintf("%d-%d", m.GetPortFrom(), m.GetPortTo())},
		{"without", strings.Join(m.GetLimits(), "; ")},
	} {
		if l[1] != "" {
			_, _ = fmt.Fprintf(w, "%-10s  %s\n", l[0], printable(l[1]))
		}
	}
	if len(r.GetTasks()) > 0 {
		tasksTable(w, r.GetTasks())
	}
	if len(r.GetStrays()) > 0 {
		var rows [][]string
		for _, x := range r.GetStrays() {
			rows = append(rows, []string{printable(x.GetTaskId()), ago(x.GetSinceUnixNanos()), amounts(x.GetResources())})
		}
		_, _ = fmt.Fprintln(w, "run here though nothing says so; covey cluster show names those that are held:")
		table(w, []string{"STRAY", "FOR", "HOLDS"}, rows)
	}
}

// strayJSON is a task that runs where none has its place.
type strayJSON struct {
	ID        string         `json:"id"`
	Resources *resourcesJSON `json:"resources"`
	Ports     []uint32       `json:"ports,omitempty"`
	Since     string         `json:"since"`
}

func straysOf(xs []*pb.Stray) []strayJSON {
	out := []strayJSON{}
	for _, x := range xs {
		out = append(out, strayJSON{x.GetTaskId(), resourcesOf(x.GetResources()), x.GetPorts(), moment(x.GetSinceUnixNanos())})
	}
	return out
}
