package sched

import "slices"

// oneGPU is a whole GPU, in thousandths.
const oneGPU = 1000

// devicesOf is what the GPUs of an empty machine have to give. total is so
// many whole ones and, where others use a share of one, the rest of that one.
func devicesOf(total int64) []int16 {
	if total <= 0 {
		return nil
	}
	devs := make([]int16, 0, (total+oneGPU-1)/oneGPU)
	for ; total > 0; total -= oneGPU {
		devs = append(devs, int16(min(total, oneGPU)))
	}
	return devs
}

// give returns the devices after those of the given numbers went to a task
// that asks for amount. The old ones stay as they were.
func give(devs []int16, amount int64, gpus []uint16) []int16 {
	_, each := gpusOf(amount)
	out := slices.Clone(devs)
	for _, g := range gpus {
		if int(g) < len(out) { // the machine had more once
			out[g] -= int16(each)
		}
	}
	return out
}

// guess gives devices to tasks of which no row says which they have: the
// largest first, each where it leaves the least.
func (h *host) guess(amounts []int64) {
	slices.SortFunc(amounts, func(a, b int64) int { return int(b - a) })
	for _, a := range amounts {
		if gpus := bestGPUs(h.devs, a); gpus != nil {
			h.devs = give(h.devs, a, gpus)
		}
	}
}

// gpusHold reports whether an amount fits. An amount below one GPU sits on a
// single one together with others; a larger amount takes whole ones, rounded up.
func gpusHold(devs []int16, amount int64) bool {
	n, each := gpusOf(amount)
	for _, d := range devs {
		if int64(d) >= each {
			if n--; n == 0 {
				return true
			}
		}
	}
	return n <= 0
}

// bestGPUs returns the devices that an amount gets if only what they have left
// counts: the least, then the lower number. It is nil if they do not hold it.
func bestGPUs(devs []int16, amount int64) []uint16 {
	if amount >= oneGPU {
		return wholeGPUs(devs, amount)
	}
	best := -1
	for i, d := range devs {
		if int64(d) >= amount && (best < 0 || d < devs[best]) {
			best = i
		}
	}
	if best < 0 {
		return nil
	}
	return []uint16{uint16(best)}
}

// wholeGPUs returns the lowest free devices that make up an amount, nil if
// there are too few.
func wholeGPUs(devs []int16, amount int64) []uint16 {
	n, _ := gpusOf(amount)
	out := make([]uint16, 0, min(n, int64(len(devs))))
	for i, d := range devs {
		if d == oneGPU && int64(len(out)) < n {
			out = append(out, uint16(i))
		}
	}
	if int64(len(out)) < n {
		return nil
	}
	return out
}

// takeWhole takes the lowest free devices that make up an amount.
func takeWhole(devs []int16, amount int64) {
	if amount <= 0 {
		return
	}
	for _, g := range wholeGPUs(devs, amount) {
		devs[g] = 0
	}
}

// totalOf sums what devices have free.
func totalOf(devs []int16) int64 {
	sum := int64(0)
	for _, d := range devs {
		sum += max(int64(d), 0)
	}
	return sum
}
