package natsbus

import (
	"testing"
	"time"
)

// TestBucket lets a burst through at once, then what the rate allows.
func TestBucket(t *testing.T) {
	now := time.Unix(0, 0)
	var b bucket
	let := 0
	for range 100 {
		if b.try(now, 5, 10) {
			let++
		}
	}
	if let != 10 {
		t.Errorf("%d at once, want 10", let)
	}
	for range 100 { // in ten seconds
		now = now.Add(100 * time.Millisecond)
		if b.try(now, 5, 10) {
			let++
		}
	}
	if let < 59 || let > 61 {
		t.Errorf("%d in ten seconds, want 60", let)
	}
	now = now.Add(time.Hour)
	if wait := b.take(now, 20, 5, 10); wait != 2*time.Second {
		t.Errorf("twice the burst waits %v, want 2s", wait)
	}
}
