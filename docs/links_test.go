package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	links    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	headings = regexp.MustCompile(`(?m)^#+ (.*)$`)
	fences   = regexp.MustCompile("(?ms)^\\s*```.*?^\\s*```$")
)

// TestLinks follows every link of every page to a file, and to a heading in it.
func TestLinks(t *testing.T) {
	pages := []string{"../README.md", "../CHANGELOG.md", "../examples/README.md"}
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(name, ".md") {
			pages = append(pages, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range links.FindAllSubmatch(fences.ReplaceAll(text, nil), -1) {
			to := string(m[1])
			if strings.Contains(to, "://") {
				continue
			}
			seen++
			if why := dangles(page, to); why != "" {
				t.Errorf("%s: the link to %s %s", page, to, why)
			}
		}
	}
	if seen < 20 {
		t.Errorf("found %d links in %d pages; want the docs", seen, len(pages))
	}
}

// dangles says why a link leads nowhere.
func dangles(page, to string) string {
	file, anchor, _ := strings.Cut(to, "#")
	target := page
	if file != "" {
		target = filepath.Join(filepath.Dir(page), file)
	}
	text, err := os.ReadFile(target)
	if err != nil {
		return "leads to no file"
	}
	if anchor == "" {
		return ""
	}
	for _, h := range headings.FindAllSubmatch(text, -1) {
		if slug(string(h[1])) == anchor {
			return ""
		}
	}
	return "leads to no heading"
}

// slug is the anchor of a heading, as forges make it.
func slug(heading string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(heading) {
		switch {
		case r == ' ':
			b.WriteByte('-')
		case r == '-' || r == '_' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			b.WriteRune(r)
		}
	}
	return b.String()
}
