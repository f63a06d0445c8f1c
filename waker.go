package torrent

// A waker makes one goroutine look for work again. wake holds a token from a signal until the goroutine takes it. To
// signal never waits.
type waker struct{ wake chan struct{} }

func newWaker() waker { return waker{make(chan struct{}, 1)} }

func (w waker) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
