package transport

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/transport/internal/serial"
)

// Memory is a transport within one process: the twin of the real one for tests and simulations. It starts no goroutine while
// nothing is under way, its time is that of package time, so that testing/synctest governs it, and its faults are drawn from
// named streams: the same seed loses the same messages.
//
//	m := transport.NewMemory()
//	hub := m.Hub()
//	hub.Handle(func(r transport.Request) { r.Reply(answer) })
//	link := m.Dial("clinic-a")
type Memory struct {
	mu     sync.Mutex
	links  map[string]*memoryLink // that are connected, or try to be
	denied map[string]bool
	parted map[string]bool
	dials  map[string]int
	faults Faults
	handle func(Request)
	watch  []func(string, bool)
	events serial.Queue
	closed bool
}

// Faults are what goes wrong on the way, in both directions, to requests, answers, pushes and broadcasts alike. The zero value
// is a perfect network.
type Faults struct {
	Seed      uint64
	Drop      float64       // the share of messages that is lost, 0 to 1
	Duplicate float64       // the share of the others that arrives twice, 0 to 1
	Delay     time.Duration // each copy takes a uniform time up to this, so that messages overtake each other
}

// Redial is how long a link of [Memory] waits before it connects again.
const Redial = 10 * time.Millisecond

// backlog is how many messages may wait for a slow member; what comes then is lost.
const backlog = 1024

// NewMemory returns a transport that admits everybody.
func NewMemory() *Memory {
	return &Memory{links: map[string]*memoryLink{}, denied: map[string]bool{}, parted: map[string]bool{}, dials: map[string]int{}}
}

// Hub returns the coordinator's end, always the same.
func (m *Memory) Hub() Hub { return (*memoryHub)(m) }

// Dial returns the link of a member, connected unless the member is denied or cut off. A second link of a member takes the
// place of the first, whose requests then return [ErrReplaced].
func (m *Memory) Dial(name string) Link {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.dials[name]
	m.dials[name]++
	l := &memoryLink{m: m, name: name, number: n}
	l.down.Limit(backlog)
	switch {
	case m.closed:
		l.end = ErrDisconnected
		return l
	case m.denied[name]:
		l.end = ErrDenied
		return l
	}
	old := m.links[name]
	m.links[name] = l
	if old != nil {
		old.stop(ErrReplaced)
	}
	if !m.parted[name] {
		l.connect(old == nil || !old.was)
	} else if old != nil && old.was {
		m.told(name, false)
	}
	return l
}

// Set changes the faults from now on.
func (m *Memory) Set(f Faults) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.faults = f
	for _, l := range m.links {
		l.draws = [2]*rng.Stream{}
	}
}

// Deny refuses a member from now on. Connections that it has go on until they are cut.
func (m *Memory) Deny(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.denied[name] = true
}

// Admit takes a Deny back, for links that are dialled afterwards.
func (m *Memory) Admit(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.denied, name)
}

// Break loses a member's connection, as networks do. It connects again after [Redial].
func (m *Memory) Break(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.links[name]; l != nil {
		l.lose()
	}
}

// Partition cuts members off until [Memory.Heal].
func (m *Memory) Partition(names ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range names {
		m.parted[name] = true
		if l := m.links[name]; l != nil {
			l.lose()
		}
	}
}

// Heal ends the partition of the members, or of all if none is named.
func (m *Memory) Heal(names ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(names) == 0 {
		names = slices.Sorted(maps.Keys(m.parted))
	}
	for _, name := range names {
		delete(m.parted, name)
		if l := m.links[name]; l != nil {
			l.redial()
		}
	}
}

// told tells the watchers. m is locked.
func (m *Memory) told(name string, here bool) {
	watch := slices.Clip(m.watch)
	m.events.Do(func() {
		for _, f := range watch {
			f(name, here)
		}
	})
}

// memoryHub is a Memory seen from the coordinator.
type memoryHub Memory

func (h *memoryHub) Handle(f func(Request)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.handle = f
}

func (h *memoryHub) Push(member string, msg []byte) error {
	if err := fits(msg); err != nil {
		return fmt.Errorf("push to %s: %w", member, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return ErrClosed
	}
	if l := h.links[member]; l != nil && l.connected {
		l.push(bytes.Clone(msg))
	}
	return nil
}

func (h *memoryHub) Broadcast(msg []byte) error {
	if err := fits(msg); err != nil {
		return fmt.Errorf("broadcast: %w", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return ErrClosed
	}
	msg = bytes.Clone(msg)
	for _, l := range h.links {
		if l.connected {
			l.push(msg)
		}
	}
	return nil
}

func (h *memoryHub) Present() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var names []string
	for name, l := range h.links {
		if l.connected {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (h *memoryHub) Watch(f func(string, bool)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watch = append(h.watch, f)
}

func (h *memoryHub) Cut(member string) { (*Memory)(h).Break(member) }

func (h *memoryHub) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil
	}
	h.closed = true
	for _, l := range h.links {
		l.lose()
	}
	return nil
}

// memoryLink is guarded by its Memory.
type memoryLink struct {
	m      *Memory
	name   string
	number int // of the links that this member has dialled

	connected bool
	was       bool // connected when it was replaced
	epoch     int  // connections made
	end       error
	lost      chan struct{} // closed when the connection of this epoch is

	receive func([]byte)
	early   [][]byte
	state   func(bool)

	up, down, states serial.Queue
	draws            [2]*rng.Stream
}

const (
	upward   = 0
	downward = 1
)

// connect makes the connection, and tells the watchers if it is news to them.
func (l *memoryLink) connect(news bool) {
	l.connected, l.lost = true, make(chan struct{})
	l.epoch++
	l.tell(true)
	if news {
		l.m.told(l.name, true)
	}
}

// lose ends the connection; unless the link or the hub is closed, it is made again.
func (l *memoryLink) lose() {
	if !l.connected {
		return
	}
	l.disconnect()
	l.m.told(l.name, false)
	if l.end == nil {
		time.AfterFunc(Redial, func() {
			l.m.mu.Lock()
			defer l.m.mu.Unlock()
			l.redial()
		})
	}
}

func (l *memoryLink) disconnect() {
	l.connected = false
	close(l.lost)
	l.tell(false)
}

func (l *memoryLink) redial() {
	switch {
	case l.connected || l.end != nil || l.m.closed || l.m.parted[l.name]:
	case l.m.denied[l.name]:
		l.end = ErrDenied
		delete(l.m.links, l.name)
		l.tell(false)
	default:
		l.connect(true)
	}
}

// stop ends the link for good, without telling the watchers.
func (l *memoryLink) stop(why error) {
	l.end, l.was = why, l.connected
	if l.connected {
		l.disconnect()
	}
}

func (l *memoryLink) tell(connected bool) {
	if f := l.state; f != nil {
		l.states.Do(func() { f(connected) })
	}
}

// carry brings a message over the present connection, with the faults of the day: deliver is called once, twice, later or
// never, with the Memory locked.
func (l *memoryLink) carry(direction int, deliver func()) {
	f := l.m.faults
	if f == (Faults{}) {
		deliver()
		return
	}
	if l.draws[direction] == nil {
		l.draws[direction] = rng.New(f.Seed, l.number, l.name, [...]string{"transport/up", "transport/down"}[direction])
	}
	r := l.draws[direction]
	// Every message draws the same number of values, so that one fault does not shift the others.
	drop, twice, delays := r.Float64() < f.Drop, r.Float64() < f.Duplicate, [2]float64{r.Float64(), r.Float64()}
	if drop {
		return
	}
	epoch := l.epoch
	for _, d := range delays[:1+btoi(twice)] {
		wait := time.Duration(d * float64(f.Delay))
		if wait == 0 {
			deliver()
			continue
		}
		time.AfterFunc(wait, func() {
			l.m.mu.Lock()
			defer l.m.mu.Unlock()
			if l.connected && l.epoch == epoch {
				deliver()
			}
		})
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// push queues a message of the coordinator.
func (l *memoryLink) push(msg []byte) {
	l.carry(downward, func() {
		if f := l.receive; f != nil {
			l.down.Do(func() { f(msg) })
		} else if len(l.early) < backlog {
			l.early = append(l.early, msg)
		}
	})
}

// send queues a message for the coordinator; answer is called with the Memory locked, at most once a copy.
func (l *memoryLink) send(msg []byte, answer func([]byte)) {
	epoch := l.epoch
	l.carry(upward, func() {
		handle := l.m.handle
		if handle == nil {
			return
		}
		var once sync.Once
		reply := func(b []byte) {
			once.Do(func() {
				if fits(b) != nil {
					return
				}
				l.m.mu.Lock()
				defer l.m.mu.Unlock()
				if l.connected && l.epoch == epoch {
					b = bytes.Clone(b)
					l.carry(downward, func() { answer(b) })
				}
			})
		}
		l.up.Do(func() { handle(Request{From: l.name, Msg: msg, Reply: reply}) })
	})
}

// usable says why nothing can be sent now. The Memory is locked.
func (l *memoryLink) usable() error {
	switch {
	case l.end != nil:
		return l.end
	case !l.connected:
		return ErrDisconnected
	}
	return nil
}

func (l *memoryLink) Request(ctx context.Context, msg []byte) ([]byte, error) {
	if err := fits(msg); err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	answer := make(chan []byte, 1)
	l.m.mu.Lock()
	if err := l.usable(); err != nil {
		l.m.mu.Unlock()
		return nil, err
	}
	lost := l.lost
	l.send(bytes.Clone(msg), func(b []byte) {
		select {
		case answer <- b:
		default: // a second answer
		}
	})
	l.m.mu.Unlock()
	select {
	case b := <-answer:
		return b, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-lost:
	}
	select {
	case b := <-answer: // came before the connection was lost
		return b, nil
	default:
	}
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.end != nil {
		return nil, l.end
	}
	return nil, ErrDisconnected
}

func (l *memoryLink) Send(msg []byte) error {
	if err := fits(msg); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	l.send(bytes.Clone(msg), func([]byte) {})
	return nil
}

func (l *memoryLink) Receive(f func([]byte)) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	l.receive = f
	for _, msg := range l.early {
		l.down.Do(func() { f(msg) })
	}
	l.early = nil
}

func (l *memoryLink) OnState(f func(bool)) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	l.state = f
	l.tell(l.connected)
}

func (l *memoryLink) Close() error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.end == ErrClosed {
		return nil
	}
	was := l.connected
	l.stop(ErrClosed)
	if l.m.links[l.name] == l {
		delete(l.m.links, l.name)
		if was {
			l.m.told(l.name, false)
		}
	}
	return nil
}

func fits(msg []byte) error {
	if len(msg) > MaxMessage {
		return fmt.Errorf("%d bytes: %w, at most %d", len(msg), ErrTooLarge, MaxMessage)
	}
	return nil
}
