package backend

import (
	"context"
	"embed"
	"fmt"
	"io/fs"

	"github.com/redis/go-redis/v9"
)

//go:embed lua/*.lua
var luaFiles embed.FS

// newScript is the script of lua/<name>.lua. KEYS, ARGV and what it returns stand at the head of the file.
func newScript(name string) *redis.Script {
	src, err := luaFiles.ReadFile("lua/" + name + ".lua")
	if err != nil {
		panic(err)
	}
	return redis.NewScript(string(src))
}

// loadScripts makes every script known to Redis, so that the first calls find them.
func loadScripts(ctx context.Context, rdb redis.Scripter) error {
	names, err := fs.Glob(luaFiles, "lua/*.lua")
	if err != nil {
		return err
	}
	for _, name := range names {
		src, err := luaFiles.ReadFile(name)
		if err != nil {
			return err
		}
		if err := rdb.ScriptLoad(ctx, string(src)).Err(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// call is one run of a script: what it is given, and what it answered.
type call struct {
	keys []string
	args []any

	reply any
	err   error // of this run alone, or of the connection
}

// pipeline runs script once for every call, all in one round trip, and fills in the replies. Calls that find the script
// unknown, after a restart of Redis say, were not run, so they are sent again once it is loaded; no other is sent twice.
func pipeline(ctx context.Context, rdb *redis.Client, script *redis.Script, calls []*call) {
	unknown := evalsha(ctx, rdb, script, calls)
	if len(unknown) == 0 {
		return
	}
	if err := script.Load(ctx, rdb).Err(); err != nil {
		for _, c := range unknown {
			c.err = err
		}
		return
	}
	evalsha(ctx, rdb, script, unknown)
}

// evalsha is one try of pipeline; it returns the calls whose script Redis did not know.
func evalsha(ctx context.Context, rdb *redis.Client, script *redis.Script, calls []*call) (unknown []*call) {
	pipe := rdb.Pipeline()
	cmds := make([]*redis.Cmd, len(calls))
	for i, c := range calls {
		cmds[i] = script.EvalSha(ctx, pipe, c.keys, c.args...)
	}
	// The error of Exec is the first of the commands'; each has its own.
	_, _ = pipe.Exec(ctx)
	for i, c := range calls {
		c.reply, c.err = cmds[i].Result()
		if c.err != nil && redis.HasErrorPrefix(c.err, "NOSCRIPT") {
			unknown = append(unknown, c)
		}
	}
	return unknown
}
