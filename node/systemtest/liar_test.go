package systemtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/node/member"
	"github.com/cohort-learning/cohort/node/parcel"
	"github.com/cohort-learning/cohort/transport"
	"github.com/cohort-learning/cohort/weights"
)

func init() {
	roles["liar"] = func(args []string) error { return disguised(args, func(l *liar) { l.lies = true }) }
	roles["replayer"] = func(args []string) error { return disguised(args, func(l *liar) { l.replays = true }) }
	roles["flooder"] = flooder
}

// liar is the connection of a member that does its proper work and, with the same key over the same connection, whatever it
// should not. It counts how it was answered.
type liar struct {
	transport.Link
	card   member.Card
	key    identity.Key
	store  blob.Store
	blobs  member.Courier
	random *rand.Rand

	lies, replays bool
	deserts       string // the step in which it goes for good
	wire          *wire  // if not nil, keeps what is sent and received

	mu      sync.Mutex
	past    [][]byte
	count   map[string]int
	spoiled map[int]bool
}

// enrol becomes a member.
func enrol(ctx context.Context, dir string, t identity.Token) (*member.Folder, error) {
	for try := 0; ; try++ { // a packet may be lost, the coordinator killed
		f, err := member.Enrol(ctx, dir, t, member.EnrolOptions{})
		if err == nil || try == 20 {
			return f, err
		}
		time.Sleep(time.Second)
	}
}

// costume makes what a member of the federation needs: TOKEN DIR DATA. Whoever wears it closes the study.
func costume(ctx context.Context, args []string) (*member.Folder, *member.Study, member.Options, error) {
	t, err := identity.ParseToken(args[0])
	if err != nil {
		return nil, nil, member.Options{}, err
	}
	f, err := enrol(ctx, args[1], t)
	if err != nil {
		return nil, nil, member.Options{}, err
	}
	study := &member.Study{Data: args[2], Dir: f.Dir, Threads: 1, Federation: f.Card.Federation.String()}
	info, err := study.Open()
	if err != nil {
		return nil, nil, member.Options{}, err
	}
	o := member.Options{Folder: f, Policy: member.DefaultPolicy(), Kernels: info.Engine + "/" + info.Path, Prepare: study.Prepare, Store: blob.NewMemory(),
		Events: func(e member.Event) { fmt.Println(e.Text) }}
	return f, study, o, f.Network(&o)
}

// disguised is a member of the federation with such a connection.
func disguised(args []string, set func(*liar)) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	f, study, o, err := costume(ctx, args)
	if err != nil {
		return err
	}
	defer study.Close()
	l := &liar{card: f.Card, key: f.Key, store: o.Store, blobs: o.Blobs, random: rand.New(rand.NewPCG(1, 2)), count: map[string]int{}, spoiled: map[int]bool{}}
	set(l)
	o.Blobs = l.blobs
	dial := o.Dial
	o.Dial = func(ctx context.Context) (transport.Link, error) {
		link, err := dial(ctx)
		if err == nil {
			l.Link = link
			return l, nil
		}
		return nil, err
	}
	m, err := member.New(o)
	if err != nil {
		return err
	}
	err = m.Run(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	text, _ := json.Marshal(l.count) // a map of numbers
	fmt.Printf("was answered %s\n", text)
	return err
}

// Request implements [transport.Link].
func (l *liar) Request(ctx context.Context, msg []byte) (reply []byte, err error) {
	e, err := transport.Peek(msg)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.past = append(l.past, msg)
	l.mu.Unlock()
	l.desert(e)
	if l.wire != nil {
		l.wire.note("request", msg)
		defer func() { l.wire.note("answer", reply) }()
	}
	if l.replays {
		l.replay(ctx)
	}
	if l.lies {
		l.lie(ctx, e, msg)
	}
	return l.Link.Request(ctx, msg)
}

// try sends a message and counts the answer.
func (l *liar) try(ctx context.Context, what string, msg []byte) (transport.Envelope, error) {
	within, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	reply, err := l.Link.Request(within, msg)
	answer := ""
	var e transport.Envelope
	if err == nil {
		e, err = transport.Open(l.card.Federation, reply)
	}
	var v transport.Verdict
	var f transport.Failure
	switch {
	case err != nil && (errors.Is(err, transport.ErrDisconnected) || errors.Is(err, context.DeadlineExceeded)):
		answer = "nobody"
	case err != nil:
		answer = err.Error()
	case e.Kind == transport.KindVerdict && e.Decode(&v) == nil:
		answer = strings.TrimSpace(string(v.Outcome) + " " + string(v.Code))
	case e.Kind == transport.KindError && e.Decode(&f) == nil:
		answer = string(f.Code)
	default:
		answer = string(e.Kind)
	}
	l.mu.Lock()
	l.count[what+": "+answer]++
	l.mu.Unlock()
	return e, err
}

// replay sends a few messages of the past again, of this round and others, whole as they were.
func (l *liar) replay(ctx context.Context) {
	for range 3 {
		l.mu.Lock()
		old := l.past[l.random.IntN(len(l.past))]
		l.mu.Unlock()
		e, err := transport.Peek(old)
		if err != nil {
			continue
		}
		_, _ = l.try(ctx, string(e.Kind), old)
		if e.Kind != transport.KindResult {
			continue
		}
		// The same result as that of another round: signed anew, as only the owner of the key can.
		e.Round++
		if msg, err := transport.Seal(l.key, e); err == nil {
			_, _ = l.try(ctx, "result of another round", msg)
		}
	}
}

// lie says all kinds of things that are not so, and then, in every other round, sends a result that is no number.
func (l *liar) lie(ctx context.Context, e transport.Envelope, msg []byte) {
	sealed := func(change func(*transport.Envelope)) []byte {
		c := e
		change(&c)
		m, err := transport.Seal(l.key, c)
		if err != nil {
			panic(err)
		}
		return m
	}
	put := func(b transport.Body) func(*transport.Envelope) { return func(c *transport.Envelope) { _ = c.Put(b) } } // our own types
	flipped := append([]byte{}, msg...)
	flipped[len(flipped)/2] ^= 1
	lies := map[string][]byte{
		"noise":                     noise(l.random, 1000),
		"much noise":                noise(l.random, transport.MaxMessage),
		"nothing":                   {},
		"a flipped bit":             flipped,
		"half a message":            msg[:len(msg)/2],
		"two messages":              append(append([]byte{}, msg...), msg...),
		"another's name":            sealed(func(c *transport.Envelope) { c.From = "client-000" }),
		"the coordinator's name":    sealed(func(c *transport.Envelope) { c.From, c.To = "", l.card.Name }),
		"another federation":        sealed(func(c *transport.Envelope) { c.Fed = l.key.Public().String() }),
		"another run":               sealed(func(c *transport.Envelope) { c.Run = "run2" }),
		"a task of its own":         sealed(put(&transport.Task{Order: 1})),
		"a close of its own":        sealed(put(&transport.Close{Folded: "0-100", Last: true})),
		"a stop of its own":         sealed(put(&transport.Control{Action: "stop"})),
		"a body of another kind":    sealed(func(c *transport.Envelope) { c.Body = json.RawMessage(`{"order":"x"}`) }),
		"a field too many":          sealed(func(c *transport.Envelope) { c.Body = json.RawMessage(`{"order":0,"more":[[[[]]]]}`) }),
		"a consent to other terms":  sealed(put(&transport.Consent{Schema: json.RawMessage("null"), Samples: math.MaxInt32})),
		"a terabyte":                sealed(put(&transport.Ask{Order: 0, Blobs: []transport.Ref{{Bytes: 1 << 40}}})),
		"blobs that overflow":       sealed(put(&transport.Ask{Order: 0, Blobs: []transport.Ref{{Bytes: math.MaxInt64}, {Bytes: math.MaxInt64}, {Bytes: 3}}})),
		"an order that is not made": sealed(put(&transport.Result{Order: math.MaxInt32, Weight: 1})),
		"a result, signed by nobody": func() []byte {
			m := append([]byte{}, msg...)
			copy(m[len(m)-88:], strings.Repeat("A", 86))
			return m
		}(),
	}
	var order int
	var task transport.Digest
	var r transport.Result
	var a transport.Ask
	switch e.Kind {
	case transport.KindResult:
		if e.Decode(&r) != nil {
			return
		}
		order, task = r.Order, r.Task
		for _, d := range []int{-2, -1, 1, 2} { // most are others'
			other := r
			other.Order = max(0, order+d)
			lies[fmt.Sprintf("others' orders (%+d)", d)] = sealed(put(&other))
		}
		wrong := r
		wrong.Task[0]++
		lies["another task"] = sealed(put(&wrong))
		lies["a blob that was not sent"] = sealed(func(c *transport.Envelope) {
			c.Refs = []transport.Ref{{Hash: task, Bytes: 100, Media: parcel.Safetensors}}
			_ = c.Put(&transport.Result{Order: order, Task: task, Weight: 1, Addends: []transport.Tensors{{Name: "w", Ref: 1}}})
		})
	case transport.KindAsk:
		if e.Decode(&a) != nil {
			return
		}
		order, task = a.Order, a.Task
	}
	for what, m := range lies {
		if ctx.Err() != nil {
			return
		}
		_, _ = l.try(ctx, what, m)
	}
	if e.Kind != transport.KindResult {
		return
	}
	l.spoil(ctx, e, r)
}

func noise(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// spoil answers one order in four with a result in proper form that must not be added. The first result for an order is what
// counts, so that the member's proper one is refused then.
func (l *liar) spoil(ctx context.Context, e transport.Envelope, r transport.Result) {
	if l.spoiled[r.Order] {
		return
	}
	l.spoiled[r.Order] = true
	n := len(l.spoiled)
	if n%4 != 1 || len(r.Addends) == 0 {
		return
	}
	w, err := parcel.Set(ctx, l.store, r.Addends[0], e.Refs)
	if err != nil {
		panic(err)
	}
	w = w.Clone()
	first := w.Must(w.Names()[0])
	weight := r.Weight
	what := ""
	switch n / 4 % 5 {
	case 0:
		what = "no number"
		first.SetAt(0, math.NaN())
	case 1:
		what = "of another shape"
		w.Put(w.Names()[0], weights.NewTensor(weights.Float32, 200, 100))
	case 2:
		what = "infinite"
		first.SetAt(0, math.Inf(1))
	case 3:
		what, weight = "too heavy", math.MaxUint64
	case 4:
		what = "too large"
		first.SetAt(0, 1e30)
	}
	order, task := r.Order, r.Task
	p := parcel.Packer{Store: l.store}
	in, err := p.Set(ctx, r.Addends[0].Name, w)
	if err != nil {
		panic(err)
	}
	e.Refs = p.Refs
	if len(p.Refs) > 0 {
		ask := e
		ask.Refs, ask.Round, ask.Step = nil, 0, ""
		_ = ask.Put(&transport.Ask{Order: order, Task: task, Blobs: p.Refs}) // our own types
		msg, err := transport.Seal(l.key, ask)
		if err != nil {
			panic(err)
		}
		if _, err := l.try(ctx, "asks to send what is "+what, msg); err != nil {
			return
		}
		within, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		for _, ref := range p.Refs {
			if l.blobs.Upload(within, l.store, blob.Hash(ref.Hash)) != nil {
				return
			}
		}
	}
	_ = e.Put(&transport.Result{Order: order, Task: task, Weight: weight, Addends: []transport.Tensors{in}, Scalars: r.Scalars})
	msg, err := transport.Seal(l.key, e)
	if err != nil {
		panic(err)
	}
	_, _ = l.try(ctx, "a result that is "+what, msg)
}

// flooder is a member of the federation that agrees to nothing, and floods the bus until it is killed: TOKEN DIR DATA.
func flooder(args []string) error {
	ctx := context.Background()
	t, err := identity.ParseToken(args[0])
	if err != nil {
		return err
	}
	f, err := enrol(ctx, args[1], t)
	if err != nil {
		return err
	}
	var o member.Options
	if err := f.Network(&o); err != nil {
		return err
	}
	link, err := o.Dial(ctx)
	if err != nil {
		return err
	}
	l := &liar{Link: link, card: f.Card, key: f.Key, count: map[string]int{}}
	l.flood(ctx)
	if err := l.pest(ctx); err != nil {
		return err
	}
	for {
		time.Sleep(200 * time.Millisecond)
		l.mu.Lock()
		text, _ := json.Marshal(l.count) // a map of numbers
		l.mu.Unlock()
		fmt.Printf("was answered %s\n", text)
	}
}

// flood asks without pause, and sends what wants no answer as fast as it can.
func (l *liar) flood(ctx context.Context) {
	e := transport.Envelope{Fed: l.card.Federation.String(), Run: "run", From: l.card.Name}
	_ = e.Put(&transport.Sync{Holding: []transport.Holding{}}) // our own types
	msg, err := transport.Seal(l.key, e)
	if err != nil {
		panic(err)
	}
	for range 100 {
		go func() {
			for ctx.Err() == nil {
				if _, err := l.try(ctx, "a flood of requests", msg); err != nil {
					time.Sleep(10 * time.Millisecond)
				}
			}
		}()
	}
	for range 4 {
		go func() {
			for ctx.Err() == nil {
				what := "sent without an answer"
				if err := l.Link.Send(msg); err != nil {
					what += ": " + err.Error()
					time.Sleep(10 * time.Millisecond)
				}
				l.mu.Lock()
				l.count[what]++
				l.mu.Unlock()
			}
		}()
	}
}

func httpClient(k identity.Key, card member.Card) (*http.Client, error) {
	c, err := identity.HTTPClient(k, card.URL, identity.NewTrust(card.CA), nil)
	if err != nil {
		return nil, err
	}
	t := c.Transport.(*http.Transport)
	t.ForceAttemptHTTP2 = false
	t.TLSClientConfig.NextProtos = []string{"http/1.1"} // which WebSockets are made of
	return c, nil
}
