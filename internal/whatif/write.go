package whatif

import (
	"encoding/csv"
	"io"
	"slices"
	"strconv"

	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/unit"
)

// WriteMachines writes what [ReadMachines] reads. Columns that a file may do
// without are written if some machine needs them.
func WriteMachines(w io.Writer, all []machine.Machine) error {
	extra := []struct {
		column string
		of     func(machine.Machine) string
	}{
		{disk, func(m machine.Machine) string { return whole(m.Capacity.Disk, unit.MiB) }},
		{mode, func(m machine.Machine) string { return m.Mode.String() }},
		{avoid, func(m machine.Machine) string {
			if m.Avoid != "" {
				return "1"
			}
			return "0"
		}},
	}
	kept := extra[:0]
	for _, x := range extra {
		none := x.of(machine.Machine{})
		if slices.ContainsFunc(all, func(m machine.Machine) bool { return x.of(m) != none }) {
			kept = append(kept, x)
		}
	}
	out := csv.NewWriter(w)
	head := slices.Clone(machineColumns)
	for _, x := range kept {
		head = append(head, x.column)
	}
	_ = out.Write(head) // the writer keeps its first error
	for _, m := range all {
		c := m.Capacity
		row := []string{
			string(m.ID), whole(c.CPU, 1), whole(c.RAM, unit.MiB), whole(c.GPU, 1000), whole(c.Net, 1_000_000),
			value(m, "rack"), value(m, "zone"), value(m, "gen"),
		}
		for _, x := range kept {
			row = append(row, x.of(m))
		}
		_ = out.Write(row)
	}
	out.Flush()
	return out.Error()
}

func whole(n, of int64) string { return strconv.FormatInt(n/of, 10) }

// value returns the machine's first value of an attribute, - for none.
func value(m machine.Machine, attribute string) string {
	if all := m.Values(attribute); len(all) > 0 {
		return all[0]
	}
	return "-"
}
