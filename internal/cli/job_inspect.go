package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/covey-platform/covey/internal/job"
)

// pathClean is the form in which a bundle names a file.
func pathClean(file string) string { return path.Clean(filepath.ToSlash(file)) }

// rawJSON prints JSON as it is, indented, in either form of output.
func (a *app) rawJSON(cmd *cobra.Command, raw []byte) error {
	var b bytes.Buffer
	if err := json.Indent(&b, raw, "", "  "); err != nil {
		return err
	}
	_, _ = fmt.Fprintln(cmd.OutOrStdout(), b.String())
	return nil
}

// inspectTable shows a job for people.
func inspectTable(w io.Writer, v jobJSON, j job.Job) {
	c := j.Config
	kind := "ad hoc"
	if c.Service {
		kind = "service"
	}
	rows := [][2]string{
		{"job", v.Key},
		{"instances", v.Instances},
		{"kind", kind},
		{"tier", c.Tier},
		{"placement", c.Placement},
		{"contact", c.Contact},
		{"resources", c.Task.Resources.String()},
		{"ports", strings.Join(c.Task.Ports, ", ")},
	}
	for _, x := range c.Constraints {
		s := strings.Join(x.Values, ",")
		if x.Limit > 0 {
			s = fmt.Sprintf("limit:%d", x.Limit)
		}
		switch {
		case x.Spread > 0:
			s = fmt.Sprintf("spread:%d", x.Spread)
		case x.With != "" && x.Negated:
			s = "without:" + string(x.With)
		case x.With != "":
			s = "with:" + string(x.With)
		case x.Negated:
			s = "!" + s
		}
		rows = append(rows, [2]string{"constraint", x.Attribute + " = " + s})
	}
	for _, p := range c.Task.Processes {
		rows = append(rows, [2]string{"process " + p.Name, p.Cmdline})
	}
	for _, chain := range c.Task.Order {
		rows = append(rows, [2]string{"order", strings.Join(chain, " -> ")})
	}
	rows = append(rows, [2]string{"config", v.ConfigHash})
	for _, r := range rows {
		if r[1] != "" {
			_, _ = fmt.Fprintf(w, "%-14s  %s\n", printable(r[0]), indentRest(printable(r[1])))
		}
	}
}

func indentRest(s string) string { return strings.ReplaceAll(s, "\n", "\n"+strings.Repeat(" ", 16)) }
