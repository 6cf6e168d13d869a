package inside

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseProcess(t *testing.T) {
	line := "42 (a) b) (c) S 7 42 41 0 -1 4194560 100 200 0 0 11 12 13 14 20 0 1 0 98765 1000 321 18446744073709551615 1"
	got, ok := parseProcess(42, []byte(line))
	want := Process{Pid: 42, Parent: 7, Session: 41, Start: 98765, Ticks: 50, RSSPages: 321}
	if d := cmp.Diff(want, got); d != "" || !ok {
		t.Errorf("ok=%v -want +got\n%s", ok, d)
	}
	for _, bad := range []string{"", "1 x", "1 (x", "1 (x) S 1 2", strings.Replace(line, "98765", "never", 1)} {
		if _, read := parseProcess(1, []byte(bad)); read {
			t.Errorf("%q was read", bad)
		}
	}
	me, ok := ReadProcess(os.Getpid())
	if !ok || me.Parent != os.Getppid() || !Same(os.Getpid(), me.Start) || Same(os.Getpid(), me.Start+1) {
		t.Errorf("got %+v of myself", me)
	}
}

// A program becomes an init before it initialises packages that init does not
// need, so this one may not need them either: these come late, or have much
// to initialise.
func TestNeedsLittle(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	needs := strings.Fields(string(out))
	if !slices.Contains(needs, "golang.org/x/sys/unix") {
		t.Fatalf("got %d packages without the one that is surely needed", len(needs))
	}
	for _, late := range []string{"net", "path/filepath", "log/slog", "os/exec", "os/user", "regexp", "crypto/tls", "google.golang.org/protobuf/proto"} {
		if slices.Contains(needs, late) {
			t.Errorf("package inside needs %s; want it to become an init before that is initialised", late)
		}
	}
}
