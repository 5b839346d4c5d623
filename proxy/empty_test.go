package proxy

import (
	"strings"
	"testing"
)

// A FLUSHALL whose connection is lost before the answer came may have been run, and its client is told so.
func TestEmptyUnanswered(t *testing.T) {
	r := newRig(t, nil)
	r.upstream()
	c := r.client()
	c.send("FLUSHALL")
	own := r.upstream() // whether the client may run it
	for _, step := range [][2]string{{"CLIENT ID", ":7\r\n"}, {"MULTI", "+OK\r\n"}, {"FLUSHALL", "+QUEUED\r\n"}, {"DISCARD", "+OK\r\n"}} {
		own.expect(step[0])
		own.send(step[1])
	}
	last := r.upstream()
	if _, err := last.in.ReadByte(); err != nil {
		t.Fatal(err)
	}
	_ = last.Close()
	if got := c.line(); !strings.HasPrefix(got, "-UPSTREAM keyrow: ") || !strings.Contains(got, "unknown whether") {
		t.Errorf("the client got %q", got)
	}
}
