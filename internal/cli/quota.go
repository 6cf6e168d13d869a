package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/covey-platform/covey/api/covey/v1"
	"github.com/covey-platform/covey/internal/unit"
)

func (a *app) quotas() *cobra.Command {
	return group("pool", "quota", "Say what roles may reserve in the tier preferred", a.quotaGet(), a.quotaList(), a.quotaSet(), a.quotaRemove())
}

// dialRole finds the server of CLUSTER/ROLE.
func (a *app) dialRole(arg string) (c *client, role string, err error) {
	cluster, role, ok := strings.Cut(arg, "/")
	if !ok || role == "" || strings.Contains(role, "/") {
		return nil, "", badParameter("%.80q is no role; want CLUSTER/ROLE, such as dev/www-data", arg)
	}
	if err = clusterName(cluster); err != nil {
		return nil, "", err
	}
	c, err = a.dial(cluster)
	return c, role, err
}

// quotaJSON is a role with its quota as commands print it.
type quotaJSON struct {
	Role             string         `json:"role"`
	Quota            *resourcesJSON `json:"quota"` // null: nothing bounds it
	Inherited        bool           `json:"inherited"`
	ProdShared       *resourcesJSON `json:"prod_shared"`
	ProdDedicated    *resourcesJSON `json:"prod_dedicated"`
	NonProdShared    *resourcesJSON `json:"non_prod_shared"`
	NonProdDedicated *resourcesJSON `json:"non_prod_dedicated"`
	By               string         `json:"by,omitempty"`
	Updated          string         `json:"updated,omitempty"`
}

func quotaOf(q *pb.Quota) quotaJSON {
	return quotaJSON{
		Role: q.GetRole(), Quota: resourcesOf(q.GetQuota()), Inherited: q.GetInherited(), ProdShared: resourcesOf(q.GetProdShared()),
		ProdDedicated: resourcesOf(q.GetProdDedicated()), NonProdShared: resourcesOf(q.GetNonProdShared()),
		NonProdDedicated: resourcesOf(q.GetNonProdDedicated()), By: q.GetBy(), Updated: moment(q.GetUpdatedUnixNanos()),
	}
}

// quotaText is what a role may reserve, for people.
func quotaText(q *pb.Quota) string {
	switch {
	case q.GetQuota() == nil:
		return "unlimited"
	case q.GetInherited():
		return amounts(q.GetQuota()) + " (as every role)"
	default:
		return amounts(q.GetQuota())
	}
}

func (a *app) quotaGet() *cobra.Command {
	return &cobra.Command{
		Use: "get CLUSTER/ROLE", Short: "Show the quota of a role, and what the role reserves", Args: exactly(1),
		Example: "  covey quota get dev/www-data",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, role, err := a.dialRole(args[0])
			if err != nil {
				return err
			}
			r, err := ask(cmd.Context(), c.quotas.GetQuota, &pb.GetQuotaRequest{Role: role})
			if err != nil {
				return err
			}
			return a.print(cmd, quotaOf(r.GetQuota()), func(w io.Writer) { quotaTable(w, r.GetQuota()) })
		},
	}
}

func quotaTable(w io.Writer, q *pb.Quota) {
	line := func(name, value string) { _, _ = fmt.Fprintf(w, "%-11s  %s\n", name, printable(value)) }
	line("role", q.GetRole())
	line("quota", quotaText(q))
	line("in use", amounts(q.GetProdShared()))
	for _, x := range []struct {
		name, what string
		amount     *pb.Resources
	}{
		{"dedicated", "in the tier preferred on dedicated machines", q.GetProdDedicated()},
		{"other tiers", "in other tiers", q.GetNonProdShared()},
		{"", "in other tiers on dedicated machines", q.GetNonProdDedicated()},
	} {
		if text := amounts(x.amount); text != "nothing" {
			line(x.name, text+" "+x.what+", which no quota bounds")
		}
	}
}

func (a *app) quotaList() *cobra.Command {
	var limit int
	c := &cobra.Command{
		Use: "list", Short: "List the roles that have a quota or reserve something", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 || limit > maxList {
				return badParameter("--limit %d; want 1 to %d", limit, maxList)
			}
			c, err := a.dial("")
			if err != nil {
				return err
			}
			return a.listQuotas(cmd, c, limit)
		},
	}
	c.Flags().IntVar(&limit, "limit", 1000, "at most so many")
	return c
}

func (a *app) listQuotas(cmd *cobra.Command, c *client, limit int) error {
	out := []quotaJSON{}
	var rows [][]string
	page := ""
	for {
		n := min(limit-len(out), 1000)
		r, err := ask(cmd.Context(), c.quotas.ListQuotas, &pb.ListQuotasRequest{Limit: int32(n), Page: page})
		if err != nil {
			return err
		}
		for _, q := range r.GetQuotas() {
			out = append(out, quotaOf(q))
			rows = append(rows, []string{q.GetRole(), quotaText(q), amounts(q.GetProdShared()), amounts(q.GetNonProdShared())})
		}
		page = r.GetNextPage()
		if page == "" || len(out) >= limit {
			break
		}
	}
	return a.print(cmd, struct {
		Quotas []quotaJSON `json:"quotas"`
		More   bool        `json:"more"`
	}{out, page != ""}, func(w io.Writer) {
		table(w, []string{"ROLE", "QUOTA", "IN USE", "OTHER TIERS"}, rows)
		if page != "" {
			_, _ = fmt.Fprintln(w, "... and more; see --limit")
		}
	})
}

func (a *app) quotaSet() *cobra.Command {
	return &cobra.Command{
		Use: "set CLUSTER/ROLE CPU RAM DISK [GPU]", Short: "Give a role a quota", Args: between(4, 5),
		Long: `Say how many cores, how much memory, disk and how many GPUs the jobs of a role
may reserve together in the tier preferred. A quota without GPUs gives none.
Other tiers and jobs on dedicated machines are not bounded.

The role '*' stands for every role that has no quota of its own; until it has
one, nothing bounds those. Less than what is reserved already is refused.`,
		Example: "  covey quota set dev/www-data 100 400GiB 2TiB\n  covey quota set 'dev/*' 0 0 0",
		RunE: func(cmd *cobra.Command, args []string) error {
			quota, err := parseQuota(args[1:])
			if err != nil {
				return err
			}
			c, role, err := a.dialRole(args[0])
			if err != nil {
				return err
			}
			r, err := ask(cmd.Context(), c.quotas.SetQuota, &pb.SetQuotaRequest{Role: role, Quota: quota})
			if err != nil {
				return err
			}
			v := struct {
				Role  string         `json:"role"`
				Quota *resourcesJSON `json:"quota"`
			}{role, resourcesOf(quota)}
			return a.print(cmd, v, func(w io.Writer) { _, _ = fmt.Fprintln(w, printable(r.GetText())) })
		},
	}
}

// parseQuota reads the amounts of a quota: cpu, ram, disk and perhaps gpu.
func parseQuota(args []string) (*pb.Resources, error) {
	q := &pb.Resources{}
	for i, x := range []struct {
		m    unit.Measure
		into *int64
	}{{unit.CPU, &q.CpuMilli}, {unit.RAM, &q.RamBytes}, {unit.Disk, &q.DiskBytes}, {unit.GPU, &q.GpuMilli}} {
		if i == len(args) {
			break
		}
		n, err := x.m.Parse(args[i])
		if err != nil {
			return nil, badParameter("%w", err)
		}
		*x.into = n
	}
	return q, nil
}

func (a *app) quotaRemove() *cobra.Command {
	return &cobra.Command{
		Use: "remove CLUSTER/ROLE", Short: "Take a role's own quota away: that of '*' holds then, if there is one", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, role, err := a.dialRole(args[0])
			if err != nil {
				return err
			}
			r, err := ask(cmd.Context(), c.quotas.RemoveQuota, &pb.RemoveQuotaRequest{Role: role})
			if err != nil {
				return err
			}
			return a.print(cmd, map[string]string{"removed": role}, func(w io.Writer) { _, _ = fmt.Fprintln(w, printable(r.GetText())) })
		},
	}
}
