package test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"keyrow/test/harness"
)

// residencySteps are commands about % and the seconds it has left then, -1 for ever, -2 if it is gone.
var residencySteps = []struct {
	command string
	left    int
}{
	{"TTL %", -1}, {"PERSIST %", -1}, {"EXPIRE % 100 XX", -1}, {"EXPIRE % 100 GT", -1}, {"EXPIRE % 100 NX", 100},
	{"EXPIRE % 200 NX", 100}, {"EXPIRE % 50 gt", 100}, {"EXPIRE % 200 GT", 200}, {"EXPIRE % 300 LT", 200}, {"PEXPIRE % 150000 LT XX", 150},
	{"EXPIRE % 300 XX", 300}, {"PERSIST %", -1}, {"EXPIRE % 250 LT", 250}, {"EXPIREAT % <s>", 1000}, {"PEXPIREAT % <ms>", 1000},
	{"GETEX % EX 70", 70}, {"GETEX % px 80000", 80}, {"GETEX % EXAT <s>", 1000}, {"GETEX % PXAT <ms>", 1000}, {"GETEX %", 1000},
	{"GETEX % PERSIST", -1}, {"GETEX % EX 60", 60},
	{"EXPIRE % x", 60}, {"EXPIRE % 1 ZZ", 60}, {"EXPIRE % 1 NX XX", 60}, {"EXPIRE % 1 GT LT", 60}, {"EXPIRE % 9223372036854775807", 60},
	{"EXPIRE % -9223372036854775807", 60}, {"PEXPIRE % 9223372036854775807", 60}, {"GETEX % EX 0", 60}, {"GETEX % EX", 60}, {"GETEX % EX 1 PX 1", 60},
	{"GETEX % KEEPTTL", 60}, {"GETEX % EX x", 60}, {"EXPIRE %", 60}, {"PERSIST", 60}, {"GETEX", 60}, {"EXPIRE", 60},
	{"TOUCH % %", 60}, {"OBJECT REFCOUNT %", 60}, {"EXISTS %", 60}, {"TYPE %", 60},
}

// EXPIRE and its likes answer about a row what they answer about any key of Redis, whether the row is in MySQL yet or
// not; and the image stays as long as was asked for.
func TestResidency(t *testing.T) {
	t.Parallel()
	const row = `{"id":1,"n":1,"twin":"1"}`
	for _, dirty := range []bool{false, true} {
		for _, multi := range []bool{false, true} {
			t.Run(fmt.Sprintf("dirty=%v,multi=%v", dirty, multi), func(t *testing.T) {
				t.Parallel()
				o := harness.Options{Set: map[string]string{"journal.partitions": "1"}}
				if dirty {
					o.Hooks = harness.NewHooks(t, "flush.swept")
				}
				s := openShop(t, o)
				at := time.Now().Add(1000 * time.Second)
				client, direct := dial(t, s.Addr), dial(t, s.Redis.Addr)
				s.Redis.Do("SET", "plain", row)
				if dirty {
					s.want("OK", "SET", "acct:1", row)
					o.Hooks.Wait("flush.swept")
				} else {
					s.sql("INSERT INTO accounts VALUES (1, 1, '1')")
					s.want(row, "GET", "acct:1")
					s.Redis.Do("PERSIST", "acct:1")
				}
				for _, step := range residencySteps {
					text := strings.NewReplacer("<ms>", strconv.FormatInt(at.UnixMilli(), 10), "<s>", strconv.FormatInt(at.Unix(), 10)).Replace(step.command)
					args := strings.Fields(text)
					theirs := direct.do(strings.Fields(strings.ReplaceAll(text, "%", "plain"))...)
					for i := range args {
						args[i] = strings.ReplaceAll(args[i], "%", "acct:1")
					}
					var ours string
					if multi && theirs[0] != '-' {
						client.do("MULTI")
						client.do(args...)
						ours = strings.TrimPrefix(client.do("EXEC"), "*1\r\n")
					} else {
						ours = client.do(args...)
					}
					if ours != theirs {
						t.Errorf("%q is answered %q, want %q", args, ours, theirs)
					}
					s.left("acct:1", step.left)
					if pttl := s.Redis.Do("PTTL", "acct:1"); dirty && pttl != int64(-1) {
						t.Fatalf("after %q the key has a TTL of %v, and is not in mysql", args, pttl)
					}
				}
				if dirty {
					o.Hooks.ReleaseAll()
					s.Settled()
					s.left("acct:1", 60)
				}
				s.want("1", "EXPIRE", "acct:1", 0)
				s.left("acct:1", -2)
				s.want(row, "GET", "acct:1")
				s.rest()
			})
		}
	}
}

// left checks how long a key stays, as all four commands tell it: TTL first, since the others load nothing.
func (s *shop) left(key string, seconds int) {
	s.t.Helper()
	if seconds == -2 {
		if got := s.Redis.Do("EXISTS", key); got != int64(0) {
			s.t.Errorf("%s is still in redis", key)
		}
		return
	}
	now := time.Now().UnixMilli()
	for _, command := range []string{"TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME"} {
		n, _ := s.Must(command, key).(int64)
		ms := n
		if command == "TTL" || command == "EXPIRETIME" {
			ms *= 1000
		}
		if strings.HasSuffix(command, "TIME") {
			ms -= now
		}
		// Less may be left on a slow machine, more never.
		want := int64(seconds) * 1000
		if seconds == -1 && n != -1 || seconds >= 0 && (ms > want+1000 || ms < want-30_000) {
			s.t.Errorf("%s of %s is %d, want %d s", command, key, n, seconds)
		}
	}
}

// A row that Redis does not have is read for EXPIRE; of one that does not exist there is nothing to keep.
func TestResidencyOfAbsent(t *testing.T) {
	t.Parallel()
	s := openKinds(t, harness.Options{})
	for _, key := range []string{"profile:1", "name:1", "rank:18", "ages", "names", "ids", "all:18"} {
		s.want("1", "EXPIRE", key, 100)
		s.left(key, 100)
		s.want("1", "PERSIST", key)
		s.left(key, -1)
	}
	s.want("Ada", "GETEX", "name:1", "EX", 50)
	s.left("name:1", 50)
	s.refused([]string{"WRONGTYPE"}, "GETEX", "profile:1", "EX", 50)
	for _, key := range []string{"profile:9", "name:9", "rank:200", "profile:01"} {
		s.want("0", "EXPIRE", key, 100)
		s.want("0", "PERSIST", key)
		s.want("-2", "TTL", key)
		s.want("nil", "GETEX", key, "EX", 5)
	}
	s.restKinds()
}

// A residency ends with the value that it was asked for: a SET without one has none, and takes back a DEL too.
func TestResidencyIsReplaced(t *testing.T) {
	t.Parallel()
	const v1, v2 = `{"n":1,"twin":"1"}`, `{"n":2,"twin":"2"}`
	const never, default10m = -1, 660
	tests := []struct {
		name     string
		commands []string // EXEC runs them in one transaction
		before   int      // TTL before the flush
		after    int
	}{
		{"SET EX, SET", []string{"SET acct:1 V1 EX 100", "SET acct:1 V2"}, never, default10m},
		{"SET EX, MSET", []string{"SET acct:1 V1 EX 100", "MSET acct:1 V2"}, never, default10m},
		{"SET EX, SETEX", []string{"SET acct:1 V1 EX 100", "SETEX acct:1 50 V2"}, 50, 50},
		{"SET, SET EX", []string{"SET acct:1 V1", "SET acct:1 V2 EX 100"}, 100, 100},
		{"SET EX, EXPIRE 0, SET", []string{"SET acct:1 V1 EX 100", "EXPIRE acct:1 0", "SET acct:1 V2"}, never, default10m},
		{"EXPIRE 0, EXPIRE 100", []string{"SET acct:1 V2", "EXPIRE acct:1 0", "EXPIRE acct:1 100"}, 0, -2},
		{"PERSIST", []string{"SET acct:1 V2", "PERSIST acct:1"}, never, never},
		{"EXPIRE, PERSIST", []string{"SET acct:1 V2 EX 9", "PERSIST acct:1"}, never, never},
		{"over before it is flushed", []string{"SET acct:1 V2 PXAT 5"}, 0, -2},
		{"a deadline beyond doubles", []string{"SET acct:1 V2 PXAT 9223372036854775807", "EXPIRE acct:1 70"}, 70, 70},
	}
	for _, how := range []string{"one by one", "at once", "in MULTI"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			hooks := harness.NewHooks(t, "flush.swept")
			s := openShop(t, harness.Options{Hooks: hooks, Set: map[string]string{"journal.partitions": "1"}})
			// As long as this one is held, the others are not flushed.
			s.want("OK", "SET", "acct:100", `{"n":1,"twin":"1"}`)
			hooks.Wait("flush.swept")
			p := dial(t, s.Addr)
			for i, test := range tests {
				key := fmt.Sprint("acct:", i)
				if how == "in MULTI" {
					p.do("MULTI")
				}
				for _, text := range test.commands {
					args := strings.Fields(strings.NewReplacer("acct:1", key, "V1", v1, "V2", v2).Replace(text))
					if how == "at once" {
						p.send(encode(args...))
					} else if got := p.do(args...); got[0] == '-' {
						t.Errorf("%s: %q is answered %q", test.name, args, got)
					}
				}
				if how == "at once" {
					for range test.commands {
						p.reply()
					}
				}
				if how == "in MULTI" {
					if got := p.do("EXEC"); !strings.HasPrefix(got, fmt.Sprintf("*%d\r\n", len(test.commands))) {
						t.Errorf("%s: EXEC is answered %q", test.name, got)
					}
				}
				s.left(key, test.before)
				s.want(fmt.Sprintf(`{"id":%d,"n":2,"twin":"2"}`, i), "GET", key)
			}
			hooks.ReleaseAll()
			s.Settled()
			for i, test := range tests {
				key := fmt.Sprint("acct:", i)
				if test.after != default10m {
					s.left(key, test.after)
				} else if ttl := s.Must("TTL", key).(int64); ttl < 400 || ttl > default10m {
					t.Errorf("%s: it stays for %d s, want what the mapping says", test.name, ttl)
				}
			}
			if got := s.row("SELECT CONCAT(COUNT(*), ' ', SUM(n)) FROM accounts"); got != fmt.Sprintf("%d %d", len(tests)+1, 2*len(tests)+1) {
				t.Errorf("mysql has %s", got)
			}
			s.rest()
		})
	}
}

// A row that is written and dropped in one transaction is as safe as one that is dropped a moment later.
func TestDropInTransaction(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	p := dial(t, s.Addr)
	p.do("MULTI")
	p.do("SET", "user:1", `{"name":"x"}`)
	p.do("SELECT", "1")
	p.do("SELECT", "0")
	p.do("DEL", "user:1")
	p.do("SET", "user:2", `{"name":"y"}`, "EX", "90")
	p.do("TTL", "user:2")
	p.do("MSET", "user:3", `{"name":"z"}`, "plain", "x")
	p.do("EXPIRE", "user:3", "-1")
	if got, want := p.do("EXEC"), "*8\r\n+OK\r\n+OK\r\n+OK\r\n:1\r\n+OK\r\n:90\r\n+OK\r\n:1\r\n"; got != want {
		t.Errorf("EXEC is answered %q, want %q", got, want)
	}
	s.rest()
	if got := s.row("SELECT GROUP_CONCAT(name ORDER BY id) FROM users"); got != "x,y,z" {
		t.Errorf("mysql has %s", got)
	}
	for key, there := range map[string]int64{"user:1": 0, "user:2": 1, "user:3": 0} {
		if got := s.Redis.Do("EXISTS", key); got != there {
			t.Errorf("EXISTS of %s is %v, want %d", key, got, there)
		}
	}
	s.left("user:2", 90)
}
