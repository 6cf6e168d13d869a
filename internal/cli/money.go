package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/covey-platform/covey/api/covey/v1"
	"github.com/covey-platform/covey/internal/unit"
)

// span is the flags of commands about a span of time.
type span struct{ by, from, to string }

func (s *span) add(c *cobra.Command) {
	c.Flags().StringVar(&s.by, "by", "job", "one row for each job or role")
	c.Flags().StringVar(&s.from, "from", "", "start, such as 2031-05-01 or 2031-05-01T07:00:00Z (default: this month)")
	c.Flags().StringVar(&s.to, "to", "", "end (default: now)")
	_ = c.RegisterFlagCompletionFunc("by", cobra.FixedCompletions([]string{"job", "role"}, cobra.ShellCompDirectiveNoFileComp))
}

func (s *span) check() error {
	if s.by != "job" && s.by != "role" {
		return badParameter("--by %.40q; want job or role", s.by)
	}
	return nil
}

// amountsJSON is resources over time, as exact decimals.
type amountsJSON struct {
	CPU  string `json:"cpu_core_hours"`
	RAM  string `json:"ram_gib_hours"`
	Disk string `json:"disk_gib_hours"`
	GPU  string `json:"gpu_hours"`
}

func amountsOf(a *pb.Amounts) amountsJSON {
	return amountsJSON{a.GetCpuCoreHours(), a.GetRamGibHours(), a.GetDiskGibHours(), a.GetGpuHours()}
}

// hourJSON is the identity of one hour, full scale.
type hourJSON struct {
	Hour     string `json:"hour"`
	Capacity string `json:"capacity"`
	Billed   string `json:"billed"`
	Overhead string `json:"overhead"`
	Idle     string `json:"idle"`
	Down     string `json:"down"`
}

type billRowJSON struct {
	Owner    string      `json:"owner"`
	Reserved amountsJSON `json:"reserved"`
	Used     amountsJSON `json:"used"`
	Amount   string      `json:"amount"`
}

type usageRowJSON struct {
	Owner    string      `json:"owner"`
	Reserved amountsJSON `json:"reserved"`
	Used     amountsJSON `json:"used"`
}

func (a *app) bill() *cobra.Command {
	var s span
	c := &cobra.Command{
		Use: "bill", Short: "Show who pays what, checked against what the machines cost", Args: exactly(0), GroupID: "money",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.check(); err != nil {
				return err
			}
			c, err := a.dial("")
			if err != nil {
				return err
			}
			r, err := ask(cmd.Context(), c.usage.GetBill, &pb.GetBillRequest{By: s.by, From: s.from, To: s.to})
			if err != nil {
				return err
			}
			return a.printBill(cmd, r)
		},
	}
	s.add(c)
	return c
}

func (a *app) printBill(cmd *cobra.Command, r *pb.GetBillResponse) error {
	hours, rows := []hourJSON{}, []billRowJSON{}
	for _, h := range r.GetHours() {
		hours = append(hours, hourJSON{h.GetHour(), h.GetCapacity(), h.GetBilled(), h.GetOverhead(), h.GetIdle(), h.GetDown()})
	}
	for _, x := range r.GetRows() {
		rows = append(rows, billRowJSON{x.GetOwner(), amountsOf(x.GetReserved()), amountsOf(x.GetUsed()), x.GetAmount()})
	}
	return a.print(cmd, struct {
		From     string        `json:"from"`
		To       string        `json:"to"`
		Currency string        `json:"currency"`
		Total    string        `json:"total"`
		Hours    []hourJSON    `json:"hours"`
		Rows     []billRowJSON `json:"rows"`
	}{r.GetFrom(), r.GetTo(), r.GetCurrency(), r.GetTotal(), hours, rows}, func(w io.Writer) { billTable(w, r) })
}

// How many digits behind the point people are shown of amounts, and of
// quantities such as core-hours.
const (
	amountPlaces   = 6
	quantityPlaces = 3
)

// A billColumn is one quantity of a bill's table.
type billColumn struct {
	head string
	of   func(*pb.Amounts) string
}

// billColumns returns what a bill's table shows beside the owner and the
// amount; GPUs where there are any.
func billColumns(r *pb.GetBillResponse) []billColumn {
	cols := []billColumn{
		{"CORE-HOURS", (*pb.Amounts).GetCpuCoreHours}, {"RAM GIB-HOURS", (*pb.Amounts).GetRamGibHours}, {"DISK GIB-HOURS", (*pb.Amounts).GetDiskGibHours},
	}
	if slices.ContainsFunc(r.GetRows(), func(x *pb.BillRow) bool { return some(x.GetReserved().GetGpuHours()) }) {
		cols = append(cols, billColumn{"GPU-HOURS", (*pb.Amounts).GetGpuHours})
	}
	return cols
}

// billTable shows a bill for people: what it shows is rounded so that the lines
// of each column sum to its total.
func billTable(w io.Writer, r *pb.GetBillResponse) {
	head, last, rows := []string{"OWNER"}, []string{"total"}, make([][]string, len(r.GetRows()))
	for i, x := range r.GetRows() {
		rows[i] = []string{x.GetOwner()}
	}
	column := func(name string, exact []string, total string, places int) {
		shown, sum := summed(exact, total, places)
		head, last = append(head, name), append(last, sum)
		for i := range rows {
			rows[i] = append(rows[i], shown[i])
		}
	}
	each := func(of func(*pb.BillRow) string) (out []string) {
		for _, x := range r.GetRows() {
			out = append(out, of(x))
		}
		return out
	}
	for _, c := range billColumns(r) {
		column(c.head, each(func(x *pb.BillRow) string { return c.of(x.GetReserved()) }), "", quantityPlaces)
	}
	column("AMOUNT", each((*pb.BillRow).GetAmount), r.GetTotal(), amountPlaces)
	_, _ = fmt.Fprintf(w, "%s to %s, in %s\n", r.GetFrom(), r.GetTo(), r.GetCurrency())
	table(w, head, append(rows, last))
	sums := map[string]unit.Money{}
	for _, h := range r.GetHours() {
		for n, s := range map[string]string{"capacity": h.GetCapacity(), "billed": h.GetBilled(), "overhead": h.GetOverhead(), "idle": h.GetIdle(), "down": h.GetDown()} {
			if m, err := unit.ParseMoney(s); err == nil {
				if sum, err := sums[n].Add(m); err == nil {
					sums[n] = sum
				}
			}
		}
	}
	_, _ = fmt.Fprintf(w, "\nthe machines cost %s = billed %s + overhead %s + idle %s + down %s, exactly, in each of %s\n",
		sums["capacity"].Fixed(amountPlaces), sums["billed"].Fixed(amountPlaces), sums["overhead"].Fixed(amountPlaces), sums["idle"].Fixed(amountPlaces),
		sums["down"].Fixed(amountPlaces), many(len(r.GetHours()), "hour"))
}

// summed rounds exact decimals for people, and their sum. Where they are no
// decimals that can be summed they stay as they came, exact and long, and total
// is what came as their sum.
func summed(exact []string, total string, places int) (lines []string, sum string) {
	var ms []unit.Money // a decimal is a decimal: no quantity has more digits
	for _, s := range exact {
		m, err := unit.ParseMoney(s)
		if err != nil {
			return exact, total
		}
		ms = append(ms, m)
	}
	shown, all, err := unit.Shown(ms, places)
	if err != nil {
		return exact, total
	}
	for _, m := range shown {
		lines = append(lines, m.Fixed(places))
	}
	return lines, all.Fixed(places)
}

// short cuts a decimal for people.
func short(s string) string {
	if i := strings.IndexByte(s, '.'); i >= 0 && len(s) > i+4 {
		return s[:i+4]
	}
	return s
}

func (a *app) usage() *cobra.Command {
	var s span
	c := &cobra.Command{
		Use: "usage", Short: "Show what jobs reserved and used", Args: exactly(0), GroupID: "money",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.check(); err != nil {
				return err
			}
			c, err := a.dial("")
			if err != nil {
				return err
			}
			r, err := ask(cmd.Context(), c.usage.GetUsage, &pb.GetUsageRequest{By: s.by, From: s.from, To: s.to})
			if err != nil {
				return err
			}
			out := []usageRowJSON{}
			for _, x := range r.GetRows() {
				out = append(out, usageRowJSON{x.GetOwner(), amountsOf(x.GetReserved()), amountsOf(x.GetUsed())})
			}
			return a.print(cmd, struct {
				From string         `json:"from"`
				To   string         `json:"to"`
				Rows []usageRowJSON `json:"rows"`

				Platform amountsJSON `json:"platform"` // used by tasks after they were given up
			}{r.GetFrom(), r.GetTo(), out, amountsOf(r.GetPlatform())}, func(w io.Writer) {
				usageTable(w, out, amountsOf(r.GetPlatform()))
			})
		},
	}
	s.add(c)
	return c
}

// usageTable shows reserved and used amounts for people; GPUs where there are
// any, and the platform's where surplus tasks used something.
func usageTable(w io.Writer, list []usageRowJSON, platform amountsJSON) {
	head := []string{"OWNER", "CORE-HOURS", "USED", "RAM GIB-HOURS", "USED"}
	gpus := slices.ContainsFunc(list, func(x usageRowJSON) bool { return some(x.Reserved.GPU) })
	if gpus {
		head = append(head, "GPU-HOURS")
	}
	var rows [][]string
	for _, x := range list {
		row := []string{x.Owner, short(x.Reserved.CPU), short(x.Used.CPU), short(x.Reserved.RAM), short(x.Used.RAM)}
		if gpus {
			row = append(row, short(x.Reserved.GPU))
		}
		rows = append(rows, row)
	}
	if some(platform.CPU) || some(platform.RAM) {
		row := []string{"surplus tasks, the platform's", "-", short(platform.CPU), "-", short(platform.RAM)}
		if gpus {
			row = append(row, "-")
		}
		rows = append(rows, row)
	}
	table(w, head, rows)
}

// some reports whether a decimal is more than nothing.
func some(s string) bool { return strings.Trim(s, "0.") != "" }
