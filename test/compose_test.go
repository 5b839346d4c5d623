package test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"keyrow/test/harness"
)

// composed is what docs/compose.yml has, as far as it is looked at.
type composed struct {
	Services map[string]struct {
		Command     []string
		Environment map[string]string
		Configs     []struct{ Source, Target string }
		DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
		Volumes     []string
		Healthcheck map[string]any
	}
	Volumes map[string]any
	Configs map[string]struct{ Content string }
}

// What docs/compose.yml puts together fits: its Redis, its tables and its configuration of keyrow, which checks without a
// word and serves.
func TestCompose(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	variables := map[string]string{"MYSQL_PASSWORD": "unused", "REDIS_PASSWORD": "s3cret-of-redis", "ADMIN_TOKEN": "0123456789abcdef"}
	var c composed
	if err := yaml.Unmarshal(interpolate(text, variables), &c); err != nil {
		t.Fatal(err)
	}
	for name, s := range c.Services {
		for on := range s.DependsOn {
			if _, there := c.Services[on]; !there || c.Services[on].Healthcheck == nil {
				t.Errorf("%s depends on %s, which is not there or has no health check", name, on)
			}
		}
		for _, use := range s.Configs {
			if c.Configs[use.Source].Content == "" {
				t.Errorf("%s has %s, which is not there", name, use.Source)
			}
		}
		for _, v := range s.Volumes {
			volume, _, _ := strings.Cut(v, ":")
			if _, there := c.Volumes[volume]; !there {
				t.Errorf("%s has the volume %s, which is not there", name, volume)
			}
		}
	}

	// As in the file, but for the password, which the harness has to do without until it is started.
	start := c.Services["redis"].Command
	i := slices.Index(start, "--requirepass")
	if i < 0 || start[i+1] != variables["REDIS_PASSWORD"] {
		t.Fatalf("redis is started with %q", start)
	}
	r := harness.StartRedis(t, slices.Concat(start[1:i], start[i+2:])...)
	m := harness.SharedMySQL(t)
	db := m.NewDB(t)
	m.Exec(db, c.Configs["tables"].Content)
	var env []string
	for name := range c.Services["keyrow"].Environment {
		env = append(env, name+"="+variables[name])
	}
	k := harness.NewKeyrow(t, harness.Options{Redis: r, MySQL: m, DB: db, Config: c.Configs["conf"].Content, Env: env,
		Set: map[string]string{"redis.addr": r.Addr, "mysql.dsn": "root@tcp(" + m.Addr + ")/" + db, "journal.prefix": "keyrow-" + db,
			"proxy.listen": "127.0.0.1:0", "admin.listen": "127.0.0.1:0"}})
	r.Do("CONFIG", "SET", "requirepass", variables["REDIS_PASSWORD"])
	defer r.Do("CONFIG", "SET", "requirepass", "") // the harness's own connection is from before
	code, stdout, stderr := command(t, filepath.Dir(k.Conf), env, "check")
	if code != 0 || stdout != "ok: 1 mappings fit their tables\n" || stderr != "" {
		t.Errorf("keyrow check: %d, %q, %q", code, stdout, stderr)
	}
	k.Start()
	p := dial(t, k.Addr)
	p.want("+OK\r\n", "AUTH", variables["REDIS_PASSWORD"])
	if got := p.do("GET", "user:1"); !strings.Contains(got, "Ada Lovelace") {
		t.Errorf("GET user:1 is %q", got)
	}
	if code := k.Term(); code != 0 {
		t.Errorf("exit status %d", code)
	}
}

// interpolate replaces variables as Compose does.
func interpolate(text []byte, variables map[string]string) []byte {
	return regexp.MustCompile(`\$\$|\$\{(\w+)[^}]*\}`).ReplaceAllFunc(text, func(b []byte) []byte {
		if string(b) == "$$" {
			return []byte("$")
		}
		name, _, _ := strings.Cut(strings.Trim(string(b), "${}"), ":")
		return []byte(variables[name])
	})
}
