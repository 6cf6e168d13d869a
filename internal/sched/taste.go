package sched

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
	"strconv"

	"github.com/covey-platform/covey/internal/unit"
)

// A taste is what the tasks of a cluster that ask for GPUs are like: the most
// popular shapes, covering 95 % of them. It tells how much of the GPUs that a
// machine has left will come to waste. All of it is integers, so that one
// input gives one answer on every kind of processor.
//
// The measure begins with fragmentation (Weng et al., Beware of Fragmentation,
// USENIX ATC'23): what is left counts as lost to each shape that cannot have
// it. It goes two steps further. What is left of one GPU counts by what the
// shares still to come will leave of it, not by whether the next one fits; and
// GPUs for which the other measures will not last once tasks of a shape fill
// the machine count as lost before the last of it is gone.
type taste struct {
	all    []tasted // also the less popular
	shapes []tasted
	paper  bool              // measures fragmentation as the paper does
	rest   [oneGPU + 1]int64 // what will be left of so much of one GPU, times grain
}

// tasted is one typical shape.
type tasted struct {
	shape *shape
	class *class
	share int64 // of the tasks, of one
	claim int64 // of the GPUs that they ask for, of one
	each  int64 // thousandths on each GPU
	gpus  int64 // so many of them
}

const (
	one   = 1 << 16 // all shares together
	grain = 1 << 8  // parts of a thousandth of a GPU
	// dusk is how likely, against the next share of a GPU that is free, it is
	// that no more shares will come: one in ten.
	dusk = one / 10
	// strand is how much of what the other measures do not last for counts: half.
	strand = 2
	// wasteStep is what two machines may differ by and be alike: 4 % of a GPU.
	// The fuller one is better then.
	wasteStep = 40
)

// newTaste keeps the most popular shapes.
func newTaste(all []tasted, weights []int64, paper bool) *taste {
	order := make([]int, len(all))
	total := int64(0)
	for i := range order {
		order[i] = i
		total += weights[i]
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(weights[b], weights[a]), cmp.Compare(all[a].name(), all[b].name()))
	})
	y := &taste{all: all, paper: paper}
	sum, claims := int64(0), int64(0)
	for _, i := range order {
		if sum*100 >= total*95 {
			break
		}
		sum += weights[i]
		claims += weights[i] * all[i].shape.need.GPU
		y.shapes = append(y.shapes, all[i])
		last := &y.shapes[len(y.shapes)-1]
		last.share, last.claim = weights[i], weights[i]*last.shape.need.GPU
		last.gpus, last.each = gpusOf(last.shape.need.GPU)
	}
	for i := range y.shapes {
		y.shapes[i].share = part(y.shapes[i].share, sum)
		y.shapes[i].claim = part(y.shapes[i].claim, claims)
	}
	y.foresee()
	return y
}

// part returns a/b in parts of one.
func part(a, b int64) int64 {
	if b == 0 {
		return 0
	}
	hi, lo := bits.Mul64(uint64(a), one)
	q, _ := bits.Div64(hi, lo, uint64(b))
	return int64(q)
}

// name orders shapes that are equally popular.
func (t *tasted) name() string {
	n := t.shape.need
	s := []byte(t.class.key)
	for _, m := range unit.Measures() {
		s = strconv.AppendInt(append(s, ' '), n.Of(m), 10)
	}
	return string(s)
}

// gpusOf says on how many GPUs an amount sits, and how much it has of each.
func gpusOf(amount int64) (gpus, each int64) {
	if amount < oneGPU {
		return 1, amount
	}
	return (amount + oneGPU - 1) / oneGPU, oneGPU
}

// foresee works out what will be left of one GPU: shares come as they are
// popular, those that fit are taken, and in the end none come any more.
func (y *taste) foresee() {
	var likely [oneGPU + 1]int64
	for _, t := range y.shapes {
		likely[t.each] += t.share
	}
	var sizes []int64 // that come at all: a few
	for d := int64(1); d <= oneGPU; d++ {
		if likely[d] > 0 {
			sizes = append(sizes, d)
		}
	}
	for r := int64(1); r <= oneGPU; r++ {
		num, den := dusk*r*grain, int64(dusk)
		for _, d := range sizes {
			if d > r {
				break
			}
			num += likely[d] * y.rest[r-d]
			den += likely[d]
		}
		y.rest[r] = num / den
	}
}

// waste is how much of a machine's free GPUs will come to nothing, in
// thousandths of a GPU, when it has this left. slot says which machine.
func (y *taste) waste(slot int32, free unit.Resources, devs []int16) int64 {
	total, rest, empty := int64(0), int64(0), int64(0)
	for _, d := range devs {
		if d <= 0 {
			continue
		}
		total += int64(d)
		rest += y.rest[d]
		if d == oneGPU {
			empty++
		}
	}
	if total == 0 {
		return 0
	}
	if y.paper {
		return y.fragments(slot, free, devs, total)
	}
	lost, stranded := int64(0), int64(0)
	last, fill := int64(0), int64(0)
	for i := range y.shapes {
		t := &y.shapes[i]
		if !t.class.allowed[slot] || !t.others().Fits(free) || t.gpus > 1 && t.gpus > empty {
			lost += t.share * total
			if !t.class.allowed[slot] {
				continue
			}
		} else {
			lost += t.share * rest / grain
		}
		room := empty / t.gpus
		if t.each < oneGPU {
			if t.each != last {
				last, fill = t.each, fillOf(devs, t.each)
			}
			room = fill
		}
		if short := t.short(room, free); short > 0 {
			stranded += t.claim * short
		}
	}
	return (lost + stranded/strand) / one
}

// fillOf is how many shares of one size GPUs have room for.
func fillOf(devs []int16, each int64) int64 {
	n := int64(0)
	for _, d := range devs {
		if d > 0 {
			n += int64(d) / each
		}
	}
	return n
}

// others is what the shape needs beside its GPUs.
func (t *tasted) others() unit.Resources {
	r := t.shape.need
	r.GPU = 0
	return r
}

// short is how much of the GPUs that would hold room tasks of this shape is of
// no use, because the other measures hold fewer of them. Parts of a task count.
func (t *tasted) short(room int64, free unit.Resources) int64 {
	held := room * oneGPU
	need := &t.shape.need
	for _, p := range [...][2]int64{{free.CPU, need.CPU}, {free.RAM, need.RAM}, {free.Disk, need.Disk}, {free.Net, need.Net}} {
		if hi, lo := bits.Mul64(uint64(room), uint64(p[1])); hi > 0 || uint64(max(p[0], 0)) < lo {
			held = min(held, ratio(max(p[0], 0), p[1]))
		}
	}
	return (room*oneGPU - held) * t.gpus * t.each / oneGPU
}

// ratio returns a/b in thousandths.
func ratio(a, b int64) int64 {
	hi, lo := bits.Mul64(uint64(a), oneGPU)
	q, _ := bits.Div64(hi, lo, uint64(b))
	return int64(q)
}

// fragments is the paper's measure: what is free counts as lost to a shape that
// does not fit, and of what is free to one that fits, the GPUs that are too
// full for it.
func (y *taste) fragments(slot int32, free unit.Resources, devs []int16, total int64) int64 {
	lost := int64(0)
	for i := range y.shapes {
		t := &y.shapes[i]
		if t.shape.need.GPU <= 0 || !t.class.allowed[slot] || !t.others().Fits(free) || !gpusHold(devs, t.shape.need.GPU) {
			lost += t.share * total
			continue
		}
		for _, d := range devs {
			if d > 0 && int64(d) < t.each {
				lost += t.share * int64(d)
			}
		}
	}
	return lost / one
}

// paperSteps is the paper's score, a whole number of 0 to 100, as a cost.
func paperSteps(gain int64) int64 {
	return -int64(100 / (1 + math.Exp(-float64(gain)/oneGPU)))
}
