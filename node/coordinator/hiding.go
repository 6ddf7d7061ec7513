package coordinator

import (
	"math"
	"slices"
	"sync"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/simulation"
)

// hiding keeps to the coordinator who takes part in a round, where members are drawn by secret coins: noise counts for less
// against whoever knows. Members may read the journal and see the ends of phases. So
//
//   - records that tell who was asked and who answered are sealed, all of one size, and in every phase as many as if everybody
//     had been asked;
//   - the journal is shown up to the end of the last phase that has closed, not while results come in;
//   - orders are numbered by the members' places in the run, and each member hears of its own;
//   - an order that is another's is answered like one that is over.
type hiding struct {
	on bool

	mu    sync.Mutex
	every int // sealed records that a phase takes; 0: nothing is sealed yet
	close int // bytes of a sealed record that lists members
	spans []span
}

// span is the numbers of a phase's orders: first for the member in place 0, and so on for n members.
type span struct{ first, n int }

// sealedResult is the size of sealed records of single results. With the longest names these have about one kilobyte.
const sealedResult = 2 << 10

// hide begins to seal. Enrolled are the members that a phase can ask, of whom the run begins with so many.
func (r *Run) hide(enrolled int) error {
	if _, err := r.rec.MakeSecret(r.srv.o.FS); err != nil {
		return err
	}
	h, window := &r.hiding, r.desk.window
	h.mu.Lock()
	defer h.mu.Unlock()
	h.every = 4 + enrolled + (enrolled+window-1)/window // results, checkpoints of their sums, opening and end, and a few
	h.close = 16<<10 + 64*enrolled
	return nil
}

// seal has a record sealed that tells who takes part.
func (h *hiding) seal(e *journal.Entry) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.every == 0 {
		return
	}
	switch e.Kind {
	case KindReceived, KindRefused, KindFold:
		e.Seal = sealedResult
	case simulation.KindPhaseOpened:
		e.Seal = h.close
	case simulation.KindPhaseClosed:
		e.Seal, e.Fill, e.Filler = h.close, h.every, sealedResult
	}
}

// span notes a phase and returns the number behind those of its orders.
func (h *hiding) span(o federated.PhaseOpened) int {
	if o.Apart {
		h.mu.Lock()
		if n := len(h.spans); n == 0 || h.spans[n-1].first != o.First {
			h.spans = append(h.spans, span{o.First, o.Roster})
		}
		h.mu.Unlock()
	}
	return h.end()
}

// end returns the number behind those of all orders so far.
func (h *hiding) end() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.spans); n > 0 {
		return h.spans[n-1].first + h.spans[n-1].n
	}
	return 0
}

// place returns the place in the run of the member for whom an order is, or would have been.
func (h *hiding) place(order int) (int, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range slices.Backward(h.spans) {
		if order >= s.first {
			return order - s.first, order < s.first+s.n
		}
	}
	return 0, false
}

// foreign reports whether an order is another member's, so that this one is to learn nothing of it.
func (r *Run) foreign(from string, order int) bool {
	at, ok := r.hiding.place(order)
	return ok && at != r.place(from)
}

// place returns a member's place in the run; that of nobody if it has none.
func (r *Run) place(name string) int {
	if m, ok := r.people.find(name); ok {
		return m.Index
	}
	return math.MinInt
}

// shown is the last record of the journal that members may see.
func (r *Run) shown() uint64 {
	if !r.hiding.on {
		return math.MaxUint64
	}
	head, _ := r.keeper.closes.head()
	return head.Seq
}

// announceApart tells each member of the end of a phase and of its own order, if it had one.
func (r *Run) announceApart(c closed) bool {
	others, err := r.closeMessage(c, everybody)
	if err != nil {
		r.log.Warn("the end of a phase cannot be told", "round", c.round, "phase", c.phase, "error", err)
		return false
	}
	for i := range r.people.Len() {
		msg := others
		if own := c.First + i; has(c.Orders, own) || has(c.Given, own) {
			if msg, err = r.closeMessage(c, i); err != nil {
				r.log.Warn("the end of a phase cannot be told", "member", r.people.Member(i).Name, "error", err)
				continue
			}
		}
		r.srv.send(r.people.Member(i).Name, msg)
	}
	return true
}
