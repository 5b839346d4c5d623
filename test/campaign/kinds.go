package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"

	"keyrow/test/harness"
	"keyrow/test/history"
)

// kind is a mapping onto a table of its own, whose rows hold one number, so that a key is a register.
type kind struct {
	name  string // of the mapping and its table
	value string // json, string or hash
	extra string // of its configuration
	does  []string
}

// The images are in Redis for a moment only, so that what is read is often read from MySQL.
var kinds = []kind{
	{"doc", "json", "", []string{"read", "read", "SET", "SET", "SET gone", "SET GET", "DEL", "DEL SET", "two"}},
	{"counter", "string", "", []string{"read", "INCR", "INCR", "INCR", "SET", "SET GET", "DEL", "DEL SET"}},
	{"tally", "hash", "", []string{"read", "HSET", "HSET", "HINCRBY", "HINCRBY", "DEL"}},
	{"sure", "json", "write = \"through\"", []string{"read", "read", "SET", "DEL"}},
	{"absent", "json", "on_absent = \"through\"", []string{"read", "SET", "SET gone", "SET gone", "DEL"}},
}

func (k kind) key(id int) string { return k.name + ":" + strconv.Itoa(id) }

// twin reports whether the rows hold their number a second time, so that half a row would show.
func (k kind) twin() bool { return k.value == "json" }

func (k kind) create() string {
	twin := ""
	if k.twin() {
		twin = ", twin VARCHAR(20) NOT NULL"
	}
	return "CREATE TABLE " + k.name + " (id BIGINT NOT NULL PRIMARY KEY, n BIGINT NOT NULL DEFAULT 0" + twin + ")"
}

func (k kind) config() string {
	column := ""
	if k.value == "string" {
		column = `column = "n"`
	}
	return fmt.Sprintf("[[mapping]]\nname = %[1]q\nkey = \"%[1]s:{id}\"\ntable = %[1]q\nvalue = %[2]q\ndelete = \"row\"\n"+
		"ttl = \"100ms\"\nnegative_ttl = \"50ms\"\n%[3]s\n%[4]s\n", k.name, k.value, column, k.extra)
}

func (k kind) rows() harness.Rows {
	rows := harness.Rows{Pattern: k.name + ":{id}", Table: k.name, Value: k.value}
	if k.value == "string" {
		rows.Column = "n"
	}
	return rows
}

func (k kind) image(n string) string {
	if k.twin() {
		return `{"n":` + n + `,"twin":"` + n + `"}`
	}
	return n
}

// number is the number that was read, as history has it.
func (k kind) number(image any) (string, error) {
	text, isText := image.(string)
	switch {
	case image == nil:
		return history.None, nil
	case !isText:
		return "", fmt.Errorf("an image is %v", image)
	case !k.twin():
		return text, nil
	}
	var row struct {
		N    json.Number
		Twin string
	}
	if err := json.Unmarshal([]byte(text), &row); err != nil {
		return "", fmt.Errorf("an image is %s: %w", text, err)
	}
	if row.Twin != row.N.String() {
		return "", fmt.Errorf("half a row: %s", text)
	}
	return row.Twin, nil
}

// command is one of a client, and what its answer tells.
type command struct {
	key  string
	args []any
	op   history.Op                            // but for times and client
	see  func(reply any, op *history.Op) error // what the answer says is put into op
	part bool                                  // of the next one, with which it is one operation
}

// operation is a command, or the commands of a MULTI.
type operation struct {
	multi    bool
	commands []command
}

// choose makes an operation on a key; n is a number that no other has.
func (k kind) choose(random *rand.Rand, key, n string, beside func() (kind, string)) operation {
	what := k.does[random.IntN(len(k.does))]
	switch what {
	case "DEL SET":
		del := k.command("DEL", key, n)
		del.part = true
		return operation{true, []command{del, k.command("SET", key, n)}}
	case "two":
		other, theirs := beside()
		return operation{true, []command{k.command("SET", key, n), other.command("INCR", theirs, "")}}
	}
	return operation{commands: []command{k.command(what, key, n)}}
}

func (k kind) command(what, key, n string) command {
	c := command{key: key, op: history.Op{Name: strings.TrimSpace(what + " " + n)}, see: func(any, *history.Op) error { return nil }}
	saw := func(reply any, op *history.Op) (err error) {
		op.Saw, err = k.number(reply)
		return err
	}
	sum := func(reply any, op *history.Op) error {
		op.Left = fmt.Sprint(reply)
		return nil
	}
	switch what {
	case "read":
		c.op.Name, c.see = "read", saw
		c.args = []any{"GET", key}
		if k.value == "hash" {
			c.args = []any{"HGET", key, "n"}
		}
	case "SET":
		c.args, c.op.Left = []any{"SET", key, k.image(n)}, n
	case "SET gone": // from Redis, as soon as it is in MySQL
		c.args, c.op.Left = []any{"SET", key, k.image(n), "PXAT", 1}, n
	case "SET GET":
		c.args, c.op.Left, c.see = []any{"SET", key, k.image(n), "GET"}, n, saw
	case "HSET":
		c.args, c.op.Left = []any{"HSET", key, "n", n}, n
	case "INCR":
		c.args, c.op.Add, c.see = []any{"INCR", key}, 1, sum
	case "HINCRBY":
		c.args, c.op.Add, c.see = []any{"HINCRBY", key, "n", 1}, 1, sum
	case "DEL":
		c.args, c.op.Left = []any{"DEL", key}, history.None
		c.see = func(reply any, op *history.Op) error {
			if reply == int64(0) { // 1 does not tell: of two that both had to ask MySQL for the row, both may count it
				op.Saw = history.None
			}
			return nil
		}
	}
	return c
}
