package tenant

import (
	"strings"
	"testing"

	"github.com/covey-platform/covey/internal/fault"
)

func TestAllow(t *testing.T) {
	admin := Subject{Kind: Admin, Name: "ann"}
	agent := Subject{Kind: Agent, Machine: "m1"}
	join := Subject{Kind: Join}
	bound := Subject{Kind: Join, Machine: "m1"}
	const allowed = fault.Kind(255)
	for _, tt := range []struct {
		who  Subject
		verb Verb
		on   Object
		want fault.Kind
	}{
		{Subject{}, Health, Object{}, allowed},
		{Subject{}, JobRead, Object{Role: "www"}, fault.Unauthenticated},
		{Subject{}, "no.such.verb", Object{}, fault.Unauthenticated},
		{admin, JobKill, Object{Role: "www"}, allowed},
		{admin, "no.such.verb", Object{}, fault.Denied},
		{admin, AgentSession, Object{Machine: "m1"}, fault.Denied},
		{admin, AgentJoin, Object{Machine: "m1"}, fault.Denied},
		{agent, AgentSession, Object{Machine: "m1"}, allowed},
		{agent, AgentSession, Object{Machine: "m2"}, fault.Denied},
		{agent, AgentSession, Object{}, fault.Denied},
		{agent, AgentLook, Object{Machine: "m1"}, allowed},
		{agent, AgentRenew, Object{Machine: "m1"}, allowed},
		{agent, AgentRenew, Object{Machine: "m2"}, fault.Denied},
		{admin, AgentRenew, Object{Machine: "m1"}, fault.Denied},
		{join, AgentRenew, Object{Machine: "m1"}, fault.Denied},
		{agent, JobRead, Object{}, fault.Denied},
		{agent, TokenWrite, Object{}, fault.Denied},
		{Subject{Kind: Agent}, AgentSession, Object{}, fault.Denied},
		{join, AgentJoin, Object{Machine: "m9"}, allowed},
		{join, AgentJoin, Object{}, fault.Denied},
		{bound, AgentJoin, Object{Machine: "m1"}, allowed},
		{bound, AgentJoin, Object{Machine: "m2"}, fault.Denied},
		{join, JobRead, Object{}, fault.Denied},
		{Subject{Kind: 77}, JobRead, Object{}, fault.Denied},
	} {
		got := allowed
		if err := Allow(tt.who, tt.verb, tt.on); err != nil {
			got = fault.Of(err)
		}
		if got != tt.want {
			t.Errorf("Allow(%v, %s, %+v) is %v; want %v", tt.who, tt.verb, tt.on, got, tt.want)
		}
	}
}

// TestNobody holds that a stranger gets nothing but health.
func TestNobody(t *testing.T) {
	for v := range rules {
		if err := Allow(Subject{}, v, Object{Machine: "m1"}); (err == nil) != (v == Health) {
			t.Errorf("Allow(nobody, %s) = %v", v, err)
		}
	}
}

func TestParseKind(t *testing.T) {
	for _, k := range []Kind{Admin, Agent, Join} {
		if got, ok := ParseKind(k.String()); got != k || !ok {
			t.Errorf("ParseKind(%q) = %v, %v", k.String(), got, ok)
		}
	}
	for _, s := range []string{"none", "", "root"} {
		if k, ok := ParseKind(s); ok {
			t.Errorf("ParseKind(%q) = %v; want none", s, k)
		}
	}
}

// Who is refused is told with which token it would have worked.
func TestRefusalNamesToken(t *testing.T) {
	for _, c := range []struct {
		s    Subject
		v    Verb
		want string
	}{
		{Subject{Kind: Agent, Machine: "m1"}, JobKill, "the token of an administrator"},
		{Subject{Kind: Admin, Name: "ann"}, AgentJoin, "covey token create --kind join"},
		{Subject{Kind: Admin, Name: "ann"}, AgentSession, "a machine's agent alone"},
		{Subject{Kind: Nobody}, JobKill, "--token-file"},
	} {
		if err := Allow(c.s, c.v, Object{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, %v: got %v; want it to say %q", c.s, c.v, err, c.want)
		}
	}
}
