package server

import (
	"os"
	"testing"

	"github.com/covey-platform/covey/internal/cli/evaluate"
	"github.com/covey-platform/covey/internal/rpc"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == evaluate.Command {
		os.Exit(evaluate.Main(os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

// The child that waits for a configuration may be killed meanwhile, and nobody
// who brings one is to notice.
func TestEvaluateAfterKill(t *testing.T) {
	e := newEvaluator(os.Args[0])
	e.spare = make(chan *evaluate.Child, 1)
	dead, err := evaluate.Prepare(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	e.spare <- dead
	cluster, j, err := e.evaluate(t.Context(), rpc.Bundle{Key: "dev/ads/test/x", Main: "x.aurora", Files: map[string][]byte{"x.aurora": []byte(`
jobs = [Service(cluster = 'dev', role = 'ads', environment = 'test', name = 'x', task = SimpleTask(name = 'x', command = 'true'))]`)}})
	if err != nil || cluster != "dev" || j.Key != "ads/test/x" {
		t.Errorf("got %q, %v, %v; want the job dev/ads/test/x", cluster, j.Key, err)
	}
}
