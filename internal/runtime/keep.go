package runtime

import (
	"cmp"
	"slices"
	"time"

	"github.com/covey-platform/covey/internal/task"
)

// A Keep says how much of what forgotten tasks have left is kept. What live
// tasks were promised comes before it, whatever it says.
type Keep struct {
	Age    time.Duration // for so long at most
	Bytes  int64         // and together so much at most
	Least  time.Duration // for so long even when it is more: somebody may be about to look
	Margin int64         // bytes that stay free beside what live tasks may still write

	// Share is what all tasks here, live and ended, may take of a disk on which
	// other runtimes have their shares, in bytes; 0: there are no others.
	Share int64
}

// demand is what stands against a disk, in bytes.
type demand struct {
	free     int64 // in the file system
	held     int64 // by all tasks here, live and ended
	promised int64 // to live tasks, beside what they hold
}

// missing returns how many bytes must go for promises to have room.
func (k Keep) missing(d demand) int64 {
	free := d.free
	if k.Share > 0 {
		free = min(free, k.Share-d.held)
	}
	if d.promised == 0 {
		return 0
	}
	return max(d.promised+k.Margin-free, 0)
}

// A leftover is what a forgotten task has left.
type leftover struct {
	name  string    // of its directory
	id    task.ID   // zero: nobody can tell
	at    time.Time // of its end
	bytes int64
	going bool // its removal was begun
}

func total(all []leftover) (bytes int64) {
	for _, l := range all {
		bytes += l.bytes
	}
	return bytes
}

// choose returns what is to be removed, in this order: removals that were cut
// off; what is too old; and then, until the rest is small enough and missing
// bytes were freed, the oldest, those last that are the latest of their
// instance: they say why it ended.
func (k Keep) choose(all []leftover, now time.Time, missing int64) []leftover {
	rank := func(l leftover, last map[task.ID]string) int {
		switch {
		case l.going:
			return 0
		case now.Sub(l.at) > k.Age:
			return 1
		case last[slot(l.id)] != l.name:
			return 2
		}
		return 3
	}
	old := slices.Clone(all)
	slices.SortFunc(old, func(a, b leftover) int {
		return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.id.Attempt, b.id.Attempt), cmp.Compare(a.name, b.name))
	})
	last := map[task.ID]string{}
	for _, l := range old {
		if l.id != (task.ID{}) && !l.going {
			last[slot(l.id)] = l.name
		}
	}
	slices.SortStableFunc(old, func(a, b leftover) int { return rank(a, last) - rank(b, last) })
	kept, freed := total(all), int64(0)
	return slices.DeleteFunc(old, func(l leftover) bool {
		tooMuch := kept > k.Bytes && now.Sub(l.at) > k.Least
		if rank(l, last) > 1 && !tooMuch && freed >= missing {
			return true
		}
		kept -= l.bytes
		freed += l.bytes
		return false
	})
}

// slot is the instance that a task was an attempt of.
func slot(id task.ID) task.ID {
	id.Attempt = 0
	return id
}
