package test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"keyrow/test/harness"
)

// crowd is clients of several keyrow processes that all ask for one key at a time.
type crowd struct {
	t       *testing.T
	all     []*shop // the processes
	hooks   *harness.Hooks
	clients []*peer
}

const crowdKey = "user:42"

// gather connects n clients to several processes on one MySQL, which no other test uses.
func gather(t *testing.T, processes, n int) *crowd {
	harness.OpenFiles(t, uint64(n)+2000)
	hooks := harness.NewHooks(t, "load.granted")
	s := openShop(t, harness.Options{Hooks: hooks, MySQL: harness.StartMySQL(t), Set: map[string]string{
		"mysql.timeout": "30s", // and so leases last longer
	}})
	s.MySQL.Exec("", "SET GLOBAL log_output = 'TABLE', GLOBAL general_log = 1")
	c := &crowd{t: t, all: []*shop{s}, hooks: hooks}
	for range processes - 1 {
		c.all = append(c.all, s.second(hooks))
	}
	for i := range n {
		c.clients = append(c.clients, dial(t, c.all[i%processes].Addr))
	}
	return c
}

// selects is how many SELECTs of users MySQL has been sent.
func (c *crowd) selects() string {
	c.t.Helper()
	// In two parts, so that the statement does not find itself.
	return c.all[0].row("SELECT COUNT(*) FROM mysql.general_log WHERE argument LIKE CONCAT('SELECT%`users', '` WHERE%')")
}

// ask has all clients ask while the first of them is being answered, and returns who holds that up.
func (c *crowd) ask() *harness.Stop {
	c.t.Helper()
	var loads, waits []int64
	for _, s := range c.all {
		loads = append(loads, s.info("loads"))
		waits = append(waits, s.info("lease_waits"))
	}
	c.clients[0].send(encode("GET", crowdKey))
	granted := c.hooks.Wait("load.granted")
	for _, p := range c.clients[1:] {
		p.send(encode("GET", crowdKey))
	}
	for i, s := range c.all {
		harness.Until(c.t, "all have asked", func() bool {
			return s.info("loads") == loads[i]+int64((len(c.clients)+len(c.all)-1-i)/len(c.all))
		})
		if i > 0 {
			harness.Until(c.t, "the process waits for the lease", func() bool { return s.info("lease_waits") > waits[i] })
		}
	}
	return granted
}

// answered reads the replies of clients, which are all to begin with want.
func (c *crowd) answered(clients []*peer, want string) {
	c.t.Helper()
	var group errgroup.Group
	for _, p := range clients {
		group.Go(func() error {
			var got strings.Builder
			if err := p.read(&got); err != nil {
				return err
			}
			if !strings.HasPrefix(got.String(), want) {
				return fmt.Errorf("got %q, want %q", got.String(), want)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		c.t.Error(err)
	}
}

// Ten thousand clients of three processes that miss one key cost one SELECT, as MySQL counts them, and another one once
// the image is gone. That the first who asked goes away is nothing to the others.
func TestStampede(t *testing.T) {
	t.Parallel()
	c := gather(t, 3, 10_000)
	s := c.all[0]
	s.sql("INSERT INTO users VALUES (42, 'Ada', NULL, 36, 12.5)")
	want := fmt.Sprintf("$%d\r\n%s\r\n", len(ada), ada)

	c.ask().Release()
	c.answered(c.clients, want)
	if n := c.selects(); n != "1" {
		t.Errorf("%s SELECTs for one key", n)
	}

	s.Redis.Do("DEL", crowdKey)
	granted := c.ask()
	if err := errors.Join(c.clients[0].SetLinger(0), c.clients[0].Close()); err != nil {
		t.Fatal(err)
	}
	granted.Release()
	c.answered(c.clients[1:], want)
	if n := c.selects(); n != "2" {
		t.Errorf("%s SELECTs, want one more", n)
	}
	s.rest()
}

// An error of MySQL is told to all who wait, in every process.
func TestStampedeFails(t *testing.T) {
	t.Parallel()
	c := gather(t, 3, 300)
	c.ask()
	c.all[0].MySQL.Kill()
	c.hooks.ReleaseAll()
	c.answered(c.clients, "-DBDOWN keyrow: ")
	c.all[0].MySQL.Restart()
	c.all[0].rest()
}

// That there is no row is remembered by all processes, until one of them writes it.
func TestNegativeEntryEnds(t *testing.T) {
	t.Parallel()
	a := openShop(t, harness.Options{Config: strings.ReplaceAll(shopConfig, "table = \"users\"", "table = \"users\"\nnegative_ttl = \"1h\"")})
	b := a.second(nil)
	for i := range 20 {
		key := fmt.Sprint("user:", i)
		a.want("nil", "GET", key)
		b.want("nil", "GET", key)
		b.want("OK", "SET", key, `{"name":"Bo"}`)
		image := fmt.Sprintf(`{"id":%d,"name":"Bo","email":null,"age":18,"balance":0.00}`, i)
		a.want(image, "GET", key)
		b.want(image, "GET", key)
	}
	if n := a.info("selects") + b.info("selects"); n != 20 {
		t.Errorf("%d SELECTs for 20 rows that were not there", n)
	}
	a.rest()
}
