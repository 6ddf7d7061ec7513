package private

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/federated/heterofl"
	"github.com/cohort-learning/cohort/federated/scaffold"
	"github.com/cohort-learning/cohort/secure/secagg"
	"github.com/cohort-learning/cohort/weights"
)

// transcript is all that a server has of a run: what it sent, what came, its states and the checkpoints of its sums.
type transcript struct {
	*fedtest.Trace
	*Secure
	t     *testing.T
	world *fedtest.World

	mu      sync.Mutex
	all     bytes.Buffer
	vectors []masks             // that were sent
	secrets []secret            // that must not be in it
	terms   map[string]*terms   // by round and phase
	orders  map[string][]string // what members of one kind were told, by round, phase and holding
}

type masks struct {
	what string
	b    []byte
}

// secret is something of one member: any window of its size is too much. Windows begin at its multiples.
type secret struct {
	what string
	b    []byte
	size int
}

func (x *transcript) put(b []byte) { x.all.Write(b); x.all.WriteString("\n") }

func (x *transcript) set(s weights.Set) {
	if err := weights.Write(&x.all, s, nil); err != nil {
		x.t.Error(err)
	}
}

// watch is a method's client: what it computed is secret.
type watch struct {
	federated.Client
	seen *federated.Result
}

func (w watch) Run(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set) (federated.Result, error) {
	r, err := w.Client.Run(ctx, at, t, keep)
	*w.seen = r
	return r, err
}

// Run implements [federated.Client].
func (x *transcript) Run(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set) (federated.Result, error) {
	var own federated.Result
	c := &client{x.Secure, watch{x.Algorithm.Client(), &own}}
	r, err := c.Run(ctx, at, t, keep)
	x.mu.Lock()
	defer x.mu.Unlock()
	if err != nil {
		return r, err
	}
	x.put(t.Params)
	x.put(t.Attached)
	for _, s := range t.Sets {
		x.set(s)
	}
	x.put(r.Attached)
	if r.Status != federated.Done || r.Weight != 0 || r.Addends != nil || r.Cover != nil || r.Scalars != nil || r.Attached == nil {
		x.t.Errorf("round %d, %s: %s sent more than a message of the session: %+v", t.Round, t.Phase, at.Member.Name, r)
	}
	var o order
	if err := json.Unmarshal(t.Params, &o); err != nil {
		x.t.Error(err)
	}
	kind := fmt.Sprintf("%d %s %d", t.Round, t.Phase, o.Holding)
	x.orders[kind] = append(x.orders[kind], string(t.Params))
	phase := fmt.Sprintf("%d %s", t.Round, t.Phase[:strings.LastIndex(t.Phase, ".")])
	switch o.Step {
	case keys, plain:
		l, err := readTerms(t.Attached)
		if err != nil {
			x.t.Error(err)
		}
		x.terms[phase] = l
	}
	if o.Step == masked || o.Step == plain {
		x.vectors = append(x.vectors, masks{fmt.Sprintf("%s of %s", phase, at.Member.Name), r.Attached})
		x.hide(phase+" of "+at.Member.Name, x.terms[phase], o, at, t, own)
	}
	return r, nil
}

// hide notes what of a member's result must not be found.
func (x *transcript) hide(what string, l *terms, o order, at federated.Local, t federated.Task, r federated.Result) {
	if o.Rows {
		cover, err := x.Algorithm.(Rows).Covers(at, t)
		if err != nil {
			x.t.Error(err)
		}
		r = federated.Result{Cover: cover}
	}
	v, err := l.Layout.encode(x.o.params(l), o.Holding, len(l.Layout.Holdings), r, o.Allowed, at.Rand(t.Round, o.Phase+"/rounding"), nil)
	if err != nil {
		x.t.Error(err)
	}
	var body, extra []byte
	for _, w := range v.Body64 {
		body = binary.LittleEndian.AppendUint64(body, w)
	}
	for _, w := range v.Body32 {
		body = binary.LittleEndian.AppendUint32(body, w)
	}
	for _, w := range v.Extra {
		extra = binary.LittleEndian.AppendUint64(extra, w)
	}
	x.secrets = append(x.secrets, secret{what + ": encoded", body, 64})
	// The member's weight and label rows stand together; single small numbers are everywhere.
	if n := 8 * len(l.Layout.Holdings) * (1 + l.Layout.Rows); n >= 32 {
		x.secrets = append(x.secrets, secret{what + ": weight and rows", extra[:n], n})
	}
	// So do sums of float64 and scalars. Four in a row have enough digits not to be there by chance, which one loss has not.
	for i := range len(v.Extra) - 3 {
		b := extra[8*i : 8*i+32]
		if n := len(b) - bytes.Count(b, []byte{0}) - bytes.Count(b, []byte{0xff}); v.Extra[i]%grain != 0 && n >= 7 {
			x.secrets = append(x.secrets, secret{what + ": scalars", b, 32})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Addends)) {
		for _, y := range r.Addends[name].All() {
			var raw []byte
			for _, e := range y.F32 {
				raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(e))
			}
			x.secrets = append(x.secrets, secret{what + ": update", raw, 64})
		}
	}
}

func (x *transcript) state(s federated.State) {
	x.put(s.Meta)
	for _, set := range s.Sets {
		x.set(set)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Attached)) {
		x.put([]byte(name))
		x.put(s.Attached[name])
	}
}

// PhaseClosed implements [federated.Log].
func (x *transcript) PhaseClosed(p federated.PhaseClosed, snapshot func() federated.Snapshot) error {
	x.state(snapshot().State)
	b, err := json.Marshal(p)
	x.put(b)
	return err
}

// FoldDue implements [federated.FoldSaver].
func (x *transcript) FoldDue(unsaved int) bool { return unsaved > 0 }

// SaveFold implements [federated.FoldSaver].
func (x *transcript) SaveFold(_ federated.PhaseOpened, write func(io.Writer) error) error {
	return write(&x.all)
}

// record runs a method and returns what the server has of it.
func record(t *testing.T, method func(*federated.Problem) (federated.Algorithm, error), o SecureOptions) *transcript {
	t.Helper()
	s := newStage(t, method, nil)
	x := &transcript{Trace: &fedtest.Trace{}, Secure: NewSecure(s.Algorithm, o), t: t, world: s.world, terms: map[string]*terms{}, orders: map[string][]string{}}
	members := &fedtest.Members{Client: x, Local: x.world.Local}
	x.Trace.Members = members
	if _, err := federated.Run(t.Context(), x.Secure, x.world.Server(), members, x, federated.Config{Rounds: 3}, nil); err != nil {
		t.Fatal(err)
	}
	return x
}

// leaks searches for the secrets, at any place, and returns what was found of how many windows.
func (x *transcript) leaks() (found []string, windows int) {
	type window struct {
		secret *secret
		b      []byte
	}
	by := map[uint64][]window{}
	for i := range x.secrets {
		s := &x.secrets[i]
		for at := 0; at+s.size <= len(s.b); at += s.size {
			b := s.b[at : at+s.size]
			if len(bytes.Trim(b, "\x00\x80")) == 0 { // units that nothing excites are 0, and zeros are everywhere
				continue
			}
			k := binary.LittleEndian.Uint64(b)
			by[k] = append(by[k], window{s, b})
			windows++
		}
	}
	all := x.all.Bytes()
	for at := 0; at+8 <= len(all); at++ {
		for _, w := range by[binary.LittleEndian.Uint64(all[at:])] {
			if bytes.HasPrefix(all[at:], w.b) {
				found = append(found, w.secret.what)
			}
		}
	}
	return found, windows
}

// chi2 is the statistic of the bytes' distribution against the uniform one, 255 degrees of freedom.
func chi2(b []byte) (x float64) {
	var n [256]float64
	for _, c := range b {
		n[c]++
	}
	want := float64(len(b)) / 256
	for _, c := range n {
		x += (c - want) * (c - want) / want
	}
	return x
}

// words are the bytes of a vector without its header.
func words(t *testing.T, b []byte) (out []byte) {
	t.Helper()
	var v secagg.Vector
	if err := v.UnmarshalBinary(b); err != nil {
		t.Fatal(err)
	}
	for _, w := range v.Body32 {
		out = binary.LittleEndian.AppendUint32(out, w)
	}
	for _, w := range append(v.Body64, v.Extra...) {
		out = binary.LittleEndian.AppendUint64(out, w)
	}
	return out
}

// TestTranscript searches everything that a server has of an honest run for what a single member computed, and looks at every
// vector that came alone: it is as random bytes are. The same search finds all that in a run without masks.
func TestTranscript(t *testing.T) {
	// P[χ²₂₅₅ > 430] is 10⁻¹¹.
	const most = 430
	for name, method := range map[string]func(*federated.Problem) (federated.Algorithm, error){
		"fedavg":   averaging,
		"scaffold": func(p *federated.Problem) (federated.Algorithm, error) { return scaffold.New(p), nil },
		"heterofl": func(p *federated.Problem) (federated.Algorithm, error) {
			mode, err := heterofl.ParseMode("a1-c1", nil)
			if err != nil {
				return nil, err
			}
			return heterofl.New(p, heterofl.Config{Mode: mode})
		},
	} {
		for _, o := range []SecureOptions{{Holders: 3}, {Holders: 3, Bits: 32, Levels: 1 << 18, MaxWeight: 64}} {
			t.Run(fmt.Sprintf("%s/%d bits", name, max(32, 64-o.Bits)), func(t *testing.T) {
				x := record(t, method, o)
				found, windows := x.leaks()
				if len(found) > 0 {
					t.Errorf("%d leaks, the first is %s", len(found), found[0])
				}
				if len(x.secrets) < 100 || windows < 500 {
					t.Errorf("only %d secrets of %d windows were looked for", len(x.secrets), windows)
				}
				var all []byte
				for _, y := range x.vectors {
					b := words(t, y.b)
					all = append(all, b...)
					if c := chi2(b); len(b) >= 1024 && c > most {
						t.Errorf("%s: χ² of %d bytes is %.0f", y.what, len(b), c)
					}
				}
				if c := chi2(all); c > most {
					t.Errorf("χ² of all %d bytes is %.0f", len(all), c)
				}
				for kind, told := range x.orders {
					if len(slices.Compact(slices.Sorted(slices.Values(told)))) > 1 {
						t.Errorf("%s: not all were told the same", kind)
					}
				}
				o.Plain = true
				open := record(t, method, o)
				found, windows = open.leaks()
				kinds := map[string]bool{}
				for _, f := range found {
					kinds[f[strings.LastIndex(f, ": "):]] = true
				}
				if len(found) < windows/4 || !kinds[": encoded"] || !kinds[": scalars"] {
					t.Errorf("without masks the search found %d of %d windows only, of kinds %v", len(found), windows, kinds)
				}
				if c := chi2(words(t, open.vectors[0].b)); c < 2*most {
					t.Errorf("without masks χ² is %.0f, and the test tests nothing", c)
				}
				t.Logf("%d bytes, %d windows, %d vectors; without masks %d windows found", x.all.Len(), windows, len(x.vectors), len(found))
			})
		}
	}
}
