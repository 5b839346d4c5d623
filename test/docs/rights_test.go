package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	granted = regexp.MustCompile(`ACL SETUSER proxy (.*)`)
	called  = regexp.MustCompile(`redis\.p?call\('([A-Z]+)'`)
)

// The rights that docs/rights.md gives to keyrow are enough for all of its scripts, also for what is rarely run.
func TestRightsOfScripts(t *testing.T) {
	t.Parallel()
	given := map[string]bool{}
	for _, line := range parse(t, "docs/rights.md").lines {
		if grant := granted.FindStringSubmatch(line); grant != nil {
			for _, right := range strings.Fields(grant[1]) {
				given[right] = true
			}
		}
	}
	scripts, err := filepath.Glob(root + "/backend/lua/*.lua")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("there are no scripts: %v", err)
	}
	for _, path := range scripts {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, call := range called.FindAllStringSubmatch(string(text), -1) {
			if name := strings.ToLower(call[1]); !given["+"+name] {
				t.Errorf("docs/rights.md does not let keyrow run %s, which %s does", call[1], filepath.Base(path))
			}
		}
	}
}
