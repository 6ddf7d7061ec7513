package coordinator

import (
	"testing"

	"github.com/cohort-learning/cohort/weights"
)

func TestScrap(t *testing.T) {
	s := &scrap{least: 2}
	set := weights.NewSet(3)
	a, b := []float32{1, 2, 3}, []float32{4, 5, 6}
	set.Put("a", weights.Of32(a, 3))
	set.Put("b", weights.Of32(b, 3))
	set.Put("small", weights.Of32([]float32{7}, 1))
	set.Put("double", weights.Of64([]float64{8, 9}, 2))
	s.put(set)
	if s.take(2) != nil || s.take(1) != nil {
		t.Error("memory of another size was given")
	}
	x, y := s.take(3), s.take(3)
	if cap(x) != 3 || cap(y) != 3 || &x[:1][0] == &y[:1][0] {
		t.Errorf("capacities %d and %d, or twice the same", cap(x), cap(y))
	}
	if p := &x[:1][0]; p != &a[0] && p != &b[0] {
		t.Error("the memory is not that of the set")
	}
	if s.take(3) != nil || s.held != 0 {
		t.Errorf("memory was given twice; %d elements are held", s.held)
	}
	s.put(set)
	s.drop()
	if s.take(3) != nil || s.held != 0 {
		t.Error("memory is kept after it was dropped")
	}
}

// TestRecycle sees the memory of results come back: a phase whose results come one after the other keeps one at a time, and none
// when it is over.
func TestRecycle(t *testing.T) {
	w := newWorld(t, "fedavg")
	if err := w.begin(); err != nil {
		t.Fatal(err)
	}
	w.joinAll()
	w.wait()
	d := w.run.desk
	w.end()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.due != 0 {
		t.Errorf("the driver waits for %d orders after the last", d.due)
	}
	if d.scrap.held != 0 {
		t.Errorf("memory for %d elements is kept after the last phase", d.scrap.held)
	}
}
