//go:build planted

package meter

import (
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/machine"
	"github.com/covey-platform/covey/internal/unit"
)

// Plant adds by to one account of a machine's open hour: capacity, billed,
// overhead, idle or down. It is built with the tag planted alone, for tests
// that want the error found.
func (f *Fold) Plant(id machine.ID, account string, m unit.Measure, by int64) error {
	a, ok := f.machines[id]
	if !ok {
		return fault.NotFound.Errorf("machine %s is not metered", id)
	}
	sum := map[string]*unit.Int128{
		"capacity": &a.capacity.sum[m], "billed": &a.billed.before[m], "overhead": &a.overhead.sum[m],
		"idle": &a.idle.sum[m], "down": &a.down.sum[m],
	}[account]
	if sum == nil {
		return fault.Invalid.Errorf("account %q; want capacity, billed, overhead, idle or down", account)
	}
	x, err := sum.Add(unit.Int(by))
	*sum = x
	return err
}
