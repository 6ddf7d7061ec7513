package peak

import (
	"fmt"
	"testing"
	"time"
)

func TestMeasureIsPositive(t *testing.T) {
	if f := Measure(1, time.Millisecond); f < 1e6 {
		t.Errorf("%g operations a second", f)
	}
}

func Example() {
	flops := Measure(2, time.Millisecond) // two threads
	fmt.Println(flops > 0)
	// Output: true
}
