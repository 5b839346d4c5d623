package proxy

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// What is shown of commands is what Redis's SLOWLOG shows of them.
func TestShown(t *testing.T) {
	table := testCommands
	long, many := strings.Repeat("x", 130), strings.Fields(strings.Repeat("k ", 40))
	for _, c := range []struct{ args, want []string }{
		{[]string{"GET", "k"}, nil},
		{[]string{"set", "k", strings.Repeat("v", 128)}, nil},
		{[]string{"SET", "k", long}, []string{"SET", "k", strings.Repeat("x", 128) + "... (2 more bytes)"}},
		{[]string{"PING", strings.Repeat("x", 200)}, []string{"PING", strings.Repeat("x", 128) + "... (72 more bytes)"}},
		{append([]string{"MGET"}, many[:31]...), nil},
		{append([]string{"MGET"}, many[:32]...), append(append([]string{"MGET"}, many[:30]...), "... (2 more arguments)")},
		{append([]string{"MGET"}, many...), append(append([]string{"MGET"}, many[:30]...), "... (10 more arguments)")},
		{[]string{"AUTH", "secret"}, []string{"AUTH", redacted}},
		{[]string{"auth", "me", "secret", "x"}, []string{"auth", redacted, redacted, redacted}},
		{[]string{"HELLO", "3", "SETNAME", "n"}, nil},
		{[]string{"HELLO", "3", "auth", "me", "secret", "SETNAME", "n"}, []string{"HELLO", "3", "auth", redacted, redacted, "SETNAME", "n"}},
		{[]string{"HELLO", "3", "AUTH", "AUTH", "AUTH"}, []string{"HELLO", "3", "AUTH", redacted, redacted}},
		{[]string{"CONFIG", "GET", "requirepass"}, nil},
		{[]string{"CONFIG", "SET", "maxmemory", "1", "requirePass", "secret", "masterauth", "secret", "masteruser", "me"},
			[]string{"CONFIG", "SET", "maxmemory", "1", "requirePass", redacted, "masterauth", redacted, "masteruser", redacted}},
		{[]string{"CONFIG"}, nil},
		{[]string{"ACL"}, nil},
		{[]string{"ACL", "WHOAMI"}, nil},
		{[]string{"ACL", "setuser", "me", "on", ">secret"}, []string{"ACL", "setuser", redacted, redacted, redacted}},
		{[]string{"MIGRATE"}, nil},
		{[]string{"MIGRATE", "h", "1", "k", "0", "1", "COPY", "AUTH", "secret", "KEYS", "k"},
			[]string{"MIGRATE", "h", "1", "k", "0", "1", "COPY", "AUTH", redacted, "KEYS", "k"}},
		{[]string{"MIGRATE", "h", "1", "k", "0", "1", "auth2", "me", "secret"},
			[]string{"MIGRATE", "h", "1", "k", "0", "1", "auth2", redacted, redacted}},
	} {
		args := make([][]byte, len(c.args))
		for i, a := range c.args {
			args[i] = []byte(a)
		}
		if c.want == nil {
			c.want = c.args
		}
		row := table.find(args)
		if row == nil {
			t.Fatalf("%s is not in the table", c.args[0])
		}
		shown := appendShown([]byte("before"), row, request{raw: appendCommand(nil, args...), args: args})
		elems, ok := elements(nil, shown[len("before"):])
		got := make([]string, len(elems))
		for i, e := range elems {
			got[i] = string(bulk(e))
		}
		if !ok || fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%q\n got %q\nwant %q", c.args, got, c.want)
		}
	}
}

// slowRig is a rig that calls every command slow that takes more than a moment, and a way to wait for that moment.
func slowRig(t *testing.T) (r *rig, linger func()) {
	t.Helper()
	const after = 2 * time.Millisecond
	r = newRig(t, func(o *Options) { o.Slow = SlowConfig{After: after, Keep: 4} })
	return r, func() {
		for from := clock(); clock()-from < 2*after; {
			giveWay()
		}
	}
}

// slow is what is kept, the last one in front: the arguments, how, and with how many others.
func (r *rig) slow() (list []string) {
	l := r.srv.slow
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.kept {
		e := &l.ring[(l.ids-1-int64(i))%int64(len(l.ring))]
		elems, _ := elements(nil, e.args)
		var words []string
		for _, b := range elems {
			words = append(words, string(bulk(b)))
		}
		if e.took < l.after || e.waited > e.took {
			r.t.Errorf("%v took %v, and waited %v of it", words, e.took, e.waited)
		}
		list = append(list, fmt.Sprintf("%s: %s +%d", strings.Join(words, " "), Ways[e.how], e.others))
	}
	return list
}

// A slow command is kept, a fast one is not; of those that were answered together it is the one that Redis does not call
// fast.
func TestSlowCommands(t *testing.T) {
	r, linger := slowRig(t)
	up := r.upstream()
	c := r.client()
	c.send("GET a")
	up.expect("GET a")
	linger()
	up.send("$1\r\n1\r\n")
	c.expect("$1\r\n1\r\n")
	c.send("GET b", "PING x", "GET c")
	up.expect("GET b")
	up.expect("PING x")
	up.expect("GET c")
	linger()
	up.send("$1\r\n1\r\n+x\r\n$1\r\n1\r\n")
	c.expect("$1\r\n1\r\n+x\r\n$1\r\n1\r\n")
	r.expectSlow("PING x: redis +0", "GET a: redis +0")

	// Several clients, of which one waited for Redis and the others for that one.
	other := r.client()
	other.send("GET d")
	up.expect("GET d")
	c.send("GET e")
	up.expect("GET e")
	c.send("GET f")
	up.expect("GET f")
	linger()
	up.send("$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n")
	other.expect("$1\r\n1\r\n")
	c.expect("$1\r\n2\r\n$1\r\n3\r\n")
	r.expectSlow("GET d: redis +1", "PING x: redis +0", "GET a: redis +0")

	// No more than four are kept.
	for i := range 5 {
		c.send(fmt.Sprint("PING ", i))
		up.expect(fmt.Sprint("PING ", i))
		linger()
		up.send("+x\r\n")
		c.expect("+x\r\n")
	}
	r.expectSlow("PING 4: redis +0", "PING 3: redis +0", "PING 2: redis +0", "PING 1: redis +0")
}

// expectSlow waits for these to be what is kept: a client has its reply before that is looked at.
func (r *rig) expectSlow(want ...string) {
	r.t.Helper()
	late := time.Now().Add(10 * time.Second)
	for fmt.Sprint(r.slow()) != fmt.Sprint(want) {
		if time.Now().After(late) {
			r.t.Fatalf("slow commands are\n%q, want\n%q", r.slow(), want)
		}
		giveWay()
	}
}

// A row that took long to load is slow, and what waits behind it in the same pipeline is not.
func TestSlowLoad(t *testing.T) {
	r, linger := slowRig(t)
	up := r.upstream()
	c := r.client()
	c.send("GET user:1", "GET b")
	up.expect("GET user:1")
	up.expect("GET b")
	up.send("$-1\r\n$1\r\n1\r\n")
	l := <-r.loader.loads
	linger()
	l.done([]byte("{}"), nil)
	c.expect("$2\r\n{}\r\n$1\r\n1\r\n")
	r.expectSlow("GET user:1: fill +0")

	c.send("MGET a user:2 user:3")
	up.expect("MGET a user:2 user:3")
	up.send("*3\r\n$1\r\n1\r\n$-1\r\n$-1\r\n")
	one, two := <-r.loader.loads, <-r.loader.loads
	one.done([]byte("{}"), nil)
	linger()
	two.done([]byte("{}"), nil)
	c.expect("*3\r\n$1\r\n1\r\n$2\r\n{}\r\n$2\r\n{}\r\n")
	r.expectSlow("MGET user:2 user:3: fill +0", "GET user:1: fill +0")
}
