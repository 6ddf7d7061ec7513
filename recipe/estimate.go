package recipe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"time"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/private"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/simulation"
	"github.com/cohort-learning/cohort/train"
)

// Estimate is what a run will cost. Parameters, operations and bytes are counted; time is measured on a few steps of each
// level, with as many clients at work as in the run; memory is what the process holds after those steps and what the sums
// of a round will add.
type Estimate struct {
	Levels   []LevelEstimate `json:"levels"`
	Rounds   int             `json:"rounds"`
	Cohort   int             `json:"cohort"` // clients that train in a round
	FLOPs    float64         `json:"flops"`  // of training, a round
	Up       float64         `json:"bytes_up"`
	Down     float64         `json:"bytes_down"`
	Measured float64         `json:"bytes_measuring"`           // both ways, in a round that is evaluated
	Protocol float64         `json:"bytes_protocol,omitempty"`  // both ways, of keys, shares and lists of secure sums, in a round that is evaluated
	Masking  float64         `json:"seconds_masking,omitempty"` // of a round, which Round has in it
	Memory   int64           `json:"memory"`
	Round    float64         `json:"seconds_a_round"` // without evaluation
	Seconds  float64         `json:"seconds"`         // of the whole run
}

// LevelEstimate is the part of a level in a round.
type LevelEstimate struct {
	Level
	Expected float64 `json:"clients_a_round"`
	FLOPs    float64 `json:"flops"`
	Up       float64 `json:"bytes_up"`   // of training
	Down     float64 `json:"bytes_down"` // of training
	Step     float64 `json:"seconds_a_step"`
}

// Estimate says what a run of the plan on an engine will cost. It trains a few steps to find out.
func (p *Plan) Estimate(ctx context.Context, e *train.Engine) (*Estimate, error) {
	levels, err := p.Levels()
	if err != nil {
		return nil, err
	}
	out := &Estimate{Rounds: p.Recipe.Rounds}
	for _, l := range levels {
		out.Levels = append(out.Levels, LevelEstimate{Level: l})
	}
	state, err := p.count(ctx, e, out)
	if err != nil {
		return nil, err
	}
	out.Round = out.Masking
	if err := p.clock(ctx, e, out); err != nil {
		return nil, err
	}
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	out.Memory = int64(mem.Sys)
	for _, s := range state.Sets {
		out.Memory += 16 * int64(s.Size()) // exact sums
	}
	return out, nil
}

// sampled bounds for how many clients tasks are made.
const sampled = 200

// count fills in clients and bytes from the tasks of the first round.
func (p *Plan) count(ctx context.Context, e *train.Engine, out *Estimate) (federated.State, error) {
	a, err := p.Recipe.bare(p.Problem)
	if err != nil {
		return federated.State{}, err
	}
	fleet := &simulation.Fleet{Split: p.Split, Dealt: p.Dealt, Engine: e, Seed: p.Recipe.Seed}
	srv := fleet.Server()
	if err := a.Check(srv); err != nil {
		return federated.State{}, err
	}
	s, err := a.Init(ctx, srv)
	if err != nil {
		return s, fmt.Errorf("beginning the run: %w", err)
	}
	if t, ok := a.(interface {
		Told(s federated.State, at federated.Local) (federated.State, error)
	}); ok { // what members tell before they train, from which it follows what they are sent
		for i := range fleet.Len() {
			if s, err = t.Told(s, fleet.Local(fleet.Member(i))); err != nil {
				return s, err
			}
		}
	}
	for {
		ph, ok := a.Next(s)
		if !ok {
			return s, nil
		}
		if err := p.countPhase(a, fleet, s, ph, out); err != nil {
			return s, err
		}
		s.Step++
	}
}

func (p *Plan) countPhase(a federated.Algorithm, fleet *simulation.Fleet, s federated.State, ph federated.Phase, out *Estimate) error {
	who := ph.Who
	if !who.Everyone && who.Fraction == 0 {
		return nil
	}
	var pool []federated.Member
	for i := range fleet.Len() {
		if m := fleet.Member(i); who.Eligible == nil || who.Eligible(m) {
			pool = append(pool, m)
		}
	}
	asked := float64(len(pool))
	if !who.Everyone {
		round := math.Floor
		if who.RoundUp {
			round = math.Ceil
		}
		asked = max(1, round(who.Fraction*asked))
	}
	secure, inboxes := p.Recipe.Secure.Sums != "", 0.0
	if secure {
		var err error
		if inboxes, err = p.countSession(ph, asked, out); err != nil {
			return err
		}
	}
	step := max(1, len(pool)/sampled)
	n := (len(pool) + step - 1) / step
	for i := 0; i < len(pool); i += step {
		t, err := a.Task(s, ph, pool[i])
		if err != nil {
			return fmt.Errorf("task of %s: %w", pool[i].Name, err)
		}
		share := asked / float64(n)
		down, up := share*float64(t.Bytes()), share*float64(answerBytes(ph, t))
		if secure {
			up = share * p.Recipe.Secure.vectorBytes(federated.MeasuredBy(a), ph, t)
			down += inboxes * share / asked
		}
		if ph.Name != "train" {
			out.Measured += up + down
			continue
		}
		l := out.level(t.Tag)
		l.Expected += share
		l.Down += down
		l.Up += up
		l.FLOPs += share * 3 * l.Level.FLOPs() * p.Recipe.examples(pool[i].Samples)
	}
	if ph.Name == "train" {
		out.Cohort = int(asked)
		for _, l := range out.Levels {
			out.Up, out.Down, out.FLOPs = out.Up+l.Up, out.Down+l.Down, out.FLOPs+l.FLOPs
		}
	}
	return nil
}

// countSession adds what the session of a phase costs beside vectors, and returns the bytes that come with its tasks.
func (p *Plan) countSession(ph federated.Phase, asked float64, out *Estimate) (inboxes float64, err error) {
	s := p.Recipe.Secure
	if s.Sums != "masked" || asked < 2 {
		return 0, nil
	}
	k, err := s.neighbours(int(asked))
	if err != nil {
		return 0, fmt.Errorf("secure: %w", err)
	}
	one, err := rehearse()
	if err != nil {
		return 0, fmt.Errorf("rehearsing a secure sum: %w", err)
	}
	bytes, inboxes := one.protocol(asked, float64(k))
	out.Protocol += bytes + asked*float64(private.TermsBytes(ph))
	workers := cmp.Or(p.Recipe.Run.Workers, runtime.GOMAXPROCS(0))
	if ph.Name == "train" {
		words := 0
		for _, f := range ph.Folds {
			words += f.Like.Size()
		}
		out.Masking = one.seconds(asked, float64(k), float64(words)) / float64(min(workers, runtime.GOMAXPROCS(0)))
	}
	return inboxes, nil
}

// level returns the level of a tag, the first if there is none of that name.
func (e *Estimate) level(tag string) *LevelEstimate {
	for i := range e.Levels {
		if e.Levels[i].Name == tag {
			return &e.Levels[i]
		}
	}
	return &e.Levels[0]
}

// answerBytes is what comes back: a tensor for each that the results are folded into.
func answerBytes(ph federated.Phase, t federated.Task) int64 {
	var n int64
	for _, f := range ph.Folds {
		like := f.Like
		if f.Indexed && t.Index != nil {
			like = t.Index.Like(like)
		}
		n += like.Bytes()
	}
	return n
}

// examples is how many examples a client with n of them trains on in a round, repetitions counted.
func (r *Recipe) examples(n int) float64 {
	if r.Train.Steps > 0 {
		batch := r.Train.Batch
		if batch == 0 {
			batch = n
		}
		return float64(r.Train.Steps * batch)
	}
	return float64(r.Train.Epochs * n)
}

// tries is a method that trains without an engine: Try does a member's training of one round, for its time.
type tries interface {
	Try(ctx context.Context, at federated.Local) error
}

// clockTries times what a few clients do in a round, those in the middle of the fleet.
func (p *Plan) clockTries(ctx context.Context, a tries, out *Estimate, workers int) error {
	fleet := &simulation.Fleet{Split: p.Split, Dealt: p.Dealt, Seed: p.Recipe.Seed}
	at := []federated.Local{{Seed: p.Recipe.Seed, Train: p.Split.Train.All()}} // the server learns, on all the data
	if out.Cohort > 0 {
		at = nil
		for k := range min(3, fleet.Len()) {
			at = append(at, fleet.Local(fleet.Member((fleet.Len()/2+k)%fleet.Len())))
		}
	}
	began := time.Now()
	for _, l := range at {
		if err := a.Try(ctx, l); err != nil {
			return fmt.Errorf("timing a round of %s: %w", cmp.Or(l.Member.Name, "the server"), err)
		}
	}
	visit := time.Since(began).Seconds() / float64(len(at))
	out.Levels[0].Step = visit
	evaluations := math.Ceil(float64(p.Recipe.Rounds) / float64(p.Recipe.Evaluate.Every))
	pass := visit / 3 / max(1, float64(p.Recipe.Train.Epochs)) // forward, over all the data of a client
	if out.Cohort == 0 {
		out.Round = visit
		out.Seconds = visit*float64(p.Recipe.Rounds) + evaluations*pass
		return nil
	}
	out.Round = visit * float64(out.Cohort) / float64(min(workers, out.Cohort))
	out.Seconds = out.Round*float64(p.Recipe.Rounds) + evaluations*pass*float64(fleet.Len())/float64(workers)
	return nil
}

// clock times a few steps of each level.
func (p *Plan) clock(ctx context.Context, e *train.Engine, out *Estimate) error {
	r := p.Recipe
	batch := r.Train.Batch
	mean := p.Split.Train.Len() / max(1, p.Dealt.Train.Clients())
	if batch == 0 {
		batch = max(1, mean)
	}
	batch = min(batch, p.Split.Train.Len())
	workers := r.Run.Workers
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	if a, err := r.bare(p.Problem); err != nil {
		return err
	} else if a, ok := a.(tries); ok {
		return p.clockTries(ctx, a, out, workers)
	}
	perExample := 0.0 // of the global model, forward
	for i := range out.Levels {
		l := &out.Levels[i]
		if l.Expected == 0 && i > 0 {
			continue
		}
		seconds, err := p.timeSteps(ctx, e, l.Rate, batch, workers)
		if err != nil {
			return fmt.Errorf("timing level %s: %w", l.Name, err)
		}
		l.Step = seconds
		steps := r.examples(mean) / float64(batch)
		out.Round += l.Expected * steps * seconds
		if i == 0 {
			perExample = seconds / float64(batch) / 3
			if out.Cohort == 0 { // the server learns, on all the data
				out.Round = r.examples(p.Split.Train.Len()) / float64(batch) * seconds
			}
		}
	}
	measured := 0
	if p.Split.Test != nil {
		measured = p.Split.Test.Len()
		if r.Evaluate.Clients {
			measured *= 2
		}
	}
	measured += p.Split.Train.Len() // statistics
	evaluations := math.Ceil(float64(r.Rounds) / float64(r.Evaluate.Every))
	out.Seconds = out.Round*float64(r.Rounds) + evaluations*perExample*float64(measured)
	return nil
}

// timeSteps returns the seconds of one step of a level when as many clients as workers train at once: the time of all
// divided by the number of their steps.
func (p *Plan) timeSteps(ctx context.Context, e *train.Engine, rate float64, batch, workers int) (float64, error) {
	m, err := p.Problem.Build(rate)
	if err != nil {
		return 0, err
	}
	t := p.Problem.Training
	spec := &train.Spec{Model: m, DType: p.Problem.DType, Loss: p.Problem.Loss, Target: p.Problem.Target, Hide: p.Problem.Hide,
		Clip: t.Clip, Optimizer: t.Optimizer}
	start := m.Initial(p.Problem.DType, rng.New(p.Recipe.Seed, 0, "", "estimate"))
	rows := make([]int32, batch)
	for i := range rows {
		rows[i] = int32(i)
	}
	data := dataset.View{Data: p.Split.Train, Rows: rows}
	fit := func(worker, steps int) error {
		s, err := e.Begin(spec, start.Clone(), train.Options{})
		if err != nil {
			return err
		}
		defer s.Close()
		_, err = s.Fit(ctx, train.Fit{Data: data, Batch: batch, Steps: steps, Rate: train.Constant(1e-6),
			Augment: t.Augment, Random: rng.New(p.Recipe.Seed, worker, "", "estimate")})
		return err
	}
	if err := fit(0, 1); err != nil { // compiles
		return 0, err
	}
	for steps := 4; ; steps *= 4 {
		began := time.Now()
		var wg sync.WaitGroup
		errs := make([]error, workers)
		for w := range workers {
			wg.Go(func() { errs[w] = fit(w, steps) })
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return 0, err
		}
		if spent := time.Since(began); spent > 150*time.Millisecond || steps >= 1024 {
			return spent.Seconds() / float64(steps*workers), nil
		}
	}
}
