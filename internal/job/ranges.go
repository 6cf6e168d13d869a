package job

import (
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/covey-platform/covey/internal/fault"
)

// MaxInstances bounds the instances of one job, as Aurora's
// -max_tasks_per_job does by default.
const MaxInstances = 4000

// A Range is the instances From to To, both included.
type Range struct{ From, To int32 }

// Ranges is a set of instances: sorted, apart and never touching.
type Ranges []Range

// FirstN returns instances 0 to n-1.
func FirstN(n int32) Ranges {
	if n <= 0 {
		return nil
	}
	return Ranges{{0, n - 1}}
}

// Has reports whether instance i is in the set.
func (r Ranges) Has(i int32) bool {
	for _, x := range r {
		if x.From <= i && i <= x.To {
			return true
		}
	}
	return false
}

// Len returns the number of instances.
func (r Ranges) Len() int {
	n := 0
	for _, x := range r {
		n += int(x.To) - int(x.From) + 1
	}
	return n
}

// All yields the instances in order.
func (r Ranges) All() iter.Seq[int32] {
	return func(yield func(int32) bool) {
		for _, x := range r {
			for i := int64(x.From); i <= int64(x.To); i++ {
				if !yield(int32(i)) {
					return
				}
			}
		}
	}
}

// Without returns r less the instances of o.
func (r Ranges) Without(o Ranges) Ranges {
	var out Ranges
	for _, x := range r {
		from := x.From
		for _, y := range o {
			if y.To < from || y.From > x.To {
				continue
			}
			if y.From > from {
				out = append(out, Range{from, y.From - 1})
			}
			from = y.To + 1
			if from > x.To {
				break
			}
		}
		if from <= x.To {
			out = append(out, Range{from, x.To})
		}
	}
	return out
}

// ParseRanges reads instances as "0,3-5". Instances run from 0 to MaxInstances-1.
func ParseRanges(s string) (Ranges, error) {
	var out Ranges
	for part := range strings.SplitSeq(s, ",") {
		a, b, isRange := strings.Cut(part, "-")
		if !isRange {
			b = a
		}
		from, err1 := strconv.ParseUint(a, 10, 31)
		to, err2 := strconv.ParseUint(b, 10, 31)
		if err1 != nil || err2 != nil || from > to || to >= MaxInstances {
			return nil, fault.Invalid.Errorf("instances %.40q: %.20q is no instance or range; want numbers below %d, such as 0,3-5", s, part, MaxInstances)
		}
		out = append(out, Range{int32(from), int32(to)})
	}
	return normal(out), nil
}

func normal(r Ranges) Ranges {
	slices.SortFunc(r, func(a, b Range) int { return int(a.From) - int(b.From) })
	var out Ranges
	for _, x := range r {
		if n := len(out); n > 0 && x.From <= out[n-1].To+1 {
			out[n-1].To = max(out[n-1].To, x.To)
			continue
		}
		out = append(out, x)
	}
	return out
}

// String prints the set as [ParseRanges] reads it.
func (r Ranges) String() string {
	parts := make([]string, len(r))
	for i, x := range r {
		if x.From == x.To {
			parts[i] = strconv.Itoa(int(x.From))
		} else {
			parts[i] = fmt.Sprintf("%d-%d", x.From, x.To)
		}
	}
	return strings.Join(parts, ",")
}
