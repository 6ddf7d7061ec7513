package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/weights"
)

// guest is a worker that is connected, as its host sees it: an executor.
type guest struct {
	h       *Host
	link    *link
	id      string
	name    string
	threads int

	mu    sync.Mutex
	last  uint64
	calls map[uint64]*call
	over  bool
	why   error
	ended chan struct{}
}

// call is a task that a worker is at; call 0 is its welcome.
type call struct {
	offers offers
	vault  federated.Vault
	answer chan reply // of one
}

// reply is a result as it came.
type reply struct {
	result  result
	tensors []byte
}

// grace is how long an order that nobody waits for is waited for nevertheless, so that a worker does not get more than it has
// threads for.
const grace = 2 * time.Second

// errMalformed says that a worker sent what no worker sends.
var errMalformed = errors.New("it sent what no worker sends")

// Perform implements [simulation.Executor].
func (g *guest) Perform(ctx context.Context, at federated.Local, o *federated.Order, keep *weights.Set) (a *federated.Answer, err error) {
	a = &federated.Answer{Order: o}
	defer func() {
		if r := recover(); r != nil { // as at home
			a.Result, a.Err, err = federated.Result{}, fmt.Errorf("the client broke: %v", r), nil
		}
	}()
	if a.Task, a.Err = o.Make(); a.Err != nil {
		return a, nil
	}
	id, c, err := g.begin()
	if err != nil {
		return nil, err
	}
	t, from, err := g.h.names.task(id, at, o, a.Task, keep)
	if err != nil {
		g.finish(id)
		a.Err = fmt.Errorf("packing the task: %w", err)
		return a, nil
	}
	b, err := json.Marshal(t)
	if err != nil {
		g.finish(id)
		a.Err = fmt.Errorf("packing the task: %w", err)
		return a, nil
	}
	g.offer(c, from, at.Vault)
	if err := g.link.send(kindTask, b); err != nil {
		return nil, g.end(err, "")
	}
	r, err := g.wait(ctx, id, c)
	if err != nil {
		return nil, err
	}
	if r == nil {
		a.Err = context.Cause(ctx)
		return a, nil
	}
	if r.result.Failed != "" {
		a.Err = errors.New(r.result.Failed)
	} else {
		if a.Result, err = r.result.decode(r.tensors); err == nil {
			err = o.Fits(a.Task, a.Result)
		}
		if err != nil {
			return nil, g.end(fmt.Errorf("%w: the answer for %s: %w", errMalformed, o.Member.Name, err),
				fmt.Sprintf("the answer for %s does not fit: %v", o.Member.Name, err))
		}
	}
	g.h.count(g)
	return a, nil
}

// wait returns what came, nil if nobody waits for it any more.
func (g *guest) wait(ctx context.Context, id uint64, c *call) (*reply, error) {
	select {
	case r := <-c.answer:
		return &r, nil
	case <-g.ended:
		return nil, g.why
	case <-ctx.Done():
	}
	if err := g.link.send(kindDrop, encodeNumber(id)); err != nil {
		return nil, g.end(err, "")
	}
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-c.answer:
	case <-g.ended:
	case <-t.C:
	}
	return nil, nil
}

// begin opens a call.
func (g *guest) begin() (uint64, *call, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.over {
		return 0, nil, g.why
	}
	g.last++
	c := &call{answer: make(chan reply, 1)}
	g.calls[g.last] = c
	return g.last, c, nil
}

// offer lets the worker ask for what a call needs, until its result has come.
func (g *guest) offer(c *call, o offers, v federated.Vault) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c.offers, c.vault = o, v
}

// finish closes a call; nil if there is none.
func (g *guest) finish(id uint64) *call {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.calls[id]
	if id == 0 || c == nil {
		return nil
	}
	delete(g.calls, id)
	return c
}

// lost returns how many tasks had no answer when the connection ended.
func (g *guest) lost() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.calls) - 1
}

// end ends the work of the worker and its connection. The first reason counts, which end returns. What is given as last words
// the worker is told; it is left time to hear them and to close the connection itself.
func (g *guest) end(why error, lastWords string) error {
	g.mu.Lock()
	over := g.over
	if !over {
		g.over, g.why = true, why
		close(g.ended)
	}
	g.mu.Unlock()
	switch {
	case over:
	case lastWords == "":
		_ = g.link.c.Close()
	default:
		time.AfterFunc(grace, func() { _ = g.link.c.Close() })
		_ = g.link.send(kindRefusal, []byte(lastWords))
	}
	return g.why
}

// serve reads what a worker says until its connection ends, and returns why it did.
func (g *guest) serve() error {
	var alive sync.WaitGroup
	alive.Go(func() { g.link.keep(g.ended) })
	defer alive.Wait()
	for {
		k, b, err := g.link.receive(maxFrame)
		if err == nil {
			err = g.handle(k, b)
		}
		if err != nil {
			return g.end(inWords(err, g.link.silence), "")
		}
	}
}

// inWords says what an error of reading means to people.
func inWords(err error, silence time.Duration) error {
	var cut *net.OpError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("not a sign of life for %v", silence)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &cut):
		return errors.New("the connection was cut")
	}
	return err
}

func (g *guest) handle(k kind, b []byte) error {
	switch k {
	case kindPing:
		return nil
	case kindBye:
		return errors.New(orElse(presentableLine(b), "it has ended"))
	case kindRefusal:
		return fmt.Errorf("it cannot take part: %s", presentableLine(b))
	case kindWant:
		w, err := decodeWant(b)
		if err != nil {
			return fmt.Errorf("%w: %w", errMalformed, err)
		}
		return g.give(w)
	case kindAsk:
		var q ask
		value, err := parted(b, &q)
		if err != nil {
			return fmt.Errorf("%w: %w", errMalformed, err)
		}
		g.mu.Lock()
		c := g.calls[q.Task]
		g.mu.Unlock()
		if c == nil {
			return fmt.Errorf("%w: a question of no task", errMalformed)
		}
		t, value := q.answer(c.vault, value)
		return g.link.send(kindTell, headed(t), value)
	case kindResult:
		r, tensors, err := decodeResultHead(b)
		if err != nil {
			return fmt.Errorf("%w: %w", errMalformed, err)
		}
		c := g.finish(r.Task)
		if c == nil {
			return fmt.Errorf("%w: a result of no task", errMalformed)
		}
		c.answer <- reply{r, tensors}
		return nil
	}
	return fmt.Errorf("%w: a frame of kind %d", errMalformed, k)
}

// give sends the contents that a worker lacks.
func (g *guest) give(w want) error {
	g.mu.Lock()
	var from offers
	if c := g.calls[w.Task]; c != nil {
		from = c.offers
	}
	g.mu.Unlock()
	for _, h := range w.Hashes {
		content, ok := from[h]
		if !ok {
			return unknown(h)
		}
		b, err := content()
		if err != nil {
			return fmt.Errorf("packing content %s: %w", h.Short(), err)
		}
		if g.h.sending != nil {
			g.h.sending(h)
		}
		if err := g.link.send(kindContent, h[:], b); err != nil {
			return err
		}
	}
	return nil
}
