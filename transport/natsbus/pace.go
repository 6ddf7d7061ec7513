package natsbus

import "time"

// What one member may send. Nobody who keeps to the protocol comes near it; who does not is slowed down, or loses messages, and
// the others go on.
const (
	memberRate  = 2000    // requests a second
	memberBurst = 4000    // and so many at once
	byteRate    = 8 << 20 // bytes a second over an embedded server's WebSocket
	byteBurst   = 16 << 20
)

// bucket counts what may still be sent at a time. It is full at first.
type bucket struct {
	spent float64
	last  time.Time
}

// take spends n at that time, where so much comes back a second and at most burst is there. It returns for how long there is
// nothing left.
func (b *bucket) take(now time.Time, n, rate, burst float64) (wait time.Duration) {
	b.spent = max(0, b.spent-now.Sub(b.last).Seconds()*rate)
	b.last = now
	if b.spent += n; b.spent <= burst {
		return 0
	}
	return time.Duration((b.spent - burst) / rate * float64(time.Second))
}

// try spends one if there is one.
func (b *bucket) try(now time.Time, rate, burst float64) bool {
	if b.take(now, 1, rate, burst) == 0 {
		return true
	}
	b.spent--
	return false
}
