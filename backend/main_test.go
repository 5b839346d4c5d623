package backend

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails if anything is left running after the last test, but for what belongs to the shared mariadbd: the
// server, and the harness's connections to it.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("keyrow/test/harness.(*process).run"),
		goleak.IgnoreAnyFunction("keyrow/test/harness.(*process).listen"),
		goleak.IgnoreAnyFunction("database/sql.(*DB).connectionOpener"),
		goleak.IgnoreAnyFunction("github.com/go-sql-driver/mysql.(*mysqlConn).startWatcher.func1"),
	)
}
