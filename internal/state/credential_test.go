package state_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/covey-platform/covey/internal/state"
	"github.com/covey-platform/covey/internal/unit"
)

var bearerKinds = []string{"agent", "join"}

// bearers holds what is found of each kind and subject to a look at every credential.
func bearers(t interface{ Fatalf(string, ...any) }, s *state.Snapshot) {
	for _, kind := range bearerKinds {
		for _, subject := range []string{"m", "m0", "m1", "m2", "m10"} {
			var want []state.Credential
			for c := range s.Credentials() {
				if c.Kind == kind && c.Subject == subject {
					want = append(want, c)
				}
			}
			if d := cmp.Diff(want, slices.Collect(s.CredentialsOf(kind, subject)), cmpopts.EquateEmpty()); d != "" {
				t.Fatalf("credentials of %s %s (-all +found):\n%s", kind, subject, d)
			}
		}
	}
}

// TestCredentialChangesHands finds a credential by whom it lets in now.
func TestCredentialChangesHands(t *testing.T) {
	d := state.NewDraft(state.New(), unit.Hour)
	for _, subject := range []string{"m1", "m2"} {
		old, _ := d.Snapshot().Credential("h")
		if err := d.Apply(state.PutCredential{Credential: state.Credential{Hash: "h", Kind: "agent", Subject: subject}, Base: old.Rev}); err != nil {
			t.Fatal(err)
		}
	}
	bearers(t, d.Snapshot())
	if got := len(slices.Collect(d.Snapshot().CredentialsOf("agent", "m2"))); got != 1 {
		t.Errorf("%d credentials of m2; want 1", got)
	}
}
