package node

import (
	"cmp"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cohort-learning/cohort/dashboard"
	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/node/coordinator"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/record"
)

// page shows a host and its runs in a browser: it is the [dashboard.Source]. What it says of a run comes from the run's journal,
// read to its end again and again as it grows; nothing is told before it is durable.
type page struct {
	h         *Host
	site      *dashboard.Dashboard
	followers sync.WaitGroup

	mu     sync.Mutex
	living map[string]*living // runs of this process, also those that are over
	past   map[string]*bygone // the others that lie in the folder
	listed time.Time          // when the folder was read
}

// living is a run of this process, as the page knows it.
type living struct {
	run  *hosted
	feed *dashboard.Feed
	wake chan struct{}

	mu    sync.Mutex
	meta  record.Meta
	tale  *tale
	wrong error // the journal cannot be read
}

// bygone is a run of an earlier process.
type bygone struct {
	entry  record.Entry
	recipe *recipe.Recipe
	among  *sponsored
	tale   *tale
}

// Pace of the page.
const (
	pagePace   = 150 * time.Millisecond // between two looks into a journal
	pageTick   = 2 * time.Second        // after which one looks again, for members that become slow
	folderLife = 5 * time.Second        // how long what was in the folder of runs is good for
)

func newPage(h *Host) (*page, error) {
	token, err := MetricsToken(h.Dir)
	if err == nil {
		err = h.publishCA()
	}
	if err != nil {
		return nil, err
	}
	p := &page{h: h, living: map[string]*living{}, past: map[string]*bygone{}}
	p.site = dashboard.New(dashboard.Options{Source: p, MetricsToken: token, Log: h.o.Log})
	return p, nil
}

// caCertName is the file with the certificate of the federation's authority, and no key: what browsers and Prometheus are told to
// trust.
const caCertName = "ca.crt"

// publishCA writes that file.
func (b *Book) publishCA() error {
	return journal.WriteFile(journal.OS(), b.path(caCertName), func(w io.Writer) error {
		return pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: b.CA.Certificate().Raw})
	})
}

// tokenName is the file that holds what /metrics is read with.
const tokenName = "metrics.token"

// MetricsToken returns what a program sends to read /metrics of the coordinator in a folder, whether it is at work or not. It is
// made when it is asked for first; whoever wants another removes the file and starts the coordinator again.
func MetricsToken(dir string) (string, error) {
	if _, err := os.Stat(filepath.Join(dir, settingsName)); errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%s: %w", dir, ErrNoFederation)
	}
	path := filepath.Join(dir, tokenName)
	text, err := os.ReadFile(path)
	if token := strings.TrimSpace(string(text)); err == nil && token != "" {
		return token, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	token := rand.Text()
	fresh := path + ".new"
	if err := os.WriteFile(fresh, []byte(token+"\n"), 0o600); err != nil {
		return "", err
	}
	return token, os.Rename(fresh, path)
}

// poke says that something may have changed.
func (l *living) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func newLiving(among bool) *living {
	return &living{feed: dashboard.NewFeed(), wake: make(chan struct{}, 1), tale: newTale(among)}
}

// follow shows a run from now on.
func (p *page) follow(l *living, run *hosted) {
	l.run = run
	l.meta, _ = record.ReadMeta(run.Dir())
	p.mu.Lock()
	p.living[run.ID()] = l
	p.mu.Unlock()
	p.followers.Go(func() {
		tick := time.NewTicker(pageTick)
		defer tick.Stop()
		for over := false; !over; {
			p.read(l)
			l.feed.Touch()
			select {
			case <-run.Done():
				over = true
			case <-time.After(pagePace):
				select {
				case <-run.Done():
					over = true
				case <-l.wake:
				case <-tick.C:
				}
			}
		}
		p.read(l)
		l.mu.Lock()
		if meta, err := record.ReadMeta(run.Dir()); err == nil {
			l.meta = meta
		}
		l.mu.Unlock()
		l.feed.Touch()
		l.feed.End()
	})
}

// read takes in what the journal has and the tale has not, and passes it on.
func (p *page) read(l *living) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if head := l.run.Head().Seq; l.tale.next > head || l.wrong != nil {
		return
	}
	one := func(rec journal.Record) error {
		body, err := l.tale.add(rec)
		if err == nil && len(body.Metrics)+len(body.Events) > 0 {
			l.feed.Tell(body, rec.Time)
		}
		return err
	}
	err := l.run.Follow(l.tale.next, one)
	if errors.Is(err, journal.ErrClosed) {
		err = readFrom(l.run.Dir(), l.tale.next, one)
	}
	if err != nil {
		l.wrong = err
		p.h.o.Log.Error("the page cannot follow the run", "run", l.run.ID(), "error", err)
	}
}

// readFrom reads the journal in a folder.
func readFrom(dir string, from uint64, f func(journal.Record) error) error {
	for rec, err := range record.Read(journal.OS(), dir) {
		if err == nil && rec.Seq >= from {
			err = f(rec)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// presence tells the pages of all runs that a member has come or gone.
func (p *page) presence(coordinator.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.living {
		l.poke()
	}
}

// close ends the pages that are open. The runs are over.
func (p *page) close() {
	p.followers.Wait()
	p.site.Close()
}

// About implements [dashboard.Source].
func (p *page) About() dashboard.About {
	return dashboard.About{Federation: p.h.Name, Version: p.h.o.Program, Started: p.h.started}
}

// bygones returns the runs that lie in the folder and are none of this process, read anew when they may have changed.
func (p *page) bygones() map[string]*bygone {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.listed) < folderLife {
		return maps.Clone(p.past)
	}
	p.listed = time.Now()
	list, err := record.List(p.h.Runs())
	if err != nil {
		p.h.o.Log.Error("the page cannot list the runs", "error", err)
		return nil
	}
	seen := map[string]bool{}
	for _, e := range list {
		id := filepath.Base(e.Dir)
		if e.Err != nil || e.Locked || p.living[id] != nil {
			continue
		}
		seen[id] = true
		if old := p.past[id]; old != nil && old.entry.Meta.Ended.Equal(e.Meta.Ended) && old.entry.State == e.State {
			continue
		}
		b := &bygone{entry: e, tale: newTale(recipe.AmongOrganisations(e.Dir))}
		if err := readFrom(e.Dir, 0, func(rec journal.Record) error { _, err := b.tale.add(rec); return err }); err != nil {
			b.entry.Meta.Error = cmp.Or(b.entry.Meta.Error, err.Error())
		}
		if b.tale.among {
			text, _ := record.ReadRecipe(e.Dir) // without it, less is shown
			b.among = sponsoredBy(text)
		} else {
			b.recipe, _ = recipe.OfRun(e.Dir)
		}
		p.past[id] = b
	}
	maps.DeleteFunc(p.past, func(id string, _ *bygone) bool { return !seen[id] })
	return maps.Clone(p.past)
}

func (p *page) alive(id string) *living {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.living[id]
}

// Runs implements [dashboard.Source].
func (p *page) Runs() []dashboard.Run {
	var out []dashboard.Run
	for _, b := range p.bygones() {
		out = append(out, b.shown())
	}
	p.mu.Lock()
	list := slices.Collect(maps.Values(p.living))
	p.mu.Unlock()
	for _, l := range list {
		out = append(out, l.shown())
	}
	return out
}

// Run implements [dashboard.Source].
func (p *page) Run(id string) (dashboard.Run, bool) {
	if l := p.alive(id); l != nil {
		return l.shown(), true
	}
	if b := p.bygones()[id]; b != nil {
		return b.shown(), true
	}
	return dashboard.Run{}, false
}

// states of the page by those of the coordinator.
var states = map[coordinator.Stage]dashboard.State{
	coordinator.Waiting: dashboard.Waiting, coordinator.Learning: dashboard.Running, coordinator.Ended: dashboard.Finished,
	coordinator.Stopped: dashboard.Interrupted, coordinator.Broken: dashboard.Failed,
}

func (l *living) shown() dashboard.Run {
	now, standing := l.run.Now(), l.run.Standing()
	l.mu.Lock()
	defer l.mu.Unlock()
	r := dashboard.Run{ID: now.ID, Method: l.meta.Method, State: states[now.Stage], Round: now.Round, Rounds: now.Rounds, Created: l.meta.Created}
	describe(&r, l.run.recipe, l.run.among, l.tale)
	switch {
	case r.State == dashboard.Waiting:
		r.Reason = fmt.Sprintf("%d of %d %s have agreed", now.Agreed, now.Members, r.Many())
	case r.State == dashboard.Failed:
		r.Error = now.Error
	}
	if r.State.Ended() {
		r.Round, r.Ended = l.tale.rounds, l.meta.Ended
	} else if now.Round > l.tale.rounds { // else it is between two rounds, and what was asked last is over
		r.Phase, r.Answered, r.Asked, r.Deadline = now.Phase, now.Answered, now.Asked, standing.Deadline
	}
	r.Model = l.tale.rounds > 0
	r.Report = r.Model && r.State.Ended()
	return r
}

func (b *bygone) shown() dashboard.Run {
	m := b.entry.Meta
	r := dashboard.Run{ID: filepath.Base(b.entry.Dir), Method: m.Method, State: dashboard.State(b.entry.State), Error: m.Error, Created: m.Created,
		Ended: m.Ended, Round: b.tale.rounds}
	if r.State != dashboard.Failed {
		r.Error = ""
	}
	describe(&r, b.recipe, b.among, b.tale)
	r.Model = b.tale.rounds > 0
	r.Report = r.Model
	return r
}

// sponsored is what the recipe of a run among organisations says, for the page.
type sponsored struct {
	title string
	facts []dashboard.Fact
}

// sponsoredBy reads a sponsor's recipe; nil if it cannot be read.
func sponsoredBy(text []byte) *sponsored {
	r, err := recipe.ParseAssist("", text)
	if err != nil {
		return nil
	}
	s := &sponsored{title: r.Name}
	for _, f := range r.Facts() {
		s.facts = append(s.facts, dashboard.Fact(f))
	}
	return s
}

// describe adds what recipe and journal say; rec or among may be missing.
func describe(r *dashboard.Run, rec *recipe.Recipe, among *sponsored, t *tale) {
	r.Up, r.Down, r.Digest, r.Among = t.up, t.down, t.digest, t.among
	if among != nil {
		r.Title, r.Facts = among.title, among.facts
	}
	if rec == nil {
		return
	}
	r.Title, r.Method, r.Rounds = rec.Name, rec.Method, rec.Rounds
	for _, s := range rec.Settings() {
		if s.Field != "method" && s.Field != "rounds" && !strings.HasPrefix(s.Field, "run.") && !strings.HasPrefix(s.Field, "partition.") {
			r.Facts = append(r.Facts, dashboard.Fact{Label: s.Field, Value: s.Value})
		}
	}
}

// Members implements [dashboard.Source].
func (p *page) Members(id string) []dashboard.Member {
	if l := p.alive(id); l != nil {
		return p.attending(l)
	}
	b := p.bygones()[id]
	if b == nil {
		return nil
	}
	var out []dashboard.Member
	for _, name := range slices.Sorted(maps.Keys(b.tale.people)) {
		m, _ := p.h.Roster.ByName(name)
		here, _, _, _ := p.h.Server.Presence(name)
		out = append(out, p.member(m, name, here, b.tale.people[name]))
	}
	return out
}

// attending are the members of the federation as they stand in a run of this process.
func (p *page) attending(l *living) []dashboard.Member {
	over := l.run.Stage() != coordinator.Waiting && l.run.Stage() != coordinator.Learning
	standing := l.run.Standing()
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []dashboard.Member
	for _, m := range p.h.Roster.Members() {
		known := l.tale.people[m.Name]
		duty, agreed := standing.Members[m.Name]
		if over && known == nil {
			continue
		}
		here, since, kernels, _ := p.h.Server.Presence(m.Name)
		x := p.member(m, m.Name, here, known)
		x.Seen, x.Level = p.h.Server.Heard(m.Name), duty.Level
		if x.Kernels == "" {
			x.Kernels = kernelsOnly(kernels)
		}
		asked := !duty.Answered && !duty.Asked.IsZero() && !over
		switch {
		case m.State != identity.Admitted || x.Note != "":
		case duty.Gone != "":
			x.Presence, x.Note = dashboard.Left, duty.Gone
		case !here:
			if asked {
				x.Note = "asked " + ago(duty.Asked)
			} else if since.IsZero() {
				x.Note = "not since the coordinator began"
			}
		case asked && duty.Slow:
			x.Presence, x.Note = dashboard.Slow, "asked "+ago(duty.Asked)
		case asked:
			x.Presence = dashboard.Working
		case !agreed && !over:
			x.Note = "has not agreed to this run"
		}
		out = append(out, x)
	}
	return out
}

// member is what roster and journal say of a member.
func (p *page) member(m identity.Member, name string, here bool, known *person) dashboard.Member {
	x := dashboard.Member{Name: name, Presence: dashboard.Gone}
	switch m.State {
	case identity.Invited:
		x.Presence = dashboard.Invited
		if time.Now().After(m.Until) {
			x.Note = "the token has expired"
		}
	case identity.Left:
		x.Presence, x.Note = dashboard.Left, m.Why
	case identity.Revoked:
		x.Presence, x.Note = dashboard.Revoked, m.Why
	default:
		if here {
			x.Presence = dashboard.Here
		}
	}
	if known != nil {
		x.Samples, x.Folded, x.Kernels = int64(known.samples), known.counted, kernelsOnly(known.kernels)
		if known.out != "" && m.State == identity.Admitted {
			x.Presence, x.Note = dashboard.Left, known.out
		}
	}
	return x
}

// kernelsOnly is the kernel family of "engine/family".
func kernelsOnly(s string) string { return s[strings.LastIndexByte(s, '/')+1:] }

// ago says how long ago something was, in steps that do not change all the time.
func ago(t time.Time) string {
	d := time.Since(t)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s ago", int(d.Seconds())/5*5)
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	}
	return fmt.Sprintf("%d h ago", int(d.Hours()))
}

// History implements [dashboard.Source].
func (p *page) History(id string) (dashboard.History, func(), error) {
	if l := p.alive(id); l != nil {
		l.mu.Lock()
		extra := slices.Clone(l.tale.events)
		l.mu.Unlock()
		m, done, err := l.run.Metrics()
		if errors.Is(err, journal.ErrClosed) {
			return readHistory(l.run.Dir(), extra)
		}
		return told{m, extra}, done, err
	}
	if b := p.bygones()[id]; b != nil {
		return readHistory(b.entry.Dir, b.tale.events)
	}
	return nil, nil, dashboard.ErrNoHistory
}

func readHistory(dir string, extra []record.Event) (dashboard.History, func(), error) {
	m, err := record.ReadMetrics(dir)
	if errors.Is(err, journal.ErrEmpty) {
		return nil, nil, dashboard.ErrNoHistory
	}
	if err != nil {
		return nil, nil, err
	}
	return told{m, extra}, func() { _ = m.Close() }, nil // it is in memory
}

// Feed implements [dashboard.Source].
func (p *page) Feed(id string) *dashboard.Feed {
	if l := p.alive(id); l != nil {
		return l.feed
	}
	return nil
}

// Open implements [dashboard.Source].
func (p *page) Open(id string, what dashboard.Artifact) (*dashboard.Download, error) {
	r, ok := p.Run(id)
	switch {
	case ok && what == dashboard.Report && r.Report:
		return openReport(filepath.Join(p.h.Runs(), id))
	case ok && what == dashboard.Model && r.Model:
		return openModel(filepath.Join(p.h.Runs(), id))
	}
	return nil, fs.ErrNotExist
}

// openReport opens the report of a run that is over; it is written if it was not yet.
func openReport(dir string) (*dashboard.Download, error) {
	path := filepath.Join(dir, record.ReportName)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if _, err := recipe.WriteReport(dir); err != nil {
			return nil, err
		}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return download(filepath.Base(dir)+".html", f)
}

// openModel writes the newest model as a file of its own, which is gone when it has been read.
func openModel(dir string) (*dashboard.Download, error) {
	m, err := recipe.TrainedInRun(dir, "final")
	if err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp("", "cohort")
	if err != nil {
		return nil, err
	}
	path := filepath.Join(tmp, "model.safetensors")
	if _, err = m.WriteFile(path); err == nil {
		var f *os.File
		if f, err = os.Open(path); err == nil {
			d, err := download(filepath.Base(dir)+".safetensors", passing{f, tmp})
			return d, err
		}
	}
	return nil, errors.Join(err, os.RemoveAll(tmp))
}

// passing is a file in a folder that is removed with it.
type passing struct {
	*os.File
	dir string
}

// Close closes the file and removes its folder.
func (p passing) Close() error { return errors.Join(p.File.Close(), os.RemoveAll(p.dir)) }

func download(name string, f interface {
	io.ReadSeekCloser
	Stat() (fs.FileInfo, error)
}) (*dashboard.Download, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &dashboard.Download{Name: name, Changed: info.ModTime(), Content: f}, nil
}

// Counters implements [dashboard.Source].
func (p *page) Counters() dashboard.Counters {
	c, g := p.h.Server.Counters(), p.h.Gate.Stats()
	out := dashboard.Counters{
		Verdicts: []dashboard.VerdictCount{{Verdict: "accepted", Count: c.Accepted}, {Verdict: "duplicate", Count: c.Duplicate}, {Verdict: "late", Count: c.Late}},
		Unfolded: c.Unfolded, Waiting: c.Waiting, Permits: c.Permits,
		Appends: c.Journals.Records, Syncs: c.Journals.Syncs, SyncTime: c.Journals.SyncTime,
		Refused: map[string]uint64{"full": g.RefusedFull, "address": g.RefusedAddress, "member": g.RefusedMember, "handshake": g.FailedHandshakes,
			"slow_body": g.SlowBodies, "not_member": g.RefusedNotMember, "evicted": g.Evicted},
		Connections: g.Connections,
	}
	for code, n := range c.Refused {
		out.Verdicts = append(out.Verdicts, dashboard.VerdictCount{Verdict: "refused", Code: string(code), Count: n})
	}
	return out
}

var _ dashboard.Source = (*page)(nil)
