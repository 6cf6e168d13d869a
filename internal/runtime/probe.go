package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/covey-platform/covey/internal/agent"
	"github.com/covey-platform/covey/internal/job"
	"github.com/covey-platform/covey/internal/runtime/inside"
)

// maxAnswer bounds what is read of a task's answer, in bytes.
const maxAnswer = 64 << 10

// maxWhy bounds what is told of it.
const maxWhy = 80

// probe asks the task whether it is healthy.
func (s *supervisor) probe(a agent.Probe) {
	ctx, cancel := s.within(a.Timeout)
	defer cancel()
	h := s.rec.Config.Health
	answer := agent.Probed{Seq: a.Seq}
	if _, err := os.Lstat(filepath.Join(s.box.path(), snoozeFile)); err == nil {
		answer.OK, answer.Snoozed = true, true
		s.send(input{answer})
		return
	}
	var err error
	switch {
	case h != nil && h.HTTP != nil:
		err = probeHTTP(ctx, job.PortOf(s.rec.Ports, h.HTTP.Port), *h.HTTP)
	case h != nil && h.Shell != nil:
		err = s.probeShell(ctx, a)
	}
	answer.OK = err == nil
	if err != nil {
		answer.Why = err.Error()
		if errors.Is(err, context.DeadlineExceeded) || os.IsTimeout(err) {
			answer.Why = fmt.Sprintf("no answer within %v", a.Timeout)
		}
	}
	s.send(input{answer})
}

// client speaks to one port of this machine and to nobody else: no proxy, no
// redirect, no connection kept.
func client(port uint16) *http.Client {
	at := net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port)))
	return &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: maxAnswer,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "tcp", at)
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// ask sends one request and returns the answer, its body cut.
func ask(ctx context.Context, method string, port uint16, path string) (code int, body string, err error) {
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	u := "http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))) + path
	req, err := http.NewRequestWithContext(ctx, method, u, nil)
	if err != nil {
		return 0, "", fmt.Errorf("endpoint %q: %w", path, err)
	}
	resp, err := client(port).Do(req)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err
		}
		return 0, "", err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return resp.StatusCode, string(b), err
}

func probeHTTP(ctx context.Context, port uint16, c job.HTTPCheck) error {
	code, body, err := ask(ctx, http.MethodGet, port, c.Endpoint)
	if err != nil {
		return err
	}
	switch {
	case c.ResponseCode != 0 && code != int(c.ResponseCode):
		return fmt.Errorf("%s answered %d; want %d", c.Endpoint, code, c.ResponseCode)
	case c.ResponseCode == 0 && code >= http.StatusBadRequest:
		return fmt.Errorf("%s answered %d", c.Endpoint, code)
	case c.Response != "" && !strings.EqualFold(strings.TrimSpace(body), strings.TrimSpace(c.Response)):
		return fmt.Errorf("%s answered %s; want %q", c.Endpoint, shown(body), c.Response)
	}
	return nil
}

// shown makes what a task said fit for a message.
func shown(s string) string {
	s = strings.TrimSpace(s)
	if len(s) > maxWhy {
		s = s[:maxWhy] + "..."
	}
	return strconv.QuoteToGraphic(strings.ToValidUTF8(s, "?"))
}

// probeShell runs the command beside the task's processes, as one of them.
func (s *supervisor) probeShell(ctx context.Context, a agent.Probe) error {
	answers := make(chan inside.Note, 4)
	r, w, err := pipe()
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // only read
	done := make(chan struct{})
	s.send(askInit{func() {
		defer close(done)
		s.checks[a.Seq] = answers
		s.init.tell(inside.Order{Op: "check", Run: a.Seq}, w, w)
	}})
	select {
	case <-done:
	case <-s.done:
	}
	_ = unix.Close(w)
	defer s.send(askInit{func() { delete(s.checks, a.Seq) }})
	for {
		select {
		case n := <-answers:
			if n.Pidfd >= 0 {
				_ = unix.Close(n.Pidfd)
			}
			switch {
			case n.Op == "failed":
				return errors.New(n.Why)
			case n.Op == "exited" && (n.Code != 0 || n.Signal != 0):
				return fmt.Errorf("command %s: %s", exitWords(n.Code, n.Signal), shown(firstOutput(r)))
			case n.Op == "exited":
				return nil
			}
		case <-ctx.Done():
			s.send(askInit{func() { s.init.tell(inside.Order{Op: "signal", Run: a.Seq, Sig: int(unix.SIGKILL)}) }})
			return ctx.Err()
		}
	}
}

// askInit runs a function in the supervisor's own goroutine.
type askInit struct{ f func() }

func exitWords(code, signal int) string {
	if signal != 0 {
		return "killed by signal " + strconv.Itoa(signal)
	}
	return "exited with " + strconv.Itoa(code)
}

// firstOutput returns what a command that has ended left in its pipe.
func firstOutput(r *os.File) string {
	_ = r.SetReadDeadline(time.Now().Add(time.Millisecond))
	b := make([]byte, 4<<10)
	n, _ := r.Read(b)
	return string(b[:n])
}

// post asks the task to stop. Whatever comes of it, the wait begins.
func (s *supervisor) post(a agent.Post) {
	ctx, cancel := s.within(a.Timeout)
	defer cancel()
	if _, _, err := ask(ctx, http.MethodPost, a.Port, a.Path); err != nil {
		s.log.Info("stop endpoint", "path", a.Path, "error", err)
	}
	s.send(input{agent.Posted{}})
}
