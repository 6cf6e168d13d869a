// Package job describes work: what a user asks a cluster to keep running. Jobs
// are values; nothing in the program changes one in place.
package job

import (
	"cmp"
	"strings"

	"github.com/covey-platform/covey/internal/fault"
	"github.com/covey-platform/covey/internal/name"
)

// A Key names a job inside its cluster: role/env/name. Its parts match
// [name.Valid]; the cluster's own name stands before it only at the edges.
type Key string

// NewKey joins the parts of a key. It does not validate; see [Key.Validate].
func NewKey(role, env, name string) Key { return Key(role + "/" + env + "/" + name) }

// Role returns the part that says who owns the job and whom it runs as.
func (k Key) Role() string { r, _, _ := strings.Cut(string(k), "/"); return r }

// Env returns the environment: prod, devel, test or staging*.
func (k Key) Env() string {
	_, rest, _ := strings.Cut(string(k), "/")
	e, _, _ := strings.Cut(rest, "/")
	return e
}

// Name returns the job's own name.
func (k Key) Name() string {
	_, rest, _ := strings.Cut(string(k), "/")
	_, n, _ := strings.Cut(rest, "/")
	return n
}

// Validate reports what is wrong with the key, if anything.
func (k Key) Validate() error {
	if n := strings.Count(string(k), "/"); n != 2 {
		return fault.Invalid.Errorf("job key %.80q has %d parts; want role/env/name", string(k), n+1)
	}
	if err := named("role", k.Role()); err != nil {
		return err
	}
	if err := validEnv(k.Env()); err != nil {
		return err
	}
	return named("job name", k.Name())
}

// validEnv holds environments to Aurora's default list (S: -allowed_job_environments).
func validEnv(env string) error {
	if env == "prod" || env == "devel" || env == "test" {
		return nil
	}
	if digits, ok := strings.CutPrefix(env, "staging"); ok && strings.Trim(digits, "0123456789") == "" && len(env) <= name.Max {
		return nil
	}
	return fault.Invalid.Errorf("environment %.40q is not allowed; want prod, devel, test or staging followed by digits", env)
}

// ParseKey reads cluster/role/env/name.
func ParseKey(s string) (cluster string, k Key, err error) {
	cluster, rest, ok := strings.Cut(s, "/")
	if !ok || strings.Count(rest, "/") != 2 {
		return "", "", fault.Invalid.Errorf("job key %.80q has %d parts; want cluster/role/env/name, such as dev/www-data/prod/hello", s, strings.Count(s, "/")+1)
	}
	if err := named("cluster", cluster); err != nil {
		return "", "", err
	}
	k = Key(rest)
	return cluster, k, k.Validate()
}

// Compare orders keys.
func (k Key) Compare(o Key) int { return cmp.Compare(k, o) }

// named is [name.Valid] with the blame where it belongs.
func named(what, s string) error {
	if err := name.Valid(what, s); err != nil {
		return fault.Invalid.Errorf("%w", err)
	}
	return nil
}
