// A node of the npm package bittorrent-dht, which does one thing, prints what came of it, and ends.
// usage: node dht.mjs DIRECTORY_OF_THE_PACKAGE IP NODE,... COMMAND
// COMMAND is one of dht.py's, where SECRET is the seed of the key, or
//   announce INFO_HASH PORT     prints how many nodes took it
//   peers INFO_HASH             prints the peers
import crypto from 'node:crypto'

const [directory, ip, nodes, command, ...args] = process.argv.slice(2)
const { default: DHT } = await import(`${directory}/index.js`)

const hex = (s) => Buffer.from(s, 'hex')
const spki = hex('302a300506032b6570032100') // before an Ed25519 key, in DER (RFC 8410)
const pkcs8 = hex('302e020100300506032b657004220420')
const verify = (signature, message, key) =>
  crypto.verify(null, message, { key: Buffer.concat([spki, key]), format: 'der', type: 'spki' }, signature)

const dht = new DHT({ bootstrap: nodes.split(','), verify })
dht.on('error', (err) => { console.error(err); process.exit(1) })
dht.on('warning', (err) => console.error(err.message))
dht.listen(6881, ip)
await new Promise((resolve) => dht.on('ready', resolve))

// call makes a promise of a method that takes a callback.
const call = (method, ...args) =>
  new Promise((resolve, reject) => dht[method](...args, (err, ...got) => err ? reject(err) : resolve(got)))
const target = (key, salt) => crypto.createHash('sha1').update(key).update(salt).digest()

switch (command) {
  case 'announce': {
    const [stored] = await call('announce', args[0], Number(args[1]))
    console.log(stored)
    break
  }
  case 'peers':
    dht.on('peer', (peer) => console.log(`${peer.host}:${peer.port}`))
    await call('lookup', args[0])
    break
  case 'put': {
    const [hash] = await call('put', { v: Buffer.from(args[0]) })
    console.log(hash.toString('hex'))
    break
  }
  case 'get': {
    const [found] = await call('get', args[0])
    console.log(found.v.toString())
    break
  }
  case 'put-signed': {
    const [seed, key, salt, text] = [hex(args[0]), hex(args[1]), args[2], args[3]]
    const [found] = await call('get', target(key, salt), { salt })
    const seq = (found?.seq ?? 0) + 1
    const sign = (message) => crypto.sign(null, message, { key: Buffer.concat([pkcs8, seed]), format: 'der', type: 'pkcs8' })
    await call('put', { k: key, salt: salt ? Buffer.from(salt) : undefined, seq, v: Buffer.from(text), sign })
    console.log(seq)
    break
  }
  case 'get-signed': {
    const [found] = await call('get', target(hex(args[0]), args[1]), { salt: args[1] })
    console.log(found.seq, found.v.toString())
    break
  }
}
process.exit()
