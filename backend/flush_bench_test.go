package backend

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"keyrow/mapping"
)

// Rows a second from the journal to MySQL, for a table that takes plain upserts and for one whose rows are written one
// by one. go test ./backend -run - -bench Flush
func BenchmarkFlush(b *testing.B) {
	single := mapping.Default()
	single.Name, single.Key, single.Table = "single", "single:{id}", "singles"
	for _, key := range []string{"account", "single"} {
		b.Run(key, func(b *testing.B) {
			fl := newAccounts(b, flushSetup{
				tables:   "CREATE TABLE singles (id INT PRIMARY KEY, balance INT NOT NULL, UNIQUE (balance))",
				mappings: []mapping.Config{single},
			})
			ctx := context.Background()
			for id := range b.N {
				pipe := fl.rdb.Pipeline()
				k := fmt.Sprintf("%s:%d", key, id)
				_, image := account(id, id)
				pipe.Set(ctx, k, image, 0)
				pipe.ZAddNX(ctx, fl.dirty(k), redis.Z{Score: float64(time.Now().UnixMilli()), Member: "+" + k})
				if _, err := pipe.Exec(ctx); err != nil {
					b.Fatal(err)
				}
			}
			p := fl.start()
			b.ResetTimer()
			fl.drained(p)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
			b.ReportMetric(float64(p.Snapshot().Upserts)/float64(b.N), "statements/row")
		})
	}
}
