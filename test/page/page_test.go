//go:build page

// Package page looks at what keyrow shows to people and to Prometheus: the status page in Chromium, the alerts and the
// dashboard of docs in Prometheus. test/run page installs the two, with what drives Chromium.
package page

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"keyrow/test/harness"
)

const config = `
[[mapping]]
name = "user"
key = "user:{id}"
table = "users"
ttl = "1m"

[[mapping]]
name = "order"
key = "order:{customer}:{number}"
table = "orders"

[[query]]
name = "ranking"
key = "rank:users"
sql = "SELECT id, score FROM users ORDER BY score DESC LIMIT 10"
value = "zset"
ttl = "1s"
`

// serve starts a keyrow whose clients read and write rows until the end of the test, and which has two rows parked.
func serve(t *testing.T) *harness.Keyrow {
	t.Helper()
	m := harness.SharedMySQL(t)
	db := m.NewDB(t)
	m.Exec(db, "CREATE TABLE users (id INT PRIMARY KEY, score INT NOT NULL, mail VARCHAR(40) UNIQUE)")
	m.Exec(db, "CREATE TABLE orders (customer INT, number INT, amount DECIMAL(10,2) NOT NULL, PRIMARY KEY (customer, number))")
	m.Exec(db, "INSERT INTO users SELECT seq, seq, IF(seq = 1, 'ada@example.com', NULL) FROM seq_1_to_500")
	k := harness.StartKeyrow(t, harness.Options{MySQL: m, DB: db, Config: config, Lean: true})
	for _, id := range []string{"901", "902"} {
		k.Must("SET", "user:"+id, `{"score":1,"mail":"ada@example.com"}`)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c := k.Client()
		for n := 0; ctx.Err() == nil; n++ {
			c.Get(ctx, fmt.Sprint("user:", n%600))
			c.Get(ctx, fmt.Sprintf("order:%d:%d", n%5, n%40))
			c.Set(ctx, fmt.Sprintf("order:%d:%d", n%7, n%50), fmt.Sprintf(`{"amount":%d.50}`, n%1000), 0)
			c.Do(ctx, "ZREVRANGE", "rank:users", 0, 2)
			c.HSet(ctx, "session", "n", n)
			select {
			case <-ctx.Done():
			case <-time.After(2 * time.Millisecond): // a load that leaves the machine to the browser
			}
		}
	}()
	t.Cleanup(func() {
		stop()
		<-ended
	})
	return k
}

// modules installs what node/package-lock.json names into a folder of the user's cache, once for each lock file.
func modules(t *testing.T) string {
	t.Helper()
	lock, err := os.ReadFile("node/package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(lock, []byte(`"resolved"`)) {
		t.Error("package-lock.json says where things were downloaded; strip the fields \"resolved\"")
	}
	cache, err := os.UserCacheDir()
	if err != nil { // no $HOME
		cache = filepath.Join(os.TempDir(), fmt.Sprintf("keyrow-cache-%d", os.Getuid()))
	}
	sum := sha256.Sum256(lock)
	dir := filepath.Join(cache, "keyrow-test", fmt.Sprintf("page-%x", sum[:6]))
	if _, err := os.Stat(filepath.Join(dir, "node_modules")); err == nil {
		return dir
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"package.json", "package-lock.json"} {
		text, err := os.ReadFile(filepath.Join("node", name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	npm := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	npm.Dir = dir
	if out, err := npm.CombinedOutput(); err != nil {
		t.Fatalf("npm ci (test/run page installs npm): %v\n%s", err, out)
	}
	return dir
}

// program runs one to its end, and fails the test if it fails.
func program(t *testing.T, env []string, dir, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// The page in a browser: light, dark and as wide as a phone. SHOT=path keeps a picture of it, for the README.
func TestPage(t *testing.T) {
	t.Parallel()
	k := serve(t)
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("%v; test/run page installs it", err)
	}
	script, err := filepath.Abs("node/page.js")
	if err != nil {
		t.Fatal(err)
	}
	t.Log(program(t, []string{"NODE_PATH=" + filepath.Join(modules(t), "node_modules"), "CHROMIUM=" + chromium,
		"KEYROW=http://" + k.Admin}, t.TempDir(), "node", script))
	harness.Until(t, "the row that was dropped is no longer parked, and the other one is", func() bool {
		parked := 0
		for p := range 4 {
			n, err := k.Redis.Client().HLen(context.Background(), fmt.Sprintf("keyrow:{%d}:parked", p)).Result()
			if err != nil {
				t.Fatal(err)
			}
			parked += int(n)
		}
		return parked == 1
	})
}
