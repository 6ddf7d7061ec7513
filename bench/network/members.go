package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/blob/web"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/transport"
	"github.com/cohort-learning/cohort/transport/natsbus"
	"github.com/cohort-learning/cohort/weights"
)

// crowd is all members, in one process.
type crowd struct {
	scenario
	keys  keys
	trust *identity.Trust
	work  chan struct{} // held while a result is made and sent
	seen  seen

	public map[string]identity.Public // Secure: by member
	client federated.Client

	profile string // folder
	sample  sync.Once
	end     func() error
}

// sampled begins the profile with the first round that counts.
func (c *crowd) sampled(round int) {
	if c.profile != "" && round >= min(warm, c.Rounds-1) {
		c.sample.Do(func() {
			var err error
			if c.end, err = profile(c.profile, "members"); err != nil {
				fmt.Fprintln(os.Stderr, "network:", err)
			}
		})
	}
}

// beMembers is the members' process.
func beMembers(ctx context.Context, o options) error {
	c := &crowd{profile: o.profile}
	if err := json.Unmarshal([]byte(o.scenario), &c.scenario); err != nil {
		return err
	}
	text, err := os.ReadFile(keysFile(o.dir))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &c.keys); err != nil {
		return err
	}
	c.trust = identity.NewTrust(c.keys.CA)
	if c.Secure {
		if err := c.acquaint(); err != nil {
			return err
		}
	}
	if c.Pool > 0 {
		c.work = make(chan struct{}, c.Pool)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // the parent is gone when there is no more input
		_, _ = os.Stdin.Read(make([]byte, 1))
		cancel()
	}()
	var wg sync.WaitGroup
	failed := make(chan error, 1)
	gate := make(chan struct{}, 64) // that connect at a time
	for i, seed := range c.keys.Seeds {
		gate <- struct{}{}
		wg.Go(func() {
			defer func() { <-gate }()
			if err := c.join(ctx, i, seed); err != nil {
				select {
				case failed <- fmt.Errorf("%s: %w", memberName(i), err):
				default:
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		c.sample.Do(func() {})
		if c.end == nil {
			return nil
		}
		return c.end()
	}
}

// light is a member that computes nothing.
type light struct {
	c    *crowd
	i    int
	name string
	key  identity.Key
	link transport.Link
	web  *web.Client

	vault federated.Vault // Secure: what it has said

	mu     sync.Mutex
	seat   *transport.Seat    // its place in the run, once it has been told
	order  int                // whose result is on its way
	settle context.CancelFunc // ends the wait for its verdict

	ready blob.Store      // small results are made before they are asked for, so that rounds do not measure how members compute
	refs  []transport.Ref // of it
}

func (c *crowd) join(ctx context.Context, i int, seed string) error {
	m := &light{c: c, i: i, name: memberName(i), vault: federated.NewVault()}
	var err error
	if m.key, err = identity.ParseKey(seed); err != nil {
		return err
	}
	if 0 < c.Bytes && c.Bytes <= 1<<20 {
		if m.ready, m.refs, err = m.prepare(ctx, 0); err != nil {
			return err
		}
	}
	m.link, err = natsbus.Dial(ctx, natsbus.DialOptions{URL: c.keys.URL, Name: m.name, Key: m.key, TLS: c.trust.ClientTLS(m.key, "127.0.0.1")})
	if err != nil {
		return err
	}
	m.link.Receive(m.receive)
	hello, err := m.sealIn("", &transport.Hello{Versions: []int{transport.Version}, Program: "bench", Kernels: "none", Can: []string{"train", transport.CanTasks}}, nil, transport.Envelope{})
	if err != nil {
		return err
	}
	if _, err := m.send(ctx, hello); err != nil {
		return err
	}
	return m.sync(ctx)
}

// sync gets the terms and agrees.
func (m *light) sync(ctx context.Context) error {
	e, err := m.request(ctx, &transport.Sync{}, nil)
	if err != nil {
		return err
	}
	var d transport.Duties
	if err := e.Decode(&d); err != nil {
		return err
	}
	for _, msg := range d.Messages {
		t, err := transport.Open(m.c.keys.Federation, []byte(msg))
		if err != nil {
			return err
		}
		if t.Kind != transport.KindTerms {
			m.receive([]byte(msg))
			continue
		}
		if _, err := m.request(ctx, &transport.Consent{Terms: transport.DigestOf([]byte(msg)), Schema: json.RawMessage(`{}`), Samples: 1}, nil); err != nil {
			return err
		}
	}
	return nil
}

func (m *light) seal(body transport.Body, refs []transport.Ref, at transport.Envelope) ([]byte, error) {
	return m.sealIn("bench", body, refs, at)
}

func (m *light) sealIn(run string, body transport.Body, refs []transport.Ref, at transport.Envelope) ([]byte, error) {
	at.Fed, at.Run, at.From, at.To, at.Refs = m.c.keys.Federation.String(), run, m.name, "", refs
	if err := at.Put(body); err != nil {
		return nil, err
	}
	return transport.Seal(m.key, at)
}

func (m *light) request(ctx context.Context, body transport.Body, refs []transport.Ref) (transport.Envelope, error) {
	msg, err := m.seal(body, refs, transport.Envelope{})
	if err != nil {
		return transport.Envelope{}, err
	}
	return m.send(ctx, msg)
}

// send asks until there is an answer.
func (m *light) send(ctx context.Context, msg []byte) (transport.Envelope, error) {
	for {
		once, cancel := context.WithTimeout(ctx, 30*time.Second)
		answer, err := m.link.Request(once, msg)
		cancel()
		if ctx.Err() != nil {
			return transport.Envelope{}, ctx.Err()
		}
		if err != nil {
			time.Sleep(50 * time.Millisecond)
			continue
		}
		e, err := transport.Peek(answer) // answers came over the member's own connection to the coordinator; what is pushed is verified
		var f transport.Failure
		if err == nil && e.Kind == transport.KindError && e.Decode(&f) == nil {
			if f.Code == transport.CodeBusy {
				time.Sleep(50 * time.Millisecond)
				continue
			}
			err = &f
		}
		return e, err
	}
}

func (m *light) receive(msg []byte) {
	if b := m.c.seen.find(msg); b != nil { // one of the crowd has verified it
		m.broadcast(b)
		return
	}
	e, err := transport.Open(m.c.keys.Federation, msg)
	if err != nil {
		m.fail(err)
		return
	}
	switch e.Kind {
	case transport.KindTask:
		var t transport.Task
		if err := e.Decode(&t); err != nil {
			m.fail(err)
			return
		}
		m.sit(&transport.Seat{Index: t.Index, Samples: t.Samples})
		m.begin(e, &t, transport.DigestOf(msg))
	case transport.KindSeat:
		var seat transport.Seat
		if err := e.Decode(&seat); err != nil {
			m.fail(err)
			return
		}
		m.sit(&seat)
	default:
		b := &broadcast{msg: msg, e: e, digest: transport.DigestOf(msg)}
		if err := b.read(); err != nil {
			m.fail(err)
			return
		}
		m.c.seen.put(b)
		m.broadcast(b)
	}
}

func (m *light) sit(s *transport.Seat) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seat = s
}

// broadcast handles what is told to all.
func (m *light) broadcast(b *broadcast) {
	if b.e.Kind != transport.KindTasks {
		m.closed(b)
		return
	}
	m.mu.Lock()
	seat := m.seat
	m.mu.Unlock()
	if seat == nil {
		go func() {
			if err := m.sync(context.Background()); err != nil {
				m.fail(err)
			}
		}()
	} else if t, ok := b.tasks.For(*seat); ok {
		m.begin(b.e, &t, b.digest)
	}
}

// begin does a task.
func (m *light) begin(e transport.Envelope, t *transport.Task, digest transport.Digest) {
	m.c.sampled(e.Round)
	if m.c.Bytes == 0 && !m.c.Secure {
		m.answer(e, t, digest)
		return
	}
	go m.answer(e, t, digest)
}

// closed ends the wait for a verdict of an order that a close names: that says it.
func (m *light) closed(b *broadcast) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.settle != nil && b.names(m.order) {
		m.settle()
		m.settle = nil
	}
}

// deliver sends a result until the coordinator says what becomes of it.
func (m *light) deliver(order int, msg []byte) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	m.mu.Lock()
	m.order, m.settle = order, cancel
	m.mu.Unlock()
	if _, err := m.send(ctx, msg); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

func (m *light) fail(err error) { fmt.Fprintf(os.Stderr, "%s: %v\n", m.name, err) }

// answer sends the result of a task.
func (m *light) answer(e transport.Envelope, t *transport.Task, digest transport.Digest) {
	r := &transport.Result{Order: t.Order, Task: digest, Weight: 1, Kernels: "none"}
	if m.c.Secure {
		if err := m.step(e, t, r); err != nil {
			m.fail(err)
		}
		return
	}
	if m.c.Bytes == 0 {
		sealed, err := m.seal(r, nil, transport.Envelope{Round: e.Round, Step: e.Step})
		if err != nil {
			m.fail(err)
			return
		}
		go func() {
			if err := m.deliver(t.Order, sealed); err != nil {
				m.fail(err)
			}
		}()
		return
	}
	if err := m.carry(e, r); err != nil {
		m.fail(err)
	}
}

// carry downloads the model and uploads a result of the same size.
func (m *light) carry(e transport.Envelope, r *transport.Result) error {
	if m.c.work != nil {
		m.c.work <- struct{}{}
		defer func() { <-m.c.work }()
	}
	ctx := context.Background()
	client, err := m.courier()
	if err != nil {
		return err
	}
	store := blob.NewMemory()
	for _, ref := range e.Refs {
		if err := client.Download(ctx, store, blob.Hash(ref.Hash)); err != nil {
			return fmt.Errorf("download: %w", err)
		}
	}
	ready, refs := m.ready, m.refs
	if ready == nil {
		if ready, refs, err = m.prepare(ctx, e.Round); err != nil {
			return err
		}
	}
	r.Addends = []transport.Tensors{{Name: "w", Ref: 1}}
	if err := m.upload(ctx, client, ready, r, refs); err != nil {
		return err
	}
	sealed, err := m.seal(r, refs, transport.Envelope{Round: e.Round, Step: e.Step})
	if err != nil {
		return err
	}
	return m.deliver(r.Order, sealed)
}

// upload asks to bring the blobs of a result, and brings them.
func (m *light) upload(ctx context.Context, client *web.Client, from blob.Store, r *transport.Result, refs []transport.Ref) error {
	for {
		answer, err := m.request(ctx, &transport.Ask{Order: r.Order, Task: r.Task, Blobs: refs}, nil)
		if err != nil {
			return err
		}
		var p transport.Permit
		if err := answer.Decode(&p); err != nil {
			return err
		}
		if p.Granted {
			break
		}
		time.Sleep(p.Retry)
	}
	for _, ref := range refs {
		if err := client.Upload(ctx, from, blob.Hash(ref.Hash)); err != nil {
			return fmt.Errorf("upload: %w", err)
		}
	}
	client.Rest() // as members do
	return nil
}

// prepare makes the result of a round.
func (m *light) prepare(ctx context.Context, round int) (blob.Store, []transport.Ref, error) {
	store := blob.NewMemory()
	h, mf, err := blob.Write(ctx, store, bytes.NewReader(m.draw(round)))
	return store, []transport.Ref{{Hash: transport.Digest(h), Bytes: mf.Bytes, Media: "application/safetensors"}}, err
}

// draw returns the safetensors of a result that is this member's and this round's alone.
func (m *light) draw(round int) []byte {
	n := int(m.c.Bytes / 4)
	x := make([]float32, n)
	r := rand.NewPCG(uint64(m.i), uint64(round))
	for j := 0; j+1 < n; j += 2 {
		v := r.Uint64()
		x[j] = math.Float32frombits(uint32(v)&0x007fffff | 0x3c000000)
		x[j+1] = math.Float32frombits(uint32(v>>32)&0x007fffff | 0x3c000000)
	}
	s := weights.NewSet(1)
	s.Put("w", weights.Of32(x, n))
	var b bytes.Buffer
	if err := weights.Write(&b, s, nil); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// broadcast is a message to all.
type broadcast struct {
	msg          []byte
	e            transport.Envelope
	digest       transport.Digest
	tasks        transport.Tasks // if it has them
	end          transport.Close // if it is one
	folded, lost federated.Indices
}

// read reads what it says.
func (b *broadcast) read() error {
	switch b.e.Kind {
	case transport.KindTasks:
		return b.e.Decode(&b.tasks)
	case transport.KindClose:
		return errors.Join(b.e.Decode(&b.end), b.folded.UnmarshalText([]byte(b.end.Folded)), b.lost.UnmarshalText([]byte(b.end.Lost)))
	}
	return nil
}

// names reports whether a close names an order.
func (b *broadcast) names(order int) bool {
	_, yes := slices.BinarySearch(b.folded, order)
	_, no := slices.BinarySearch(b.lost, order)
	return yes || no
}

// seen remembers the broadcasts that came last, so that a crowd verifies each once.
type seen struct {
	mu   sync.Mutex
	last [4]*broadcast
	next int
}

func (s *seen) find(msg []byte) *broadcast {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.last {
		if l != nil && len(l.msg) == len(msg) && binary.LittleEndian.Uint64(l.msg[len(msg)-16:]) == binary.LittleEndian.Uint64(msg[len(msg)-16:]) && bytes.Equal(l.msg, msg) {
			return l
		}
	}
	return nil
}

func (s *seen) put(b *broadcast) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last[s.next%len(s.last)] = b
	s.next++
}
