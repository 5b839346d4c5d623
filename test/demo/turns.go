package main

import (
	"context"
	"regexp"
	"sync"
	"time"

	"github.com/dolthub/vitess/go/mysql"
	"github.com/dolthub/vitess/go/sqltypes"
	querypb "github.com/dolthub/vitess/go/vt/proto/query"
)

// turnWait is how long a statement waits for another connection's transaction before it fails as in MySQL. It is shorter
// than any timeout of keyrow.
const turnWait = 3 * time.Second

// turns lets one statement or transaction run at a time. The engine's memory tables need that: a transaction works on
// its own copy of a table and puts the whole copy back at commit, a mere SELECT too, so of two that overlap, one undoes
// what the other wrote.
type turns struct {
	mysql.Handler
	wait time.Duration
	free chan struct{} // holds one element when nobody has the turn

	mu     sync.Mutex
	holder *mysql.Conn // the connection whose transaction has the turn
}

func newTurns(h mysql.Handler, wait time.Duration) *turns {
	t := &turns{Handler: h, wait: wait, free: make(chan struct{}, 1)}
	t.free <- struct{}{}
	return t
}

// namedLock finds the statements that wait for each other by themselves. They touch no table, so they need no turn, and
// must not have one: the owner of the lock needs it to go on.
var namedLock = regexp.MustCompile(`(?i)^\s*select\s+(get_lock|release_lock|release_all_locks)\b|^\s*select\s+sleep\b`)

// take waits for the turn unless c has it already.
func (t *turns) take(ctx context.Context, c *mysql.Conn) error {
	t.mu.Lock()
	mine := t.holder == c
	t.mu.Unlock()
	if mine {
		return nil
	}
	timeout := time.NewTimer(t.wait)
	defer timeout.Stop()
	select {
	case <-t.free:
	case <-ctx.Done():
		return ctx.Err()
	case <-timeout.C:
		return mysql.NewSQLError(1205, "HY000", "Lock wait timeout exceeded; try restarting transaction")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.holder = c
	return nil
}

// pass gives the turn on if c has it; a transaction that is still open keeps it.
func (t *turns) pass(c *mysql.Conn, open bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.holder == c && !open {
		t.holder = nil
		t.free <- struct{}{}
	}
}

// in runs a statement of c in its turn.
func (t *turns) in(ctx context.Context, c *mysql.Conn, query string, run func() error) error {
	if namedLock.MatchString(query) {
		return asMySQL(run())
	}
	if err := t.take(ctx, c); err != nil {
		return err
	}
	defer func() { t.pass(c, c.StatusFlags&uint16(mysql.ServerInTransaction) != 0) }()
	return asMySQL(run())
}

func (t *turns) ComQuery(ctx context.Context, c *mysql.Conn, query string, callback mysql.ResultSpoolFn) error {
	return t.in(ctx, c, query, func() error { return t.Handler.ComQuery(ctx, c, query, callback) })
}

func (t *turns) ComMultiQuery(ctx context.Context, c *mysql.Conn, query string, callback mysql.ResultSpoolFn) (rest string, err error) {
	err = t.in(ctx, c, query, func() error {
		rest, err = t.Handler.ComMultiQuery(ctx, c, query, callback)
		return err
	})
	return rest, err
}

func (t *turns) ComPrepare(ctx context.Context, c *mysql.Conn, query string, prepare *mysql.PrepareData) (fields []*querypb.Field, err error) {
	err = t.in(ctx, c, query, func() error {
		fields, err = t.Handler.ComPrepare(ctx, c, query, prepare)
		return err
	})
	return fields, err
}

func (t *turns) ComStmtExecute(ctx context.Context, c *mysql.Conn, prepare *mysql.PrepareData, callback func(*sqltypes.Result) error) error {
	return t.in(ctx, c, prepare.PrepareStmt, func() error { return t.Handler.ComStmtExecute(ctx, c, prepare, callback) })
}

func (t *turns) ComResetConnection(c *mysql.Conn) error {
	defer t.pass(c, false)
	return t.Handler.ComResetConnection(c)
}

func (t *turns) ConnectionClosed(c *mysql.Conn) {
	defer t.pass(c, false)
	t.Handler.ConnectionClosed(c)
}
