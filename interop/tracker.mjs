// A tracker of the npm package bittorrent-tracker, over HTTP and UDP, IPv4 and IPv6.
// usage: node tracker.mjs DIRECTORY_OF_THE_PACKAGE PORT
// Only the server is imported: the package's client needs a native module for WebRTC.
const [directory, port] = process.argv.slice(2)
const { default: Server } = await import(`${directory}/server.js`)
const server = new Server({ http: true, udp: true, ws: false, stats: false })
server.on('error', (err) => { console.error(err); process.exit(1) })
server.on('warning', (err) => console.error(err.message))
server.listen(Number(port), { http: '::', udp: '0.0.0.0', udp6: '::' }, () => console.log('ready'))
