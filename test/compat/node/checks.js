// What both clients share: the environment, the relay's scissors, and the order of the checks.
'use strict'
const net = require('node:net')

const options = {
  host: process.env.HOST,
  port: Number(process.env.PORT),
  username: process.env.USERNAME,
  password: process.env.PASSWORD
}

// cut cuts every connection that goes through the relay.
function cut () {
  return new Promise((resolve, reject) => {
    net.connect(Number(process.env.CUT_PORT), options.host).on('error', reject).on('close', resolve).resume()
  })
}

// event waits for an event, and not for errors as events.once does.
function event (emitter, name) {
  return new Promise((resolve) => emitter.once(name, resolve))
}

// run performs the checks one after the other, prints what failed and ends the process.
async function run (name, checks) {
  let failed = false
  const check = async (what, f) => {
    let timer
    const late = new Promise((_resolve, reject) => {
      timer = setTimeout(() => reject(new Error('no end')), 30000)
    })
    try {
      await Promise.race([f(), late])
    } catch (err) {
      failed = true
      console.log(`${name}: ${what}: ${err.stack}`)
    } finally {
      clearTimeout(timer)
    }
  }
  try {
    await checks(check)
  } catch (err) {
    failed = true
    console.log(`${name}: ${err.stack}`)
  }
  process.exit(failed ? 1 : 0)
}

module.exports = { options, cut, event, run }
