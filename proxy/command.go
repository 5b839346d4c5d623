package proxy

import (
	"bytes"
	"fmt"
	"strings"
)

// Commands is the command table of the Redis that keyrow stands in front of: what each command does and where its
// keys are, module commands included. It is read from COMMAND and never changes.
type Commands struct {
	byName  map[string]*command
	maxArgs int // arguments that Redis takes
}

// command is one row of the table. Subcommands have rows of their own.
type command struct {
	name   string // upper case, as in errors: "SET", "CLIENT SETNAME"
	arity  int    // arguments with the name; negative: at least as many; 0: not known
	handle handler
	queued handler // the same inside MULTI; nil queues it
	writes bool    // may change what its keys hold
	reads  bool    // changes nothing, so it may be run twice
	keys   []keySpec
	// telling says that it has one key and that its reply tells whether that is there: see saysNothing.
	telling bool
	// scan says that the specs do not tell all keys, so any argument may be one.
	scan bool
	// forRows says that handle and queued are about mapped keys, and forward what has none.
	forRows bool
	// onlyKey says that the first argument is the only key.
	onlyKey bool
	subs    map[string]*command
	sub     bool // a subcommand
	listed  bool // Redis listed the subcommands
	group   group
	fast    bool // Redis calls it that: it takes no longer with more keys or larger values
	// secrets tells which arguments nobody else may see; nil: none.
	secrets func(args [][]byte, i int) bool
}

// handler is how a session treats a command; nil forwards it, once its keys are found harmless.
type handler func(s *session, c *command, req request)

// keySpec finds keys among a command's arguments, as described at https://redis.io/docs/latest/develop/reference/key-specs/.
type keySpec struct {
	index   int    // where the search begins …
	keyword string // … or, if not empty, behind this word, sought from from
	from    int    // negative: from the end backwards

	keynum bool // the number of keys stands at begin+numIdx, the keys from begin+first
	numIdx int
	first  int
	last   int // range: the last key, relative to begin; negative: relative to the last argument
	step   int
	limit  int // range with negative last: only the first 1/limit of the arguments from begin on, if above 1
}

// longName is longer than any command's name; longer ones are unknown to the table.
const longName = 32

// find returns the row for a command, or nil if Redis does not know it either.
func (t *Commands) find(args [][]byte) *command {
	c := lookup(t.byName, args[0])
	if c != nil && c.subs != nil && len(args) > 1 {
		if sub := lookup(c.subs, args[1]); sub != nil {
			return sub
		}
	}
	return c
}

func lookup(m map[string]*command, name []byte) *command {
	var low [longName]byte
	if len(name) > len(low) {
		return nil
	}
	for i, b := range name {
		if 'A' <= b && b <= 'Z' {
			b += 'a' - 'A'
		}
		low[i] = b
	}
	return m[string(low[:len(name)])]
}

// fits reports whether Redis takes that many arguments for the command.
func (c *command) fits(args [][]byte) bool {
	return c.arity == 0 || len(args) == c.arity || c.arity < 0 && len(args) >= -c.arity
}

// visit calls f for every key of the command, and for everything that could be one where the table does not tell.
// It stops when f returns false.
func (c *command) visit(args [][]byte, f func(key []byte) bool) {
	if c.scan {
		for _, a := range args[1:] {
			if !f(a) {
				return
			}
		}
		return
	}
	for i := range c.keys {
		if !c.keys[i].visit(args, f) {
			return
		}
	}
}

func (k *keySpec) visit(args [][]byte, f func(key []byte) bool) bool {
	begin := k.index
	if k.keyword != "" {
		if begin = k.find(args); begin < 0 {
			return true
		}
	}
	first, last, step := begin, 0, max(k.step, 1)
	switch {
	case k.keynum:
		at := begin + k.numIdx
		if at >= len(args) {
			return true
		}
		n, ok := parseInt(args[at])
		if !ok || n <= 0 || n > int64(len(args)) {
			return true // Redis refuses it
		}
		first = begin + k.first
		last = first + (int(n)-1)*step
	case k.last >= 0:
		last = begin + k.last
	default:
		last = len(args) + k.last
		if k.limit > 1 {
			last = begin + (len(args)-begin)/k.limit + k.last
		}
	}
	for i := first; i <= last && i < len(args); i += step {
		if !f(args[i]) {
			return false
		}
	}
	return true
}

// plain reports whether the spec is for the first argument alone.
func (k *keySpec) plain() bool { return k.index == 1 && k.keyword == "" && !k.keynum && k.last == 0 }

func (k *keySpec) find(args [][]byte) int {
	i, step := k.from, 1
	if i < 0 {
		i, step = len(args)+i, -1
	}
	for ; i > 0 && i < len(args); i += step {
		if len(args[i]) == len(k.keyword) && bytes.EqualFold(args[i], []byte(k.keyword)) {
			return i + 1
		}
	}
	return -1
}

// ParseCommands reads the reply of COMMAND: arrays of [name, arity, flags, first key, last key, step, …, key specs,
// subcommands], the last two since Redis 7.
func ParseCommands(reply []any) (*Commands, error) {
	t := &Commands{byName: make(map[string]*command, len(reply)), maxArgs: maxArgsBefore}
	for _, row := range reply {
		if len(list(row)) > 9 { // as since Redis 7
			t.maxArgs = maxArgs
		}
		c, name, err := parseCommand(row)
		if err != nil {
			return nil, err
		}
		t.byName[name] = c
	}
	if t.byName["set"] == nil {
		return nil, fmt.Errorf("redis answered COMMAND without a row for SET, so keys cannot be told from other arguments")
	}
	t.install()
	return t, nil
}

func parseCommand(row any) (*command, string, error) {
	f, _ := row.([]any)
	if len(f) < 6 {
		return nil, "", fmt.Errorf("redis answered COMMAND with a row that is not understood: %.80v", row)
	}
	name, _ := f[0].(string)
	c := &command{name: strings.ToUpper(strings.ReplaceAll(name, "|", " ")), sub: strings.Contains(name, "|")}
	c.arity, c.group = number(f[1]), groupOther
	if len(f) > 6 {
		c.group = groupOf(words(f[6]))
	}
	flags := words(f[2])
	c.writes, c.reads, c.fast = flags["write"], flags["readonly"], flags["fast"]
	movable := flags["movablekeys"]
	if flags["blocking"] {
		c.handle = (*session).block
	}
	if len(f) > 8 {
		for _, spec := range list(f[8]) {
			k, complete := parseKeySpec(spec)
			if !complete {
				c.scan = true
			}
			if k != nil {
				c.keys = append(c.keys, *k)
			}
		}
	} else if first := number(f[3]); first > 0 {
		c.keys = []keySpec{{index: first, last: legacyLast(first, number(f[4])), step: number(f[5])}}
		c.scan = movable
	} else {
		c.scan = movable
	}
	c.onlyKey = !c.scan && len(c.keys) == 1 && c.keys[0].plain()
	if len(f) > 9 {
		for _, sub := range list(f[9]) {
			sc, subName, err := parseCommand(sub)
			if err != nil {
				return nil, "", err
			}
			if c.subs == nil {
				c.subs, c.listed = map[string]*command{}, true
			}
			_, short, _ := strings.Cut(subName, "|")
			c.subs[short] = sc
		}
	}
	return c, strings.ToLower(name), nil
}

// legacyLast turns an absolute last key into one relative to the first.
func legacyLast(first, last int) int {
	if last < 0 {
		return last
	}
	return last - first
}

// parseKeySpec reads one key specification; complete is false where other keys may hide.
func parseKeySpec(spec any) (k *keySpec, complete bool) {
	m := dict(spec)
	flags := words(m["flags"])
	complete = !flags["incomplete"]
	begin, find := dict(m["begin_search"]), dict(m["find_keys"])
	bs, fs := dict(begin["spec"]), dict(find["spec"])
	k = &keySpec{}
	switch begin["type"] {
	case "index":
		k.index = number(bs["index"])
	case "keyword":
		k.keyword, _ = bs["keyword"].(string)
		k.from = number(bs["startfrom"])
	default:
		return nil, false
	}
	switch find["type"] {
	case "range":
		k.last, k.step, k.limit = number(fs["lastkey"]), number(fs["keystep"]), number(fs["limit"])
	case "keynum":
		k.keynum, k.numIdx, k.first, k.step = true, number(fs["keynumidx"]), number(fs["firstkey"]), number(fs["keystep"])
	default:
		return nil, false
	}
	return k, complete
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}

func number(v any) int {
	n, _ := v.(int64)
	return int(n)
}

func words(v any) map[string]bool {
	m := map[string]bool{}
	for _, w := range list(v) {
		if s, ok := w.(string); ok {
			m[strings.ToLower(s)] = true
		}
	}
	return m
}

// dict reads a map, which RESP2 gives as a flat array.
func dict(v any) map[string]any {
	m := map[string]any{}
	l := list(v)
	for i := 0; i+1 < len(l); i += 2 {
		if name, ok := l[i].(string); ok {
			m[name] = l[i+1]
		}
	}
	return m
}
