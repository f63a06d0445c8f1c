package torrent

// A waker has one goroutine look again at what there is to do: wake holds one token while it is to.
// Whoever signals never waits.
type waker struct{ wake chan struct{} }

func newWaker() waker { return waker{make(chan struct{}, 1)} }

func (w waker) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
