// ioredis through keyrow: its ordinary features. Run by clients_test.go, see python/check.py for the environment.
'use strict'
const assert = require('node:assert/strict')
const { once } = require('node:events')
const Redis = require('ioredis')
const { run, cut, event, options } = require('./checks.js')

const connect = (more) => new Redis({
  host: options.host, port: options.port, username: options.username, password: options.password,
  retryStrategy: () => 20, ...more
})

run('ioredis', async (check) => {
  const r = connect({ connectionName: 'compat' })
  const others = [r]
  r.on('error', () => {}) // reconnecting is its own business
  const another = (more) => { const c = connect(more); c.on('error', () => {}); others.push(c); return c }

  await check('basics', async () => {
    assert.equal(await r.set('io:k', 'v', 'EX', 100), 'OK')
    assert.equal(await r.get('io:k'), 'v')
    assert.equal(await r.get('io:absent'), null)
    await r.mset({ 'io:a': 1, 'io:b': 2 })
    assert.deepEqual(await r.mget('io:a', 'io:absent', 'io:b'), ['1', null, '2'])
    await r.hset('io:h', { f: 'v', g: 2 })
    assert.deepEqual(await r.hgetall('io:h'), { f: 'v', g: '2' })
    assert.equal(await r.client('GETNAME'), 'compat')
    await assert.rejects(r.lpush('io:k', 'x'), /WRONGTYPE/)
    const big = Buffer.alloc(3 << 20, 'x')
    await r.set('io:big', big)
    assert.ok(big.equals(await r.getBuffer('io:big')))
    for (let i = 0; i < 50; i++) await r.set(`io:scan:${i}`, i)
    const found = new Set()
    for await (const keys of r.scanStream({ match: 'io:scan:*', count: 7 })) keys.forEach((k) => found.add(k))
    assert.equal(found.size, 50)
    assert.match(await r.info('server'), /redis_version/)
  })

  await check('pipelines', async () => {
    const p = r.pipeline()
    for (let i = 0; i < 2000; i++) p.incr('io:n')
    assert.deepEqual(await p.exec(), Array.from({ length: 2000 }, (_, i) => [null, i + 1]))
    const auto = another({ enableAutoPipelining: true })
    assert.deepEqual(await Promise.all([auto.incr('io:auto'), auto.incr('io:auto'), auto.get('io:auto')]), [1, 2, '2'])
  })

  await check('transactions', async () => {
    assert.deepEqual(await r.multi().set('io:t', 1).incr('io:t').get('io:t').exec(), [[null, 'OK'], [null, 2], [null, '2']])
    await r.multi({ pipeline: false })
    assert.equal(await r.set('io:t', 5), 'QUEUED')
    assert.equal(await r.get('io:t'), 'QUEUED')
    assert.deepEqual(await r.exec(), [[null, 'OK'], [null, '5']])
    const b = another()
    await b.watch('io:t')
    await r.set('io:t', 'changed')
    assert.equal(await b.multi().set('io:t', 'mine').exec(), null)
    await assert.rejects(r.multi().set('io:t').exec(), /EXECABORT/)
    const add = async (c) => {
      for (let done = 0; done < 25;) {
        await c.watch('io:sum')
        const n = Number(await c.get('io:sum'))
        if (await c.multi().set('io:sum', n + 1).exec()) done++
      }
    }
    await Promise.all([add(another()), add(another()), add(another())])
    assert.equal(await r.get('io:sum'), '75')
  })

  await check('subscriptions', async () => {
    const sub = another()
    assert.equal(await sub.subscribe('io:ch', 'io:ch2'), 2)
    assert.equal(await sub.psubscribe('io:p*'), 3)
    let next = once(sub, 'message')
    assert.equal(await r.publish('io:ch', 'one'), 1)
    assert.deepEqual(await next, ['io:ch', 'one'])
    next = once(sub, 'pmessage')
    await r.publish('io:px', 'two')
    assert.deepEqual(await next, ['io:p*', 'io:px', 'two'])
    await sub.ping()
    await assert.rejects(sub.get('io:k'), /subscriber mode/)
    const ready = event(sub, 'ready')
    await cut()
    await ready
    next = once(sub, 'message')
    while (await r.publish('io:ch', 'three') === 0); // it subscribes again in the background
    assert.deepEqual(await next, ['io:ch', 'three'])
    await sub.unsubscribe('io:ch', 'io:ch2')
    await sub.punsubscribe('io:p*')
    assert.equal(await sub.get('io:k'), 'v')
  })

  await check('blocking', async () => {
    const b = another()
    assert.equal(await b.blpop('io:l', 0.01), null)
    const pop = b.blpop('io:l', 'io:l2', 0)
    await r.rpush('io:l2', 'x')
    assert.deepEqual(await pop, ['io:l2', 'x'])
    const min = b.bzpopmin('io:z', 0)
    await r.zadd('io:z', 1, 'a')
    assert.deepEqual(await min, ['io:z', 'a', '1'])
    const read = b.xread('BLOCK', 0, 'STREAMS', 'io:x', '$')
    let got
    read.then((v) => { got = v })
    while (!got) { await r.xadd('io:x', '*', 'f', 'v'); await new Promise(setImmediate) }
    assert.deepEqual(got[0][1][0][1], ['f', 'v'])
  })

  await check('scripts', async () => {
    r.defineCommand('addTo', { numberOfKeys: 1, lua: "return redis.call('INCRBY', KEYS[1], ARGV[1])" })
    assert.equal(await r.addTo('io:s', 3), 3)
    await r.script('FLUSH')
    assert.equal(await r.addTo('io:s', 4), 7)
    assert.deepEqual(await r.pipeline().addTo('io:s', 1).addTo('io:s', 1).exec(), [[null, 8], [null, 9]])
  })

  await check('monitor', async () => {
    const m = await r.monitor()
    const seen = new Promise((resolve) => m.on('monitor', (_, args) => { if (args[1] === 'io:seen') resolve(args) }))
    await r.get('io:seen')
    assert.deepEqual(await seen, ['get', 'io:seen'])
    m.disconnect()
  })

  await check('databases', async () => {
    const other = another({ db: 3 })
    await other.set('io:k', 'three')
    assert.equal(await r.get('io:k'), 'v')
    await other.select(0)
    assert.equal(await other.get('io:k'), 'v')
  })

  await check('killed', async () => {
    const b = another()
    await b.get('io:k')
    const pop = b.blpop('io:kl', 0) // sent again after the reconnect
    const ready = event(b, 'ready')
    await cut()
    await ready
    await r.rpush('io:kl', 'x')
    assert.deepEqual(await pop, ['io:kl', 'x'])
    assert.equal(await r.get('io:k'), 'v')
  })

  await check('rows', async () => {
    for (let i = 3000; i < 3020; i++) assert.equal(await r.set(`user:${i}`, JSON.stringify({ id: i, name: 'io' })), 'OK')
    assert.deepEqual(JSON.parse(await r.get('user:3000')), { id: 3000, name: 'io', age: null })
    assert.deepEqual((await r.multi().set('user:3000', '{"id":3000,"name":"renamed","age":5}').get('user:3000').exec())[1],
      [null, '{"id":3000,"name":"renamed","age":5}'])
    assert.equal(await r.get('user:999998'), null)
    await assert.rejects(r.set('user:3000', 'nonsense'), /keyrow/)
    assert.equal(await r.del('user:3000', 'user:3001'), 2)
  })

  for (const c of others) c.disconnect()
})
