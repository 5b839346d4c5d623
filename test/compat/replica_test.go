//go:build compat

package compat

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"

	"keyrow/test/harness"
)

// TestWait has a replica that falls behind: WAIT through keyrow waits for what the same client wrote over a shared
// connection.
func TestWait(t *testing.T) {
	t.Parallel()
	r := harness.StartRedis(t)
	_, port, _ := net.SplitHostPort(r.Addr)
	replica := harness.StartRedis(t, "--replicaof", "127.0.0.1", port)
	k := keyrowFor(t, harness.Options{Redis: r}, "behind")
	control, p := dial(t, r.Addr), dial(t, k.Addr)
	ok(t, until(control, "state=online", "INFO", "replication"))
	for i := range 10 {
		replica.Pause()
		p.must(t, "SET", "k", strconv.Itoa(i))
		ok(t, p.write(encode("WAIT", "1", "0")))
		ok(t, until(control, "blocked_clients:1", "INFO", "clients"))
		if b := p.arrived(); len(b) > 0 {
			t.Fatalf("WAIT was answered %q while the replica stood still", b)
		}
		replica.Resume()
		b, err := p.frame()
		ok(t, err)
		same(t, string(b), ":1\r\n")
		same(t, fmt.Sprint(replica.Do("GET", "k")), strconv.Itoa(i))
	}
}

// TestReplica has a Redis replicate from keyrow: SYNC and what follows pass both ways unseen.
func TestReplica(t *testing.T) {
	t.Parallel()
	r := harness.StartRedis(t, "--repl-diskless-sync-delay", "0")
	k := keyrowFor(t, harness.Options{Redis: r}, "behind")
	p := dial(t, k.Addr)
	p.must(t, "SET", "before", strings.Repeat("x", 1<<20))
	_, port, _ := net.SplitHostPort(k.Addr)
	replica := harness.StartRedis(t, "--replicaof", "127.0.0.1", port)
	control := dial(t, replica.Addr)
	ok(t, until(control, "master_link_status:up", "INFO", "replication"))
	same(t, len(control.must(t, "GET", "before")), 1<<20+len("$1048576\r\n\r\n"))
	p.must(t, "SET", "after", "x")
	ok(t, until(control, "$1\r\nx\r\n", "GET", "after"))
	same(t, p.must(t, "WAIT", "1", "0"), ":1\r\n")
}
