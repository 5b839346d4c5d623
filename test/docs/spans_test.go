package docs

import (
	"os/exec"
	"path/filepath"
	"strings"
)

// spansAreTrue holds commands within the text, which are not run, against the names and flags that the program has.
func (r *reader) spansAreTrue(docs []*document) {
	r.t.Helper()
	helps := map[string]string{}
	help := func(args ...string) string {
		name := strings.Join(args, " ")
		if helps[name] == "" {
			out, err := exec.Command(filepath.Join(r.dir, "keyrow"), append(args, "--help")...).CombinedOutput()
			if err != nil {
				r.t.Errorf("keyrow %s --help: %v\n%s", name, err, out)
			}
			helps[name] = string(out)
		}
		return helps[name]
	}
	for _, d := range docs {
		for _, s := range d.spans() {
			words := strings.Fields(strings.TrimPrefix(s.code, "./"))
			switch words[0] {
			case "redis-cli", "mysql", "curl":
				if len(words) > 1 {
					r.t.Errorf("%s: put the command %q into a block, so that it is run", d.at(s.line), s.code)
				}
				continue
			case "keyrow":
			default:
				continue
			}
			var command []string // down to the subcommand; what follows are flags and arguments
			for _, word := range words[1:] {
				if !strings.Contains(help(command...), "\n  "+word+" ") {
					break
				}
				command = append(command, word)
			}
			if len(words) > 1 && len(command) == 0 && words[1][0] != '-' {
				r.t.Errorf("%s: keyrow has no command %s", d.at(s.line), words[1])
			}
			for _, word := range words[1:] {
				flag, _, _ := strings.Cut(word, "=")
				if strings.HasPrefix(flag, "-") && !strings.Contains(help(command...), flag) {
					r.t.Errorf("%s: keyrow %s has no flag %s", d.at(s.line), strings.Join(command, " "), flag)
				}
			}
		}
	}
}
