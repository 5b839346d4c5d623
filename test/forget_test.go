package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyrow/test/harness"
)

// A Redis that comes back without the end of its append-only file, as after a power failure, has forgotten the last
// writes, images and marks alike. What it still has of those that waited reaches MySQL, and the rest is as if it had never
// been written; what was in MySQL stays there, and the older copies that Redis has are found by verify.
func TestRedisForgets(t *testing.T) {
	t.Parallel()
	for _, flushed := range []bool{false, true} {
		t.Run(fmt.Sprintf("flushed=%t", flushed), func(t *testing.T) {
			t.Parallel()
			const n = 100
			// always, so that the size of the file is known; the test takes away what another setting would not have there.
			s := openShop(t, harness.Options{Redis: harness.StartRedis(t, "--appendonly", "yes", "--appendfsync", "always"),
				Set: map[string]string{"journal.interval": "1h"}})
			s.owns()
			write := func(name string) {
				t.Helper()
				for id := range n {
					s.want("OK", "SET", fmt.Sprint("user:", id), `{"name":"`+name+`"}`)
				}
			}
			write("old")
			s.want("0", "KEYROW", "FLUSH", 30000)
			file, before := s.appended()
			write("new")
			_, after := s.appended()
			if flushed {
				s.want("0", "KEYROW", "FLUSH", 30000)
			}
			s.Redis.Kill()
			if err := os.Truncate(file, (before+after)/2); err != nil {
				t.Fatal(err)
			}
			s.Redis.Restart()
			harness.Until(t, "redis is there again", func() bool { return s.show("GET", "plain") == "nil" })
			harness.Until(t, "what it has is flushed", func() bool { return s.show("KEYROW", "FLUSH", 30000) == "0" })

			kept := 0 // writes that Redis has not forgotten: the first ones
			for strings.Contains(s.show("GET", fmt.Sprint("user:", kept)), `"new"`) {
				kept++
			}
			if kept == 0 || kept == n {
				t.Fatalf("redis has %d writes of %d", kept, n)
			}
			want := kept
			if flushed {
				want = n
			}
			if got := s.row("SELECT CONCAT(COUNT(*), ' ', SUM(id)) FROM users WHERE name = 'new'"); got != fmt.Sprint(want, " ", want*(want-1)/2) {
				t.Errorf("mysql has %s rows and sum of what was written last, redis has kept %d", got, kept)
			}
			if status, v, stderr := s.verify("user", "--repair"); status != 0 || v.Repaired != want-kept || v.Same != n-v.Repaired {
				t.Errorf("exit status %d: %+v, %s", status, v, stderr)
			}
			if n := s.info("lost"); n != 0 {
				t.Errorf("of %d keys the image was forgotten, and not the mark", n)
			}
			s.rest()
		})
	}
}

// appended is the append-only file of Redis, and how long it is.
func (s *shop) appended() (path string, size int64) {
	s.t.Helper()
	paths, err := filepath.Glob(filepath.Join(s.Redis.Dir, "appendonlydir", "*.incr.aof"))
	if err != nil || len(paths) != 1 {
		s.t.Fatal(paths, err)
	}
	stat, err := os.Stat(paths[0])
	if err != nil {
		s.t.Fatal(err)
	}
	return paths[0], stat.Size()
}
