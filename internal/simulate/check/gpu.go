package check

import "slices"

// gpu reports whether whole GPUs and shares of single ones could be given out
// as they are asked for.
func (n *node) gpu(need int64) bool {
	switch {
	case need == 0:
		return true
	case need >= 1000:
		n.whole += need / 1000
	default:
		n.shares[need]++
	}
	free := n.gpus - n.whole
	if free < 0 {
		return false
	}
	var sizes []int64 // the largest first
	for share := int64(999); share > 0; share-- {
		for range n.shares[share] {
			sizes = append(sizes, share)
		}
	}
	return heaped(sizes, free) || packs(sizes, make([]int64, free))
}

// heaped tries one way, which nearly always does: each share on the fullest GPU
// that holds it.
func heaped(sizes []int64, gpus int64) bool {
	used := make([]int64, gpus)
	for _, share := range sizes {
		best := -1
		for b := range used {
			if used[b]+share <= 1000 && (best < 0 || used[b] > used[best]) {
				best = b
			}
		}
		if best < 0 {
			return false
		}
		used[best] += share
	}
	return true
}

// maxTries bounds the ways that are looked into on one machine.
const maxTries = 200_000

// packs tries all ways, as shares may have been given out in any order.
func packs(sizes, used []int64) bool {
	p := packing{left: maxTries}
	for _, s := range sizes {
		p.asked += s
	}
	return p.fits(sizes, used)
}

type packing struct {
	asked int64 // by those that have no GPU yet
	left  int   // tries
}

func (p *packing) fits(sizes, used []int64) bool {
	if len(sizes) == 0 {
		return true
	}
	room := int64(0)
	for _, u := range used {
		if u+sizes[len(sizes)-1] <= 1000 { // else none of them goes there any more
			room += 1000 - u
		}
	}
	if room < p.asked {
		return false
	}
	share := sizes[0]
	for b, u := range used {
		if u+share > 1000 || slices.Contains(used[:b], u) { // one as full was tried
			continue
		}
		if p.left--; p.left < 0 {
			return false
		}
		used[b] += share
		p.asked -= share
		ok := p.fits(sizes[1:], used)
		used[b] -= share
		p.asked += share
		if ok {
			return true
		}
	}
	return false
}
