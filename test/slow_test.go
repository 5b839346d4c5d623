package test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"keyrow/test/harness"
)

// slowEntry is one entry of KEYROW SLOW GET.
type slowEntry struct {
	id, at, took, waited, others int64
	args, addr, name, how        string
}

// slow asks for all that is kept, the last one in front.
func slow(t *testing.T, c interface {
	Do(ctx context.Context, args ...any) *redis.Cmd
}) (list []slowEntry) {
	t.Helper()
	all, err := c.Do(context.Background(), "KEYROW", "SLOW", "GET", "-1").Slice()
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range all {
		f, _ := one.([]any)
		if len(f) != 9 {
			t.Fatalf("an entry of KEYROW SLOW is %v", one)
		}
		var words []string
		for _, w := range f[3].([]any) {
			words = append(words, w.(string))
		}
		list = append(list, slowEntry{f[0].(int64), f[1].(int64), f[2].(int64), f[7].(int64), f[8].(int64),
			strings.Join(words, " "), f[4].(string), f[5].(string), f[6].(string)})
	}
	return list
}

// A keyrow to which every command is slow shows each of them with how it was answered, as often as SLOWLOG would, and
// none that blocks.
func TestSlowWays(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{
		Redis:  harness.StartRedis(t, "--requirepass", "s3cret", "--slowlog-log-slower-than", "0"),
		Config: shopConfig + "[[mapping]]\nname = \"direct\"\nkey = \"direct:{id}\"\ntable = \"users\"\nwrite = \"through\"\n",
		Set:    map[string]string{"redis.password": "s3cret", "log.slow": "1ns"},
	})
	s.sql("INSERT INTO users VALUES (42, 'Ada', NULL, 36, 12.5), (43, 'Bea', NULL, 36, 12.5)")
	direct := redis.NewClient(&redis.Options{Addr: s.Redis.Addr, Password: "s3cret", Protocol: 2, MaxRetries: -1, DisableIdentity: true})
	defer direct.Close()
	c := dial(t, s.Addr)
	other := dial(t, s.Addr)
	other.do("AUTH", "s3cret")
	for _, args := range [][]string{
		{"AUTH", "s3cret"}, {"CLIENT", "SETNAME", "till"}, {"GET", "plain"}, {"SET", "plain", strings.Repeat("x", 200)},
		{"GET", "user:42"}, {"STRLEN", "user:42"}, {"STRLEN", "user:43"}, {"SET", "user:42", `{"name":"Eve"}`}, {"GETSET", "user:42", `{"name":"Eva"}`},
		{"MSET", "user:42", `{"name":"Ada"}`, "plain", "x"}, {"SET", "direct:42", `{"name":"Amy"}`}, {"DEL", "acct:1"},
		{"BLPOP", "list", "0"}, {"MULTI"}, {"GET", "user:42"}, {"EXEC"}, {"ACL", "SETUSER", "eve", "on", ">s3cret"},
	} {
		c.send(encode(args...))
		if args[0] == "BLPOP" {
			harness.Until(t, "redis has a blocked client", func() bool {
				return strings.Contains(direct.Info(t.Context(), "clients").Val(), "\r\nblocked_clients:1\r\n")
			})
			other.do("RPUSH", "list", "x")
		}
		if got := c.reply(); strings.HasPrefix(got, "-") {
			t.Errorf("%q is answered %q", args, got)
		}
	}
	r := redis.NewClient(&redis.Options{Addr: s.Addr, Password: "s3cret", Protocol: 2, MaxRetries: -1, DisableIdentity: true})
	defer r.Close()
	var got []string
	harness.Until(t, "the last command shows", func() bool {
		got = nil
		for _, e := range slow(t, r) {
			if e.addr != c.LocalAddr().String() {
				continue
			}
			got = append(got, e.how+": "+e.args)
			if e.at == 0 || e.took < e.waited || e.args != "AUTH (redacted)" && !strings.HasPrefix(e.args, "CLIENT") && e.name != "till" {
				t.Errorf("an entry is %+v", e)
			}
		}
		slices.Reverse(got)
		return len(got) > 0 && strings.Contains(got[len(got)-1], "SETUSER")
	})
	want := []string{
		"redis: AUTH (redacted)", "redis: CLIENT SETNAME till", "redis: GET plain",
		"redis: SET plain " + strings.Repeat("x", 128) + "... (72 more bytes)",
		"fill: GET user:42", "redis: STRLEN user:42", "fill: STRLEN user:43",
		`journal: SET user:42 {"name":"Eve"}`, `journal: GETSET user:42 {"name":"Eva"}`,
		`journal: MSET user:42 {"name":"Ada"} plain x`, `mysql: SET direct:42 {"name":"Amy"}`, "journal: DEL acct:1",
		"redis: MULTI", "fill: GET user:42", "redis: EXEC", "redis: ACL SETUSER (redacted) (redacted) (redacted)",
	}
	if !slices.Equal(got, want) {
		t.Errorf("slow commands are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	n := int64(len(slow(t, r)))
	if len, err := r.Do(t.Context(), "KEYROW", "SLOW", "LEN").Int64(); err != nil || len < n {
		t.Errorf("LEN is %d, %v; there are %d", len, err, n)
	}
	if all, err := r.Do(t.Context(), "KEYROW", "SLOW", "GET").Slice(); err != nil || len(all) != 10 {
		t.Errorf("GET answers %d, %v", len(all), err)
	}
	if err := r.Do(t.Context(), "KEYROW", "SLOW", "RESET").Err(); err != nil {
		t.Error(err)
	}
	for _, e := range slow(t, r) {
		if e.addr == c.LocalAddr().String() {
			t.Errorf("after RESET there is %v", e)
		}
	}
	if help, err := r.Do(t.Context(), "KEYROW", "SLOW", "HELP").Slice(); err != nil || len(help) < 5 {
		t.Errorf("HELP answers %v, %v", help, err)
	}
	s.restOf(direct)
}

// KEYROW SLOW is for those who may use Redis's SLOWLOG, each subcommand for those of that one; others get the answer
// that Redis has for them.
func TestSlowRights(t *testing.T) {
	t.Parallel()
	s, r := vault(t)
	ctx := t.Context()
	for _, rules := range []string{
		"nobody on >pw ~* &* +@all -slowlog", "looker on >pw ~* &* +@all -slowlog +slowlog|get +slowlog|len", "boss on >pw ~* &* +@all",
	} {
		args := []any{"ACL", "SETUSER"}
		for word := range strings.FieldsSeq(rules) {
			args = append(args, word)
		}
		if err := r.Do(ctx, args...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, user := range []string{"", "nobody", "looker", "boss"} {
		c, direct := dial(t, s.Addr), dial(t, s.Redis.Addr)
		if user != "" {
			for _, p := range []*peer{c, direct} {
				if got := p.do("AUTH", user, "pw"); got != "+OK\r\n" {
					t.Fatal(got)
				}
			}
		}
		for _, sub := range []string{"GET", "LEN", "RESET"} {
			got, want := c.do("KEYROW", "SLOW", sub), direct.do("SLOWLOG", sub)
			if refused := want[0] == '-'; refused && got != want || got[0] != want[0] {
				t.Errorf("%q: KEYROW SLOW %s is answered %q, and SLOWLOG %q", user, sub, got, want)
			}
		}
	}
	c := dial(t, s.Addr)
	c.do("AUTH", "s3cret")
	for _, args := range [][]string{{"GET", "x"}, {"GET", "-2"}, {"GET", "1", "2"}, {"LEN", "x"}, {"NO"}, {}} {
		if got := c.do(append([]string{"KEYROW", "SLOW"}, args...)...); !strings.HasPrefix(got, "-ERR ") {
			t.Errorf("KEYROW SLOW %q is answered %q", args, got)
		}
	}
	s.restOf(r)
}

// Who waits for a row that another process loads, and who lost Redis, sees it.
func TestSlowLeaseAndLoss(t *testing.T) {
	t.Parallel()
	hooks := harness.NewHooks(t, "load.granted")
	set := map[string]string{"log.slow": "1ms", "redis.timeout": "30s"}
	first := openShop(t, harness.Options{Hooks: hooks, Set: set})
	first.sql("INSERT INTO users VALUES (42, 'Ada', NULL, 36, 12.5)")
	second := first.second(nil)
	var answers []*peer
	answers = append(answers, dial(t, first.Addr))
	answers[0].send(encode("GET", "user:42"))
	held := hooks.Wait("load.granted")
	answers = append(answers, dial(t, second.Addr))
	answers[1].send(encode("GET", "user:42"))
	harness.Until(t, "the second waits for the lease", func() bool {
		return !strings.Contains(fmt.Sprint(second.Must("KEYROW", "INFO")), "\r\nlease_waits:0\r\n")
	})
	held.Release()
	for i, p := range answers {
		if got := p.reply(); got != bulk(ada) {
			t.Errorf("%d is answered %q", i, got)
		}
	}
	first.shows("fill: GET user:42")
	second.shows("lease: GET user:42")

	first.Redis.Pause()
	answers[1].send(encode("GET", "plain"))
	harness.Until(t, "the command is on its way", func() bool {
		_, metrics := get(t, second.Keyrow, "/metrics")
		return metric(t, metrics, `keyrow_commands_total{group="string",outcome="passed"}`) == 1
	})
	first.Redis.Resume()
	answers[1].reply()
	second.shows("redis: GET plain")
	if line := second.Log(); !strings.Contains(line, `"message":"slow command; `) || !strings.Contains(line, answers[1].LocalAddr().String()) {
		t.Errorf("the log is %s", line)
	}
	first.rest()
}

// shows waits until KEYROW SLOW has a command, and how it was answered.
func (s *shop) shows(want string) {
	s.t.Helper()
	harness.Until(s.t, "KEYROW SLOW shows "+want, func() bool {
		all, _ := s.Must("KEYROW", "SLOW", "GET", "-1").([]any)
		return slices.ContainsFunc(all, func(one any) bool {
			f := one.([]any)
			return fmt.Sprintf("%v: %v", f[6], strings.Trim(fmt.Sprint(f[3]), "[]")) == want
		})
	})
}
