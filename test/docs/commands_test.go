package docs

import (
	"os/exec"
	"regexp"
	"strings"
)

// commands cuts a block of a shell into its commands.
func commands(lines []string) (list []command) {
	for i := 0; i < len(lines); i++ {
		if line := strings.TrimSpace(lines[i]); line == "" || line[0] == '#' {
			continue
		}
		c := command{text: lines[i], at: i}
		for i+1 < len(lines) && !complete(c.text) {
			i++
			c.text += "\n" + lines[i]
		}
		list = append(list, c)
	}
	return list
}

// complete reports whether a command needs no further line.
func complete(text string) bool {
	if strings.HasSuffix(text, `\`) {
		return false
	}
	cmd := exec.Command("bash", "-n")
	cmd.Stdin = strings.NewReader(text + "\n")
	out, err := cmd.CombinedOutput()
	return err == nil && len(out) == 0 // of a document without end it only warns
}

var (
	redisPrompt = regexp.MustCompile(`^127\.0\.0\.1:(\d+)(?:\[\d+\])?(?:\(TX\))?> (.*)$`)
	mysqlPrompt = regexp.MustCompile(`^(?:mysql|MariaDB \[\w+\])> (.*)$`)
	startsOne   = regexp.MustCompile(`^(redis-cli -p \d+|mysql shop)$`)
)

// consoleCommands cuts what is typed from what is printed. What is typed into one client goes together, since it is one
// connection.
func consoleCommands(lines []string) (list []command) {
	var now *command
	for i := 0; i < len(lines); i++ {
		redis, my := redisPrompt.FindStringSubmatch(lines[i]), mysqlPrompt.FindStringSubmatch(lines[i])
		typed, shell := strings.CutPrefix(lines[i], "$ ")
		switch {
		case shell:
			next := command{text: typed, at: i, printed: []string{}}
			for i+1 < len(lines) && !complete(next.text) {
				i++
				next.text += "\n" + lines[i]
			}
			list = append(list, next)
		case redis != nil && (now == nil || now.client != "redis" || now.port != redis[1]):
			list = append(list, command{client: "redis", port: redis[1], text: redis[2] + "\n", at: i, printed: []string{}})
		case redis != nil:
			now.text += redis[2] + "\n"
		case my != nil && (now == nil || now.client != "mysql"):
			list = append(list, command{client: "mysql", text: my[1] + "\n", at: i, printed: []string{}})
		case my != nil:
			now.text += my[1] + "\n"
		default:
			now.printed = append(now.printed, lines[i])
		}
		now = &list[len(list)-1]
		if n := len(list); n > 1 && now.client != "" && startsOne.MatchString(list[n-2].text) && list[n-2].client == "" {
			list = append(list[:n-2], list[n-1]) // the prompt is its own
			now = &list[len(list)-1]
		}
	}
	return list
}

// varying is what differs from run to run.
var varying = regexp.MustCompile(`\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+Z?)?|\b\d+(\.\d+)?(ns|µs|ms|s|m\d+s)\b|\b\d+ a second`)

// matches reports whether what was printed is what a document says.
func matches(want, got []string) bool {
	switch {
	case len(want) == 0:
		return len(got) == 0 || len(got) == 1 && got[0] == ""
	case want[0] == "...":
		return len(want) == 1 || matches(want[1:], got) || len(got) > 0 && matches(want, got[1:])
	case len(got) == 0:
		return false
	}
	return like(want[0], got[0]) && (len(want) == 1 && len(got) == 1 || matches(want[1:], got[1:]))
}

func like(want, got string) bool {
	plain := func(line string) string { return varying.ReplaceAllString(strings.TrimRight(line, " "), "~") }
	parts := strings.Split(plain(want), "...")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile("^" + strings.Join(parts, ".*") + "$").MatchString(plain(got))
}
