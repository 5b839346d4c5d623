package main

import (
	"bufio"
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/alicebob/miniredis/v2/server"
)

// command is one row of COMMAND, as Redis before 7.0 shows it.
type command struct {
	name              string
	arity             int64
	flags             []string
	first, last, step int64
}

// later are commands miniredis has and its COMMAND, which is that of Redis 5, has not.
var later = []command{
	{"blmove", 6, []string{"write", "noscript"}, 1, 2, 1},
	{"bzmpop", -5, []string{"write", "noscript", "movablekeys"}, 0, 0, 0},
	{"copy", -3, []string{"write"}, 1, 2, 1},
	{"eval_ro", -3, []string{"noscript", "readonly", "movablekeys"}, 0, 0, 0},
	{"evalsha_ro", -3, []string{"noscript", "readonly", "movablekeys"}, 0, 0, 0},
	{"expiretime", 2, []string{"readonly", "fast"}, 1, 1, 1},
	{"geosearch", -7, []string{"readonly"}, 1, 1, 1},
	{"getdel", 2, []string{"write", "fast"}, 1, 1, 1},
	{"getex", -2, []string{"write", "fast"}, 1, 1, 1},
	{"hello", -1, []string{"noscript", "fast"}, 0, 0, 0},
	{"hexpire", -6, []string{"write", "fast"}, 1, 1, 1},
	{"hpersist", -5, []string{"write", "fast"}, 1, 1, 1},
	{"hpttl", -5, []string{"readonly", "fast"}, 1, 1, 1},
	{"hrandfield", -2, []string{"readonly"}, 1, 1, 1},
	{"hsetex", -6, []string{"write", "fast"}, 1, 1, 1},
	{"httl", -5, []string{"readonly", "fast"}, 1, 1, 1},
	{"lmove", 5, []string{"write"}, 1, 2, 1},
	{"lmpop", -4, []string{"write", "movablekeys"}, 0, 0, 0},
	{"lpos", -3, []string{"readonly"}, 1, 1, 1},
	{"pexpiretime", 2, []string{"readonly", "fast"}, 1, 1, 1},
	{"quit", -1, []string{"noscript", "fast"}, 0, 0, 0},
	{"reset", 1, []string{"noscript", "fast"}, 0, 0, 0},
	{"sintercard", -3, []string{"readonly", "movablekeys"}, 0, 0, 0},
	{"smismember", -3, []string{"readonly", "fast"}, 1, 1, 1},
	{"xautoclaim", -6, []string{"write", "fast"}, 1, 1, 1},
	{"zinter", -3, []string{"readonly", "movablekeys"}, 0, 0, 0},
	{"zmpop", -4, []string{"write", "movablekeys"}, 0, 0, 0},
	{"zmscore", -3, []string{"readonly", "fast"}, 1, 1, 1},
	{"zrandmember", -2, []string{"readonly"}, 1, 1, 1},
	{"zunion", -3, []string{"readonly", "movablekeys"}, 0, 0, 0},
	{"acl", -2, []string{"noscript"}, 0, 0, 0},
	{"config", -2, []string{"noscript"}, 0, 0, 0},
}

// blocking are the commands that may wait; Redis 5 had no flag for them.
var blocking = map[string]bool{
	"blmove": true, "blpop": true, "brpop": true, "brpoplpush": true, "bzmpop": true, "bzpopmax": true, "bzpopmin": true,
	"xread": true, "xreadgroup": true,
}

// commandTable is what COMMAND answers: the rows of miniredis for commands it really has, and those it lacks.
func commandTable(srv *server.Server) ([]command, error) {
	var raw bytes.Buffer
	w := bufio.NewWriter(&raw)
	srv.Dispatch(server.NewPeer(w), []string{"COMMAND"})
	if err := w.Flush(); err != nil {
		return nil, err
	}
	reply, err := readReply(bufio.NewReader(&raw))
	if err != nil {
		return nil, fmt.Errorf("command: %w", err)
	}
	rows, _ := reply.([]any)
	var table []command
	for _, row := range rows {
		c, ok := parseRow(row)
		if !ok {
			return nil, fmt.Errorf("command: %v is no row", row)
		}
		if srv.IsRegisteredCommand(c.name) {
			table = append(table, c)
		}
	}
	table = append(table, later...)
	for i, c := range table {
		if blocking[c.name] {
			table[i].flags = append(slices.Clone(c.flags), "blocking")
		}
	}
	return table, nil
}

func parseRow(row any) (c command, ok bool) {
	fields, _ := row.([]any)
	if len(fields) != 6 {
		return c, false
	}
	c.name, _ = fields[0].(string)
	flags, _ := fields[2].([]any)
	for _, f := range flags {
		flag, _ := f.(status)
		c.flags = append(c.flags, string(flag))
	}
	for i, n := range map[int]*int64{1: &c.arity, 3: &c.first, 4: &c.last, 5: &c.step} {
		if *n, ok = fields[i].(int64); !ok {
			return c, false
		}
	}
	return c, c.name != ""
}

func answerCommand(c *server.Peer, table []command, args []string) {
	if len(args) == 0 {
		c.WriteLen(len(table))
		for _, row := range table {
			row.write(c)
		}
		return
	}
	switch strings.ToUpper(args[0]) {
	case "COUNT":
		c.WriteInt(len(table))
	case "LIST":
		c.WriteLen(len(table))
		for _, row := range table {
			c.WriteBulk(row.name)
		}
	case "INFO":
		c.WriteLen(len(args) - 1)
		for _, name := range args[1:] {
			if row, ok := find(table, name); ok {
				row.write(c)
			} else {
				c.WriteNull()
			}
		}
	case "DOCS":
		c.WriteMapLen(0)
	case "GETKEYS":
		answerKeys(c, table, args[1:])
	default:
		c.WriteError(fmt.Sprintf("ERR unknown subcommand '%s'. Try COMMAND HELP.", args[0]))
	}
}

func find(table []command, name string) (command, bool) {
	for _, row := range table {
		if strings.EqualFold(row.name, name) {
			return row, true
		}
	}
	return command{}, false
}

func (r command) write(c *server.Peer) {
	c.WriteLen(6)
	c.WriteBulk(r.name)
	c.WriteInt(int(r.arity))
	c.WriteLen(len(r.flags))
	for _, f := range r.flags {
		c.WriteInline(f)
	}
	c.WriteInt(int(r.first))
	c.WriteInt(int(r.last))
	c.WriteInt(int(r.step))
}

// answerKeys is COMMAND GETKEYS for commands with keys at fixed places, and for those that count them before.
func answerKeys(c *server.Peer, table []command, cmd []string) {
	if len(cmd) == 0 {
		c.WriteError("ERR wrong number of arguments for 'command|getkeys' command")
		return
	}
	row, ok := find(table, cmd[0])
	if !ok {
		c.WriteError("ERR Invalid command specified")
		return
	}
	keys := row.keys(cmd)
	if len(keys) == 0 {
		c.WriteError("ERR The command has no key arguments")
		return
	}
	c.WriteStrings(keys)
}

// counted says before which argument the number of keys stands.
var counted = map[string]int{
	"eval": 2, "evalsha": 2, "eval_ro": 2, "evalsha_ro": 2, "zunion": 1, "zinter": 1, "sintercard": 1, "lmpop": 1,
	"zmpop": 1, "bzmpop": 2,
}

func (r command) keys(cmd []string) []string {
	if at, ok := counted[r.name]; ok {
		n := 0
		if len(cmd) > at {
			fmt.Sscan(cmd[at], &n)
		}
		return cmd[min(at+1, len(cmd)):min(max(at+1+n, 0), len(cmd))]
	}
	if r.first <= 0 || r.step <= 0 {
		return nil
	}
	last := int(r.last)
	if last < 0 {
		last += len(cmd)
	}
	var keys []string
	for i := int(r.first); i <= last && i < len(cmd); i += int(r.step) {
		keys = append(keys, cmd[i])
	}
	return keys
}
