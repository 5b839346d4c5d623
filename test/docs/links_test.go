package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var (
	link    = regexp.MustCompile(`\[[^\]]*\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`^#{1,6} (.+)$`)
	// What GitHub leaves out of the anchor of a heading.
	noAnchor = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
)

// anchors are the places in a document that a link can lead to.
func (d *document) anchors() map[string]bool {
	names := map[string]bool{"": true}
	for _, line := range d.prose {
		h := heading.FindStringSubmatch(line)
		if h == nil {
			continue
		}
		text := link.ReplaceAllStringFunc(h[1], func(l string) string { return l[1:strings.Index(l, "]")] })
		anchor := strings.ReplaceAll(noAnchor.ReplaceAllString(strings.ToLower(text), ""), " ", "-")
		name := anchor
		for n := 1; names[name]; n++ {
			name = anchor + "-" + strconv.Itoa(n)
		}
		names[name] = true
	}
	return names
}

// Every link within the project leads somewhere, in the changelog and the example of a configuration too.
func TestLinks(t *testing.T) {
	t.Parallel()
	docs := append(documents(t), parse(t, "CHANGELOG.md"))
	anchors := map[string]map[string]bool{}
	for _, d := range docs {
		anchors[d.path] = d.anchors()
	}
	for _, d := range docs {
		for _, at := range link.FindAllStringSubmatchIndex(strings.Join(d.prose, "\n"), -1) {
			text := strings.Join(d.prose, "\n")
			target, line := text[at[2]:at[3]], 1+strings.Count(text[:at[0]], "\n")
			if strings.Contains(target, "://") {
				continue
			}
			path, anchor, _ := strings.Cut(target, "#")
			to := d.path
			if path != "" {
				to = filepath.Join(filepath.Dir(d.path), path)
			}
			if _, err := os.Stat(filepath.Join(root, to)); err != nil {
				t.Errorf("%s: the link to %s leads nowhere", d.at(line), target)
			} else if names, ok := anchors[to]; anchor != "" && ok && !names[anchor] {
				t.Errorf("%s: the link to %s: there is no such heading in %s", d.at(line), target, to)
			}
		}
	}
	example, err := os.ReadFile(filepath.Join(root, "conf.toml.example"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range regexp.MustCompile(`docs/[a-z]+\.md`).FindAllString(string(example), -1) {
		if anchors[path] == nil {
			t.Errorf("conf.toml.example names %s, which is not there", path)
		}
	}
}

// Every document can be found from README.md.
func TestDocumentsAreLinked(t *testing.T) {
	t.Parallel()
	docs := documents(t)
	readme := strings.Join(docs[0].prose, "\n")
	for _, d := range docs[1:] {
		if !strings.Contains(readme, "]("+d.path) {
			t.Errorf("README.md has no link to %s", d.path)
		}
	}
}
