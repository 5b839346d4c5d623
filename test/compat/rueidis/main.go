// Command rueidis uses rueidis through keyrow: RESP3, implicit pipelining, client side caching, dedicated
// connections. Run by clients_test.go, see python/check.py for the environment. It is a module of its own so that
// keyrow's does not depend on the client. Prints what failed and exits 1.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

var env = os.Getenv

func options() rueidis.ClientOption {
	return rueidis.ClientOption{
		InitAddress: []string{net.JoinHostPort(env("HOST"), env("PORT"))},
		Username:    env("USERNAME"), Password: env("PASSWORD"), ClientName: "compat",
		ForceSingleClient: true,
	}
}

// cut cuts every connection that goes through the relay.
func cut() error {
	c, err := net.Dial("tcp", net.JoinHostPort(env("HOST"), env("CUT_PORT")))
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = io.Copy(io.Discard, c)
	return err
}

func equal(got, want any) error {
	if !reflect.DeepEqual(got, want) {
		return fmt.Errorf("got %v, want %v", got, want)
	}
	return nil
}

type check struct {
	name string
	do   func(context.Context, rueidis.Client) error
}

var checks = []check{
	{"basics", basics}, {"pipelines", pipelines}, {"transactions", transactions}, {"blocking", blocking},
	{"scripts", scripts}, {"databases", databases}, {"rows", rows}, {"broadcast", broadcast},
	// These cut connections, which fails what is not repeated: writes.
	{"cache", cache}, {"subscriptions", subscriptions},
}

func main() {
	failed := false
	for _, resp2 := range []bool{false, true} {
		o := options()
		o.AlwaysRESP2, o.DisableCache = resp2, resp2
		c, err := rueidis.NewClient(o)
		if err != nil {
			fmt.Println("connect:", err)
			os.Exit(1)
		}
		prefix = map[bool]string{false: "ru3:", true: "ru2:"}[resp2]
		for _, one := range checks {
			if resp2 && (one.name == "cache" || one.name == "broadcast") {
				continue // RESP3 only
			}
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			if err := one.do(ctx, c); err != nil {
				failed = true
				fmt.Println(prefix, one.name+":", err)
			}
			cancel()
		}
		c.Close()
	}
	if failed {
		os.Exit(1)
	}
}

var prefix string

func basics(ctx context.Context, c rueidis.Client) error {
	k := prefix + "k"
	if err := c.Do(ctx, c.B().Set().Key(k).Value("v").ExSeconds(100).Build()).Error(); err != nil {
		return err
	}
	v, err := c.Do(ctx, c.B().Get().Key(k).Build()).ToString()
	if err != nil || v != "v" {
		return fmt.Errorf("GET: %q %w", v, err)
	}
	if _, err := c.Do(ctx, c.B().Get().Key(prefix+"absent").Build()).ToString(); !rueidis.IsRedisNil(err) {
		return fmt.Errorf("absent: %w", err)
	}
	if err := c.Do(ctx, c.B().Hset().Key(prefix+"h").FieldValue().FieldValue("f", "v").Build()).Error(); err != nil {
		return err
	}
	h, err := c.Do(ctx, c.B().Hgetall().Key(prefix+"h").Build()).AsStrMap()
	if err == nil {
		err = equal(h, map[string]string{"f": "v"})
	}
	if err != nil {
		return err
	}
	err = c.Do(ctx, c.B().Lpush().Key(k).Element("x").Build()).Error()
	if e, ok := rueidis.IsRedisErr(err); !ok || !strings.HasPrefix(e.Error(), "WRONGTYPE") {
		return fmt.Errorf("LPUSH on a string: %w", err)
	}
	big := strings.Repeat("x", 3<<20)
	if err := c.Do(ctx, c.B().Set().Key(prefix+"big").Value(big).Build()).Error(); err != nil {
		return err
	}
	v, err = c.Do(ctx, c.B().Get().Key(prefix+"big").Build()).ToString()
	if err != nil || v != big {
		return fmt.Errorf("a big value: %d bytes %w", len(v), err)
	}
	return nil
}

func pipelines(ctx context.Context, c rueidis.Client) error {
	var cmds rueidis.Commands
	for range 2000 {
		cmds = append(cmds, c.B().Incr().Key(prefix+"n").Build())
	}
	for i, r := range c.DoMulti(ctx, cmds...) {
		if n, err := r.AsInt64(); err != nil || n != int64(i+1) {
			return fmt.Errorf("number %d: %d %w", i, n, err)
		}
	}
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			for range 20 {
				c.Do(ctx, c.B().Incr().Key(prefix+"shared").Build())
			}
		})
	}
	all.Wait()
	v, err := c.Do(ctx, c.B().Get().Key(prefix+"shared").Build()).ToString()
	return errors.Join(err, equal(v, "1000"))
}

// cache uses client side caching, CLIENT TRACKING ON OPTIN.
func cache(ctx context.Context, c rueidis.Client) error {
	other, err := rueidis.NewClient(options())
	if err != nil {
		return err
	}
	defer other.Close()
	k := prefix + "cached"
	get := func() (string, bool, error) {
		r := c.DoCache(ctx, c.B().Get().Key(k).Cache(), time.Minute)
		v, err := r.ToString()
		return v, r.IsCacheHit(), err
	}
	set := func(v string) error {
		return other.Do(ctx, other.B().Set().Key(k).Value(v).Build()).Error()
	}
	if err := set("one"); err != nil {
		return err
	}
	for i := range 2 {
		if v, hit, err := get(); err != nil || v != "one" || hit != (i == 1) {
			return fmt.Errorf("read %d: %q, from the cache %v: %w", i, v, hit, err)
		}
	}
	for _, want := range []string{"two", "three"} {
		for set(want) != nil && ctx.Err() == nil {
		}
		for ctx.Err() == nil {
			if v, _, err := get(); err == nil && v == want {
				break
			}
		}
		if err := cut(); err != nil {
			return err
		}
	}
	multi := c.DoMultiCache(ctx, rueidis.CT(c.B().Get().Key(k).Cache(), time.Minute), rueidis.CT(c.B().Hgetall().Key(prefix+"h").Cache(), time.Minute))
	for _, r := range multi {
		if err := r.Error(); err != nil {
			return err
		}
	}
	mget, err := rueidis.MGetCache(c, ctx, time.Minute, []string{k, prefix + "k"})
	if err != nil || len(mget) != 2 {
		return fmt.Errorf("MGetCache: %v %w", mget, err)
	}
	return ctx.Err()
}

// broadcast uses client side caching with CLIENT TRACKING ON BCAST.
func broadcast(ctx context.Context, c rueidis.Client) error {
	o := options()
	k := prefix + "bcast"
	o.ClientTrackingOptions = []string{"PREFIX", prefix, "BCAST"}
	invalidated := make(chan string, 100)
	o.OnInvalidations = func(keys []rueidis.RedisMessage) {
		for _, m := range keys {
			if key, err := m.ToString(); err == nil {
				invalidated <- key
			}
		}
	}
	b, err := rueidis.NewClient(o)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := b.DoCache(ctx, b.B().Get().Key(k).Cache(), time.Minute).Error(); !rueidis.IsRedisNil(err) {
		return err
	}
	if err := c.Do(ctx, c.B().Set().Key(k).Value("v").Build()).Error(); err != nil {
		return err
	}
	for {
		select {
		case key := <-invalidated:
			if key == k {
				return nil
			}
		case <-ctx.Done():
			return errors.New("no invalidation")
		}
	}
}

func transactions(ctx context.Context, c rueidis.Client) error {
	k := prefix + "sum"
	add := func(d rueidis.DedicatedClient) error {
		for done := 0; done < 25; {
			if err := d.Do(ctx, d.B().Watch().Key(k).Build()).Error(); err != nil {
				return err
			}
			n, err := d.Do(ctx, d.B().Get().Key(k).Build()).AsInt64()
			if err != nil && !rueidis.IsRedisNil(err) {
				return err
			}
			out := d.DoMulti(ctx, d.B().Multi().Build(), d.B().Set().Key(k).Value(strconv.FormatInt(n+1, 10)).Build(), d.B().Exec().Build())
			switch err := out[2].Error(); {
			case err == nil:
				done++
			case !rueidis.IsRedisNil(err):
				return err
			}
		}
		return nil
	}
	errs := make(chan error)
	for range 3 {
		go func() { errs <- c.Dedicated(add) }()
	}
	var err error
	for range 3 {
		err = errors.Join(err, <-errs)
	}
	if err != nil {
		return err
	}
	v, err := c.Do(ctx, c.B().Get().Key(k).Build()).ToString()
	return errors.Join(err, equal(v, "75"))
}

func subscriptions(ctx context.Context, c rueidis.Client) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	got := make(chan rueidis.PubSubMessage, 1000)
	ended := make(chan error, 1)
	go func() {
		for ctx.Err() == nil {
			// It ends with an error when the connection does; subscribing again is the caller's business.
			err := c.Receive(ctx, c.B().Subscribe().Channel(prefix+"ch", prefix+"ch2").Build(), func(m rueidis.PubSubMessage) { got <- m })
			if err != nil && ctx.Err() == nil {
				continue
			}
			break
		}
		ended <- nil
	}()
	for i, text := range []string{"one", "two"} {
		for c.Do(ctx, c.B().Publish().Channel(prefix+"ch").Message(text).Build()).Error() != nil && ctx.Err() == nil {
		}
		for found := false; !found; {
			select {
			case m := <-got:
				found = m.Message == text && m.Channel == prefix+"ch"
			case <-ctx.Done():
				return fmt.Errorf("no message %q", text)
			default:
				c.Do(ctx, c.B().Publish().Channel(prefix+"ch").Message(text).Build())
			}
		}
		if i == 0 {
			if err := cut(); err != nil {
				return err
			}
		}
	}
	stop()
	return <-ended
}

func blocking(ctx context.Context, c rueidis.Client) error {
	l := prefix + "l"
	got := make(chan []string, 1)
	go func() {
		v, _ := c.Do(ctx, c.B().Blpop().Key(prefix+"l0", l).Timeout(0).Build()).AsStrSlice()
		got <- v
	}()
	if err := c.Do(ctx, c.B().Rpush().Key(l).Element("x").Build()).Error(); err != nil {
		return err
	}
	if err := equal(<-got, []string{l, "x"}); err != nil {
		return err
	}
	err := c.Do(ctx, c.B().Blpop().Key(l).Timeout(0.01).Build()).Error()
	if !rueidis.IsRedisNil(err) {
		return fmt.Errorf("BLPOP with a timeout: %w", err)
	}
	return nil
}

func scripts(ctx context.Context, c rueidis.Client) error {
	s := rueidis.NewLuaScript("return redis.call('INCRBY', KEYS[1], ARGV[1])")
	for _, want := range []int64{3, 6} {
		n, err := s.Exec(ctx, c, []string{prefix + "s"}, []string{"3"}).AsInt64()
		if err := errors.Join(err, equal(n, want)); err != nil {
			return err
		}
		if err := c.Do(ctx, c.B().ScriptFlush().Build()).Error(); err != nil {
			return err
		}
	}
	return nil
}

func databases(ctx context.Context, c rueidis.Client) error {
	o := options()
	o.SelectDB = 3
	other, err := rueidis.NewClient(o)
	if err != nil {
		return err
	}
	defer other.Close()
	if err := other.Do(ctx, other.B().Set().Key(prefix+"k").Value("three").Build()).Error(); err != nil {
		return err
	}
	v, err := c.Do(ctx, c.B().Get().Key(prefix+"k").Build()).ToString()
	return errors.Join(err, equal(v, "v"))
}

func rows(ctx context.Context, c rueidis.Client) error {
	at := 5000
	if prefix == "ru2:" {
		at = 5100
	}
	var cmds rueidis.Commands
	for i := at; i < at+20; i++ {
		cmds = append(cmds, c.B().Set().Key(fmt.Sprint("user:", i)).Value(fmt.Sprintf(`{"id":%d,"name":"ru"}`, i)).Build())
	}
	for _, r := range c.DoMulti(ctx, cmds...) {
		if err := r.Error(); err != nil {
			return err
		}
	}
	v, err := c.Do(ctx, c.B().Get().Key(fmt.Sprint("user:", at)).Build()).ToString()
	if err := errors.Join(err, equal(v, fmt.Sprintf(`{"id":%d,"name":"ru","age":null}`, at))); err != nil {
		return err
	}
	if prefix == "ru3:" {
		v, err := c.DoCache(ctx, c.B().Get().Key(fmt.Sprint("user:", at+1)).Cache(), time.Minute).ToString()
		if err := errors.Join(err, equal(v, fmt.Sprintf(`{"id":%d,"name":"ru","age":null}`, at+1))); err != nil {
			return err
		}
	}
	err = c.Do(ctx, c.B().Set().Key(fmt.Sprint("user:", at)).Value("nonsense").Build()).Error()
	if err == nil || !strings.Contains(err.Error(), "keyrow") {
		return fmt.Errorf("nonsense: %w", err)
	}
	return c.Do(ctx, c.B().Del().Key(fmt.Sprint("user:", at)).Build()).Error()
}
