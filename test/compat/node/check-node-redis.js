// node-redis through keyrow: its ordinary features, in RESP2 and in RESP3. Run by clients_test.go, see
// python/check.py for the environment.
'use strict'
const assert = require('node:assert/strict')
const { createClient, createClientPool, defineScript, WatchError } = require('redis')
const { run, cut, event, options } = require('./checks.js')

const settings = (more) => ({
  socket: { host: options.host, port: options.port, reconnectStrategy: () => 20 },
  username: options.username,
  password: options.password,
  ...more
})

async function connect (more) {
  const c = createClient(settings(more))
  c.on('error', () => {}) // reconnecting is its own business
  await c.connect()
  return c
}

const scripts = {
  addTo: defineScript({
    NUMBER_OF_KEYS: 1,
    SCRIPT: "return redis.call('INCRBY', KEYS[1], ARGV[1])",
    parseCommand (parser, key, n) { parser.pushKey(key); parser.push(String(n)) },
    transformReply: (n) => n
  })
}

run('node-redis', async (each) => {
  for (const RESP of [2, 3]) {
    const p = `nr${RESP}:`
    const check = (what, f) => each(`RESP${RESP}: ${what}`, f)
    const r = await connect({ RESP, name: 'compat', scripts })
    const others = [r]
    const another = async (more) => { const c = await connect({ RESP, ...more }); others.push(c); return c }

    await check('basics', async () => {
      assert.equal(await r.set(p + 'k', 'v', { EX: 100 }), 'OK')
      assert.equal(await r.get(p + 'k'), 'v')
      assert.equal(await r.get(p + 'absent'), null)
      await r.mSet({ [p + 'a']: '1', [p + 'b']: '2' })
      assert.deepEqual(await r.mGet([p + 'a', p + 'absent', p + 'b']), ['1', null, '2'])
      await r.hSet(p + 'h', { f: 'v', g: '2' })
      assert.deepEqual({ ...await r.hGetAll(p + 'h') }, { f: 'v', g: '2' })
      await r.zAdd(p + 'z', [{ score: 1, value: 'a' }, { score: 2.5, value: 'b' }])
      assert.deepEqual((await r.zRangeWithScores(p + 'z', 0, -1)).map((m) => [m.value, m.score]), [['a', 1], ['b', 2.5]])
      assert.equal(await r.clientGetName(), 'compat')
      await assert.rejects(r.lPush(p + 'k', 'x'), /WRONGTYPE/)
      const big = 'x'.repeat(3 << 20)
      await r.set(p + 'big', big)
      assert.equal(await r.get(p + 'big'), big)
      const found = new Set()
      for (let i = 0; i < 50; i++) await r.set(`${p}scan:${i}`, String(i))
      for await (const keys of r.scanIterator({ MATCH: p + 'scan:*', COUNT: 7 })) keys.forEach((k) => found.add(k))
      assert.equal(found.size, 50)
    })

    await check('pipelines', async () => {
      const all = await Promise.all(Array.from({ length: 2000 }, () => r.incr(p + 'n')))
      assert.deepEqual(all, Array.from({ length: 2000 }, (_, i) => i + 1))
      assert.deepEqual(await r.multi().incr(p + 'n').incr(p + 'n').execAsPipeline(), [2001, 2002])
    })

    await check('transactions', async () => {
      assert.deepEqual(await r.multi().set(p + 't', '1').incr(p + 't').get(p + 't').exec(), ['OK', 2, '2'])
      const b = await another()
      await b.watch(p + 't')
      await r.set(p + 't', 'changed')
      await assert.rejects(b.multi().set(p + 't', 'mine').exec(), WatchError)
      const pool = await createClientPool(settings({ RESP }), { maximum: 3 }).on('error', () => {}).connect()
      const add = async () => {
        for (let done = 0; done < 25;) {
          try {
            await pool.execute(async (c) => {
              await c.watch(p + 'sum')
              const n = Number(await c.get(p + 'sum'))
              await c.multi().set(p + 'sum', String(n + 1)).exec()
            })
            done++
          } catch (err) {
            if (!(err instanceof WatchError)) throw err
          }
        }
      }
      await Promise.all([add(), add(), add()])
      assert.equal(await r.get(p + 'sum'), '75')
      pool.destroy()
    })

    await check('subscriptions', async () => {
      const sub = await another()
      const got = []
      let wake = () => {}
      const listen = (message, channel) => { got.push([channel, message]); wake() }
      const next = async () => {
        while (got.length === 0) await new Promise((resolve) => { wake = resolve })
        return got.shift()
      }
      await sub.subscribe([p + 'ch', p + 'ch2'], listen)
      await sub.pSubscribe(p + 'p*', listen)
      await sub.sSubscribe(p + 'shard', listen)
      assert.equal(await r.publish(p + 'ch', 'one'), 1)
      assert.deepEqual(await next(), [p + 'ch', 'one'])
      await r.publish(p + 'px', 'two')
      assert.deepEqual(await next(), [p + 'px', 'two'])
      await r.sPublish(p + 'shard', 'three')
      assert.deepEqual(await next(), [p + 'shard', 'three'])
      if (RESP === 3) assert.equal(await sub.get(p + 'k'), 'v')
      const ready = event(sub, 'ready')
      await cut()
      await ready
      while (await r.publish(p + 'ch', 'four') === 0);
      assert.deepEqual(await next(), [p + 'ch', 'four'])
      await sub.unsubscribe([p + 'ch', p + 'ch2'])
      await sub.pUnsubscribe(p + 'p*')
      await sub.sUnsubscribe(p + 'shard')
      assert.equal(String(await sub.get(p + 'k')), 'v') // in RESP2 the client gives a Buffer here
    })

    await check('blocking', async () => {
      const b = await another()
      assert.equal(await b.blPop(p + 'l', 0.01), null)
      const pop = b.blPop([p + 'l', p + 'l2'], 0)
      await r.rPush(p + 'l2', 'x')
      assert.deepEqual({ ...await pop }, { key: p + 'l2', element: 'x' })
      await r.xGroupCreate(p + 'x', 'g', '$', { MKSTREAM: true })
      const read = b.xReadGroup('g', 'c', { key: p + 'x', id: '>' }, { BLOCK: 0 })
      await r.xAdd(p + 'x', '*', { f: 'v' })
      assert.match(JSON.stringify(await read), /"f":"v"|"f","v"/)
    })

    await check('scripts', async () => {
      assert.equal(await r.addTo(p + 's', 3), 3)
      await r.scriptFlush()
      assert.equal(await r.addTo(p + 's', 4), 7)
      assert.deepEqual(await r.multi().addTo(p + 's', 1).exec(), [8])
    })

    await check('databases', async () => {
      const other = await another({ database: 3 })
      await other.set(p + 'k', 'three')
      assert.equal(await r.get(p + 'k'), 'v')
      await other.select(0)
      assert.equal(await other.get(p + 'k'), 'v')
    })

    if (RESP === 3) {
      await check('client side cache', async () => {
        const c = await another({ clientSideCache: { ttl: 0, maxEntries: 0, evictPolicy: 'LRU' } })
        await r.set(p + 'cached', 'one')
        assert.equal(await c.get(p + 'cached'), 'one')
        assert.equal(await c.get(p + 'cached'), 'one')
        await r.set(p + 'cached', 'two')
        while (await c.get(p + 'cached') !== 'two') await new Promise(setImmediate)
        await cut()
        while (await c.get(p + 'cached').catch(() => '') !== 'two') await new Promise(setImmediate)
        await r.set(p + 'cached', 'three')
        while (await c.get(p + 'cached') !== 'three') await new Promise(setImmediate)
      })
    }

    await check('killed', async () => {
      const b = await another()
      const ready = event(b, 'ready')
      await cut()
      await ready
      assert.equal(await b.get(p + 'k'), 'v')
      assert.equal(await r.get(p + 'k'), 'v')
    })

    await check('rows', async () => {
      const at = 4000 + 100 * RESP
      await Promise.all(Array.from({ length: 20 }, (_, i) => r.set(`user:${at + i}`, JSON.stringify({ id: at + i, name: 'nr' }))))
      assert.deepEqual(JSON.parse(await r.get(`user:${at}`)), { id: at, name: 'nr', age: null })
      assert.equal((await r.multi().set(`user:${at}`, `{"id":${at},"name":"x","age":5}`).get(`user:${at}`).exec())[1],
        `{"id":${at},"name":"x","age":5}`)
      assert.equal(await r.get('user:999997'), null)
      await assert.rejects(r.set(`user:${at}`, 'nonsense'), /keyrow/)
      assert.equal(await r.del(`user:${at}`), 1)
    })

    for (const c of others) c.destroy()
  }
})
