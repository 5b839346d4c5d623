//go:build compat

// Package compat holds keyrow against Redis: scripts of commands whose replies must be the same bytes, real clients
// in several languages, and faults.
package compat

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// script is a conversation of one or more clients with a server. The files in testdata/scripts hold many:
//
//	== name                       a script begins; those of a file run one after the other on emptied servers
//	@proto 3                      only in RESP3 (2: only in RESP2); else in both
//	@mode steps                   only one command after the other (pipeline: only pipelined); else both, see [mode]
//	@redis --requirepass secret   on servers of its own, with options
//	@readonly                     with a mapping that only reads, so that keyrow lets FLUSHALL pass
//
//	a SET k v                     connection a, opened on first use, sends a command and reads one reply
//	a =3 SUBSCRIBE x y z          … and reads three replies, pushes included; =0 reads none
//	a ~sort SMEMBERS s            the reply is compared after the normaliser sort, see [normalisers]
//	a x100 INCR n                 a hundred of them
//	a $p DUMP k                   keeps the payload of the reply for later: a RESTORE k2 0 $p
//	a raw "PING\r\n"              sends these very bytes
//	a <                           reads a reply; a =2 < reads two
//	a find text                   reads replies up to one that contains text, and compares only that
//	a -                           nothing is there to be read
//	a eof                         reads what is left until the server closes
//	a close                       closes the connection
//	until text COMMAND …          waits until Redis itself answers the command with a reply that contains text
//
// Words are separated by blanks; "…" knows \n \r \t \" \\ \xHH, and {1000*ab} is a thousand times ab. At the end every
// connection is closed, and what it had still not read is compared as well.
type script struct {
	file, name string
	line       int
	proto      int
	only       mode
	redis      []string
	readonly   bool
	steps      []step
}

func (s *script) String() string { return s.file + "/" + s.name }

type step struct {
	line    int
	text    string
	conn    string
	verb    verb
	args    []word
	replies int
	normal  []string
	keep    string // variable for the payload
	times   int
}

type verb int

const (
	send verb = iota
	sendRaw
	read
	find
	silent
	eof
	hangUp
	await
)

var verbs = map[string]verb{"raw": sendRaw, "<": read, "find": find, "-": silent, "eof": eof, "close": hangUp}

// word is an argument, or the name of a variable.
type word struct {
	text     string
	variable bool
}

// mode is how consecutive commands of one connection are sent.
type mode int

const (
	either    mode = iota
	steps          // each when the one before is answered
	pipelined      // all in one write, before any reply is read
)

func (m mode) String() string { return [...]string{"either", "steps", "pipeline"}[m] }

func loadScripts(t testing.TB) []*script {
	t.Helper()
	files, err := filepath.Glob("testdata/scripts/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	var all []*script
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		found, err := parseScripts(strings.TrimSuffix(filepath.Base(path), ".txt"), string(text))
		if err != nil {
			t.Fatalf("%s:%v", path, err)
		}
		all = append(all, found...)
	}
	return all
}

func parseScripts(file, text string) ([]*script, error) {
	var all []*script
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		var err error
		switch name, isHead := strings.CutPrefix(line, "== "); {
		case line == "" || line[0] == '#':
		case isHead:
			if slices.ContainsFunc(all, func(s *script) bool { return s.name == name }) {
				err = fmt.Errorf("a second script %q", name)
			}
			all = append(all, &script{file: file, name: name, line: n})
		case len(all) == 0:
			err = fmt.Errorf("a step before the first script")
		case line[0] == '@':
			err = all[len(all)-1].directive(strings.Fields(line[1:]))
		default:
			var st step
			if st, err = parseStep(line); err == nil {
				st.line = n
				s := all[len(all)-1]
				s.steps = append(s.steps, st)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%d: %w", n, err)
		}
	}
	return all, nil
}

func (s *script) directive(f []string) error {
	switch {
	case len(f) == 2 && f[0] == "proto" && (f[1] == "2" || f[1] == "3"):
		s.proto = int(f[1][0] - '0')
	case len(f) == 2 && f[0] == "mode" && f[1] == "steps":
		s.only = steps
	case len(f) == 2 && f[0] == "mode" && f[1] == "pipeline":
		s.only = pipelined
	case len(f) > 1 && f[0] == "redis":
		s.redis = f[1:]
	case len(f) == 1 && f[0] == "readonly":
		s.readonly = true
	default:
		return fmt.Errorf("unknown directive %v", f)
	}
	return nil
}

var isConn = regexp.MustCompile(`^[a-z][0-9]?$`)

func parseStep(line string) (step, error) {
	st := step{text: line, replies: 1, times: 1}
	words, err := split(line)
	if err != nil {
		return st, err
	}
	if words[0].text == "until" && len(words) > 2 {
		st.verb, st.args = await, words[1:]
		return st, nil
	}
	st.conn = words[0].text
	if !isConn.MatchString(st.conn) || len(words) < 2 {
		return st, fmt.Errorf("not a step: %s", line)
	}
	rest := words[1:]
	for len(rest) > 1 {
		w := rest[0].text
		n, notNumber := strconv.Atoi(strings.TrimLeft(w, "=x"))
		switch {
		case w[0] == '=' && notNumber == nil:
			st.replies = n
		case w[0] == 'x' && notNumber == nil:
			st.times = n
		case w[0] == '~':
			if normalisers[w[1:]] == nil {
				return st, fmt.Errorf("unknown normaliser %s", w)
			}
			st.normal = append(st.normal, w[1:])
		case rest[0].variable:
			st.keep = w
		default:
			n = -1
		}
		if n == -1 {
			break
		}
		rest = rest[1:]
	}
	if v, ok := verbs[rest[0].text]; ok {
		st.verb, rest = v, rest[1:]
	}
	if st.args = rest; (st.verb == send || st.verb == sendRaw || st.verb == find) && len(rest) == 0 {
		return st, fmt.Errorf("nothing to send: %s", line)
	}
	return st, nil
}

var isRepeated = regexp.MustCompile(`^\{(\d+)\*(.*)\}$`)

func split(line string) ([]word, error) {
	var words []word
	for {
		line = strings.TrimLeft(line, " \t")
		switch {
		case line == "":
			return words, nil
		case line[0] == '"':
			quoted, err := strconv.QuotedPrefix(line)
			if err != nil {
				return nil, fmt.Errorf("unbalanced quotes: %s", line)
			}
			text, _ := strconv.Unquote(quoted)
			words = append(words, word{text: text})
			line = line[len(quoted):]
			continue
		}
		end := strings.IndexAny(line, " \t")
		if end < 0 {
			end = len(line)
		}
		w := word{text: line[:end]}
		line = line[end:]
		if m := isRepeated.FindStringSubmatch(w.text); m != nil {
			n, _ := strconv.Atoi(m[1])
			if text, err := strconv.Unquote(m[2]); err == nil {
				m[2] = text
			}
			w.text = strings.Repeat(m[2], n)
		} else if len(w.text) > 1 && w.text[0] == '$' {
			w = word{w.text[1:], true}
		}
		words = append(words, w)
	}
}

// usesVariables says that the step cannot be sent before earlier replies are read.
func (st *step) usesVariables() bool {
	return slices.ContainsFunc(st.args, func(w word) bool { return w.variable })
}

// wire is what the step sends.
func (st *step) wire(variables map[string]string) ([]byte, error) {
	args := make([]string, len(st.args))
	for i, w := range st.args {
		args[i] = w.text
		if w.variable {
			v, ok := variables[w.text]
			if !ok {
				return nil, fmt.Errorf("$%s is not known", w.text)
			}
			args[i] = v
		}
	}
	if st.verb == sendRaw {
		return []byte(strings.Join(args, "")), nil
	}
	return bytes.Repeat(encode(args...), st.times), nil
}

// TestScriptParser reads one of everything.
func TestScriptParser(t *testing.T) {
	found, err := parseScripts("f", `
== one
@proto 3
a =2 ~sort $v x3 SET "a b\x00" {3*xy} $w
a =2 <
until :1 EXISTS k
`)
	if err != nil || len(found) != 1 || len(found[0].steps) != 3 || found[0].proto != 3 {
		t.Fatalf("%v %v", found, err)
	}
	st := found[0].steps[0]
	if st.replies != 2 || st.times != 3 || st.keep != "v" || st.normal[0] != "sort" || !st.usesVariables() {
		t.Errorf("%+v", st)
	}
	wire, err := st.wire(map[string]string{"w": "W"})
	if want := strings.Repeat("*4\r\n$3\r\nSET\r\n$4\r\na b\x00\r\n$6\r\nxyxyxy\r\n$1\r\nW\r\n", 3); string(wire) != want {
		t.Errorf("%q %v", wire, err)
	}
	for _, bad := range []string{"a SET", "== x\nSET k v", "== x\na ~no GET k", "== x\n@proto 4", "== x\na GET \"k", "== x\n== x"} {
		if _, err := parseScripts("f", bad); err == nil {
			t.Errorf("took %q", bad)
		}
	}
}
