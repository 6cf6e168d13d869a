// Package tenant decides who may do what, and how much of it. Permission is one
// question, [Allow], and it is denied unless a rule says otherwise; a [Quota] says
// what a role may reserve.
package tenant

import (
	"fmt"

	"github.com/covey-platform/covey/internal/fault"
)

// A Kind is what somebody proved to be.
type Kind uint8

// The kinds. Nobody is the zero Kind, so that who forgot to ask is a stranger.
const (
	Nobody Kind = iota
	Admin       // a user who may do everything that users do
	Agent       // the agent of one machine
	Join        // the bearer of a join token, who may become an agent once
)

var kindNames = [...]string{"none", "admin", "agent", "join"}

// String returns the kind as credentials spell it.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// ParseKind reads what [Kind.String] wrote. Nobody has no credential, so
// "none" is not read.
func ParseKind(s string) (Kind, bool) {
	for i, n := range kindNames {
		if n == s && Kind(i) != Nobody {
			return Kind(i), true
		}
	}
	return Nobody, false
}

// A Subject is who asks.
type Subject struct {
	Kind    Kind
	Name    string // the user; for people and for records
	Machine string // an agent's machine; the only machine that a join token is good for, empty for any
}

// String says who it is, for people and for records.
func (s Subject) String() string {
	switch {
	case s.Kind == Nobody:
		return "nobody"
	case s.Kind == Admin && s.Name != "":
		return s.Name
	case s.Machine != "":
		return s.Kind.String() + " of " + s.Machine
	}
	return s.Kind.String()
}

// An Object is what is asked about. Fields that do not matter are empty.
type Object struct {
	Role, Env, Job string // a job, or a part of its key
	Machine        string
}

// A Verb is what is asked for.
type Verb string

// The verbs, one for each thing that somebody may be allowed or not.
const (
	Health       Verb = "health"
	JobCreate    Verb = "job.create"
	JobRead      Verb = "job.read"
	JobKill      Verb = "job.kill"
	JobRestart   Verb = "job.restart"
	TaskRead     Verb = "task.read"
	TaskLook     Verb = "task.look" // its logs and the files of its sandbox
	MachineRead  Verb = "machine.read"
	BillRead     Verb = "bill.read"
	ClusterRead  Verb = "cluster.read"
	ClusterWrite Verb = "cluster.write" // end a recovery or a pause
	StateExport  Verb = "state.export"  // a copy of all jobs, tasks and machines
	QuotaRead    Verb = "quota.read"
	QuotaWrite   Verb = "quota.write" // give a role a quota, or take it away
	TokenRead    Verb = "token.read"
	TokenWrite   Verb = "token.write"
	AgentJoin    Verb = "agent.join"
	AgentSession Verb = "agent.session"
	AgentLook    Verb = "agent.look"
	AgentRenew   Verb = "agent.renew"  // its certificate
	MetricsRead  Verb = "metrics.read" // the server's own measurements
)

// A scope says on which objects a kind may use a verb.
type scope uint8

const (
	nothing    scope = iota
	anything         // every object
	ownMachine       // objects of the subject's machine
	anyMachine       // a machine; if the subject is bound to one, only that
)

// rules holds everything that is allowed; what is absent is denied.
var rules = map[Verb]map[Kind]scope{
	Health:       {Nobody: anything, Admin: anything, Agent: anything, Join: anything},
	JobCreate:    {Admin: anything},
	JobRead:      {Admin: anything},
	JobKill:      {Admin: anything},
	JobRestart:   {Admin: anything},
	TaskRead:     {Admin: anything},
	TaskLook:     {Admin: anything},
	MachineRead:  {Admin: anything},
	BillRead:     {Admin: anything},
	ClusterRead:  {Admin: anything},
	ClusterWrite: {Admin: anything},
	StateExport:  {Admin: anything},
	QuotaRead:    {Admin: anything},
	QuotaWrite:   {Admin: anything},
	TokenRead:    {Admin: anything},
	TokenWrite:   {Admin: anything},
	AgentJoin:    {Join: anyMachine},
	AgentSession: {Agent: ownMachine},
	AgentLook:    {Agent: ownMachine},
	AgentRenew:   {Agent: ownMachine},
	MetricsRead:  {Admin: anything},
}

// Allow reports why s may not use v on o: an error of kind Unauthenticated
// when nobody knows who s is, else of kind Denied. nil: s may.
func Allow(s Subject, v Verb, o Object) error {
	switch rules[v][s.Kind] {
	case anything:
		return nil
	case ownMachine:
		if s.Machine != "" && o.Machine == s.Machine {
			return nil
		}
		return fault.Denied.Errorf("the %v may not speak for machine %q; an agent speaks for its own machine only", s, o.Machine)
	case anyMachine:
		if o.Machine != "" && (s.Machine == "" || o.Machine == s.Machine) {
			return nil
		}
		return fault.Denied.Errorf("the token lets machine %q join, not machine %q", s.Machine, o.Machine)
	case nothing:
	}
	if s.Kind == Nobody {
		return fault.Unauthenticated.Errorf("%s needs a token; give one with --token-file or COVEY_TOKEN", v)
	}
	return fault.Denied.Errorf("%v may not use %s; %s", s, v, whose(rules[v]))
}

// whose says with which token a verb is to be asked for.
func whose(allowed map[Kind]scope) string {
	switch {
	case allowed[Admin] != nothing:
		return "ask with the token of an administrator"
	case allowed[Join] != nothing:
		return "ask with a token that lets machines join: covey token create --kind join"
	default:
		return "a machine's agent alone may, with the token that it got when it joined"
	}
}
