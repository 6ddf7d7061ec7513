package main

import (
	"context"
	"crypto/ed25519"
	"encoding"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cohort-learning/cohort/secure/secagg"
)

// examined is the number of members who verify signatures and whose steps are timed.
const examined = 10

// bench is a session on its way, up to the vectors; then it goes on once for each part of members lost.
type bench struct {
	p       secagg.Params
	n       int
	names   []string
	signers []ed25519.PrivateKey
	book    book
	members []*secagg.Member
	row     row
	up      int // bytes of the first member
	down    int
}

// terms returns those of a graph by name; a sparse one is planned for as many lost as there will be, and a tenth corrupt.
func terms(n, d, bits int, graph string, lost []int) (secagg.Params, error) {
	p := secagg.Params{Members: n, Threshold: 2*n/3 + 1}
	switch graph {
	case "complete":
	case "sparse":
		most := 0
		for _, l := range lost {
			most = max(most, l)
		}
		var err error
		if p, err = secagg.Choose(n, .1, float64(most)/100, secagg.Curious); err != nil {
			return p, err
		}
	default:
		return p, fmt.Errorf("graph %q: expected sparse or complete", graph)
	}
	p.Session, p.Size, p.Extra, p.Bits = "bench", d, 1, bits
	if bits == 32 {
		p.Levels = 1 << 16
	}
	return p, p.Validate()
}

func run(ctx context.Context, n, d, bits int, graph string, lost []int, emit func(row)) error {
	for _, l := range lost {
		if l < 0 || n-n*l/100 < examined {
			return fmt.Errorf("%d members of whom %d%% are lost: at least %d must be left to be timed", n, l, examined)
		}
	}
	p, err := terms(n, d, bits, graph, lost)
	if err != nil {
		return err
	}
	b := &bench{p: p, n: n, book: book{keys: map[string]ed25519.PublicKey{}}, row: row{Who: "here", Graph: graph, Members: n, Neighbour: p.Neighbours, Threshold: p.Threshold, Size: d, Bits: bits}}
	if p.Neighbours == 0 {
		b.row.Neighbour = n - 1
	}
	adverts, err := b.keys()
	if err != nil {
		return err
	}
	servers := make([]*secagg.Server, len(lost))
	for i := range servers {
		if servers[i], err = secagg.NewServer(p, nil); err != nil {
			return err
		}
		for _, a := range adverts {
			if err := servers[i].Advert(a); err != nil {
				return err
			}
		}
	}
	if err := b.shares(ctx, servers); err != nil {
		return err
	}
	added, err := b.mask(ctx, servers, lost)
	if err != nil {
		return err
	}
	for i, s := range servers {
		r, err := b.finish(ctx, s, lost[i])
		if err != nil {
			return fmt.Errorf("%d%% lost: %w", lost[i], err)
		}
		r.Server = r.Recovery + added[i]
		emit(r)
	}
	return nil
}

// gone reports whether member i is lost: the last ones, whose places among the names are as good as any.
func (b *bench) gone(i, percent int) bool { return i >= b.n-b.n*percent/100 }

func (b *bench) trust(i int, lax bool) secagg.Trust {
	return secagg.Trust{
		Sign:     func(msg []byte) ([]byte, error) { return ed25519.Sign(b.signers[i], msg), nil },
		Verifier: book{b.book.keys, lax}, Workers: 1,
	}
}

func (b *bench) keys() ([]secagg.Advert, error) {
	for i := range b.n {
		public, private, err := ed25519.GenerateKey(nil)
		if err != nil {
			return nil, err
		}
		b.names = append(b.names, fmt.Sprintf("member-%05d", i))
		b.signers = append(b.signers, private)
		b.book.keys[b.names[i]] = public
	}
	adverts := make([]secagg.Advert, b.n)
	b.members = make([]*secagg.Member, b.n)
	t := begin()
	for i := range b.n {
		var err error
		if b.members[i], adverts[i], err = secagg.NewMember(b.p, b.names[i], 0, b.trust(i, i >= examined)); err != nil {
			return nil, err
		}
	}
	b.row.Keys = t.seconds() / float64(b.n)
	b.up += size(adverts[0])
	b.down += size(secagg.Adverts(adverts))
	return adverts, nil
}

func size(m encoding.BinaryMarshaler) int {
	b, err := m.MarshalBinary()
	if err != nil {
		panic(err) // messages of the package's own making
	}
	return len(b)
}

func (b *bench) shares(ctx context.Context, servers []*secagg.Server) error {
	list, err := servers[0].Adverts()
	if err != nil {
		return err
	}
	for _, s := range servers[1:] {
		if _, err := s.Adverts(); err != nil {
			return err
		}
	}
	var mu sync.Mutex
	one := func(i int) error {
		out, err := b.members[i].Share(list)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if i == 0 {
			b.up += size(out.Boxes)
		}
		for _, s := range servers {
			if err := s.Boxes(b.names[i], out.Boxes); err != nil {
				return err
			}
		}
		return nil
	}
	t := begin()
	for i := range examined {
		if err := one(i); err != nil {
			return err
		}
	}
	b.row.Shares = t.seconds() / examined
	return parallel(ctx, examined, b.n, one)
}

// mask lets all members mask their vectors and each server add those that are not lost; it returns what adding cost.
func (b *bench) mask(ctx context.Context, servers []*secagg.Server, lost []int) ([]float64, error) {
	var mu sync.Mutex
	costs := make([]float64, len(servers))
	one := func(i int) error {
		mu.Lock()
		boxes, err := servers[0].Inbox(b.names[i])
		for _, s := range servers[1:] {
			if err == nil {
				_, err = s.Inbox(b.names[i]) // closes the step there too
			}
		}
		mu.Unlock()
		if err != nil {
			return err
		}
		t := begin()
		y, err := b.members[i].Mask(boxes, b.input(i))
		if err != nil {
			return err
		}
		if i < examined {
			b.row.Mask += t.seconds() / examined
		}
		mu.Lock()
		defer mu.Unlock()
		if i == 0 {
			b.up += size(y)
			b.down += size(boxes)
		}
		for k, s := range servers {
			if b.gone(i, lost[k]) {
				continue
			}
			t := begin()
			if err := s.Masked(b.names[i], y); err != nil {
				return err
			}
			if i < examined { // others mask meanwhile later
				costs[k] += t.seconds() / examined * float64(b.n-b.n*lost[k]/100)
			}
		}
		return nil
	}
	for i := range examined {
		if err := one(i); err != nil {
			return nil, err
		}
	}
	return costs, parallel(ctx, examined, b.n, one)
}

// input of member i: a vector whose sums are known.
func (b *bench) input(i int) *secagg.Vector {
	x := b.p.NewVector(b.p.Size)
	for k := range x.Body32 {
		x.Body32[k] = uint32(i*i + k)
	}
	for k := range x.Body64 {
		x.Body64[k] = uint64(i)<<32 + uint64(k)
	}
	x.Extra[0] = uint64(i)
	return x
}

func (b *bench) finish(ctx context.Context, s *secagg.Server, lost int) (row, error) {
	r, up, down := b.row, b.up, b.down
	r.Lost = lost
	survivors, err := s.Survivors()
	if err != nil {
		return r, err
	}
	down += size(survivors)
	// Members continue from copies: for each part lost they sign another list.
	members := make([]*secagg.Member, len(survivors))
	var mu sync.Mutex
	if err := parallel(ctx, 0, len(survivors), func(i int) error {
		state, err := b.members[i].MarshalBinary()
		if err != nil {
			return err
		}
		if members[i], err = secagg.RestoreMember(b.p, b.trust(i, i >= examined), state); err != nil {
			return err
		}
		return nil
	}); err != nil {
		return r, err
	}
	var unmask float64
	for i, m := range members {
		t := begin()
		c, err := m.Confirm(survivors)
		if err != nil {
			return r, err
		}
		if i < examined {
			unmask += t.seconds() / examined
		}
		if i == 0 {
			up += size(c)
		}
		if err := s.Confirm(c); err != nil {
			return r, err
		}
	}
	confirmations, err := s.Confirmations()
	if err != nil {
		return r, err
	}
	down += size(confirmations)
	one := func(i int) error {
		v, err := members[i].Unmask(survivors, confirmations)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if i == 0 {
			up += size(v)
		}
		return s.Reveal(v)
	}
	t := begin()
	for i := range examined {
		if err := one(i); err != nil {
			return r, err
		}
	}
	r.Unmask = unmask + t.seconds()/examined
	if err := parallel(ctx, examined, len(members), one); err != nil {
		return r, err
	}
	members = nil
	runtime.GC()
	wall := time.Now()
	t = begin()
	sum, err := s.Recover(0)
	if err != nil {
		return r, err
	}
	r.Recovery, r.Wall = t.seconds(), time.Since(wall).Seconds()
	r.Member = r.Keys + r.Shares + r.Mask + r.Unmask
	r.Up, r.Down = up, down
	return r, b.verify(sum, len(survivors))
}

// verify compares the sum of the first m members with what it must be.
func (b *bench) verify(sum *secagg.Sum, m int) error {
	want := b.p.NewVector(1)
	for i := range m {
		x := uint64(i)
		if len(want.Body32) > 0 {
			want.Body32[0] += uint32(x * x)
		} else {
			want.Body64[0] += x << 32
		}
		want.Extra[0] += x
	}
	wrong := errors.New("the secure sum is not the plain sum")
	for k, x := range sum.Body32 {
		if x != want.Body32[0]+uint32(m*k) {
			return wrong
		}
	}
	for k, x := range sum.Body64 {
		if x != want.Body64[0]+uint64(m*k) {
			return wrong
		}
	}
	if sum.Extra[0] != want.Extra[0] || len(sum.Members) != m {
		return wrong
	}
	return nil
}

// parallel calls f(from) … f(to−1) from as many goroutines as there are processors, until one fails.
func parallel(ctx context.Context, from, to int, f func(i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	next.Store(int64(from))
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= to {
					return
				}
				if err := f(i); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}
