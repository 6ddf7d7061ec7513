package coordinator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/node/parcel"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/simulation"
	"github.com/cohort-learning/cohort/transport"
)

// keeper is the [federated.Log] of a networked run: it makes durable what the driver tells, in the order in which a crash can be
// survived, and tells the members. First a snapshot is durable, then the record that names it; then members are told, and last
// what the snapshot makes superfluous is deleted.
type keeper struct {
	r    *Run
	from *federated.Snapshot // where to go on

	opened  federated.PhaseOpened
	inside  map[int]seat // orders that are inside the newest checkpoint of the phase's sums
	unsaved int          // results with blobs that were folded since
	saves   int          // snapshots of phases
	best    float64
	closes  *closes
	fresh   chan error // of the metrics that are being brought up to date; nil: they are

	phases []simulation.Phase
	began  time.Time
	took   time.Duration
}

// seat is who had an order, and which version of the state it was made from.
type seat struct {
	Order  int `json:"order"`
	Member int `json:"member"`
	Base   int `json:"base"`
}

// openedRecord is the body of run.opened.
type openedRecord struct {
	Clients    int    `json:"clients"`
	Rounds     int    `json:"rounds"`
	Engine     string `json:"engine"`
	Checkpoint string `json:"checkpoint"` // of the state before the first round
}

// roundRecord is the body of round.closed.
type roundRecord struct {
	federated.RoundClosed
	Checkpoint string `json:"checkpoint"`
}

// endedRecord is the body of run.ended.
type endedRecord struct {
	Rounds     int    `json:"rounds"`
	Digest     string `json:"digest"`
	Checkpoint string `json:"checkpoint"`
}

// begin makes a new run ready: the state before its first round is a checkpoint, too.
func (k *keeper) begin(members int) error {
	k.began = time.Now()
	if k.from != nil {
		return nil
	}
	if k.r.hiding.on {
		if err := k.r.hide(members); err != nil {
			return err
		}
	}
	srv := k.r.server()
	srv.Population = k.r.people
	alg := k.r.spec.Algorithm
	if err := alg.Check(srv); err != nil {
		return err
	}
	state, err := alg.Init(k.r.srv.ctx, srv)
	if err != nil {
		return fmt.Errorf("initial state: %w", err)
	}
	c, err := k.save("start", 0, federated.Snapshot{State: state})
	if err != nil {
		return err
	}
	if k.from, err = k.load(c); err != nil {
		return err
	}
	_, err = k.r.rec.Journal().Append(simulation.KindOpened, openedRecord{members, k.r.spec.Config.Rounds, k.r.rec.Meta().Engine, c.Digest.String()})
	return err
}

// save writes a checkpoint; without a name it is a round's.
func (k *keeper) save(name string, round int, s federated.Snapshot) (record.Checkpoint, error) {
	write := func(w io.Writer) error { return simulation.WriteSnapshot(w, s) }
	if name == "" {
		return k.r.rec.Checkpoints().Save(round, write)
	}
	return k.r.rec.Checkpoints().SaveNamed(name, round, write)
}

func (k *keeper) load(c record.Checkpoint) (*federated.Snapshot, error) {
	var s federated.Snapshot
	err := k.r.rec.Checkpoints().Load(&c, func(r io.Reader) (err error) {
		s, err = simulation.ReadSnapshot(r)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("checkpoint %s: %w", c.Path, err)
	}
	return &s, nil
}

// PhaseOpened implements [federated.Log].
func (k *keeper) PhaseOpened(p federated.PhaseOpened) error {
	k.r.desk.caughtUp()
	k.opened, k.inside, k.unsaved = p, nil, 0
	k.r.round.Store(int64(p.Round))
	k.r.spool.turn()
	k.r.desk.reserve(k.r.hiding.span(p))
	_, err := k.append(simulation.KindPhaseOpened, p, p.Phase)
	k.asked(p)
	n := k.r.together(p)
	k.r.desk.gather(n)
	if n == 0 {
		k.r.part()
	}
	return err
}

// append writes a record about a phase, so that members see no more of it than they may.
func (k *keeper) append(kind string, body any, phase string) (journal.Record, error) {
	e := journal.Entry{Kind: kind, Body: body}
	if learning(phase) {
		k.r.hiding.seal(&e)
	}
	recs, err := k.r.rec.Journal().AppendAll([]journal.Entry{e})
	if err != nil {
		return journal.Record{}, err
	}
	return recs[0], nil
}

// asked shows what the phase asks of whom.
func (k *keeper) asked(p federated.PhaseOpened) {
	n := len(p.Selected) + p.InFlight
	if p.Everyone {
		n = p.Roster
	}
	end := time.Duration(0)
	if d := k.r.spec.Config.Pace.Deadline; d > 0 && learning(p.Phase) {
		end = p.Opened + d
	}
	k.r.deadline.Store(int64(end))
	k.r.progress(p.Phase, 0, n)
}

// learning reports whether a phase is of training, be it a step that only prepares a secure sum: those have deadlines.
func learning(phase string) bool {
	method, _ := federated.SplitPhase(phase)
	return method == "train"
}

// Progress implements [federated.Log].
func (k *keeper) Progress(phase string, answered, asked int) {
	k.r.progress(phase, answered, asked)
	if o := k.r.spec.Observer; o != nil {
		o.Progress(k.opened.Round, phase, answered, asked)
	}
}

// FoldDue implements [federated.FoldSaver]: as soon as a window of results with blobs lies folded but not saved, so that they
// can be deleted.
func (k *keeper) FoldDue(unsaved int) bool {
	return unsaved >= k.r.desk.window && k.r.desk.burden(k.opened.Phase) >= k.r.desk.window
}

// SaveFold implements [federated.FoldSaver].
func (k *keeper) SaveFold(opened federated.PhaseOpened, write func(io.Writer) error) error {
	seats := k.r.desk.seats(opened.Phase, false)
	for _, s := range k.inside {
		seats = append(seats, s)
	}
	slices.SortFunc(seats, func(a, b seat) int { return a.Order - b.Order })
	head, err := json.Marshal(seats)
	if err != nil {
		return err
	}
	file, digest, err := k.writeFold(append(head, '\n'), write)
	if err != nil {
		return fmt.Errorf("checkpoint of the sums: %w", err)
	}
	if _, err := k.append(KindFold, folds{Round: opened.Round, Phase: opened.Phase, File: file, Digest: digest, Inside: len(seats)}, opened.Phase); err != nil {
		return err
	}
	k.inside = map[int]seat{}
	var ids []int
	for _, s := range seats {
		k.inside[s.Order] = s
		ids = append(ids, s.Order)
	}
	k.r.desk.spare(ids)
	k.r.desk.pins.sweep()
	return k.sweepFolds(file)
}

// PhaseClosed implements [federated.Log].
func (k *keeper) PhaseClosed(p federated.PhaseClosed, snapshot func() federated.Snapshot) error {
	s := snapshot()
	c, err := k.save([]string{"phase-a", "phase-b"}[k.saves%2], p.Round, s)
	if err != nil {
		return err
	}
	k.saves++
	k.r.desk.caughtUp()
	counted, given := k.outcome(p)
	end := closing{Orders: counted, Given: given, Step: s.State.Step, State: s.State.Digest(), Checkpoint: c.Digest.String(), Clock: s.Clock,
		Apart: k.opened.Apart, First: k.opened.First}
	body, err := merge(simulation.PhaseRecord(p), end)
	if err != nil {
		return err
	}
	rec, err := k.append(simulation.KindPhaseClosed, body, p.Phase)
	if err != nil {
		return err
	}
	for i, f := range p.Failed {
		if i == maxLines {
			k.r.log.Warn(fmt.Sprintf("and %d more do not count in round %d, %s", len(p.Lost)-i, p.Round+1, p.Phase))
			break
		}
		k.r.log.Warn(fmt.Sprintf("does not count in round %d, %s: %s", p.Round+1, p.Phase, f.Reason), "member", f.Member)
	}
	for _, n := range p.Notes[:min(len(p.Notes), maxLines)] {
		k.r.log.Info(fmt.Sprintf("round %d, %s: %s", p.Round+1, p.Phase, n))
	}
	k.closes.add(closed{round: p.Round, phase: p.Phase, closing: end, head: headOf(rec)})
	if k.r.announce(k.closes.last()) {
		k.r.acks.forget(counted, given)
	}
	k.r.desk.clear(append(slices.Clone(counted), given...))
	k.r.desk.pins.sweep()
	k.inside = nil
	if err := k.sweepFolds(""); err != nil {
		return err
	}
	k.phases = append(k.phases, simulation.Phase{PhaseClosed: p, Took: k.lap()})
	return nil
}

// maxLines is how many members that do not count in a phase the log names.
const maxLines = 20

// outcome returns whose orders counted and whose were given up, of those that are over.
func (k *keeper) outcome(p federated.PhaseClosed) (counted, given federated.Indices) {
	type place struct{ member, base int }
	folded := map[place]bool{}
	for _, share := range p.Folded {
		for _, m := range share.Members {
			folded[place{m, share.Base}] = true
		}
	}
	abstained := map[int]bool{}
	for _, m := range p.Abstained {
		abstained[m] = true
	}
	seats := k.r.desk.seats(p.Phase, true)
	for _, s := range k.inside {
		seats = append(seats, s)
	}
	for _, s := range seats {
		if p.Everyone || folded[place{s.Member, s.Base}] || abstained[s.Member] {
			counted = append(counted, s.Order)
		} else {
			given = append(given, s.Order)
		}
	}
	slices.Sort(counted)
	slices.Sort(given)
	return slices.Compact(counted), slices.Compact(given)
}

// RoundClosed implements [federated.Log].
func (k *keeper) RoundClosed(rc federated.RoundClosed, s federated.Snapshot) error {
	c, err := k.save("", rc.Round, s)
	if err != nil {
		return err
	}
	round := simulation.Round{RoundClosed: rc, Phases: k.phases}
	if acc := round.Metric("accuracy", ""); acc > k.best {
		k.best = acc
		if _, err := k.save("best", rc.Round, federated.Snapshot{State: s.State, Clock: s.Clock}); err != nil {
			return err
		}
	}
	if _, err := k.r.rec.Journal().Append(simulation.KindRoundClosed, roundRecord{rc, c.Digest.String()}); err != nil {
		return err
	}
	if err := k.refreshed(); err != nil {
		return err
	}
	k.refresh()
	k.lap()
	round.Took = k.took
	k.phases, k.took = nil, 0
	k.r.closedRound(round)
	return nil
}

// refresh brings the metrics up to the journal, beside the round that begins. Whoever reads them brings them further.
func (k *keeper) refresh() {
	done := make(chan error, 1)
	k.fresh = done
	go func() { done <- k.r.rec.Metrics().Update(k.r.rec.Journal()) }()
}

// refreshed waits for the metrics.
func (k *keeper) refreshed() error {
	if k.fresh == nil {
		return nil
	}
	err := <-k.fresh
	k.fresh = nil
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}

// finish keeps the last state under the name "final", records the end of the run and tells the members, with the final model.
func (k *keeper) finish(s federated.State) error {
	if !k.ended() {
		c, err := k.save("final", s.Round, federated.Snapshot{State: s})
		if err != nil {
			return err
		}
		rec, err := k.r.rec.Journal().Append(simulation.KindEnded, endedRecord{s.Round, s.Digest(), c.Digest.String()})
		if err != nil {
			return err
		}
		k.closes.add(closed{round: s.Round, closing: closing{State: s.Digest()}, head: headOf(rec), last: true})
	}
	if err := k.giveModel(s); err != nil {
		return err
	}
	k.r.announce(k.closes.last())
	return nil
}

// giveModel makes the global model, if the method has one, a blob that the members of the run may download.
func (k *keeper) giveModel(s federated.State) error {
	model, ok := s.Sets["w"]
	if !ok || model.Len() == 0 {
		return nil
	}
	p := parcel.Packer{Store: k.r.srv.o.Blobs, Whole: true}
	if err := k.r.srv.pins.pack(func() ([]transport.Ref, error) {
		_, err := p.Set(k.r.srv.ctx, "w", model)
		return p.Refs, err
	}); err != nil {
		return fmt.Errorf("final model: %w", err)
	}
	k.closes.conclude(p.Refs[0])
	for i := range k.r.people.Len() {
		k.r.srv.download(k.r.people.Member(i).Name, p.Refs)
	}
	return nil
}

func (k *keeper) ended() bool {
	for range k.r.rec.Journal().Records(simulation.KindEnded) {
		return true
	}
	return false
}

func (k *keeper) lap() time.Duration {
	now := time.Now()
	d := now.Sub(k.began)
	k.began = now
	k.took += d
	return d
}

func headOf(r journal.Record) transport.Head {
	return transport.Head{Seq: r.Seq, Hash: transport.Digest(r.Hash)}
}

// merge writes the members of two JSON objects as one.
func merge(a, b any) (json.RawMessage, error) {
	x, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	y, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	if bytes.Equal(x, []byte("{}")) {
		return y, nil
	}
	return slices.Concat(x[:len(x)-1], []byte(","), y[1:]), nil
}

var _ federated.FoldSaver = (*keeper)(nil)

func newKeeper(r *Run) *keeper { return &keeper{r: r, best: math.Inf(-1), closes: &closes{}} }
