package test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"keyrow/test/harness"
)

// plainCommands touch no mapped key. Each line is a command; what stands in ” is one word, and \q in it a line end.
const plainCommands = `
PING
PING hello
PING a b
ECHO hello
ECHO
set s1 value
SET s1 value2 GET
SET s1 x NX
SET s1 x XX GET
SET s2 x EX 100 PX 100
SET s2 x PXAT 99999999999999
PEXPIRETIME s2
SET s2 y KEEPTTL
PEXPIRETIME s2
PERSIST s2
PERSIST s2
GET s1
GET nothing
GET
GET a b
GETSET s1 other
GETDEL s1
GETDEL s1
GETEX s2 PERSIST
SETNX s1 1
SETEX s3 0 x
SETEX s3 x x
SETEX s3 99999 x
EXPIREAT s3 99999999999
EXPIRETIME s3
MSET a 1 b 2 c 3
MSET a 1 b
MSETNX a 1 z 2
MGET a b nothing c
MGET
INCR a
INCRBY a 41
DECR a
DECRBY a 2
INCRBYFLOAT b 0.5
INCR text
SET text abc
INCR text
APPEND text def
STRLEN text
SETRANGE text 10 xyz
GETRANGE text 0 -1
SUBSTR text 1 2
LCS text s2
SETBIT bits 7 1
SETBIT bits 4294967296 1
GETBIT bits 7
BITCOUNT bits
BITPOS bits 1
BITOP NOT nbits bits
BITFIELD bits SET u8 0 255 GET u4 0 INCRBY u2 100 1
BITFIELD_RO bits GET u8 0
EXISTS a b nothing a
TYPE a
TYPE nothing
DEL a nothing b
UNLINK c
COPY text text2
COPY text text2
COPY text text2 REPLACE
RENAME text2 text3
RENAME nothing x
RENAMENX text3 text
OBJECT ENCODING text
OBJECT HELP
OBJECT nothing text
DUMP nothing
RESTORE bad 0 x
TOUCH text nothing
RPUSH list a b c d
LPUSH list z
LPUSHX nolist a
LRANGE list 0 -1
LINDEX list 1
LINSERT list BEFORE b new
LSET list 0 first
LSET list 99 x
LSET nolist 0 x
LREM list 1 c
LTRIM list 0 3
LPOS list b
LLEN list
LLEN text
LPOP list 2
RPOP list
RPOP nolist
RPOPLPUSH list list2
LMOVE list list2 LEFT RIGHT
LMPOP 2 nolist list2 LEFT COUNT 5
SADD set 1 2 3 4
SREM set 4 5
SCARD set
SISMEMBER set 2
SMISMEMBER set 1 9
SMEMBERS set
SADD other 3 4
SINTER set other
SDIFF set other
SUNION set other
SINTERCARD 2 set other
SINTERSTORE both set other
SMOVE set other 1
SRANDMEMBER both
SPOP both
SSCAN set 0
HSET hash f 1 g 2
HSET hash f
HMSET hash h 3
HGET hash f
HGET hash nothing
HMGET hash f nothing g
HGETALL hash
HKEYS hash
HVALS hash
HLEN hash
HSTRLEN hash f
HEXISTS hash f
HINCRBY hash f 10
HINCRBYFLOAT hash g 0.25
HSETNX hash f 1
HDEL hash h nothing
HSCAN hash 0
HRANDFIELD nohash
ZADD zset 1 one 2 two 3 three
ZADD zset NX CH 5 one 4 four
ZADD zset x y
ZINCRBY zset 0.5 one
ZRANGE zset 0 -1 WITHSCORES
ZRANGE zset (1 3 BYSCORE
ZRANGEBYSCORE zset -inf +inf WITHSCORES LIMIT 1 2
ZRANGEBYLEX zset - + 
ZREVRANGE zset 0 1
ZRANK zset two
ZSCORE zset one
ZMSCORE zset one nothing
ZCOUNT zset 1 2
ZCARD zset
ZPOPMIN zset
ZPOPMAX zset 2
ZRANGESTORE zset2 zset 0 -1
ZUNION 2 zset zset2 WITHSCORES
ZDIFFSTORE zset3 2 zset zset2
ZREM zset nothing
ZSCAN zset 0
XADD stream 1-1 f v
XADD stream 1-1 f v
XADD stream 2-1 f v g w
XLEN stream
XRANGE stream - +
XREVRANGE stream + - COUNT 1
XREAD COUNT 1 STREAMS stream 0
XREAD STREAMS stream 99-1
XGROUP CREATE stream group 0
XREADGROUP GROUP group me COUNT 1 STREAMS stream >
XACK stream group 1-1
XPENDING stream group
XINFO GROUPS nostream
XDEL stream 1-1
XTRIM stream MAXLEN 0
GEOADD geo 13.361389 38.115556 Palermo 15.087269 37.502669 Catania
GEODIST geo Palermo Catania km
GEOHASH geo Palermo
GEOPOS geo Palermo nothing
GEOSEARCH geo FROMLONLAT 15 37 BYRADIUS 200 km ASC
GEORADIUS geo 15 37 200 km WITHDIST ASC
PFADD hll a b c
PFCOUNT hll
PFMERGE hll2 hll
PFCOUNT hll hll2
SORT list2 ALPHA
RPUSH numbers 3 1 2
SORT numbers DESC LIMIT 0 2
SORT numbers STORE sorted
LRANGE sorted 0 -1
SORT_RO numbers
EVAL 'return{1,{2,"x"},false,redis.status_reply("FINE")}' 0
EVAL 'return{KEYS[1],ARGV[1]}' 1 k a
EVAL 'return{err="MY error"}' 0
EVAL 'return' 0
EVAL 'syntax(' 0
EVAL 'return redis.call("INCR",KEYS[1])' 1 counter
EVAL 'return redis.call("NOSUCH")' 0
EVAL 'return 1' 2 k
EVAL 'return 1' -1
EVAL_RO 'return redis.call("GET",KEYS[1])' 1 counter
EVALSHA ffffffffffffffffffffffffffffffffffffffff 0
SCRIPT LOAD 'return 7'
SCRIPT EXISTS ffffffffffffffffffffffffffffffffffffffff
SCRIPT NOSUCH
FCALL nosuch 0
EXPIRE nothing 10
EXPIRE text 100 GT
EXPIREAT text 99999999999 NX
EXPIRETIME text
PERSIST text
PTTL text
TTL nothing
RANDOMKEY x
SCAN x
KEYS no*such
DBSIZE x
SELECT x
SELECT 99999
SELECT 0
WAIT x y
CLIENT SETNAME me
CLIENT GETNAME
CLIENT SETNAME 'a\qb'
CLIENT NOSUCH
CLIENT KILL 1.2.3.4:5
CONFIG GET nosuch
CONFIG SET nosuch x
COMMAND INFO get nosuch
COMMAND GETKEYS MSET a 1 b 2
COMMAND COUNT
DEBUG OBJECT nothing
PUBLISH channel x
PUBSUB NUMSUB channel
OBJECT FREQ text
LOLWUT VERSION x
ACL WHOAMI
ACL NOSUCH
AUTH x
AUTH default x
AUTH a b c
NOSUCH
NOSUCH a 'b\qc' d
nosuch '' ''
'' a
SET '' empty
GET ''
SET 'k\q$3' 'v\q\q*1'
GET 'k\q$3'
LPUSH text x
HGET text f
GET list
MGET text list
SUBSTR
XADD
MULTI
SET intx 1
INCR intx
NOSUCH
EXEC
MULTI
SET intx 1
INCR intx
LPUSH intx x
GET intx
EXEC
MULTI
DISCARD
EXEC
WATCH text
MULTI
EXEC
`

// plain is the commands as RESP, each by itself.
func plain() (commands [][]byte) {
	for line := range strings.SplitSeq(strings.TrimSpace(plainCommands), "\n") {
		var args []string
		for i, part := range strings.Split(line, "'") {
			if i%2 == 1 {
				args = append(args, strings.ReplaceAll(part, `\q`, "\r\n"))
			} else {
				args = append(args, strings.Fields(part)...)
			}
		}
		commands = append(commands, encode(args...))
	}
	return commands
}

// What touches no mapped key is answered as by Redis, byte for byte, however it is sent.
func TestPassThrough(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	commands := plain()
	s := openShop(t, harness.Options{})
	direct := harness.StartRedis(t)

	// run sends the commands in parts, the next once all replies to those that were sent whole have come.
	run := func(addr string, size func() int) (replies []string) {
		p := dial(t, addr)
		defer p.Close()
		all := bytes.Join(commands, nil)
		sent, whole, end := 0, 0, 0
		for sent < len(all) {
			n := min(size(), len(all)-sent)
			p.send(all[sent : sent+n])
			for sent += n; whole < len(commands) && end+len(commands[whole]) <= sent; whole++ {
				end += len(commands[whole])
			}
			for len(replies) < whole {
				replies = append(replies, p.reply())
			}
		}
		return replies
	}
	compare := func(how string, size func() func() int) {
		t.Helper()
		want, got := run(direct.Addr, size()), run(s.Addr, size())
		for i := range commands {
			if got[i] != want[i] {
				t.Errorf("sent %s: %.200q\n got %.300q\nwant %.300q", how, commands[i], got[i], want[i])
			}
		}
		direct.Do("FLUSHALL")
		for _, key := range s.Redis.Do("KEYS", "*").([]any) {
			if !strings.HasPrefix(key.(string), s.prefix+":") {
				s.Redis.Do("DEL", key)
			}
		}
	}
	one := 0
	compare("one by one", func() func() int {
		one = 0
		return func() int { one++; return len(commands[one-1]) }
	})
	compare("all at once", func() func() int { return func() int { return 1 << 30 } })
	for range 5 {
		again := random.Uint64()
		compare(fmt.Sprint("in pieces, seed ", again), func() func() int {
			pieces := rand.New(rand.NewPCG(again, 0))
			return func() int { return 1 + pieces.IntN(300) }
		})
	}
	s.rest()
}

// Values of any size and content pass both ways.
func TestPassThroughLarge(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	p := dial(t, s.Addr)
	for _, size := range []int{0, 1, 16<<10 - 40, 16 << 10, 64<<10 - 10, 64 << 10, 64<<10 + 10, 1 << 20, 20 << 20} {
		value := strings.Repeat("\r\n$-1\r\n*3\x00", size/10+1)[:size]
		if got := p.do("SET", "large", value); got != "+OK\r\n" {
			t.Errorf("SET of %d bytes is answered %q", size, got)
		}
		if got := p.do("GET", "large"); got != fmt.Sprintf("$%d\r\n%s\r\n", size, value) {
			t.Errorf("GET of %d bytes is answered with %d bytes", size, len(got))
		}
	}
	s.rest()
}
