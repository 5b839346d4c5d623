package proxy

import "testing"

// What is loaded for a command is seen by running it again, also when nothing else is under way then.
func TestViewRunsAgain(t *testing.T) {
	r := newRig(t, nil)
	up := r.upstream()
	c := r.client()
	c.send("STRLEN user:1", "PING")
	r.writing()
	up.expect("STRLEN user:1")
	up.expect("PING")
	up.send(":0\r\n+PONG\r\n")
	checked := func(reply string) {
		t.Helper()
		for _, want := range []string{"MULTI", "STRLEN user:1", "EXISTS user:1", "EXEC"} {
			up.expect(want)
		}
		up.send("+OK\r\n+QUEUED\r\n+QUEUED\r\n" + reply)
	}
	checked("*2\r\n:0\r\n:0\r\n")
	(<-r.loader.loads).done([]byte{}, nil)
	checked("*2\r\n:5\r\n:1\r\n")
	c.expect(":5\r\n+PONG\r\n")
}

func TestSaysNothing(t *testing.T) {
	for reply, want := range map[string]bool{
		"$-1\r\n": true, "_\r\n": true, "*-1\r\n": true, "*0\r\n": true, "%0\r\n": true, "~0\r\n": true,
		"$0\r\n\r\n": true, ":0\r\n": true, ":-1\r\n": true, ":-2\r\n": true, "+none\r\n": true, ",0\r\n": true,
		"*2\r\n$-1\r\n_\r\n":                 true,
		"*2\r\n:0\r\n:0\r\n":                 true,
		"*2\r\n$1\r\n0\r\n*0\r\n":            true, // HSCAN
		"*1\r\n$0\r\n\r\n":                   true,
		"$1\r\n0\r\n":                        false,
		"$1\r\n1\r\n":                        false,
		"$2\r\n\r\n\r\n":                     false,
		":1\r\n":                             false,
		":-3\r\n":                            false,
		":9223372036854775807\r\n":           false,
		",0.5\r\n":                           false,
		",inf\r\n":                           false,
		"#t\r\n":                             false,
		"+string\r\n":                        false,
		"-ERR no\r\n":                        false,
		"-NOPERM no\r\n":                     false,
		"*2\r\n$-1\r\n$1\r\nx\r\n":           false,
		"*2\r\n$1\r\n0\r\n*1\r\n$1\r\na\r\n": false,
		"%1\r\n$1\r\n0\r\n$1\r\n1\r\n":       false,
		"*2\r\n:0\r\n:1\r\n":                 false,
		"=7\r\ntxt:abc\r\n":                  false,
	} {
		if got := saysNothing([]byte(reply)); got != want {
			t.Errorf("%q: %v", reply, got)
		}
	}
}
