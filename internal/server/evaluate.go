package server

import (
	"context"
	"time"

	"github.com/covey-platform/covey/internal/cli/evaluate"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/rpc"
)

// evaluateLimit bounds the evaluation of a configuration.
const evaluateLimit = 20 * time.Second

// evaluateBundle works out which job a bundle describes, in a child process:
// what a file does there, it does to nobody else.
func evaluateBundle(ctx context.Context, self string, b rpc.Bundle) (string, job.Job, error) {
	ctx, cancel := context.WithTimeout(ctx, evaluateLimit)
	defer cancel()
	return evaluate.One(ctx, self, evaluate.Request{Key: b.Key, Main: b.Main, Files: b.Files, Binds: b.Binds, User: b.User})
}
