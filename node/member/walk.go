package member

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"time"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/node/parcel"
	dpledger "github.com/cohort-learning/cohort/secure/dp/ledger"
	"github.com/cohort-learning/cohort/transport"
	"github.com/cohort-learning/cohort/weights"
)

// roundOf names the round of an order for people.
func roundOf(r *run, o *order) string {
	what := map[string]string{"train": "", "eval": ", evaluation", "stats": ", statistics"}
	method, step := federated.SplitPhase(o.step)
	extra, ok := what[method]
	if !ok {
		extra = ", " + oneLine(method, 40)
	}
	if step != "" {
		extra += ", " + oneLine(step, 40)
	}
	return fmt.Sprintf("run %s, round %d%s", r.id, o.round+1, extra)
}

// walk is the way of one task: computed, kept, sent. It ends when the coordinator has the result or does not want it, when
// the phase closes, and when the member stops; it then begins again where it was left.
func (m *Member) walk(ctx context.Context, r *run, o *order) {
	for ctx.Err() == nil {
		m.mu.Lock()
		at := o.status
		m.mu.Unlock()
		var err error
		switch at {
		case atWork:
			if err = m.compute(ctx, r, o); err == nil && m.work.Err() != nil {
				<-ctx.Done() // the member is stopping
			}
		case ready:
			err = m.deliver(ctx, r, o)
		default:
			return
		}
		if err != nil {
			if ctx.Err() == nil {
				m.fail(err)
			}
			return
		}
	}
}

// compute computes a task when its turn has come, and keeps the result.
func (m *Member) compute(ctx context.Context, r *run, o *order) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(m.work, cancel)() // a member that stops computes nothing more
	if err := m.settle(ctx, r, o); err != nil {
		return nil
	}
	select {
	case m.slots <- struct{}{}:
		defer func() { <-m.slots }()
	case <-ctx.Done():
		return nil
	}
	if err := m.turn(ctx, r, o); err != nil {
		return nil
	}
	m.mu.Lock()
	e, t, err := o.read()
	m.mu.Unlock()
	if err != nil {
		return fmt.Errorf("task of order %d in the journal of the member: %w", o.id, err)
	}
	var res federated.Result
	var version string
	if most := r.part.rounds; o.round < 0 || o.round >= most {
		err = fmt.Errorf("the run was agreed to for %d rounds", most)
	} else if err = m.toll(ctx, r, o); err == nil {
		m.tell(o.of(EventTraining, r), "%s: %s", roundOf(r, o), doing(o.step))
		m.progress(r, o, 0)
		res, version, err = m.perform(ctx, r, o, e, &t)
	}
	if ctx.Err() != nil {
		return nil // it was cut short, which is not its failure
	}
	var broken *localError
	if errors.As(err, &broken) {
		return err
	}
	if spent := (*dpledger.SpentError)(nil); errors.As(err, &spent) {
		m.tell(o.of(EventSpent, r), "%s: declined: %v", roundOf(r, o), spent)
	} else if err != nil {
		m.tell(o.of(EventFailed, r), "%s: failed: %s", roundOf(r, o), oneLine(err.Error(), 500))
	}
	if err != nil {
		res = federated.Result{}
	}
	err = m.keep(ctx, r, o, e, &t, res, version, err)
	if ctx.Err() != nil {
		return nil
	}
	m.progress(r, o, 1)
	return err
}

func doing(phase string) string {
	method, step := federated.SplitPhase(phase)
	switch {
	case !federated.Works(step):
		return oneLine(federated.PhaseWord(phase), 80)
	case method == "train":
		return "training"
	case method == "eval":
		return "evaluating"
	}
	return "computing"
}

// localError is a fault of this machine, such as a full disk: nobody is told, and the member stops.
type localError struct{ error }

func (e *localError) Unwrap() error { return e.error }

func (m *Member) progress(r *run, o *order, part float64) {
	if msg, err := m.seal(r.id, o.round, o.step, &transport.Progress{Order: o.id, Part: part}, nil); err == nil {
		_ = m.link.Send(msg) // it may be lost
	}
}

// settle waits until it is known what became of earlier results whose memory this task may build on: either their phases have
// closed, or the coordinator, asked after this task came, says that they have not.
func (m *Member) settle(ctx context.Context, r *run, o *order) error {
	pending := func() bool {
		if r.synced > o.since {
			return false
		}
		for _, x := range r.orders {
			if x.id < o.id && x.memory != nil && (x.status == ready || x.status == accepted) {
				return true
			}
		}
		return false
	}
	m.mu.Lock()
	ask := pending()
	m.mu.Unlock()
	if ask {
		m.nudge()
	}
	return m.until(ctx, func() bool { return !pending() })
}

// turn waits while the run is paused or the policy's hours forbid to compute.
func (m *Member) turn(ctx context.Context, r *run, o *order) error {
	for told := false; ; {
		if err := m.until(ctx, func() bool { return !r.paused }); err != nil {
			return err
		}
		wait := m.o.Policy.Hours.Wait(m.now())
		if wait <= 0 {
			return nil
		}
		if !told {
			told = true
			m.tell(o.of(EventWaiting, r), "%s: waits until %s, as the policy says", roundOf(r, o), m.now().Add(wait).Format("15:04"))
		}
		if err := m.sleep(ctx, min(wait, time.Minute)); err != nil {
			return err
		}
	}
}

// perform fetches what a task needs and runs the client on it. It returns the version of the memory that was used.
func (m *Member) perform(ctx context.Context, r *run, o *order, e transport.Envelope, t *transport.Task) (res federated.Result, version string, err error) {
	if err := m.fetch(ctx, e.Refs); err != nil {
		return res, "", err
	}
	task, err := m.unpack(ctx, r, e, t)
	if err != nil {
		return res, "", err
	}
	keep, version, err := m.recall(r, o)
	if err != nil {
		return res, "", &localError{err}
	}
	at := r.part.Local
	at.Scope, at.Vault, at.Peers = m.fed+"/"+r.id, m.vault(r.id), during{m.peers, ctx}
	at.Member = federated.Member{Index: t.Index, Name: m.name, Samples: t.Samples}
	defer func() {
		if p := recover(); p != nil {
			res, err = federated.Result{}, fmt.Errorf("the client broke: %v", p)
		}
	}()
	if res, err = r.part.Client.Run(ctx, at, task, keep); err != nil {
		return federated.Result{}, version, err
	}
	if r.part.privacy != nil && o.step == private && res.Status != federated.Abstained && res.Weight != 1 {
		return federated.Result{}, version, fmt.Errorf("a result of weight %d: where noise hides members each has weight 1", res.Weight)
	}
	return res, version, finite(res)
}

// vault returns what the member must not do twice in a run.
func (m *Member) vault(run string) *vault {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := m.vaults[run]
	if v == nil {
		v = &vault{fs: m.fs, dir: filepath.Join(m.o.Folder.Dir, vaultName, fileOf(run))}
		m.vaults[run] = v
	}
	return v
}

// finite refuses a result that could not be summed anyway.
func finite(res federated.Result) error {
	for _, name := range slices.Sorted(maps.Keys(res.Addends)) {
		if err := res.Addends[name].Finite(); err != nil {
			return fmt.Errorf("training came to no number: %s: %w", name, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(res.Scalars)) {
		if v := res.Scalars[name]; math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("training came to no number: %s is %v", name, v)
		}
	}
	if res.Keep != nil {
		if err := res.Keep.Finite(); err != nil {
			return fmt.Errorf("training came to no number: memory: %w", err)
		}
	}
	return nil
}

// unpack makes the task that a client gets out of the one that came.
func (m *Member) unpack(ctx context.Context, r *run, e transport.Envelope, t *transport.Task) (task federated.Task, err error) {
	task = federated.Task{Group: t.Group, Tag: t.Tag, Params: t.Params, Round: e.Round, Phase: e.Step, Base: t.Base, Sets: map[string]weights.Set{}}
	for _, in := range t.Inputs {
		s, err := parcel.Set(ctx, m.store, in, e.Refs)
		if err == nil && !r.part.Gaps {
			err = s.Finite()
		}
		if err != nil {
			return task, fmt.Errorf("what the task brings: %s: %w", oneLine(in.Name, 60), err)
		}
		task.Sets[in.Name] = s
	}
	if task.Index, err = parcel.Index(ctx, m.store, t.Slice, e.Refs); err == nil {
		task.Attached, err = parcel.Attached(ctx, m.store, t.Attached, e.Refs)
	}
	return task, err
}

// recall returns the member's memory and its version. One whose file is gone or damaged is lost.
func (m *Member) recall(r *run, o *order) (*weights.Set, string, error) {
	m.mu.Lock()
	memo, version, order := r.memory, r.version, r.order
	m.mu.Unlock()
	if memo == nil {
		return nil, "", nil
	}
	s, err := readMemory(m.fs, memoryPath(m.o.Folder.Dir, r.id, order), *memo)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, errDamaged):
		m.tell(o.of(EventMemory, r), "%s: the memory of round %s is lost, and this member begins anew: %v", roundOf(r, o), version, err)
		return nil, lost, nil
	case err != nil:
		return nil, "", fmt.Errorf("reading the member's memory: %w", err)
	}
	return &s, version, nil
}

// fetch downloads the blobs of a task.
func (m *Member) fetch(ctx context.Context, refs []transport.Ref) error {
	var total int64
	for _, ref := range refs {
		if ref.SealedTo != "" {
			return errors.New("what the task brings is encrypted, which this program cannot read")
		}
		if total += min(ref.Bytes, math.MaxInt64-total); m.o.Policy.Download > 0 && total > int64(m.o.Policy.Download) {
			return fmt.Errorf("the task brings %s or more; this member's policy allows %s", inBytes(total), inBytes(int64(m.o.Policy.Download)))
		}
	}
	for _, ref := range refs {
		if err := m.patiently(ctx, func(ctx context.Context) error { return m.download(ctx, ref) }); err != nil {
			return fmt.Errorf("fetching what the task brings: %w", err)
		}
	}
	return nil
}

// patiently asks the coordinator for something, and again while it cannot be reached or does not give it: what a lost
// connection breaks off is no reason to fail a task.
func (m *Member) patiently(ctx context.Context, ask func(context.Context) error) error {
	for fails := 0; ; {
		err := m.online(ctx)
		if err == nil {
			err = ask(ctx)
		}
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		}
		if fails++; fails >= maxTries || errors.Is(err, errOversize) {
			return err
		}
		if err := m.sleep(ctx, m.backoff(fails)); err != nil {
			return err
		}
	}
}

// roster fetches the federation's roster and verifies it, against what was seen before unless that is to begin anew.
func (m *Member) roster(ctx context.Context, anew bool) (view *identity.View, err error) {
	err = m.patiently(ctx, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		r, err := m.o.Roster(ctx)
		if err != nil {
			return err
		}
		defer r.Close()
		view, err = readRoster(m.fs, m.o.Folder.Dir, m.o.Folder.Card.Federation, r, anew)
		return err
	})
	return view, err
}

// online waits until the coordinator can be asked.
func (m *Member) online(ctx context.Context) error {
	return m.until(ctx, func() bool { return m.up && m.welcomed == m.conn })
}

// errOversize says that a blob is larger than the message that names it said.
var errOversize = errors.New("a blob is larger than was declared")

// download brings one blob into the store, and refuses one that is larger than its reference says.
func (m *Member) download(ctx context.Context, ref transport.Ref) error {
	h := blob.Hash(ref.Hash)
	if r, err := blob.Open(ctx, m.store, h); err == nil {
		size := r.Size()
		missing, err := blob.Missing(ctx, m.store, r.Manifest())
		r.Close()
		if err == nil && len(missing) == 0 {
			return sized(size, ref)
		}
	}
	if m.o.Blobs == nil {
		return errors.New("this member has nothing to fetch blobs with")
	}
	if ref.Bytes > blob.MaxBytes {
		return errOversize
	}
	m.making.RLock()
	defer m.making.RUnlock()
	if err := m.o.Blobs.Download(ctx, limit(m.store, ref.Bytes), h); err != nil {
		return err
	}
	r, err := blob.Open(ctx, m.store, h)
	if err != nil {
		return err
	}
	defer r.Close()
	return sized(r.Size(), ref)
}

func sized(size int64, ref transport.Ref) error {
	if size == ref.Bytes {
		return nil
	}
	return fmt.Errorf("%w: %d bytes instead of %d", errOversize, size, ref.Bytes)
}

// fetchModel downloads the final model into a file.
func (m *Member) fetchModel(ctx context.Context, ref transport.Ref, path string) error {
	if err := m.fetch(ctx, []transport.Ref{ref}); err != nil {
		return err
	}
	r, err := blob.Open(ctx, m.store, blob.Hash(ref.Hash))
	if err != nil {
		return err
	}
	defer r.Close()
	f, err := weights.NewFile(r, r.Size())
	if err != nil {
		return fmt.Errorf("it is no safetensors file: %w", err)
	}
	_ = f.Close()
	if err := m.fs.MkdirAll(modelDir(path), 0o755); err != nil {
		return err
	}
	return journal.WriteFile(m.fs, path, func(w io.Writer) error {
		_, err := io.Copy(w, io.NewSectionReader(r, 0, r.Size()))
		return err
	})
}
