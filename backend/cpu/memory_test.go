package cpu

import "testing"

// A pool that is full of blocks of sizes that are not used any more makes room for those that are.
func TestMemoryMakesRoom(t *testing.T) {
	var m memory
	var old []block
	for range 8 {
		old = append(old, m.get(1000))
	}
	for _, b := range old {
		m.put(b)
	}
	b := m.get(3000)
	first := b.data
	m.put(b)
	for range 5 {
		if b = m.get(3000); b.data != first {
			t.Fatal("a block that was given back is not there")
		}
		m.put(b)
	}
	if m.pooled > m.most || m.used != 0 {
		t.Errorf("%d bytes in the pool, %d handed out, %d at most at once", m.pooled, m.used, m.most)
	}
	if free := len(m.free[old[0].class]); free == 0 || free == len(old) {
		t.Errorf("%d of %d old blocks are left", free, len(old))
	}
}
