package control

// Empty reports whether nothing has been changed in the turn.
func (t *Turn) Empty() bool { return t.draft.Empty() }
