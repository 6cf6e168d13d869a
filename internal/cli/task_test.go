package cli

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	pb "github.com/covey-platform/covey/api/covey/v1"
)

// Logs that are followed outlive their servers: minutes later they go on, and
// somebody was told meanwhile. Those that are not followed end soon, and so do
// those of which nothing was ever seen.
func TestGoOn(t *testing.T) {
	gone := connect.NewError(connect.CodeUnavailable, errors.New("the database is not reached"))
	for _, c := range []struct {
		name         string
		follow, seen bool
		lost         time.Duration
		ends         bool // in an error
		told         int
	}{
		{name: "a moment", follow: true, seen: true, lost: 10 * time.Second},
		{name: "minutes", follow: true, seen: true, lost: 4 * time.Minute, told: 1},
		{name: "too long", follow: true, seen: true, lost: 11 * time.Minute, ends: true, told: 1},
		{name: "not followed", seen: true, lost: time.Minute, ends: true},
		{name: "nothing seen", follow: true, lost: time.Minute, ends: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var says strings.Builder
				out := &logWriter{w: &strings.Builder{}, at: map[string]*pb.LogPosition{}}
				began := time.Now()
				err := goOn(t.Context(), &says, out, c.follow, func() error {
					if c.seen && out.wrote.IsZero() {
						time.Sleep(time.Second)
						return errors.Join(out.write(&pb.ReadLogResponse{TaskId: "a/b/c/0.1", Log: "p", Data: []byte("x\n"), Next: 2}), gone)
					}
					if time.Since(began) < c.lost {
						return gone
					}
					return nil
				})
				if c.ends != (err != nil) {
					t.Errorf("got %v after %v", err, time.Since(began))
				}
				if n := strings.Count(says.String(), "no logs for"); n != c.told {
					t.Errorf("told %d times; want %d: %s", n, c.told, says.String())
				}
			})
		})
	}
}
