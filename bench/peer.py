#!/usr/bin/python3
"""A libtorrent peer for the benchmark.

usage: peer.py [utp] leech TORRENT DIR IP
       peer.py [utp] seed TORRENT DIR RATE IP...  one session an address, each of at most RATE bytes a second, 0 is no limit
       peer.py idle DIR IP TORRENT...             one session that seeds them all

With "utp" peers are reached by uTP alone, else by TCP alone. "leech" ends once the torrent is complete; the others print "ready" once all is seeding, and share on."""
import sys
import time

import libtorrent as lt


args = sys.argv[1:]
utp = args[0] == 'utp'
if utp:
    del args[0]


def session(ip, port, rate=0):
    s = lt.session({
        'listen_interfaces': '%s:%d' % (ip, port), 'alert_mask': 0,
        'enable_dht': False, 'enable_lsd': False, 'enable_upnp': False, 'enable_natpmp': False,
        'enable_incoming_utp': utp, 'enable_outgoing_utp': utp, 'enable_incoming_tcp': not utp, 'enable_outgoing_tcp': not utp,
        'allow_multiple_connections_per_ip': True,
        'unchoke_slots_limit': 100, 'connections_limit': 1000, 'active_seeds': -1, 'active_limit': -1,
        'upload_rate_limit': rate, 'rate_limit_ip_overhead': False,
        'send_buffer_watermark': 8 << 20, 'max_allowed_in_request_queue': 4000})
    if rate:  # local peers are not limited unless they are put into the class of all
        f = lt.ip_filter()
        f.add_rule('0.0.0.0', '255.255.255.255', 1)
        s.set_peer_class_filter(f)
    return s


def add(s, torrent, directory, seed):
    p = lt.add_torrent_params()
    p.ti = lt.torrent_info(torrent)
    p.save_path = directory
    # Neither paused nor managed, so it starts at once.
    p.flags = lt.torrent_flags.seed_mode if seed else 0
    return s.add_torrent(p)


what, *args = args
if what == 'leech':
    torrent, directory, ip = args
    s = session(ip, 0)
    t = add(s, torrent, directory, False)
    while not t.status().is_seeding:
        time.sleep(.02)
    t.flush_cache()
else:
    if what == 'seed':
        torrent, directory, rate, *ips = args
        sessions = [session(ip, 6881, int(rate)) for ip in ips]
        torrents = [add(s, torrent, directory, True) for s in sessions]
    else:
        directory, ip, *names = args
        s = session(ip, 6881)
        torrents = [add(s, name, directory, True) for name in names]
    while not all(t.status().is_seeding for t in torrents):
        time.sleep(.05)
    print('ready', flush=True)
    while True:
        time.sleep(1)
