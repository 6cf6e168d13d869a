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

// places is how many digits of an amount people are shown.
const places = 6

// billTable shows a bill for people: amounts are rounded so that the lines sum
// to the total that is shown.
func billTable(w io.Writer, r *pb.GetBillResponse) {
	shown, total := shownOf(r)
	head, last := []string{"OWNER", "CORE-HOURS", "RAM GIB-HOURS", "DISK GIB-HOURS"}, []string{"total", "", "", ""}
	gpus := slices.ContainsFunc(r.GetRows(), func(x *pb.BillRow) bool { return some(x.GetReserved().GetGpuHours()) })
	if gpus {
		head, last = append(head, "GPU-HOURS"), append(last, "")
	}
	var rows [][]string
	for i, x := range r.GetRows() {
		row := []string{
			x.GetOwner(), short(x.GetReserved().GetCpuCoreHours()), short(x.GetReserved().GetRamGibHours()), short(x.GetReserved().GetDiskGibHours()),
		}
		if gpus {
			row = append(row, short(x.GetReserved().GetGpuHours()))
		}
		rows = append(rows, append(row, shown[i]))
	}
	_, _ = fmt.Fprintf(w, "%s to %s, in %s\n", r.GetFrom(), r.GetTo(), r.GetCurrency())
	table(w, append(head, "AMOUNT"), append(rows, append(last, total)))
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
		sums["capacity"].Fixed(places), sums["billed"].Fixed(places), sums["overhead"].Fixed(places), sums["idle"].Fixed(places),
		sums["down"].Fixed(places), many(len(r.GetHours()), "hour"))
}

// shownOf rounds the amounts of a bill for people.
func shownOf(r *pb.GetBillResponse) (lines []string, total string) {
	var exact []unit.Money
	for _, x := range r.GetRows() {
		m, err := unit.ParseMoney(x.GetAmount())
		if err != nil {
			break
		}
		exact = append(exact, m)
	}
	shown, sum, err := unit.Shown(exact, places)
	if err != nil || len(shown) != len(r.GetRows()) { // as they came: exact, and long
		for _, x := range r.GetRows() {
			lines = append(lines, x.GetAmount())
		}
		return lines, r.GetTotal()
	}
	for _, m := range shown {
		lines = append(lines, m.Fixed(places))
	}
	return lines, sum.Fixed(places)
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
			}{r.GetFrom(), r.GetTo(), out}, func(w io.Writer) {
				usageTable(w, out)
			})
		},
	}
	s.add(c)
	return c
}

// usageTable shows reserved and used amounts for people; GPUs where there are
// any.
func usageTable(w io.Writer, list []usageRowJSON) {
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
	table(w, head, rows)
}

// some reports whether a decimal is more than nothing.
func some(s string) bool { return strings.Trim(s, "0.") != "" }
