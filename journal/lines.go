package journal

import (
	"encoding/json"
	"time"
)

// tail is what the next record follows, besides the head.
type tail struct {
	time   time.Time // as it stands in the last record
	sealed int       // records so far
}

func (t *tail) add(r Record) {
	t.time = r.Time
	if r.Kind == KindSealed {
		t.sealed++
	}
}

// lines are records on their way into the file. Appending checked that there is a key where one is needed.
type lines struct {
	j      *Journal
	buf    []byte
	head   Head
	offset int64
	empty  bool // no record stands before
	tail   tail
	n      int // records
	marks  []mark
}

// add appends the line of a record, behind what fills up, and completes the record.
func (w *lines) add(r *Record, e Entry) {
	if e.Fill > 0 {
		own := 0
		if e.Seal > 0 {
			own = 1
		}
		for (w.tail.sealed+own)%e.Fill != 0 {
			w.put(&Record{Kind: kindFilling, Body: json.RawMessage("null")}, e.Filler)
		}
	}
	w.put(r, e.Seal)
}

func (w *lines) put(r *Record, seal int) {
	if !w.empty {
		r.Seq = w.head.Seq + 1
	}
	r.Time, r.Prev, r.Offset = w.j.now().UTC(), w.head.Hash, w.offset+int64(len(w.buf))
	if seal > 0 {
		w.j.key.seal(r, w.tail.time, seal)
	}
	out := r.written()
	w.buf = appendLine(w.buf, out)
	r.Hash = out.Hash
	w.head, w.empty = Head{Seq: r.Seq, Hash: r.Hash}, false
	w.tail.add(*out)
	w.n++
	if r.Seq%markEvery == 0 {
		w.marks = append(w.marks, mark{r.Seq, r.Offset, r.Prev})
	}
}
