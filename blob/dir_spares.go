package blob

import (
	"math"
	"slices"
	"sync"
	"time"

	"github.com/cohort-learning/cohort/journal"
)

// spares are the files of deleted objects, for objects of the same length that come next. To make a file, find room for it and
// remove it again costs the system several times what it costs to write over one, most of all where thousands come and go; and
// objects of a federation have few lengths.
//
// A spare may be written over once the folder that it lay in has been synced. Before that, a loss of power may bring the deleted
// object back, and it would have the bytes of another. Nobody syncs for that: the objects that are stored meanwhile do.
type spares struct {
	mu     sync.Mutex
	ready  map[int64][]string // by length
	absent [shards][]spare    // files taken out of a folder that has not been synced since
	n      int                // files
	bytes  int64              // in them
	timer  *time.Timer        // runs while there are any
	used   bool               // since it was set
	remove func(string)       // a file
}

type spare struct {
	name  string
	bytes int64
}

// What is kept at most, and for how long after the last was taken or put.
const (
	maxSpares     = 1024
	maxSpareBytes = 256 << 20
	spareTime     = time.Minute
)

func newSpares(fsys journal.FS) *spares {
	return &spares{ready: map[int64][]string{}, remove: func(name string) { _ = fsys.Remove(name) }} // one that stays is swept by OpenDir
}

// room reports whether one more file may be kept where so many bytes are free.
func (s *spares) room(bytes, free int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n < maxSpares && s.bytes+bytes <= min(maxSpareBytes, free)
}

// yield drops all if they take more than what is free.
func (s *spares) yield(free int64) {
	s.mu.Lock()
	over := s.bytes > free
	s.mu.Unlock()
	if over {
		s.drop()
	}
}

// put keeps a file that has just been taken out of a folder.
func (s *spares) put(shard int, f spare) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.absent[shard] = append(s.absent[shard], f)
	s.n, s.bytes, s.used = s.n+1, s.bytes+f.bytes, true
	if s.timer == nil {
		s.timer = time.AfterFunc(spareTime, s.age)
	}
}

// take returns a file of that length that may be written over, or "".
func (s *spares) take(bytes int64) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.ready[bytes]
	if len(list) == 0 {
		return ""
	}
	name := list[len(list)-1]
	s.ready[bytes] = list[:len(list)-1]
	s.n, s.bytes, s.used = s.n-1, s.bytes-bytes, true
	return name
}

// synced calls sync, which syncs a folder, and makes the files ready that had been taken out of it before.
func (s *spares) synced(shard int, sync func() error) error {
	s.mu.Lock()
	files := s.absent[shard]
	s.absent[shard] = nil
	s.mu.Unlock()
	err := sync()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.absent[shard] = append(s.absent[shard], files...)
		return err
	}
	for _, f := range files {
		s.ready[f.bytes] = append(s.ready[f.bytes], f.name)
	}
	return nil
}

// age lets all go if none was taken or put for a while.
func (s *spares) age() {
	s.mu.Lock()
	again := s.used
	s.used = false
	if again {
		s.timer.Reset(spareTime)
	}
	s.mu.Unlock()
	if !again {
		s.drop()
	}
}

// drop removes all.
func (s *spares) drop() {
	s.mu.Lock()
	var names []string
	for n, list := range s.ready {
		names = append(names, list...)
		s.bytes -= n * int64(len(list))
		delete(s.ready, n)
	}
	for i, list := range s.absent {
		for _, f := range list {
			names = append(names, f.name)
			s.bytes -= f.bytes
		}
		s.absent[i] = nil
	}
	s.n -= len(names)
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	s.mu.Unlock()
	slices.Sort(names)
	for _, name := range names {
		s.remove(name)
	}
}

// free returns how many more bytes the store may have.
func (d *Dir) free() int64 {
	u := d.Usage()
	if u.Cap == 0 {
		return math.MaxInt64
	}
	return u.Cap - u.Bytes
}

// spare keeps the file of an object that has been taken out of the index, and reports whether it did.
func (d *Dir) spare(h Hash, n int64) bool {
	if !d.spares.room(n, d.free()) {
		return false
	}
	to := d.tmpName(h)
	if d.fsys.Rename(d.file(h), to) != nil {
		return false
	}
	d.spares.put(shard(h), spare{to, n})
	return true
}
