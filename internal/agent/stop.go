package agent

import (
	"time"

	"github.com/covey-platform/covey/internal/task"
)

const (
	postTimeout = time.Second      // for one HTTP request of the stop order, as Aurora's signaler
	killAgain   = 10 * time.Second // between two SIGKILLs to what does not die
)

// stop begins the stop order: HTTP quit, HTTP abort, SIGTERM, SIGKILL. The
// first cause of an end holds, so a second stop can prolong nothing.
func (l *Life) stop(reason string) {
	switch l.stage {
	case StageNew:
		l.leave(task.Killed, reason)
		l.end()
	case StageActive:
		l.leave(task.Killed, reason)
		l.quit()
	default:
	}
}

// violated kills at once, in any stage, and skips what is left of the order.
func (l *Life) violated(reason string) {
	l.leave(task.Failed, reason)
	if l.stage != StageKilling {
		l.kill()
	}
}

// Lapsed is the reason of a task whose lease ended.
const Lapsed = "exclusive, and its machine had no word from the leader for 8 s: it ended before another may start"

// lapsed kills at once: by the end of the lease nothing may live. Nobody
// failed, so the task counts as lost.
func (l *Life) lapsed() {
	switch l.stage {
	case StageKilling, StageEnded:
		return
	case StageNew:
		l.leave(task.Lost, Lapsed)
		l.end()
	default:
		l.leave(task.Lost, Lapsed)
		l.kill()
	}
}

func (l *Life) quit() {
	if l.lifecycle == nil || l.graph.live() == 0 {
		l.clean()
		return
	}
	l.stage = StageQuitting
	l.post(l.lifecycle.Graceful, l.lifecycle.GracefulWaitS)
}

func (l *Life) abort() {
	l.stage = StageAborting
	l.post(l.lifecycle.Shutdown, l.lifecycle.ShutdownWaitS)
}

// post asks one endpoint. The wait begins with the answer, or when the request
// must have timed out; an endpoint that is not configured is not waited for.
func (l *Life) post(path string, wait int32) {
	if path == "" {
		l.due = l.now
		return
	}
	l.do(Post{Port: l.port, Path: path, Timeout: postTimeout})
	l.due = l.now + postTimeout + seconds(max(wait, 0))
}

// posted notes an answer. A late one to the first request can only bring the
// second wait to its configured length, never below it.
func (l *Life) posted() {
	switch l.stage {
	case StageQuitting:
		l.due = min(l.due, l.now+seconds(max(l.lifecycle.GracefulWaitS, 0)))
	case StageAborting:
		l.due = min(l.due, l.now+seconds(max(l.lifecycle.ShutdownWaitS, 0)))
	default:
	}
}

// escalate goes on when a wait of the HTTP part is over or nothing lives.
func (l *Life) escalate() {
	switch {
	case l.graph.live() == 0:
		l.clean()
	case l.now < l.due:
	case l.stage == StageQuitting:
		l.abort()
	default:
		l.clean()
	}
}

// clean sends SIGTERM. From here on finalization_wait bounds everything,
// the final processes included.
func (l *Life) clean() {
	l.stage = StageCleaning
	l.due = l.now + l.wait
	if l.graph.live() > 0 {
		l.do(Signal{Sig: Term})
	}
}

func (l *Life) cleaning() {
	switch {
	case l.graph.live() == 0:
		l.stage = StageFinalizing
	case l.now >= l.due:
		l.kill()
	}
}

// finalizing runs the final processes. Whether they succeed does not change
// how the task ends.
func (l *Life) finalizing() {
	switch g := &l.graph; {
	case g.complete(true) || g.stuck(true) != "" || l.now >= l.due:
		l.kill()
	default:
		l.spawn(true)
	}
}

// kill sends SIGKILL, if there is anything to kill.
func (l *Life) kill() {
	l.stage = StageKilling
	l.due = l.now + killAgain
	if l.graph.live() > 0 {
		l.do(Signal{Sig: Kill})
	}
}

// killing waits for the dead. It does not give up: a task with a living
// process has not ended, whatever anybody would like.
func (l *Life) killing() {
	switch {
	case l.graph.live() == 0:
		l.end()
	case l.now >= l.due:
		l.kill()
	}
}

func (l *Life) end() {
	l.stage = StageEnded
	l.do(End{State: l.outcome, Reason: l.reason})
}
