package test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"keyrow/test/harness"
	"keyrow/test/history"
)

// cell is a mapping onto a table of its own, whose rows hold one number, so that a key is a register.
type cell struct {
	value  string // json, string or hash
	delete string // cache or row
	extra  string // of its configuration
}

var cells = []cell{
	{"json", "cache", `stale_while_error = "1m"`}, {"json", "row", ""},
	{"string", "cache", ""}, {"string", "row", `stale_while_error = "1m"`},
	{"hash", "cache", ""}, {"hash", "row", `stale_while_error = "1m"`},
}

func (c cell) table() string { return c.value + "_" + c.delete }

func (c cell) key(id int) string { return c.table() + ":" + strconv.Itoa(id) }

// twin reports whether the rows hold their number a second time, so that half a row would show.
func (c cell) twin() bool { return c.value != "string" }

func (c cell) create() string {
	twin := ""
	if c.twin() {
		twin = ", twin VARCHAR(20) NOT NULL DEFAULT '0'"
	}
	return "CREATE TABLE " + c.table() + " (id BIGINT NOT NULL PRIMARY KEY, n BIGINT NOT NULL DEFAULT 0" + twin + ")"
}

// row is what INSERT takes.
func (c cell) row(id int, n string) string {
	if c.twin() {
		return fmt.Sprintf("(%d, %s, '%s')", id, n, n)
	}
	return fmt.Sprintf("(%d, %s)", id, n)
}

func (c cell) config() string {
	column := ""
	if c.value == "string" {
		column = `column = "n"`
	}
	return fmt.Sprintf("[[mapping]]\nname = %[1]q\nkey = \"%[1]s:{id}\"\ntable = %[1]q\nvalue = %[2]q\ndelete = %[3]q\nnegative_ttl = \"1m\"\n%[4]s\n%[5]s\n",
		c.table(), c.value, c.delete, column, c.extra)
}

func (c cell) rows() harness.Rows {
	rows := harness.Rows{Pattern: c.table() + ":{id}", Table: c.table(), Value: c.value}
	if c.value == "string" {
		rows.Column = "n"
	}
	return rows
}

func configOf(cells []cell) string {
	var b strings.Builder
	for _, c := range cells {
		b.WriteString(c.config())
	}
	return b.String()
}

// number is the number an image holds, as history has it.
func (c cell) number(image any) (string, error) {
	fields := map[string]any{}
	switch image := image.(type) {
	case nil:
		return history.None, nil
	case string:
		if c.value == "string" {
			return image, nil
		}
		if err := json.Unmarshal([]byte(image), &fields); err != nil {
			return "", err
		}
	case []any:
		if len(image) == 0 {
			return history.None, nil
		}
		for i := 0; i < len(image); i += 2 {
			fields[image[i].(string)] = image[i+1]
		}
	}
	n := fmt.Sprint(fields["n"])
	if fmt.Sprint(fields["twin"]) != n {
		return "", fmt.Errorf("half a row: %v", fields)
	}
	return n, nil
}

// get is the command that reads an image.
func (c cell) get(key string) []any {
	if c.value == "hash" {
		return []any{"HGETALL", key}
	}
	return []any{"GET", key}
}

// image is n as clients write it.
func (c cell) image(n string) string {
	if c.value == "json" {
		return `{"n":` + n + `,"twin":"` + n + `"}`
	}
	return n
}

// do runs an operation by its name on a key, with the number n if it writes, and tells what it saw and left.
func (c cell) do(ctx context.Context, keyrow, direct *redis.Client, what, key, n string) (saw, left string, err error) {
	run := func(args ...any) (any, error) {
		v, err := keyrow.Do(ctx, args...).Result()
		if err == redis.Nil {
			return nil, nil
		}
		return v, err
	}
	var v any
	switch what {
	case "read":
		if v, err = run(c.get(key)...); err == nil {
			saw, err = c.number(v)
		}
	case "SET":
		_, err = run("SET", key, c.image(n))
		left = n
	case "SET GET":
		if v, err = run("SET", key, c.image(n), "GET"); err == nil {
			saw, err = c.number(v)
		}
		left = n
	case "HSET":
		_, err = run("HSET", key, "n", n, "twin", n)
		left = n
	case "DEL":
		v, err = run("DEL", key)
		if c.delete == "row" {
			// 1 does not tell: of two DELs that both had to ask MySQL for the row, both may count it.
			if left = history.None; v == int64(0) {
				saw = history.None
			}
		}
	case "invalidate":
		_, err = run("KEYROW", "INVALIDATE", key)
	case "flush":
		if v, err = run("KEYROW", "FLUSH", harness.Patience.Milliseconds(), key); err == nil && v != int64(0) {
			err = fmt.Errorf("%v marks are left", v)
		}
	case "expiry":
		err = expire(ctx, direct, key)
	default:
		err = fmt.Errorf("unknown operation %q", what)
	}
	return saw, left, err
}

// clean is a script that has an image expire, unless it is one that Redis may not evict: those have no TTL.
var clean = redis.NewScript(`return redis.call('PTTL', KEYS[1]) > 0 and redis.call('PEXPIRE', KEYS[1], 1)`)

// expire returns when the image that is there now has expired, if it is one that may.
func expire(ctx context.Context, direct *redis.Client, key string) error {
	n, err := clean.Run(ctx, direct, []string{key}).Int()
	if err == redis.Nil || n == 0 {
		return nil
	}
	return harness.Wait(func() error {
		left, err := direct.PTTL(ctx, key).Result()
		if err == nil && left >= 0 && left.Milliseconds() <= 1 {
			err = fmt.Errorf("%s has not expired", key)
		}
		return err
	})
}

// A case of TestInterleavings has a key to itself. It is brought into a state, then one operation is held at a point
// while up to two others run, then that one goes on. Cases with the same state, operation and point go together, as keys
// of one round of a load or of one sweep, which makes thousands of cases affordable.

// states are what a key is in before: the number it holds, and how it comes about.
var states = map[string]string{"none": history.None, "negative": history.None, "row": "1", "image": "1", "new": "2", "dirty": "2", "deleted": history.None}

var loadPoints = []string{"load.granted", "load.selected", "load.filled"}
var flushPoints = []string{"flush.swept", "flush.read", "flush.before-commit", "flush.committed", "flush.settled"}

// mostRounds is how many rounds of loads of one mapping a process has under way at most.
const mostRounds = 4

// holds are the operations that are held, the points they pass and the states in which they do.
var holds = []struct {
	what           string
	points, states []string
}{
	{"read", loadPoints, []string{"none", "row"}},
	{"SET GET", loadPoints, []string{"none", "row"}},
	{"HSET", loadPoints, []string{"none", "row"}},
	{"DEL", loadPoints, []string{"none", "row"}},
	{"SET", []string{"set.before-exec"}, []string{"none", "row", "image", "dirty", "deleted"}},
	{"flush", flushPoints, []string{"new", "dirty", "deleted"}},
}

// operations are what runs beside the one that is held.
func (c cell) operations() []string {
	if c.value == "hash" {
		return []string{"read", "HSET", "DEL", "flush", "expiry", "invalidate"}
	}
	return []string{"read", "SET", "SET GET", "DEL", "flush", "expiry", "invalidate"}
}

// passes reports whether an operation on a mapping of this kind passes the points it has in holds.
func (c cell) passes(what string) bool {
	switch what {
	case "SET", "SET GET":
		return c.value != "hash"
	case "HSET":
		return c.value == "hash"
	case "DEL":
		return c.delete == "row" // the other needs no row
	}
	return true
}

// interleaving is what all cases share.
type interleaving struct {
	*shop
	other *shop // a second process
	hooks *harness.Hooks
	pools map[*shop]*redis.Client
	log   history.Recorder
	ids   int // used so far
	last  atomic.Int64
	cases int
}

// oneCase is one key and what runs on it while another operation is held.
type oneCase struct {
	id   int
	key  string
	then []string
	via  *shop
}

// Whatever of {read, write, delete, flush, expiry, invalidate} meets on one key at whatever points, each reader gets what
// was last acknowledged, and in the end the image is that, and so is the row.
func TestInterleavings(t *testing.T) {
	t.Parallel()
	points := slices.Concat(loadPoints, flushPoints, []string{"set.before-exec"})
	x := &interleaving{hooks: harness.NewHooks(t, points...)}
	x.last.Store(1000)
	x.hooks.Arm()
	// Nothing is flushed but when a case says so.
	x.shop = newShop(t, harness.Options{Hooks: x.hooks, Config: configOf(cells),
		Set: map[string]string{"journal.partitions": "1", "journal.interval": "1h", "mysql.timeout": "30s"}})
	for _, c := range cells {
		x.sql(c.create())
	}
	x.Start()
	// It is this one that flushes: an owner is not made to hurry by another process.
	harness.Until(t, "the process owns the partition", func() bool { return x.info("owned_partitions") == 1 })
	x.other = x.second(x.hooks)
	x.pools = map[*shop]*redis.Client{x.shop: pool(t, x.Addr), x.other: pool(t, x.other.Addr)}
	for _, c := range cells {
		for _, point := range loadPoints[:2] {
			x.twoLeases(c, point)
		}
		for _, h := range holds {
			if !c.passes(h.what) {
				continue
			}
			for _, state := range h.states {
				if state == "deleted" && c.delete == "cache" {
					continue
				}
				for _, point := range h.points {
					if x.batch(c, state, h.what, point); t.Failed() {
						t.FailNow()
					}
				}
			}
		}
	}
	t.Logf("%d cases", x.cases)
	x.Settled()
	for _, c := range cells {
		x.Equal(c.rows())
	}
}

// pool is a client with a connection for each of hundreds of commands at once.
func pool(t testing.TB, addr string) *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: addr, Protocol: 2, MaxRetries: -1, DisableIdentity: true, PoolSize: 1000,
		ReadTimeout: harness.Patience, WriteTimeout: harness.Patience})
	t.Cleanup(func() { c.Close() })
	return c
}

// make are the cases of one batch: every operation, and every two in turn, through one process or the other.
func (x *interleaving) make(c cell, held string) []*oneCase {
	var cases []*oneCase
	add := func(then ...string) {
		x.ids++
		k := &oneCase{id: x.ids, key: c.key(x.ids), then: then, via: x.shop}
		if x.ids%2 == 0 {
			k.via = x.other
		}
		cases = append(cases, k)
	}
	operations := slices.DeleteFunc(c.operations(), func(what string) bool { return what == "flush" && held == "flush" })
	for _, first := range operations {
		add(first)
		add(first) // through the other process
		for _, second := range operations {
			add(first, second)
		}
	}
	x.cases += len(cases)
	return cases
}

func (x *interleaving) batch(c cell, state, held, point string) {
	x.t.Helper()
	cases := x.make(c, held)
	x.reach(c, state, cases)
	var main, beside sync.WaitGroup // the operations that are held, and the others
	var left atomic.Int64           // cases whose other operations are not done

	var primers []*harness.Stop
	loads := slices.Contains(loadPoints, point)
	switch {
	case held == "flush":
		x.hooks.Arm(point)
		main.Go(func() { x.must(x.shop, c, held, cases[0], 0) })
	case loads:
		// They join while as many rounds as there may be are under way with other keys, and so make up the next.
		x.hooks.Arm("load.filled")
		for i := range mostRounds {
			primer := &oneCase{key: c.key(1<<40 + i), via: x.shop}
			x.Redis.Do("DEL", primer.key, x.prefix+":aux:{"+primer.key+"}")
			main.Go(func() { x.must(x.shop, c, "read", primer, 0) })
			primers = append(primers, x.hooks.Wait("load.filled"))
		}
		x.hooks.Arm()
		for _, k := range cases {
			main.Go(func() { x.must(x.shop, c, held, k, 0) })
		}
		harness.Until(x.t, "all have joined", func() bool { return x.info("waiting_loads") == int64(mostRounds+len(cases)) })
		x.hooks.Arm(point)
		primers[0].Release()
	default:
		x.hooks.Arm(point)
		for _, k := range cases {
			main.Go(func() { x.must(x.shop, c, held, k, 0) })
		}
	}
	stops := []*harness.Stop{x.hooks.Wait(point)}
	if point == "set.before-exec" {
		for range cases[1:] {
			stops = append(stops, x.hooks.Wait(point))
		}
	}
	x.hooks.Arm()

	for _, primer := range primers {
		primer.Release()
	}

	left.Store(int64(len(cases)))
	for _, k := range cases {
		beside.Go(func() {
			defer left.Add(-1)
			for i, what := range k.then {
				x.must(k.via, c, what, k, 1+i)
			}
		})
	}
	harness.Until(x.t, "the others are done, or wait for what is held", func() bool {
		waiting := x.info("waiting_loads") + x.other.info("waiting_loads")
		if loads {
			waiting -= int64(len(cases))
		}
		return waiting >= left.Load()
	})
	for _, stop := range stops {
		stop.Release()
	}
	main.Wait()
	beside.Wait()
	x.end(c, state, held, point, cases)
}

// twoLeases has a read held that lost its lease, and then one of the other process that got another.
func (x *interleaving) twoLeases(c cell, point string) {
	x.t.Helper()
	x.ids++
	write := c.operations()[1]
	k := &oneCase{id: x.ids, key: c.key(x.ids), via: x.other, then: []string{"invalidate", write, "flush", "expiry", "read"}}
	cases := []*oneCase{k}
	x.reach(c, "row", cases)
	var wg sync.WaitGroup
	x.hooks.Arm(point)
	wg.Go(func() { x.must(x.shop, c, "read", k, 0) })
	late := x.hooks.Wait(point)
	x.hooks.Arm()
	for _, what := range k.then[:4] {
		x.must(x.other, c, what, k, 1)
	}
	x.hooks.Arm("load.granted")
	wg.Go(func() { x.must(x.other, c, "read", k, 2) })
	second := x.hooks.Wait("load.granted")
	x.hooks.Arm()
	rejected := x.info("rejected_fills")
	late.Release()
	harness.Until(x.t, "the late fill of "+k.key+" is rejected", func() bool { return x.info("rejected_fills") > rejected })
	second.Release()
	wg.Wait()
	x.end(c, "row", "read", point, cases)
	x.cases++
}

// must runs an operation of a case and records it.
func (x *interleaving) must(via *shop, c cell, what string, k *oneCase, client int) {
	n := strconv.FormatInt(x.last.Add(1), 10)
	if what == "flush" {
		via = x.shop
	}
	op := history.Op{Client: client, Name: what, Call: x.log.Now()}
	var err error
	op.Saw, op.Left, err = c.do(context.Background(), x.pools[via], x.Redis.Client(), what, k.key, n)
	op.Return = x.log.Now()
	if err != nil {
		x.t.Errorf("%s of %s: %v", what, k.key, err)
		return
	}
	x.log.Add(k.key, op)
}

// all runs an operation on the keys of all cases.
func (x *interleaving) all(c cell, what string, cases []*oneCase, client int) {
	var wg sync.WaitGroup
	for _, k := range cases {
		wg.Go(func() { x.must(k.via, c, what, k, client) })
	}
	wg.Wait()
}

// reach brings the keys of cases into a state.
func (x *interleaving) reach(c cell, state string, cases []*oneCase) {
	x.t.Helper()
	if state == "row" || state == "image" || state == "dirty" || state == "deleted" {
		var rows []string
		for _, k := range cases {
			rows = append(rows, c.row(k.id, "1"))
		}
		x.sql("INSERT INTO " + c.table() + " VALUES " + strings.Join(rows, ", "))
	}
	if state == "image" || state == "negative" || state == "deleted" {
		x.quiet(c, cases, "read")
	}
	switch state {
	case "new", "dirty":
		what := "SET"
		if c.value == "hash" {
			what = "HSET"
		}
		x.quiet(c, cases, what)
	case "deleted":
		x.quiet(c, cases, "DEL")
	}
}

// quiet runs an operation on all keys at once that is not part of their history.
func (x *interleaving) quiet(c cell, cases []*oneCase, what string) {
	x.t.Helper()
	var wg sync.WaitGroup
	for _, k := range cases {
		wg.Go(func() {
			if _, _, err := c.do(context.Background(), x.pools[x.shop], x.Redis.Client(), what, k.key, "2"); err != nil {
				x.t.Errorf("%s of %s: %v", what, k.key, err)
			}
		})
	}
	wg.Wait()
}

// end reads each key as it is now, as it is once flushed, and as it is read anew, and checks the histories.
func (x *interleaving) end(c cell, state, held, point string, cases []*oneCase) {
	x.t.Helper()
	x.all(c, "read", cases, 3)
	x.want("0", "KEYROW", "FLUSH", harness.Patience.Milliseconds())
	x.Settled()
	x.images(c, cases)
	x.all(c, "read", cases, 4)
	x.drop(cases)
	x.all(c, "read", cases, 5)
	x.drop(cases)
	for _, k := range cases {
		if err := history.Check(states[state], x.log.Ops(k.key)); err != nil {
			x.t.Errorf("%s, a %s key, %s held at %s, meanwhile %v through process %d: %v", c.table(), state, held, point, k.then, k.id%2, err)
		}
	}
}

// images holds the images in Redis against the rows.
func (x *interleaving) images(c cell, cases []*oneCase) {
	x.t.Helper()
	rows := map[string]string{}
	for _, row := range x.table(fmt.Sprintf("SELECT id, n FROM %s WHERE id >= %d", c.table(), cases[0].id)) {
		rows[row[0]] = row[1]
	}
	for _, k := range cases {
		image := x.Redis.Do(c.get(k.key)...)
		n, err := c.number(image)
		if row := rows[strconv.Itoa(k.id)]; err != nil || n != history.None && n != row {
			x.t.Errorf("%s in Redis is %v (%v), the row is %q", k.key, image, err, row)
		}
	}
}

// drop has the images of all cases, all of which are in MySQL, leave Redis.
func (x *interleaving) drop(cases []*oneCase) {
	x.t.Helper()
	args := []any{"DEL"}
	for _, k := range cases {
		args = append(args, k.key)
	}
	x.Redis.Do(args...)
}
