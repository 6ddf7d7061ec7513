package transport

import (
	"fmt"
	"strconv"
	"strings"
)

// CanTasks is the capability (see [Hello]) of a member that understands [Tasks] and [Seat]. Nobody else is sent them.
const CanTasks = "tasks"

// Tasks are the tasks of many members in one phase where they ask the same of each: one message, signed once and broadcast.
// Which of them are asked, and by which order each, stands in it: a member finds itself by its place in the run, which an
// earlier [Task] or a [Seat] has told it.
type Tasks struct {
	Orders string `json:"orders"` // as ranges
	Places string `json:"places"` // of members in the run, as ranges: the first order is that of the first place, and so on
	Task   Task   `json:"task"`   // order, index and samples are 0
}

// Seat tells a member its place in a run.
type Seat struct {
	Index   int `json:"index"`   // as in Task
	Samples int `json:"samples"` // that it declared
}

// Kind implements [Body].
func (*Tasks) Kind() Kind { return KindTasks }
func (*Seat) Kind() Kind  { return KindSeat }

// Validate implements [Body].
func (b *Tasks) Validate(refs int) error {
	orders, err := count(b.Orders)
	if err != nil {
		return fmt.Errorf("orders: %w", err)
	}
	places, err := count(b.Places)
	if err != nil {
		return fmt.Errorf("places: %w", err)
	}
	if t := b.Task; orders != places || t.Order != 0 || t.Index != 0 || t.Samples != 0 {
		return fmt.Errorf("%d orders for %d places; order %d, index %d, %d samples for all", orders, places, t.Order, t.Index, t.Samples)
	}
	return b.Task.Validate(refs)
}

// Validate implements [Body].
func (b *Seat) Validate(int) error {
	if b.Index < 0 || b.Samples < 0 {
		return fmt.Errorf("index %d, %d samples", b.Index, b.Samples)
	}
	return nil
}

// For returns the task of a member, which is false if it is not asked.
func (b *Tasks) For(s Seat) (Task, bool) {
	rank := 0
	for from, to := range spans(b.Places) {
		if from <= s.Index && s.Index <= to {
			t := b.Task
			t.Order, t.Index, t.Samples = nth(b.Orders, rank+s.Index-from), s.Index, s.Samples
			return t, true
		}
		rank += to - from + 1
	}
	return Task{}, false
}

// nth returns the number that stands at a position, from 0, of a list that has so many.
func nth(list string, at int) int {
	for from, to := range spans(list) {
		if at <= to-from {
			return from + at
		}
		at -= to - from + 1
	}
	return -1
}

// maxListed bounds the numbers of a list, and each of them.
const maxListed = 1 << 30

// count checks that a list is of ascending ranges, and returns how many numbers it has.
func count(list string) (n int, err error) {
	next := 0
	for from, to := range spans(list) {
		if from < next || to < from || to >= maxListed {
			return 0, fmt.Errorf("%.40q is no ascending list of ranges", list)
		}
		n += to - from + 1
		next = to + 1
	}
	return n, nil
}

// spans ranges over the ends of the ranges of a list. What is no number is −1.
func spans(list string) func(func(from, to int) bool) {
	return func(yield func(from, to int) bool) {
		if list == "" {
			return
		}
		for part := range strings.SplitSeq(list, ",") {
			a, b, ok := strings.Cut(part, "-")
			if !ok {
				b = a
			}
			if !yield(number(a), number(b)) {
				return
			}
		}
	}
}

func number(text string) int {
	if n, err := strconv.ParseUint(text, 10, 31); err == nil {
		return int(n)
	}
	return -1
}
