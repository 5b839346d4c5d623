"""redis-py through keyrow: its ordinary features, without and with hiredis.

Run by clients_test.go with HOST, PORT (a relay in front of keyrow), CUT_PORT (connecting there cuts every connection
of the relay), USERNAME and PASSWORD. Prints what failed and exits 1.
"""

import os
import sys
import threading
import traceback

import redis
from redis.connection import Connection, HiredisParser, PythonParser

HOST, PORT, CUT_PORT = os.environ["HOST"], int(os.environ["PORT"]), int(os.environ["CUT_PORT"])


def client(parser, **options):
    pool = redis.ConnectionPool(
        host=HOST, port=PORT, username=os.environ["USERNAME"], password=os.environ["PASSWORD"],
        socket_timeout=30, parser_class=parser, connection_class=Connection, **options)
    return redis.Redis(connection_pool=pool)


def cut():
    """Cuts every connection that goes through the relay."""
    import socket
    with socket.create_connection((HOST, CUT_PORT)) as s:
        s.recv(1)


def equal(got, want):
    assert got == want, f"got {got!r}, want {want!r}"


def basics(r, p):
    assert r.ping()
    equal(r.set(p + "k", "v", ex=100), True)
    equal(r.get(p + "k"), b"v")
    assert 0 < r.ttl(p + "k") <= 100
    equal(r.get(p + "absent"), None)
    equal(r.mset({p + "a": 1, p + "b": 2}), True)
    equal(r.mget(p + "a", p + "absent", p + "b"), [b"1", None, b"2"])
    equal(r.incr(p + "a", 5), 6)
    equal(r.incrbyfloat(p + "a", 0.5), 6.5)
    r.hset(p + "h", mapping={"f": "v", "g": 2})
    equal(r.hgetall(p + "h"), {b"f": b"v", b"g": b"2"})
    r.zadd(p + "z", {"a": 1, "b": 2.5})
    equal(r.zrange(p + "z", 0, -1, withscores=True), [(b"a", 1.0), (b"b", 2.5)])
    r.sadd(p + "s", "x", "y")
    equal(r.smembers(p + "s"), {b"x", b"y"})
    for i in range(50):
        r.set(f"{p}scan:{i}", i)
    equal(len(set(r.scan_iter(p + "scan:*", count=7))), 50)
    equal(r.setbit(p + "bits", 7, 1), 0)
    equal(r.geoadd(p + "g", (13.361389, 38.115556, "Palermo")), 1)
    equal(r.info("server")["redis_mode"], "standalone")
    equal(r.object("encoding", p + "z"), b"listpack")
    try:
        r.lpush(p + "k", "x")
        raise AssertionError("no WRONGTYPE")
    except redis.ResponseError as e:
        assert "WRONGTYPE" in str(e), e
    big = os.urandom(3 << 20)
    r.set(p + "big", big)
    equal(r.get(p + "big"), big)


def pipelines(r, p):
    with r.pipeline(transaction=False) as pipe:
        for i in range(2000):
            pipe.incr(p + "n")
        equal(pipe.execute(), list(range(1, 2001)))
    with r.pipeline(transaction=False) as pipe:
        pipe.set(p + "k", "v").lpush(p + "k", "x").get(p + "k")
        got = pipe.execute(raise_on_error=False)
        assert got[0] is True and isinstance(got[1], redis.ResponseError) and got[2] == b"v", got


def transactions(r, p):
    with r.pipeline(transaction=True) as pipe:
        equal(pipe.set(p + "k", 1).incr(p + "k").get(p + "k").execute(), [True, 2, b"2"])
    with r.pipeline() as pipe:
        pipe.watch(p + "k")
        r.set(p + "k", "changed")
        pipe.multi()
        pipe.set(p + "k", "mine")
        try:
            pipe.execute()
            raise AssertionError("WATCH did not notice")
        except redis.WatchError:
            pass
    r.set(p + "n", 0)

    def add(pipe):
        n = int(pipe.get(p + "n"))
        pipe.multi()
        pipe.set(p + "n", n + 1)

    def work():
        try:
            for _ in range(25):
                r.transaction(add, p + "n")
        except Exception as e:
            failed.append(e)

    failed = []
    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed, failed
    equal(r.get(p + "n"), b"100")
    with r.lock(p + "lock", timeout=10):
        equal(r.exists(p + "lock"), 1)
    equal(r.exists(p + "lock"), 0)


def message(sub):
    while True:
        m = sub.get_message(timeout=30)
        assert m is not None, "no message"
        if m["type"] in ("message", "pmessage"):
            return m["channel"], m["data"]


def subscriptions(r, p):
    sub = r.pubsub()
    sub.subscribe(p + "ch")
    sub.psubscribe(p + "p*")
    equal([sub.get_message(timeout=30)["type"] for _ in range(2)], ["subscribe", "psubscribe"])
    equal(r.publish(p + "ch", "one"), 1)
    equal(message(sub), ((p + "ch").encode(), b"one"))
    r.publish(p + "px", "two")
    equal(message(sub), ((p + "px").encode(), b"two"))
    sub.ping()
    equal(sub.get_message(timeout=30)["type"], "pong")
    cut()
    # redis-py subscribes again by itself when it finds its connection closed.
    while True:
        try:
            m = sub.get_message(timeout=30)
        except redis.ConnectionError:
            continue
        if m and m["type"] == "psubscribe":
            break
    r.publish(p + "ch", "three")
    equal(message(sub), ((p + "ch").encode(), b"three"))
    sub.unsubscribe()
    sub.punsubscribe()
    sub.close()


def blocking(r, p):
    equal(r.blpop(p + "l", timeout=1), None)
    got = []
    t = threading.Thread(target=lambda: got.append(r.blpop([p + "l", p + "l2"], timeout=30)))
    t.start()
    r.rpush(p + "l2", "x")
    t.join()
    equal(got, [((p + "l2").encode(), b"x")])
    r.xgroup_create(p + "x", "g", mkstream=True)
    t = threading.Thread(target=lambda: got.append(r.xreadgroup("g", "c", {p + "x": ">"}, block=30000)))
    t.start()
    at = r.xadd(p + "x", {"f": "v"})
    t.join()
    equal(got[1], [[(p + "x").encode(), [(at, {b"f": b"v"})]]])
    equal(r.xack(p + "x", "g", at), 1)


def scripts(r, p):
    s = r.register_script("return {KEYS[1], redis.call('INCRBY', KEYS[1], ARGV[1])}")
    equal(s(keys=[p + "n"], args=[3]), [(p + "n").encode(), 3])
    r.script_flush()
    equal(s(keys=[p + "n"], args=[4]), [(p + "n").encode(), 7])
    with r.pipeline() as pipe:
        s(keys=[p + "n"], args=[1], client=pipe)
        equal(pipe.execute(), [[(p + "n").encode(), 8]])


def databases(r, p, parser):
    other = client(parser, db=3)
    other.set(p + "k", "three")
    equal(r.get(p + "k") == b"three", False)
    equal(other.get(p + "k"), b"three")


def killed(r, p):
    r.set(p + "k", "v")
    cut()
    try:
        r.get(p + "k")  # redis-py repeats only what it was told to repeat
    except redis.ConnectionError:
        pass
    equal(r.get(p + "k"), b"v")


def rows(r, at):
    """Mapped keys: rows of MySQL."""
    for i in range(at, at + 20):
        assert r.set(f"user:{i}", '{"id":%d,"name":"py %d","age":null}' % (i, i))
    equal(r.get(f"user:{at}"), b'{"id":%d,"name":"py %d","age":null}' % (at, at))
    with r.pipeline() as pipe:
        pipe.set(f"user:{at}", '{"id":%d,"name":"renamed"}' % at).get(f"user:{at}")
        equal(pipe.execute(), [True, b'{"id":%d,"name":"renamed","age":null}' % at])
    with r.pipeline(transaction=False) as pipe:
        for i in range(at, at + 20):
            pipe.get(f"user:{i}")
        assert all(pipe.execute())
    equal(r.get("user:999999"), None)
    equal(r.mget("user:999999", f"user:{at}")[0], None)
    try:
        r.set(f"user:{at}", "nonsense")
        raise AssertionError("no error")
    except redis.ResponseError as e:
        assert "keyrow" in str(e), e
    equal(r.delete(f"user:{at}"), 1)


def main():
    failed = False
    for parser in (PythonParser, HiredisParser):
        r = client(parser)
        p = parser.__name__ + ":"
        checks = [basics, pipelines, transactions, subscriptions, blocking, scripts, killed,
                  lambda r, p: databases(r, p, parser),
                  lambda r, p: rows(r, 1000 if parser is PythonParser else 2000)]
        for i, check in enumerate(checks):
            try:
                check(r, f"{p}{i}:")
            except Exception:
                failed = True
                print(f"{parser.__name__}: {check.__name__}")
                traceback.print_exc(file=sys.stdout)
    sys.exit(failed)


main()
