package server

import (
	"context"
	"time"

	"github.com/covey-platform/covey/internal/cli/evaluate"
	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/rpc"
)

// evaluateLimit bounds the evaluation of a configuration.
const evaluateLimit = 20 * time.Second

// evaluator works out which job a bundle describes, in a child process: what a
// file does there, it does to nobody else. One child is always started ahead,
// so that nobody waits for it.
type evaluator struct {
	self  string
	spare chan *evaluate.Child
}

func newEvaluator(self string) *evaluator {
	return &evaluator{self: self, spare: make(chan *evaluate.Child)}
}

// run keeps a child ready until ctx ends.
func (e *evaluator) run(ctx context.Context) error {
	for ctx.Err() == nil {
		c, err := evaluate.Prepare(e.self)
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			continue
		}
		select {
		case e.spare <- c:
		case <-ctx.Done():
			c.Close()
		}
	}
	return nil
}

func (e *evaluator) evaluate(ctx context.Context, b rpc.Bundle) (string, job.Job, error) {
	ctx, cancel := context.WithTimeout(ctx, evaluateLimit)
	defer cancel()
	r := evaluate.Request{Key: b.Key, Main: b.Main, Files: b.Files, Binds: b.Binds, User: b.User}
	select {
	case c := <-e.spare:
		cluster, j, err := c.One(ctx, r)
		if fault.Of(err) != fault.Unavailable || ctx.Err() != nil {
			return cluster, j, err
		}
		// It was killed, perhaps long ago while it waited.
	default:
	}
	return evaluate.One(ctx, e.self, r)
}
