package server

import (
	"sort"
	"sync"

	"github.com/covey-platform/covey/internal/state"
)

// maxTail is how many of the last records are kept in memory, about 20 MB:
// whoever follows the cluster closely reads them there, and takes nothing from
// the store and its writer.
const maxTail = 50_000

// tail is the records of the last commits. Its methods may be called by
// several goroutines at once. Records are shared: nobody changes them.
type tail struct {
	mu      sync.RWMutex
	commits [][]state.Record // oldest first, none of them empty
	kept    int              // records in all
	last    state.Seq
}

// reset forgets everything: the next record is the one that follows last.
func (t *tail) reset(last state.Seq) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.commits, t.kept, t.last = nil, 0, last
}

// add keeps the records of a commit and lets old ones go.
func (t *tail) add(records []state.Record) {
	if len(records) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.commits = append(t.commits, records)
	t.kept += len(records)
	t.last = records[len(records)-1].Seq
	old := 0
	for ; t.kept-len(t.commits[old]) >= maxTail; old++ {
		t.kept -= len(t.commits[old])
		t.commits[old] = nil
	}
	t.commits = t.commits[old:]
}

// after returns up to limit records that follow seq, in order. It is false when
// they are not all here: then the store has them, or says why not.
func (t *tail) after(seq state.Seq, limit int) (records []state.Record, ok bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	first := t.last + 1
	if len(t.commits) > 0 {
		first = t.commits[0][0].Seq
	}
	if limit < 1 || seq+1 < first || seq > t.last {
		return nil, false
	}
	limit = min(limit, int(t.last-seq))
	at := sort.Search(len(t.commits), func(i int) bool { c := t.commits[i]; return c[len(c)-1].Seq > seq })
	for ; at < len(t.commits); at++ {
		c := t.commits[at]
		c = c[max(0, int(seq+1)-int(c[0].Seq)):]
		if records == nil && len(c) >= limit {
			return c[:limit:limit], true
		}
		records = append(records, c[:min(len(c), limit-len(records))]...)
		if len(records) == limit {
			break
		}
	}
	return records, true
}
