//go:build compat

package compat

import (
	"fmt"
	"strings"
	"testing"

	"keyrow/test/harness"
)

// TestScripts runs every script in RESP2 and in RESP3, command by command and pipelined, against Redis and against
// keyrow. One alone: -run 'TestScripts/transactions/watch'
func TestScripts(t *testing.T) {
	pairs := map[string]pair{}
	for _, s := range loadScripts(t) {
		t.Run(s.String(), func(outer *testing.T) {
			kind := fmt.Sprint(s.readonly, s.redis)
			if _, ok := pairs[kind]; !ok {
				pairs[kind] = newPair(t, s.readonly, s.redis...)
			}
			for _, proto := range []int{2, 3} {
				for _, m := range []mode{steps, pipelined} {
					if (s.proto == 0 || s.proto == proto) && (s.only == either || s.only == m) {
						ok := outer.Run(fmt.Sprintf("resp%d/%s", proto, m), func(t *testing.T) {
							pairs[kind].compare(t, s, proto, m)
						})
						if !ok {
							delete(pairs, kind) // what is left of them may fail the next script
							return
						}
					}
				}
			}
		})
	}
}

// unscripted are commands of the table that no script uses, and why.
var unscripted = map[string]string{
	"shutdown":   "ends the server",
	"pfselftest": "takes seconds",
	"psync":      "begins a replication stream, as SYNC does",
	"cluster|":   "every subcommand answers the same error where there is no cluster; the scripts use four of them",
}

// TestEveryCommand holds the scripts against the table of commands that Redis has.
func TestEveryCommand(t *testing.T) {
	used := map[string]bool{}
	for _, s := range loadScripts(t) {
		for _, st := range s.steps {
			if st.verb != send {
				continue
			}
			name := strings.ToLower(st.args[0].text)
			used[name] = true
			if len(st.args) > 1 {
				used[name+"|"+strings.ToLower(st.args[1].text)] = true
			}
		}
	}
	c := dial(t, harness.StartRedis(t).Addr)
	list := parse([]byte(c.must(t, "COMMAND", "LIST")))
	if len(list.items) < 200 {
		t.Fatalf("redis lists only %d commands", len(list.items))
	}
	for _, item := range list.items {
		container, _, _ := strings.Cut(item.head, "|")
		if !used[item.head] && unscripted[item.head] == "" && (container == item.head || unscripted[container+"|"] == "") {
			t.Errorf("no script uses %s", item.head)
		}
		if used[item.head] && unscripted[item.head] != "" {
			t.Errorf("%s is used and need not be an exception", item.head)
		}
	}
}
