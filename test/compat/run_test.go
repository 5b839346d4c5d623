//go:build compat

package compat

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
)

// exchange is what came of one step.
type exchange struct {
	*step
	got string
}

// run is one run of a script against one target.
type run struct {
	target
	script    *script
	proto     int
	mode      mode
	control   *peer
	peers     map[string]*peer
	variables map[string]string
	waiting   []*step // sent in the same write and not read yet
	unsent    []byte
	done      []exchange
}

func (g target) run(s *script, proto int, m mode) (_ []exchange, err error) {
	r := &run{target: g, script: s, proto: proto, mode: m, peers: map[string]*peer{}, variables: map[string]string{}}
	defer func() {
		for _, p := range r.peers {
			p.Close()
		}
	}()
	if err = g.empty(); err != nil {
		return nil, fmt.Errorf("empty redis: %w", err)
	}
	if r.control, err = g.control(); err != nil {
		return nil, err
	}
	defer r.control.Close()
	for i := range s.steps {
		if err := r.step(&s.steps[i]); err != nil {
			return r.done, fmt.Errorf("line %d: %s: %w", s.steps[i].line, s.steps[i].text, err)
		}
	}
	if err := r.flush(); err != nil {
		return r.done, err
	}
	for name, p := range r.peers {
		p.CloseWrite() //nolint:errcheck // then reading fails
		left, err := p.rest()
		if err != nil {
			return r.done, fmt.Errorf("connection %s was not closed: %w", name, err)
		}
		if len(left) > 0 {
			return r.done, fmt.Errorf("connection %s had %.300q left", name, left)
		}
	}
	return r.done, nil
}

// step performs one step. Commands are gathered as long as they are one connection's, if the mode is pipelined.
func (r *run) step(st *step) error {
	gather := r.mode == pipelined && len(r.waiting) > 0 && r.waiting[0].conn == st.conn && !st.usesVariables() &&
		(st.verb == send || st.verb == sendRaw)
	if !gather {
		if err := r.flush(); err != nil {
			return err
		}
	}
	if st.verb == await {
		args := make([]string, len(st.args))
		for i, w := range st.args {
			args[i] = w.text
		}
		return until(r.control, args[0], args[1:]...)
	}
	p, err := r.peer(st.conn)
	if err != nil {
		return err
	}
	switch st.verb {
	case send, sendRaw:
		wire, err := st.wire(r.variables)
		if err != nil {
			return err
		}
		r.unsent = append(r.unsent, wire...)
		r.waiting = append(r.waiting, st)
		if r.mode != pipelined || st.keep != "" {
			return r.flush()
		}
		return nil
	case read:
		return r.replies(p, st)
	case find:
		for {
			b, err := p.frame()
			if err != nil {
				return err
			}
			if bytes.Contains(b, []byte(st.args[0].text)) {
				r.note(st, b)
				return nil
			}
		}
	case silent:
		r.done = append(r.done, exchange{st, string(p.arrived())})
	case eof:
		b, err := p.rest()
		r.done = append(r.done, exchange{st, string(b)})
		delete(r.peers, st.conn)
		p.Close()
		return err
	case hangUp:
		delete(r.peers, st.conn)
		return p.Close()
	}
	return nil
}

// peer is the connection of this name.
func (r *run) peer(name string) (*peer, error) {
	if p := r.peers[name]; p != nil {
		return p, nil
	}
	p, err := connect(r.addr)
	if err != nil {
		return nil, err
	}
	r.peers[name] = p
	if r.proto == 3 {
		args := []string{"HELLO", "3"}
		if r.pass != "" && r.script.proto == 0 {
			args = append(args, "AUTH", "default", r.pass)
		}
		reply, err := p.do(args...)
		if err != nil || reply[0] != '%' {
			return nil, fmt.Errorf("HELLO 3: %s %w", reply, err)
		}
	}
	return p, nil
}

// flush writes what is gathered in one go and reads all replies afterwards.
func (r *run) flush() error {
	if len(r.waiting) == 0 {
		return nil
	}
	p := r.peers[r.waiting[0].conn]
	waiting := r.waiting
	r.waiting = nil
	err := p.write(r.unsent)
	r.unsent = nil
	if err != nil {
		return err
	}
	for _, st := range waiting {
		for range st.times {
			if err := r.replies(p, st); err != nil {
				return fmt.Errorf("line %d: %s: %w", st.line, st.text, err)
			}
		}
	}
	return nil
}

// replies reads what a step is answered with.
func (r *run) replies(p *peer, st *step) error {
	for range st.replies {
		b, err := p.frame()
		if err != nil {
			return fmt.Errorf("after %.300q: %w", b, err)
		}
		if st.keep != "" {
			r.variables[st.keep] = payload(b)
		}
		r.note(st, b)
	}
	return nil
}

func (r *run) note(st *step, b []byte) {
	got := string(b)
	for _, name := range st.normal {
		got = normalisers[name]([]byte(got))
	}
	r.done = append(r.done, exchange{st, got})
}

// compare runs a script against both targets and fails the test where they differ.
func (p pair) compare(t *testing.T, s *script, proto int, m mode) {
	t.Helper()
	var want, got []exchange
	var wantErr, gotErr error
	var both sync.WaitGroup
	both.Go(func() { want, wantErr = p.direct.run(s, proto, m) })
	both.Go(func() { got, gotErr = p.keyrow.run(s, proto, m) })
	both.Wait()
	if wantErr != nil {
		t.Fatalf("testdata/scripts/%s.txt:%d: the script does not fit redis itself: %v%s", s.file, s.line, wantErr, show(want))
	}
	for i, w := range want {
		if i >= len(got) {
			break
		}
		if g := got[i]; g.got != w.got {
			t.Errorf("testdata/scripts/%s.txt:%d: %s\n redis %.2000q\nkeyrow %.2000q", s.file, w.line, w.text, w.got, g.got)
			return
		}
	}
	if gotErr != nil {
		t.Errorf("testdata/scripts/%s.txt:%d: through keyrow: %v", s.file, s.line, gotErr)
	}
	if testing.Verbose() && !t.Failed() {
		t.Log(show(want))
	}
}

func show(done []exchange) string {
	var b strings.Builder
	for _, x := range done {
		fmt.Fprintf(&b, "\n%-60.200s %.300q", x.text, x.got)
	}
	return b.String()
}
