package main

import (
	"context"
	"database/sql"
	_ "embed"
	"fmt"
	"io"
	"strings"
	"time"

	sqle "github.com/dolthub/go-mysql-server"
	"github.com/dolthub/go-mysql-server/memory"
	"github.com/dolthub/go-mysql-server/server"
	enginesql "github.com/dolthub/go-mysql-server/sql"
	"github.com/dolthub/go-mysql-server/sql/types"
	"github.com/dolthub/vitess/go/mysql"
	_ "github.com/go-sql-driver/mysql"
	"github.com/sirupsen/logrus"
)

const database = "shop"

//go:embed shop.sql
var shop string

// mysqlServer is a server for MySQL's protocol with the shop in memory. Anybody is let in, as root without a password.
type mysqlServer struct {
	addr   string
	db     *sql.DB
	server *server.Server
}

// startMySQL lets a statement wait that long for another connection's transaction.
func startMySQL(ctx context.Context, wait time.Duration) (*mysqlServer, error) {
	logrus.SetOutput(io.Discard)
	shopDB := memory.NewDatabase(database)
	shopDB.EnablePrimaryKeyIndexes()
	provider := memory.NewDBProvider(shopDB)
	// MySQL has this one for every session, the engine only for all of them.
	enginesql.SystemVariables.AddSystemVariables([]enginesql.SystemVariable{&enginesql.MysqlSystemVariable{
		Name:    "innodb_lock_wait_timeout",
		Scope:   enginesql.GetMysqlScope(enginesql.SystemVariableScope_Both),
		Dynamic: true,
		Type:    types.NewSystemIntType("innodb_lock_wait_timeout", 1, 1<<30, false),
		Default: int64(50),
	}})
	s, err := server.NewServerWithHandler(
		server.Config{Protocol: "tcp", Address: "127.0.0.1:0"},
		sqle.NewDefault(provider), enginesql.NewContext, memory.NewSessionBuilder(provider), nil,
		func(h mysql.Handler) (mysql.Handler, error) { return newTurns(h, wait), nil })
	if err != nil {
		return nil, fmt.Errorf("mysql server: %w", err)
	}
	m := &mysqlServer{addr: s.Listener.Addr().String(), server: s}
	go s.Start()
	if m.db, err = sql.Open("mysql", m.dsn()+"?interpolateParams=true"); err != nil {
		m.close()
		return nil, err
	}
	for statement := range strings.SplitSeq(shop, ";\n") {
		if strings.TrimSpace(statement) == "" {
			continue
		}
		if _, err := m.db.ExecContext(ctx, statement); err != nil {
			m.close()
			return nil, fmt.Errorf("shop.sql: %w in %s", err, statement)
		}
	}
	return m, nil
}

// dsn is what a program needs to get in.
func (m *mysqlServer) dsn() string { return "root@tcp(" + m.addr + ")/" + database }

func (m *mysqlServer) close() {
	if m.db != nil {
		m.db.Close()
	}
	m.server.Close()
}

// query runs a statement and shows its result, as mysql does. An error is the statement's.
func (m *mysqlServer) query(ctx context.Context, statement string) (string, error) {
	if !returnsRows(statement) {
		result, err := m.db.ExecContext(ctx, statement)
		if err != nil {
			return "", err
		}
		n, err := result.RowsAffected()
		return fmt.Sprintf("ok, %d row(s) affected", n), err
	}
	table, err := m.rows(ctx, statement)
	if err != nil {
		return "", err
	}
	return layout(table), nil
}

func returnsRows(statement string) bool {
	word, _, _ := strings.Cut(strings.TrimSpace(statement), " ")
	switch strings.ToUpper(strings.TrimRight(word, ";")) {
	case "SELECT", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "WITH", "TABLE", "VALUES":
		return true
	}
	return false
}

// rows is the result of a statement, the names of the columns first.
func (m *mysqlServer) rows(ctx context.Context, statement string) ([][]string, error) {
	rows, err := m.db.QueryContext(ctx, statement)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	table := [][]string{names}
	for rows.Next() {
		values, row := make([]sql.NullString, len(names)), make([]string, len(names))
		targets := make([]any, len(names))
		for i := range values {
			targets[i] = &values[i]
		}
		if err := rows.Scan(targets...); err != nil {
			return nil, err
		}
		for i, v := range values {
			if row[i] = v.String; !v.Valid {
				row[i] = "NULL"
			}
		}
		table = append(table, row)
	}
	return table, rows.Err()
}
