package state

import (
	"maps"
	"slices"
)

// Clone returns a copy of m as it stands, as a backup would be.
func (m *Mem) Clone() *Mem {
	c := *m
	c.rows, c.blocks, c.ended = maps.Clone(m.rows), slices.Clone(m.blocks), slices.Clone(m.ended)
	return &c
}
