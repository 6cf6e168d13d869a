package control

import (
	"github.com/covey-platform/covey/internal/converge"
	"github.com/covey-platform/covey/internal/sched"
	"github.com/covey-platform/covey/internal/state"
)

// Forget makes the indexes of l wrong, for tests.
func Forget(l *Loop) {
	l.converge, l.sched = converge.NewIndex(state.New()), sched.NewIndex(state.New())
}

// Backlog returns how many keys the engines have not looked at yet.
func Backlog(l *Loop) int {
	return len(l.todo.Jobs) + len(l.todo.Slots) + len(l.todo.Tasks) + len(l.todo.Machines)
}
