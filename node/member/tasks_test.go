package member_test

import (
	"fmt"
	"testing"

	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/journal/faultfs"
	"github.com/cohort-learning/cohort/transport"
)

// many turns the task of an order into one of the tasks of many, in which the member's place is asked, or is not.
func (c *coordinator) many(o *assignment, asked bool) []byte {
	b := &transport.Task{}
	e, err := transport.Peek(o.task)
	if err == nil {
		err = e.Decode(b)
	}
	if err != nil {
		c.t.Error(err)
	}
	places := fmt.Sprintf("%d,%d", b.Index, b.Index+7)
	if !asked {
		places = fmt.Sprintf("%d-%d", b.Index+1, b.Index+2)
	}
	all := &transport.Tasks{Orders: fmt.Sprintf("%d,%d", b.Order, b.Order+100), Places: places, Task: *b}
	all.Task.Order, all.Task.Index, all.Task.Samples = 0, 0, 0
	return c.seal(transport.Envelope{Run: theRun, Round: e.Round, Step: e.Step, Refs: e.Refs}, all)
}

// tasksOfMany has every order after the first, or all of them, be one of many. The place of a member that has had no task of its own
// comes with a sync. Those of others, for which the member is not asked, come in between.
func tasksOfMany(first bool) func(*coordinator) {
	return func(c *coordinator) {
		n := 0
		c.onTask = func(o *assignment) [][]byte {
			if n++; n == 1 && !first {
				return [][]byte{o.task}
			}
			others := c.many(o, false)
			o.seat = c.seal(transport.Envelope{Run: theRun, To: me}, &transport.Seat{Index: o.Member.Index, Samples: o.Member.Samples})
			o.task = c.many(o, true)
			return [][]byte{others, o.task, o.task}
		}
	}
}

func TestTasksOfMany(t *testing.T) {
	for _, first := range []bool{false, true} {
		t.Run(fmt.Sprint("from the first on: ", first), func(t *testing.T) {
			s := newStudy(t, fedtest.Engine(t, "go"), "scaffold")
			want := s.simulate(t).Final.Digest()
			c, _, got, err := play(t, s, func(c *coordinator, _ *person) { tasksOfMany(first)(c) }, nil)
			if err != nil || got.Digest() != want {
				t.Errorf("another final state, error %v", err)
			}
			for _, r := range c.sent {
				if o := c.orders[r.Order]; r.Task != transport.DigestOf(o.task) {
					t.Errorf("the result of order %d answers another message", r.Order)
				}
			}
		})
	}
}

// TestTasksOfManyCrash: a task that was one of many is found again in the journal of the member.
func TestTasksOfManyCrash(t *testing.T) {
	s := newStudy(t, fedtest.Engine(t, "go"), "scaffold")
	want := s.simulate(t)
	x := survive(t, s, tasksOfMany(false))
	x.compare(t, "undisturbed", want)
	events := x.disk.Events()
	for i := len(events) / 2; i < len(events); i += max(1, len(events)/8) {
		x := survive(t, s, tasksOfMany(false), faultfs.Rule{N: i + 1, Part: events[i].Bytes / 2, Crash: faultfs.Kill})
		x.compare(t, fmt.Sprintf("crash at %d", i), want)
	}
}
