#!/usr/bin/python3
"""libtorrent in the DHT, for the tests.

usage: dht.py nodes IP...                  a network of nodes, one an address, on port 6881; prints "ready" once they know each other
       dht.py ask IP NODE,... COMMAND      a node that does one thing, prints what came of it, and ends

COMMAND is   put TEXT                            prints the target
             get TARGET                          prints the text
             put-signed SECRET KEY SALT TEXT     replaces what is there, and prints the sequence number
             get-signed KEY SALT                 prints the sequence number and the text
where SECRET is the 64 bytes that the seed of a key hashes to, as hexadecimal digits like KEY and TARGET."""
import signal
import sys
import time

import libtorrent as lt


def start(ip, nodes):
    return lt.session(dict(
        listen_interfaces='%s:6881' % ip, alert_mask=lt.alert.category_t.dht_notification,
        enable_dht=True, dht_bootstrap_nodes=','.join(nodes), enable_lsd=False, enable_upnp=False, enable_natpmp=False))


def await_alert(session, is_it):
    while True:
        session.wait_for_alert(1000)
        for alert in session.pop_alerts():
            if is_it(alert):
                return alert


def nodes(ips):
    sessions = [start(ip, []) for ip in ips]
    for session in sessions:
        for ip in ips:
            session.add_dht_node((ip, 6881))
    while any(session.status().dht_nodes < len(ips) - 1 for session in sessions):
        time.sleep(.05)
    print('ready', flush=True)
    signal.pause()


def said(item):
    return item['value'].decode()


def ask(ip, nodes, command, *args):
    session = start(ip, nodes.split(','))
    await_alert(session, lambda a: isinstance(a, lt.dht_bootstrap_alert))
    if command == 'put':
        target = session.dht_put_immutable_item(args[0])
        await_alert(session, lambda a: isinstance(a, lt.dht_put_alert) and a.num_success > 0)
        print(target)
    elif command == 'get':
        session.dht_get_immutable_item(lt.sha1_hash(bytes.fromhex(args[0])))
        print(said(await_alert(session, lambda a: isinstance(a, lt.dht_immutable_item_alert)).item))
    elif command == 'put-signed':
        secret, key, salt, text = bytes.fromhex(args[0]), bytes.fromhex(args[1]), args[2], args[3]
        session.dht_put_mutable_item(secret, key, text, salt)
        print(await_alert(session, lambda a: isinstance(a, lt.dht_put_alert) and a.num_success > 0).seq)
    elif command == 'get-signed':
        session.dht_get_mutable_item(bytes.fromhex(args[0]), args[1])
        found = await_alert(session, lambda a: isinstance(a, lt.dht_mutable_item_alert) and a.authoritative)
        print(found.seq, said(found.item))


if sys.argv[1] == 'nodes':
    nodes(sys.argv[2:])
else:
    ask(*sys.argv[2:])
