package dht

import "time"

// budget is a token bucket: rate a second, of which burst may be saved. It starts full.
type budget struct {
	rate, burst float64
	spent       float64 // of what was there at the time at; may pass burst by one spending
	at          time.Time
}

// left is what may be spent now. It may be negative.
func (b *budget) left(now time.Time) float64 {
	b.earn(now)
	return b.burst - b.spent
}

// spend takes n, whether or not there is as much.
func (b *budget) spend(now time.Time, n float64) {
	b.earn(now)
	b.spent += n
}

// when is the time at which n will be left, if nothing is spent until then. n is at most burst.
func (b *budget) when(now time.Time, n float64) time.Time {
	lack := n - b.left(now)
	if lack <= 0 {
		return now
	}
	return now.Add(time.Duration(lack/b.rate*float64(time.Second)) + time.Microsecond) // rounded up
}

// earn credits the time since the last call. A clock that went back earns nothing.
func (b *budget) earn(now time.Time) {
	if passed := now.Sub(b.at); passed > 0 {
		b.spent = max(0, b.spent-passed.Seconds()*b.rate)
	}
	b.at = now
}
