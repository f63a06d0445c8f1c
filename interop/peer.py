#!/usr/bin/python3
"""A libtorrent peer for the tests: downloads, then seeds until it is ended.

usage: peer.py WHAT DIR IP [--enc enabled|forced|forced-plaintext|disabled] [--seed] [--up BYTES] [--down BYTES] [--transport tcp|utp] [--peer IP:PORT]... [--no-pex] [--lsd] [--node IP:PORT]...
       peer.py --create DIR/NAME OUT ANNOUNCE PIECE_LENGTH [1|hybrid|2]

WHAT is a .torrent file or a magnet link. With --node, it joins the DHT there first. Prints "ready" once it has started, "seeding" once it has everything,
and when it is ended "uploaded" and the bytes of payload that it sent."""
import argparse
import signal
import sys
import time

import libtorrent as lt

ENCRYPTION = {
    'enabled': dict(out_enc_policy=1, in_enc_policy=1, allowed_enc_level=3, prefer_rc4=True),
    'forced': dict(out_enc_policy=0, in_enc_policy=0, allowed_enc_level=2, prefer_rc4=True),
    'forced-plaintext': dict(out_enc_policy=0, in_enc_policy=0, allowed_enc_level=1, prefer_rc4=False),
    'disabled': dict(out_enc_policy=2, in_enc_policy=2, allowed_enc_level=1, prefer_rc4=False),
}


def create(path, out, announce, piece_length, version='1'):
    storage = lt.file_storage()
    lt.add_files(storage, path)
    kind = {'1': lt.create_torrent.v1_only, 'hybrid': 0, '2': lt.create_torrent.v2_only}[version]
    torrent = lt.create_torrent(storage, piece_length, kind)
    torrent.add_tracker(announce)
    lt.set_piece_hashes(torrent, path.rsplit('/', 1)[0])
    with open(out, 'wb') as f:
        f.write(lt.bencode(torrent.generate()))


def share(o):
    listen = '[%s]:6881' % o.ip if ':' in o.ip else '%s:6881' % o.ip
    session = lt.session(dict(
        ENCRYPTION[o.enc], listen_interfaces=listen, alert_mask=lt.alert.category_t.dht_notification,
        enable_dht=bool(o.node), dht_bootstrap_nodes=','.join(o.node), enable_lsd=o.lsd, enable_upnp=False, enable_natpmp=False,
        enable_incoming_utp=o.transport == 'utp', enable_outgoing_utp=o.transport == 'utp',
        enable_incoming_tcp=o.transport == 'tcp', enable_outgoing_tcp=o.transport == 'tcp', allow_multiple_connections_per_ip=True,
        min_reconnect_time=1))  # in another way, encrypted or not, if the first did not work
    if not o.no_pex:
        session.add_extension('ut_pex')
    session.add_extension('ut_metadata')
    while o.node and not any(isinstance(a, lt.dht_bootstrap_alert) for a in session.pop_alerts()):
        session.wait_for_alert(1000)
    if o.what.startswith('magnet:'):
        params = lt.parse_magnet_uri(o.what)
    else:
        params = lt.add_torrent_params()
        params.ti = lt.torrent_info(o.what)
    params.save_path = o.dir
    params.flags &= ~(lt.torrent_flags.paused | lt.torrent_flags.auto_managed)  # start at once
    if o.seed:
        params.flags |= lt.torrent_flags.seed_mode
    torrent = session.add_torrent(params)
    if o.up:
        torrent.set_upload_limit(o.up)
    if o.down:
        torrent.set_download_limit(o.down)
    for peer in o.peer:
        host, port = peer.rsplit(':', 1)
        torrent.connect_peer((host.strip('[]'), int(port)))
    print('ready', flush=True)
    try:
        while not torrent.status().is_seeding:
            time.sleep(.05)
        print('seeding', flush=True)
        while True:
            time.sleep(1)
    finally:
        print('uploaded', torrent.status().total_payload_upload, flush=True)


signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # rather than die, so that the session writes what it holds
if sys.argv[1] == '--create':
    create(*sys.argv[2:5], int(sys.argv[5]), *sys.argv[6:])
else:
    p = argparse.ArgumentParser()
    p.add_argument('what')
    p.add_argument('dir')
    p.add_argument('ip')
    p.add_argument('--enc', choices=ENCRYPTION, default='enabled')
    p.add_argument('--seed', action='store_true')
    p.add_argument('--up', type=int, help='bytes a second')
    p.add_argument('--down', type=int, help='bytes a second')
    p.add_argument('--transport', choices=['tcp', 'utp'], default='tcp')
    p.add_argument('--peer', action='append', default=[])
    p.add_argument('--no-pex', action='store_true')
    p.add_argument('--lsd', action='store_true')
    p.add_argument('--node', action='append', default=[])
    share(p.parse_args())
