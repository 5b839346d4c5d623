package test

import (
	"strings"
	"testing"

	"keyrow/test/harness"
)

// TestAlter: a column that is added while keyrow runs becomes part of what it serves, and a table that goes takes only
// its own mapping with it, until it is back.
func TestAlter(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	s.want("OK", "SET", "user:1", `{"name":"Ada"}`)
	s.want("OK", "SET", "acct:1", `{"n":1,"twin":"1"}`)
	s.Settled()

	s.sql("ALTER TABLE users ADD city VARCHAR(20) NOT NULL DEFAULT 'Rome'")
	s.sql("INSERT INTO users (id, name) VALUES (2, 'Bob')")
	harness.Until(t, "the new column can be written", func() bool {
		return s.show("SET", "user:1", `{"name":"Ada","city":"Paris"}`) == "OK"
	})
	s.want(`{"id":2,"name":"Bob","email":null,"age":18,"balance":0.00,"city":"Rome"}`, "GET", "user:2")
	s.Settled()
	if got := s.row("SELECT city FROM users WHERE id = 1"); got != "Paris" {
		t.Errorf("city %s", got)
	}

	s.sql("RENAME TABLE accounts TO elsewhere")
	harness.Until(t, "writes without a table are refused", func() bool {
		return strings.Contains(s.show("SET", "acct:2", `{"n":2,"twin":"2"}`), `mapping "account" is suspended: the table accounts is gone`)
	})
	s.want("OK", "SET", "user:3", `{"name":"Eve"}`)
	s.want(`{"id":1,"n":1,"twin":"1"}`, "GET", "acct:1")
	if got := s.show("GET", "acct:9"); !strings.Contains(got, "is suspended") {
		t.Error(got)
	}
	s.sql("RENAME TABLE elsewhere TO accounts")
	harness.Until(t, "the mapping is served again", func() bool {
		return s.show("SET", "acct:2", `{"n":2,"twin":"2"}`) == "OK"
	})
	s.rest()
}
