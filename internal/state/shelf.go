package state

import "github.com/google/btree"

// A shelf is an ordered copy-on-write map of rows. Its nodes hold keys and
// point to the rows, which nobody changes: to copy a node, or to compare keys,
// touches no row.
type shelf[K, V any] struct {
	tree *btree.BTreeG[entry[K, V]]
}

type entry[K, V any] struct {
	key K
	row *V
}

func newShelf[K, V any](compare func(a, b K) int) shelf[K, V] {
	return shelf[K, V]{btree.NewG(degree, func(a, b entry[K, V]) bool { return compare(a.key, b.key) < 0 })}
}

func (s shelf[K, V]) clone() shelf[K, V] { return shelf[K, V]{s.tree.Clone()} }

func (s shelf[K, V]) get(k K) (row V, ok bool) {
	e, ok := s.tree.Get(entry[K, V]{key: k})
	if !ok {
		return row, false
	}
	return *e.row, true
}

func (s shelf[K, V]) put(k K, row V) { s.set(k, &row) }

// set is put for a row that nobody changes from now on.
func (s shelf[K, V]) set(k K, row *V) { s.tree.ReplaceOrInsert(entry[K, V]{k, row}) }

func (s shelf[K, V]) remove(k K) { s.tree.Delete(entry[K, V]{key: k}) }

func (s shelf[K, V]) all(yield func(V) bool) {
	s.tree.Ascend(func(e entry[K, V]) bool { return yield(*e.row) })
}

// from yields the rows from key k on, as long as their keys are within.
func (s shelf[K, V]) from(k K, within func(K) bool, yield func(V) bool) {
	s.tree.AscendGreaterOrEqual(entry[K, V]{key: k}, func(e entry[K, V]) bool { return within(e.key) && yield(*e.row) })
}
