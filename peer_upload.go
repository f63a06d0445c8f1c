package torrent

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"time"

	"github.com/shoal-go/torrent/internal/account"
	"github.com/shoal-go/torrent/internal/choker"
	"github.com/shoal-go/torrent/internal/netaddr"
	"github.com/shoal-go/torrent/internal/outbox"
	"github.com/shoal-go/torrent/internal/peerlist"
	"github.com/shoal-go/torrent/internal/ratelimit"
	"github.com/shoal-go/torrent/internal/wire"
)

const (
	// maxUploadRun is how many blocks are written at once to a peer that takes them fast, and maxUploadBytes how many bytes of
	// requests that are longer than a block.
	maxUploadRun   = 8
	maxUploadBytes = maxUploadRun * blockSize
	// payloadKept is how long the memory for these is kept while a peer requests nothing.
	payloadKept = time.Second
	// maxDenied is how many requests that are not allowed a peer may make: a few times as many as may be under way
	// when we choke it or lose a piece.
	maxDenied = 4 * outbox.MaxQueued
)

// uploading decides which peers a download uploads to, and which pieces.
type uploading struct {
	choker    *choker.Choker
	suggester choker.Suggester
	spread    choker.Spread
	debts     choker.Debts
	judged    int64                             // peers in all choke rounds so far
	fastSets  map[netip.Prefix]map[uint32]int64 // bytes of allowed-fast pieces that each /24 may still request, by piece (BEP 6)
	looked    map[uint32]time.Time              // when the files under a piece were last seen to be unchanged
	forgot    time.Time                         // when entries older than lookAgain were last removed
}

// answers paces those messages other than blocks that count as uploads: pieces of metadata (BEP 9), hashes (BEP 52) and long bitfields.
type answers struct {
	mu   sync.Mutex
	pace ratelimit.Answers
}

// delay returns how long to wait before asking again whether n bytes may be sent under the limits; 0 if they may be sent now.
func (a *answers) delay(l ratelimit.Limits, n int) time.Duration {
	if len(l) == 0 {
		return 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.pace.Delay(time.Now(), l, n)
}

// lookAgain is how long files that were seen to be unchanged are assumed to stay so. A piece may span thousands of
// files, so that looking for each block would cost far more than the block.
const lookAgain = time.Second

// lookRate is how many files a second all strangers may have a client look at. While it is exceeded, uploads go on without a look:
// whoever gets bytes that another program has changed since finds them false.
const lookRate = 20_000

// lookDue reports whether it is time to look for changes of the files of a piece, and if so records that this is
// done.
func (u *uploading) lookDue(piece uint32, now time.Time) bool {
	if at, ok := u.looked[piece]; ok && now.Sub(at) < lookAgain {
		return false
	}
	if u.looked == nil {
		u.looked = make(map[uint32]time.Time)
	}
	if len(u.looked) >= 1024 && now.Sub(u.forgot) >= lookAgain { // not for each of thousands of pieces within that time
		u.forgot = now
		maps.DeleteFunc(u.looked, func(_ uint32, at time.Time) bool { return now.Sub(at) >= lookAgain })
	}
	u.looked[piece] = now
	return true
}

// requested queues a request of the peer, if the peer may make it.
func (p *peer) requested(r outbox.Request, now time.Time) error {
	p.charge(requestWork, now)
	for {
		may, err := p.mayAsk(r)
		if err != nil {
			return err
		}
		if !may {
			return p.deny(r)
		}
		switch p.out.Enqueue(r) {
		case outbox.Queued:
			p.charge(p.d.filesWork(r), now)
			return nil
		case outbox.QueuedBefore:
			return p.countDenied()
		}
		if p.fast {
			return p.deny(r)
		}
		select { // a peer without the Fast extension is not read until there is room
		case <-p.out.WhenRoom():
		case <-p.ended:
			return p.closing
		}
	}
}

// fileWork is the work of opening another file to read a block. It is charged only if files are shorter than shortFile, because that
// of longer ones is little compared with the traffic of the peer.
const (
	fileWork  = 100
	shortFile = 128
)

// filesWork returns the work of reading a block that lies in more files than it would if these were of shortFile bytes each.
func (d *Download) filesWork(r outbox.Request) int64 {
	n := d.t.layout.Span(d.t.layout.PieceOffset(int(r.Piece))+int64(r.Begin), int64(r.Length))
	return fileWork * int64(max(0, n-1-int(r.Length/shortFile)))
}

// mayAsk reports whether the peer may request r now. It returns an error if no peer may ever request it.
func (p *peer) mayAsk(r outbox.Request) (bool, error) {
	d := p.d
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.t.NumPieces()
	if uint64(r.Piece) >= uint64(n) || r.Length == 0 || r.Length > wire.MaxBlock ||
		int64(r.Begin)+int64(r.Length) > d.mostRequested(int(r.Piece)) {
		return false, fmt.Errorf("invalid request: %d bytes at offset %d of piece %d", r.Length, r.Begin, r.Piece)
	}
	if !d.picker.Verified().Has(int(r.Piece)) || p.amChoking && !p.takeAllowedFast(r) {
		return false, nil
	}
	d.uploading.suggester.Give(int(r.Piece), n)
	if d.sharing() {
		d.uploading.spread.Give(p.number, int(r.Piece), n, d.picker.Availability(int(r.Piece)))
	}
	return true, nil
}

// mostRequested returns the offset in a piece up to which peers may request it. libtorrent, and clients that know a hybrid
// as version 1, also request the zeros that fill up the last piece of a file.
func (d *Download) mostRequested(piece int) int64 {
	if d.t.layout.Aligned() {
		return d.t.PieceLength()
	}
	return d.t.layout.PieceSize(piece)
}

// deny refuses a request. It returns an error if there were too many of these.
func (p *peer) deny(r outbox.Request) error {
	if err := p.countDenied(); err != nil || !p.fast {
		return err
	}
	return p.reject(r)
}

func (p *peer) countDenied() error {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	if p.denied++; p.denied > maxDenied {
		return errors.New("too many requests for blocks it may not have")
	}
	return nil
}

func (p *peer) reject(r outbox.Request) error {
	if !p.out.Add(func(b []byte) []byte { return wire.AppendReject(b, r.Piece, r.Begin, r.Length) }) {
		return errNotReading
	}
	return nil
}

// write sends the contents of the outbox until the connection ends, and returns why it ended. The first messages have greeting bytes.
// Messages go first. A block is read from storage only when it is about to be sent. While a limit delays it, messages still pass. Long
// messages that the limit counts as well are sent between blocks.
func (p *peer) write(greeting int) error {
	w := writer{p: p, turn: ratelimit.NewTurn(p.conn.network(), p.out.Signal, p.d.uploadQueues...), lastSent: time.Now(), nudge: p.conn.way == byUTP}
	defer w.turn.Leave()
	if !p.awaitGreeting(greeting) {
		return nil
	}
	timer := time.NewTimer(keepAliveAfter)
	defer timer.Stop()
	for {
		wait, err := w.send()
		if err != nil {
			return err
		}
		if wait == 0 {
			continue
		}
		timer.Reset(wait)
		select {
		case <-p.out.Wake():
		case <-timer.C:
		case <-p.ended:
			return nil
		}
	}
}

// longGreeting is how many bytes the first messages of a connection have that count as uploads.
const longGreeting = 1 << 10

// awaitGreeting waits until the upload limits allow the first messages of the connection, n bytes, if these are long. Our bitfield must
// come before everything else (BEP 3). It reports whether the connection goes on. A limit that lets nothing pass is for blocks: it
// keeps us from no peer. Nor do those that connect keep us from peers that we dial, which are few.
func (p *peer) awaitGreeting(n int) bool {
	for n > longGreeting && p.conn.incoming && !p.d.uploadLimits.Closed() {
		wait := p.d.client.answers.delay(p.d.uploadLimits, n)
		if wait == 0 {
			return true
		}
		if !pause(max(wait, leastRest), p.ended) {
			return false
		}
	}
	return true
}

// network is the name of the network whose peers share their turns at the upload limits. It is empty for a local address, which any number
// of peers may stand behind.
func (k *connection) network() string {
	if netaddr.IsLocal(k.addr.Addr()) {
		return ""
	}
	return peerlist.Network(k.addr.Addr())
}

// A writer is the state of write.
type writer struct {
	p        *peer
	turn     *ratelimit.Turn  // at the upload limits
	messages []byte           // taken from the outbox
	uploads  []outbox.Request // to be answered next
	payload  []byte           // scratch
	deadline time.Time        // of the connection
	lastSent time.Time
	// nudge is set until the first keep-alive. Transmission 3.00 reads what comes in one packet of uTP with the handshake only when
	// another packet comes. Until then it does not know what we have.
	nudge bool
	// lastAnswered is when a request was last answered. In a busy swarm it is much earlier than lastSent, because have messages
	// are sent all the time.
	lastAnswered time.Time
}

// send sends what can be sent now, and returns how long to wait before the next call; zero means to wait for a
// signal.
func (w *writer) send() (wait time.Duration, err error) {
	p := w.p
	w.messages, w.uploads = p.out.Take(w.messages, p.uploadRun(), w.uploads)
	now := time.Now()
	if left := w.deadline.Sub(now); left < writeTimeout-5*time.Second {
		w.deadline = now.Add(writeTimeout)
		p.conn.SetWriteDeadline(w.deadline)
	}
	if len(w.messages) > 0 {
		if _, err := p.conn.Write(w.messages); err != nil {
			return 0, err
		}
		now = time.Now() // the write may have waited for the peer to read
		w.lastSent = now
	}
	if wait, err = w.sendAnswer(); err != nil {
		return 0, err
	}
	if len(w.uploads) == 0 {
		w.turn.Leave() // it may have been for requests that were cancelled
	} else if sent, err := w.sendBlocks(); sent || err != nil {
		return 0, err
	}
	now = time.Now()
	quiet, unused := now.Sub(w.lastSent), now.Sub(w.lastAnswered)
	if unused >= payloadKept {
		w.payload = nil
		p.holder.Set(account.Payload, 0)
	}
	after := keepAliveAfter
	if w.nudge {
		after = nudgeAfter
	}
	switch {
	case quiet >= after:
		w.nudge = false
		p.out.Add(wire.AppendKeepAlive)
		return 0, nil
	case w.payload != nil:
		return min(wait, payloadKept-unused), nil
	}
	return min(wait, after-quiet), nil
}

// sendAnswer sends a message that counts as an upload, as soon as limits allow.
func (w *writer) sendAnswer() (wait time.Duration, err error) {
	message := w.p.out.Answer()
	if message == nil {
		return keepAliveAfter, nil
	}
	if wait = w.p.d.client.answers.delay(w.p.d.uploadLimits, len(message)); wait > 0 {
		return wait, nil
	}
	if _, err = w.p.conn.Write(message); err != nil {
		return 0, err
	}
	w.p.out.Answered()
	w.lastSent = time.Now()
	return 0, nil
}

// sendBlocks answers requests, and reports whether it did. Limits let through one block at a time; if they let through none now, they
// wake the writer.
func (w *writer) sendBlocks() (sent bool, err error) {
	if len(w.p.d.uploadQueues) > 0 {
		w.uploads = w.uploads[:1]
	}
	w.uploads = atOnce(w.uploads)
	if !w.turn.Ready(int(w.uploads[0].Length)) {
		return false, nil
	}
	var n int
	if w.payload, n, err = w.p.answer(w.uploads, w.payload); err != nil {
		return false, err
	}
	w.lastSent = time.Now()
	w.lastAnswered = w.lastSent
	w.turn.Sent(n)
	return true, nil
}

// atOnce are those of some requests that are answered at once: the first, and as many others as their bytes have room for.
func atOnce(requests []outbox.Request) []outbox.Request {
	n := 0
	for k, r := range requests {
		if n += int(r.Length); n > maxUploadBytes && k > 0 {
			return requests[:k]
		}
	}
	return requests
}

// uploadRun is how many blocks are written at once: few to a slow peer, so that it can still cancel others.
func (p *peer) uploadRun() int {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	return min(max(1, int(p.up.Rate(time.Now())/(blockSize*50))), maxUploadRun)
}

// answer reads blocks from storage and writes them to the peer. It returns how many bytes of payload were sent. buf is
// scratch.
func (p *peer) answer(uploads []outbox.Request, buf []byte) (_ []byte, sent int, _ error) {
	d := p.d
	buf = buf[:0]
	earned := int64(0)
	for _, r := range uploads {
		if !p.out.Remove(r) {
			continue // cancelled meanwhile
		}
		at := len(buf)
		buf = wire.AppendPieceHeader(buf, r.Piece, r.Begin, r.Length)
		start := len(buf)
		buf = append(buf, make([]byte, r.Length)...)
		if !d.readForUpload(r, buf[start:]) {
			buf = buf[:at]
			if p.fast {
				if err := p.reject(r); err != nil {
					return buf, 0, err
				}
			}
			continue
		}
		sent += int(r.Length)
		earned += p.earns(r)
	}
	if !p.holder.Set(account.Payload, cap(buf)) {
		return buf, 0, errHoldsMost
	}
	if len(buf) == 0 {
		return buf, 0, nil
	}
	if _, err := p.conn.Write(buf); err != nil {
		return buf, 0, err
	}
	p.credit.Add(earned)
	now := time.Now()
	d.mu.Lock()
	p.up.Add(int64(sent), now)
	p.holder.Gave(int64(sent)) // it reads the blocks that it requests
	d.traffic.up.Add(int64(sent), now)
	d.traffic.uploaded += int64(sent)
	p.denied = max(0, p.denied-len(uploads))
	d.mu.Unlock()
	return buf, sent, nil
}

// readForUpload reads a block for a peer, and reports whether that succeeded. If the disk fails or the files have
// changed, the piece is rechecked.
func (d *Download) readForUpload(r outbox.Request, b []byte) bool {
	now := time.Now()
	d.mu.Lock()
	have := d.picker.Verified().Has(int(r.Piece))
	look := have && d.uploading.lookDue(r.Piece, now)
	d.mu.Unlock()
	look = look && d.client.looks.may(d.t.layout.Span(d.t.layout.PieceOffset(int(r.Piece)), d.t.layout.PieceSize(int(r.Piece))), now)
	if !have {
		return false
	}
	var err error
	if look {
		if err = d.store.Changed(int(r.Piece)); err == nil && !d.hasAll(int(r.Piece), int(r.Piece)+1) {
			return false // a piece is in doubt, which Changed does not report
		}
	}
	if err == nil {
		n := min(int64(len(b)), max(0, d.t.layout.PieceSize(int(r.Piece))-int64(r.Begin)))
		clear(b[n:])
		if n > 0 {
			_, err = d.store.ReadAt(b[:n], d.t.layout.PieceOffset(int(r.Piece))+int64(r.Begin))
		}
	}
	if err != nil {
		d.recheck(int(r.Piece), err)
		return false
	}
	return true
}
